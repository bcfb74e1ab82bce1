//! What reallocations did to the blocks that are live at the end, if the caller of the loader asked
//! for it. In: heap events. Out: when the last of the blocks of a stack got its present size, and
//! by how much blocks that are older than the interval grew in it.
//!
//! PERF: a live block has no room for these figures, and most blocks are never reallocated. Memory
//! grows with the number of live blocks that were.

use foldhash::HashMap;

use super::{Observer, ReplayEnd};
use crate::load::heap::{BirthId, EventKind, Heap, HeapEvent, LiveBlock};
use crate::profile::Profile;

/// Follows the reallocations of live blocks.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct ResizesObserver {
    is_wanted: bool,
    resized: HashMap<BirthId, Resize>,
    /// Whether the interval is over. Growth is then what was reached before.
    is_over: bool,
}

/// The reallocations of one live block since the interval began.
#[derive(Clone, Copy, Debug)]
struct Resize {
    /// The size before the first of them.
    first_size: u64,
    /// The size after the last one of the interval.
    last_size: u64,
    /// When the last one was made, in microseconds.
    last_us: u64,
}

impl ResizesObserver {
    pub(in crate::load) fn new(is_wanted: bool) -> ResizesObserver {
        ResizesObserver { is_wanted, ..ResizesObserver::default() }
    }

    /// Ends the interval: later events change when a block got its present size, and no growth.
    pub(in crate::load) fn end_interval(self) -> ResizesObserver {
        ResizesObserver { is_over: true, ..self }
    }
}

impl Observer for ResizesObserver {
    fn block_lost(&mut self, block: &LiveBlock) {
        self.resized.remove(&block.birth.id());
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        let Some(removed) = event.removed.filter(|_| self.is_wanted) else { return };
        let id = removed.birth.id();
        match event.kind {
            EventKind::Realloc => {
                let (first_size, last_us) = (removed.size, event.origin.us);
                let first = Resize { first_size, last_size: first_size, last_us };
                let resize = self.resized.entry(id).or_insert(first);
                resize.last_us = last_us;
                if !self.is_over {
                    resize.last_size = event.allocated;
                }
            }
            _ if removed.birth.is_resized() => _ = self.resized.remove(&id),
            _ => {}
        }
    }

    fn finish(self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        if self.resized.is_empty() {
            return;
        }
        for (_, block) in end.heap.blocks() {
            let Some(resize) = self.resized.get(&block.birth.id()) else { continue };
            // Blocks of threads that are not selected have no stack in the profile.
            let Some(stats) = profile.stacks.get_mut(block.stack.0 as usize) else { continue };
            if !block.birth.is_older() {
                stats.live_last_us = stats.live_last_us.max(resize.last_us);
                continue;
            }
            let growth = block.size.min(resize.last_size).saturating_sub(resize.first_size);
            if growth > 0 {
                let grown = profile.grown.entry(block.stack).or_default();
                grown.bytes += growth;
                grown.blocks += 1;
                grown.last_us = grown.last_us.max(resize.last_us);
            }
        }
    }
}
