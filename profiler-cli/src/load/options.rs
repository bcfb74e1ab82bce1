//! The options of loading a dump. Plain values, without behaviour.

use super::moment::{MomentSpec, parse_time};
use crate::pattern::Pattern;
use crate::profile::{HeapGrouping, ShortLivedWithin};

/// Which threads and which events count, and which blocks are kept. By default everything counts,
/// and no blocks are kept.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Stacks and lines count only the events of threads whose name matches; `None` for all
    /// threads. Totals are always those of the whole process.
    pub threads: Option<Pattern>,
    /// The interval whose events count; `None` for the whole recording.
    pub period: Option<Period>,
    /// What short-lived means. With `None`, which is quicker, the profile has no lifetimes.
    pub short_lived: Option<ShortLivedWithin>,
    /// Look for local peaks from which the heap falls by this share, in percent, on both sides.
    pub peaks: Option<u8>,
    /// Follow what these groups of blocks hold.
    pub groups: Option<HeapGrouping>,
    /// Find out when live blocks got their present size, and by how much blocks that are older than
    /// the interval grew in it: [`Profile::grown`](crate::profile::Profile::grown).
    pub resizes: bool,
    /// Keep layouts of the address space: [`Profile::layouts`](crate::profile::Profile::layouts).
    pub layouts: bool,
    /// Keep the times of the marks whose name matches:
    /// [`Profile::mark_times`](crate::profile::Profile::mark_times).
    pub mark_times: Option<Pattern>,
    /// With a period: live means live at the end of the recording, not of the period. All other
    /// figures are those of the period.
    pub still_live: bool,
    /// Which live blocks to keep in [`Profile::blocks`](crate::profile::Profile::blocks).
    pub blocks: KeepBlocks,
}

/// An interval of a recording, as the user names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    /// The moment after which events count; `None` for the start of the recording.
    pub from: Option<MomentSpec>,
    /// The moment of the last event that counts.
    pub to: MomentSpec,
}

/// Parses what short-lived means: `1000events`, or a time such as `10ms`.
///
/// # Errors
/// If the text is neither. The error says what is expected.
///
/// ```
/// use profiler_cli::load::parse_short_lived;
/// use profiler_cli::profile::ShortLivedWithin;
/// assert_eq!(parse_short_lived("50events"), Ok(ShortLivedWithin::Events(50)));
/// assert_eq!(parse_short_lived("1.5ms"), Ok(ShortLivedWithin::Time(1500)));
/// assert!(parse_short_lived("50").is_err());
/// ```
pub fn parse_short_lived(text: &str) -> Result<ShortLivedWithin, String> {
    let events = text.strip_suffix("events").and_then(|number| number.trim().parse().ok());
    let within =
        events.map(ShortLivedWithin::Events).or_else(|| parse_time(text).map(ShortLivedWithin::Time));
    within
        .ok_or_else(|| "give a number of heap events, such as 1000events, or a time, such as 10ms".to_owned())
}

impl Period {
    /// Returns a sentence for a period whose end comes before its beginning.
    pub(super) fn reversed_error(&self) -> String {
        let from = self.from.as_ref().map_or_else(String::new, MomentSpec::to_string);
        format!("--from {from} comes after --to {}", self.to)
    }
}

/// The moments at which the live blocks are kept. Only blocks of selected threads are kept, but for
/// snapshots.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum KeepBlocks {
    /// At no moment; this costs nothing.
    #[default]
    Nothing,
    /// At the end of the recording, or of the interval.
    AtEnd,
    /// At the end, and at each mark whose name matches.
    AtEndAndMarks(Pattern),
    /// At the end, and at the record of each snapshot with one of these numbers, which may be
    /// outside of the interval. There, the blocks of all threads are kept, and those that are older
    /// than the interval.
    AtEndAndSnapshots(Vec<u32>),
}

impl KeepBlocks {
    /// Returns the same snapshots; nothing if blocks are kept for other reasons alone.
    pub(super) fn only_at_snapshots(&self) -> KeepBlocks {
        match self {
            KeepBlocks::AtEndAndSnapshots(ids) => KeepBlocks::AtEndAndSnapshots(ids.clone()),
            _ => KeepBlocks::Nothing,
        }
    }
}
