//! Totals of the process, whichever threads are selected: events by kind, bytes, temporary blocks.
//! In: heap events, and the figures of the threads. Out: a part of
//! [`HeapTotals`](crate::profile::HeapTotals).
//!
//! PERF: the observer of threads counts the events of each thread anyway. So this observer only
//! adds these counts up, at the end.

use super::{Observer, ReplayEnd, add_to};
use crate::load::heap::{Heap, HeapEvent};
use crate::profile::Profile;

/// Counts temporary blocks of the whole process, which no other observer counts.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct TotalsObserver {
    temporary: u64,
}

impl Observer for TotalsObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        self.temporary += u64::from(event.is_temporary_of_interval());
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        let totals = &mut profile.totals;
        totals.temporary = self.temporary;
        for thread in &profile.threads {
            totals.allocations += thread.allocations;
            totals.deallocations += thread.deallocations;
            totals.reallocations += thread.reallocations;
            add_to(&mut totals.allocated_bytes, thread.allocated);
            add_to(&mut totals.freed_bytes, thread.freed);
        }
    }
}
