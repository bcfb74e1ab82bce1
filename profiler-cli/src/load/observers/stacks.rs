//! Events, bytes and temporary blocks of each stack. In: heap events. Out: [`StackStats`], for the
//! events of selected threads. The events of other threads only count in the totals of the process.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use super::{Observer, ReplayEnd, add_to};
use crate::load::heap::{EventKind, Heap, HeapEvent};
use crate::profile::{Profile, StackStats};

/// Counts events by stack.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct StacksObserver {
    /// At the index of the [`StackId`].
    counts: Vec<StackCounts>,
    /// Number of events of unselected threads, by stack.
    unselected: HashMap<StackId, u64>,
}

/// The part of [`StackStats`] that events change. PERF: 72 bytes instead of 120, because stacks do
/// not fit into the cache.
#[derive(Clone, Copy, Debug, Default)]
struct StackCounts {
    allocations: u64,
    reallocations: u64,
    deallocations: u64,
    allocated: u64,
    freed: u64,
    last_event: u64,
    live_after_last: u64,
    temporary: u64,
    temporary_bytes: u64,
}

impl StacksObserver {
    /// Counts an event of a thread that is not selected.
    #[cold]
    fn count_unselected(&mut self, stack: StackId) {
        *self.unselected.entry(stack).or_default() += 1;
    }
}

impl Observer for StacksObserver {
    fn tree_grows(&mut self, nodes: usize) {
        self.counts.resize(nodes, StackCounts::default());
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        if !event.origin.thread.is_selected {
            return self.count_unselected(event.origin.stack);
        }
        let Some(counts) = self.counts.get_mut(event.origin.stack.0 as usize) else { return };
        match event.kind {
            EventKind::Alloc => counts.allocations += 1,
            EventKind::Dealloc => counts.deallocations += 1,
            EventKind::Realloc => counts.reallocations += 1,
        }
        add_to(&mut counts.allocated, event.allocated);
        add_to(&mut counts.freed, event.freed);
        counts.last_event = event.number;
        counts.live_after_last = heap.live_bytes();
        if event.is_temporary_of_interval()
            && let Some(block) = &event.removed
            && let Some(owner) = self.counts.get_mut(block.stack.0 as usize)
        {
            owner.temporary += 1;
            add_to(&mut owner.temporary_bytes, block.size);
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.stacks = self.counts.iter().map(StackCounts::stats).collect();
        // The number of stacks and that of truncated stacks are figures of the process, whichever
        // threads are selected.
        let unselected = |at: usize| self.unselected.get(&StackId(at as u32)).copied().unwrap_or(0);
        for (at, stats) in profile.stacks.iter().enumerate() {
            let events = stats.events() + unselected(at);
            let is_truncated = at == StackId::TRUNCATED.0 as usize
                || profile.nodes.get(at).is_some_and(|node| node.truncated);
            profile.totals.stacks += u64::from(events > 0);
            profile.trust.truncated_stacks += if is_truncated { events } else { 0 };
        }
    }
}

impl StackCounts {
    fn stats(&self) -> StackStats {
        StackStats {
            allocations: self.allocations,
            reallocations: self.reallocations,
            deallocations: self.deallocations,
            allocated: self.allocated,
            freed: self.freed,
            temporary: self.temporary,
            temporary_bytes: self.temporary_bytes,
            last_event: self.last_event,
            live_after_last: self.live_after_last,
            ..StackStats::default()
        }
    }
}
