//! What lines cost beside the heap, where the recorder was told to ask the kernel at each of them. In: what a thread had
//! used at one probe and at the next. Out: the difference, added to the line between them.

use alloc_dump::record::{PageFaults, ResidentBytes};

use crate::profile::AnnotatedLine;

/// What the kernel said at a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    rss: Option<u64>,
    /// Minor and major.
    faults: Option<(u32, u32)>,
}

impl Used {
    pub(super) fn new(rss: ResidentBytes, minor: PageFaults, major: PageFaults) -> Used {
        Used { rss: rss.known(), faults: minor.known().zip(major.known()) }
    }

    /// Adds what has been used since `before` to a line.
    pub(super) fn since(&self, before: &Used, line: &mut AnnotatedLine) {
        if let (Some(now), Some(before)) = (self.rss, before.rss) {
            let change = now.wrapping_sub(before) as i64;
            line.rss = Some(line.rss.unwrap_or(0).saturating_add(change));
        }
        if let (Some((minor, major)), Some((minor_before, major_before))) = (self.faults, before.faults) {
            let add = |sum: &mut Option<u64>, more: u32| *sum = Some(sum.unwrap_or(0) + u64::from(more));
            // The recorder keeps the lower half of the kernel's count.
            add(&mut line.minor_faults, minor.wrapping_sub(minor_before));
            add(&mut line.major_faults, major.wrapping_sub(major_before));
        }
    }
}
