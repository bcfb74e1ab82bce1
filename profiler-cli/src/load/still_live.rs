//! What an interval has left behind at the end of the recording. In: the figures of the interval,
//! and the events after it. Out: the same figures, where "live" means born in the interval and live
//! at the end of the recording.
//!
//! ```text
//!         from            to               end of the recording
//! --------|---------------|----------------|
//!             A born                            A counts
//!             B born         B freed            B does not
//!                            C born             C does not
//! ```
//!
//! PERF: no event of the interval costs more for it. A block of the interval is told from a later
//! one by the number of the event that allocated it.

use super::heap::{Heap, HeapEvent, LiveBlock};
use super::observers::blocks::blocks_of;
use super::observers::resizes::ResizesObserver;
use super::observers::{Observer, ReplayEnd};
use crate::profile::{LiveHeap, Profile};

/// The figures of an interval that is over, while the live set is followed to the end.
#[derive(Clone, Debug)]
pub(super) struct AfterInterval {
    part: Profile,
    /// The live heap of the process when the interval ended.
    heap_after: LiveHeap,
    /// Number of heap events that each thread had made when the interval ended.
    events_by_thread: Vec<u64>,
    resizes: ResizesObserver,
}

impl AfterInterval {
    /// Takes the figures of the interval, and the live set at its end.
    pub(super) fn new(
        part: Profile,
        heap: &Heap,
        heap_after: LiveHeap,
        resizes: ResizesObserver,
    ) -> AfterInterval {
        let events_by_thread = heap.events_by_thread();
        AfterInterval { part, heap_after, events_by_thread, resizes: resizes.end_interval() }
    }

    /// Takes an event after the interval.
    pub(super) fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        self.resizes.event(event, heap);
    }

    /// Takes a block whose dealloc was lost.
    pub(super) fn block_lost(&mut self, block: &LiveBlock) {
        self.resizes.block_lost(block);
    }

    /// Returns the figures of the interval, with the blocks of `heap`, the live set at the end of
    /// the recording, and the live heap at the end of the interval. There are this many stacks.
    pub(super) fn finish(self, heap: &mut Heap, stacks: usize) -> (Profile, LiveHeap) {
        let AfterInterval { mut part, heap_after, events_by_thread, resizes } = self;
        heap.mark_born_after(&events_by_thread);
        (part.totals.live_bytes, part.totals.live_blocks) = heap.born_in_interval();
        part.stacks.resize(stacks, Default::default());
        for stats in &mut part.stacks {
            (stats.live_bytes, stats.live_blocks) = (0, 0);
            (stats.live_first_us, stats.live_last_us) = (0, 0);
        }
        for (_, block) in heap.blocks().filter(|(_, block)| !block.birth.is_older()) {
            // Blocks of threads that are not selected have no stack in the profile.
            let Some(stats) = part.stacks.get_mut(block.stack.0 as usize) else { continue };
            let us = block.birth.us();
            stats.live_first_us = if stats.live_blocks == 0 { us } else { stats.live_first_us.min(us) };
            stats.live_last_us = stats.live_last_us.max(us);
            stats.live_bytes = stats.live_bytes.wrapping_add(block.size);
            stats.live_blocks += 1;
        }
        if let Some(blocks) = &mut part.blocks {
            blocks.at_end = blocks_of(heap);
        }
        part.grown.clear();
        resizes.finish(&ReplayEnd { us: 0, heap }, &mut part);
        (part, heap_after)
    }
}

#[cfg(test)]
mod tests;
