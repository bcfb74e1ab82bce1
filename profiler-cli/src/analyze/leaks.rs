//! The blocks that are live at the end, by stack. In: a profile and its named stacks. Out:
//! [`Leaks`], largest first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::interval::CountedInterval;
use crate::analyze::shown::{CutStack, ShownStackId, ShownStacks};
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::Profile;

/// The blocks that are live at the end of the recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaks {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Bytes of all rows, those that `--top` cut off included.
    pub total_bytes: u64,
    /// Blocks of all rows, those that `--top` cut off included.
    pub total_blocks: u64,
    /// Whether the whole recording was read. If not, the program may have freed some of these
    /// blocks later.
    pub complete: bool,
    /// Whether a filter or a selection of threads may have left out some live blocks.
    pub filtered: bool,
    /// Number of rows that `--top` cut off.
    pub omitted: usize,
    /// One row for each stack, most bytes first.
    pub leaks: Vec<Leak>,
    /// The same blocks by site, most bytes first. Not more than `leaks` may have.
    pub sites: Vec<LeakSite>,
    /// Whether the rows of `leaks` hide a site: it has a tenth of all bytes or more, in so many
    /// stacks that the rows have less than a tenth of it.
    #[serde(skip)]
    pub hides_site: bool,
}

/// The live blocks that got their present size at one site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeakSite {
    /// Bytes of the blocks, as they were asked for.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// Number of stacks, that is of rows without `--top`.
    pub stacks: u64,
    /// Source file of the site. Null if it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Function of the site; `(no stack)` for blocks without a stack.
    pub function: String,
}

/// The live blocks that got their present size at one stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leak {
    /// Bytes of the blocks, as they were asked for.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// Source file of the site, which is the innermost frame that is the user's own code. Null if
    /// it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Function of the site; `(no stack)` for blocks without a stack.
    pub function: String,
    /// When the first of the blocks was allocated, in nanoseconds since the recording began; exact
    /// to a microsecond.
    pub first_ns: u64,
    /// When the last of the blocks was allocated, in nanoseconds since the recording began.
    pub last_ns: u64,
    /// The stack, innermost frame first: of more than 1,000 frames the innermost 900 and the
    /// outermost 100.
    pub stack: Vec<StackFrame>,
    /// Number of frames that are left out between the innermost and the outermost part; 0 if the
    /// stack is whole.
    pub omitted_frames: usize,
}

/// A frame of a reported stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackFrame {
    /// Name of the function.
    pub function: String,
    /// Source file of the function. Null if it is not known.
    pub file: Option<String>,
    /// Line of the call, or of the allocation in the innermost frame. Null if it is not known.
    pub line: Option<u32>,
    /// Whether the code of the function was inlined into the next frame outwards.
    pub inlined: bool,
    /// File name of the module that has the code.
    pub module: String,
}

impl From<&NamedFrame> for StackFrame {
    fn from(frame: &NamedFrame) -> StackFrame {
        StackFrame {
            function: frame.function.to_string(),
            file: frame.file.as_deref().map(str::to_owned),
            line: frame.line,
            inlined: frame.is_inlined,
            module: frame.module.to_string(),
        }
    }
}

/// Finds the blocks that are live at the end. Stacks that differ only in frames of the runtime are
/// one row, unless `full` asks for these frames.
pub fn leaks(profile: &Profile, stacks: &Stacks, filter: &Filter, full: bool, top: Option<usize>) -> Leaks {
    let accepted = filter.accepted(stacks);
    let is_live = |stack: StackId| {
        let stats = profile.stacks.get(stack.0 as usize);
        stats.is_some_and(|stats| stats.live_blocks > 0) && accepted.accepts(stack)
    };
    let shown = ShownStacks::of(stacks, full, OUTERMOST, is_live);
    let mut rows: HashMap<ShownStackId, LeakTotals> = HashMap::default();
    for (stack, stats) in crate::analyze::summary::with_ids(profile).filter(|(stack, _)| is_live(*stack)) {
        let row = rows.entry(shown.stack(stack)).or_insert_with(|| LeakTotals {
            first_us: u64::MAX,
            site: stacks.site(stack),
            ..LeakTotals::default()
        });
        row.bytes += stats.live_bytes;
        row.blocks += stats.live_blocks;
        row.first_us = row.first_us.min(stats.live_first_us);
        row.last_us = row.last_us.max(stats.live_last_us);
    }
    let mut rows: Vec<(ShownStackId, LeakTotals)> = rows.into_iter().collect();
    let frames = |id| shown.frames(id).take(INNERMOST);
    rows.sort_by(|(a_id, a), (b_id, b)| {
        b.bytes
            .cmp(&a.bytes)
            .then(b.blocks.cmp(&a.blocks))
            .then(a.first_us.cmp(&b.first_us))
            .then_with(|| frames(*a_id).cmp(frames(*b_id)))
            .then(a_id.cmp(b_id))
    });
    let all = rows.len();
    let (total_bytes, total_blocks) =
        rows.iter().fold((0, 0), |(bytes, blocks), (_, row)| (bytes + row.bytes, blocks + row.blocks));
    let top = top.unwrap_or(usize::MAX);
    let (sites, hides_site) = sites(stacks, &rows, top);
    rows.truncate(top);
    let leaks: Vec<Leak> =
        rows.into_iter().map(|(id, row)| row.into_leak(stacks, shown.cut(id, INNERMOST))).collect();
    Leaks {
        schema: "alloc-tracker/leaks/1",
        interval: CountedInterval::of(profile),
        total_bytes,
        total_blocks,
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        omitted: all - leaks.len(),
        leaks,
        sites,
        hides_site,
    }
}

