//! Resident set and page faults by line, if the recorder was asked to read them at each probe. In:
//! the kernel's figures at one probe of a thread and at its next probe. Out: the difference, added
//! to the line between the two probes.

use alloc_dump::record::{PageFaults, ResidentBytes};

use crate::profile::AnnotatedLine;

/// The kernel's figures at a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UsageReading {
    /// Resident set of the process in bytes.
    rss: Option<u64>,
    /// Minor and major page faults of the thread.
    faults: Option<(u32, u32)>,
}

impl UsageReading {
    /// Makes a reading of the figures in a record, each of which may be the value for "unknown".
    pub(super) fn new(rss: ResidentBytes, minor: PageFaults, major: PageFaults) -> UsageReading {
        UsageReading { rss: rss.known(), faults: minor.known().zip(major.known()) }
    }

    /// Adds the difference from `before` to a line.
    pub(super) fn add_difference(&self, before: &UsageReading, line: &mut AnnotatedLine) {
        if let (Some(now), Some(before)) = (self.rss, before.rss) {
            let change = now.wrapping_sub(before) as i64;
            line.rss = Some(line.rss.unwrap_or(0).saturating_add(change));
        }
        if let (Some((minor, major)), Some((minor_before, major_before))) = (self.faults, before.faults) {
            let add = |sum: &mut Option<u64>, more: u32| *sum = Some(sum.unwrap_or(0) + u64::from(more));
            // The recorder keeps the lower half of the kernel's count, so the difference may wrap.
            add(&mut line.minor_faults, minor.wrapping_sub(minor_before));
            add(&mut line.major_faults, major.wrapping_sub(major_before));
        }
    }
}
