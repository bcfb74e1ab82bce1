//! Totals of the process, whichever threads are selected: events by kind, bytes, temporary blocks.

use super::{Observer, ReplayEnd, add_to};
use crate::load::heap::{EventKind, Heap, HeapEvent};
use crate::profile::{HeapTotals, Profile};

/// Counts all events.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct TotalsObserver {
    allocations: u64,
    deallocations: u64,
    reallocations: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
    temporary: u64,
}

impl Observer for TotalsObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        match event.kind {
            EventKind::Alloc => self.allocations += 1,
            EventKind::Dealloc => self.deallocations += 1,
            EventKind::Realloc => self.reallocations += 1,
        }
        add_to(&mut self.allocated_bytes, event.allocated);
        add_to(&mut self.freed_bytes, event.freed);
        self.temporary += u64::from(event.is_temporary);
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.totals = HeapTotals {
            allocations: self.allocations,
            deallocations: self.deallocations,
            reallocations: self.reallocations,
            allocated_bytes: self.allocated_bytes,
            freed_bytes: self.freed_bytes,
            temporary: self.temporary,
            ..profile.totals
        };
    }
}
