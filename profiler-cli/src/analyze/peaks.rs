//! The highest local peaks of the live heap. In: a profile, without names of stacks. Out:
//! [`Peaks`].

use serde::Serialize;

use crate::analyze::interval::CountedInterval;
use crate::profile::Profile;

/// The highest local peaks of the live heap.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Peaks {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the recorded program.
    pub command: String,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether every figure of the live heap is exact.
    pub exact: bool,
    /// The interval that is searched. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// By how much the heap falls before and after each peak, at least: a share of the peak in
    /// percent.
    pub drop_percent: u8,
    /// Number of local peaks that `peaks` leaves out.
    pub omitted: u64,
    /// The peaks, highest first.
    pub peaks: Vec<PeakPoint>,
}

/// One local peak, at its first instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeakPoint {
    /// When the peak was reached, in nanoseconds since the recording began.
    pub ns: u64,
    /// Live bytes of the process.
    pub bytes: u64,
    /// Number of live blocks of the process.
    pub blocks: u64,
    /// The moment as `--at` takes it.
    pub at: String,
    /// Name of the last mark before the peak. Null if there is none.
    pub mark: Option<String>,
}

/// Returns the highest `top` local peaks.
pub fn peaks(profile: &Profile, drop_percent: u8, top: usize) -> Peaks {
    let all = profile.local_peaks.len();
    let peaks: Vec<PeakPoint> = profile
        .local_peaks
        .iter()
        .take(top)
        .map(|peak| {
            let before = profile.marks.iter().take_while(|mark| mark.events < peak.event);
            PeakPoint {
                ns: peak.us * 1000,
                bytes: peak.bytes,
                blocks: peak.blocks,
                at: format!("event:{}", peak.event),
                mark: before.last().map(|mark| mark.name.clone()),
            }
        })
        .collect();
    Peaks {
        schema: "alloc-tracker/peaks/1",
        command: profile.process.command(),
        complete: profile.trust.is_complete(),
        exact: profile.trust.is_exact(),
        interval: CountedInterval::of(profile),
        drop_percent,
        omitted: (all - peaks.len()) as u64 + profile.local_peaks_dropped,
        peaks,
    }
}