/// Adds the rows up by site. Returns at most `top` sites, and whether the first `top` rows hide
/// one, see [`Leaks::hides_site`].
fn sites(stacks: &Stacks, rows: &[(ShownStackId, LeakTotals)], top: usize) -> (Vec<LeakSite>, bool) {
    // By location, as in the summary. Each site also has the bytes that the first rows have of it.
    let mut sites: BTreeMap<SiteLocation<'_>, (LeakSite, u64)> = BTreeMap::new();
    for (at, (_, row)) in rows.iter().enumerate() {
        let frame = row.site.map(|id| stacks.frame(id));
        let location = frame.map(|frame| (&*frame.function, frame.file.as_deref(), frame.line));
        let (site, shown) = sites.entry(location).or_default();
        site.bytes += row.bytes;
        site.blocks += row.blocks;
        site.stacks += 1;
        *shown += if at < top { row.bytes } else { 0 };
    }
    let all: u64 = sites.values().map(|(site, _)| site.bytes).sum();
    let hides = |(site, shown): &(LeakSite, u64)| {
        site.bytes > 0 && site.bytes >= all / HIDDEN_PART && *shown < site.bytes / HIDDEN_PART
    };
    let hides_site = sites.values().any(hides);
    let mut sites: Vec<LeakSite> = sites
        .into_iter()
        .map(|(location, (site, _))| {
            let Some((function, file, line)) = location else {
                return LeakSite { function: NO_STACK.to_owned(), ..site };
            };
            LeakSite { function: function.to_owned(), file: file.map(str::to_owned), line, ..site }
        })
        .collect();
    // The sort is stable, so equal sites stay in the order of their locations.
    sites.sort_by_key(|site| Reverse(site.bytes));
    sites.truncate(top);
    (sites, hides_site)
}

/// Function, file and line of a site; `None` for blocks without a stack.
type SiteLocation<'a> = Option<(&'a str, Option<&'a str>, Option<u32>)>;
/// The name of the site of blocks without a stack.
const NO_STACK: &str = "(no stack)";
/// A site with at least this part of all bytes should be seen, in rows with at least this part of
/// it.
const HIDDEN_PART: u64 = 10;

/// Limits of the innermost and of the outermost frames that a row has. Rows with all frames of a
/// deep recursion would need memory quadratic in its depth.
const INNERMOST: usize = 900;
const OUTERMOST: u32 = 100;

/// The live blocks of one shown stack.
#[derive(Clone, Copy, Debug, Default)]
struct LeakTotals {
    site: Option<FrameId>,
    bytes: u64,
    blocks: u64,
    first_us: u64,
    last_us: u64,
}

impl LeakTotals {
    fn into_leak(self, stacks: &Stacks, CutStack { inner, omitted, outer }: CutStack) -> Leak {
        let site = self.site.map(|id| stacks.frame(id));
        Leak {
            bytes: self.bytes,
            blocks: self.blocks,
            file: site.and_then(|frame| frame.file.as_deref()).map(str::to_owned),
            line: site.and_then(|frame| frame.line),
            function: site.map_or_else(|| NO_STACK.to_owned(), |frame| frame.function.to_string()),
            first_ns: self.first_us * 1000,
            last_ns: self.last_us * 1000,
            stack: inner.into_iter().chain(outer).map(|id| StackFrame::from(stacks.frame(id))).collect(),
            omitted_frames: omitted,
        }
    }
}
