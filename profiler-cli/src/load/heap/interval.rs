//! The beginning and the end of the interval that is counted. In: the live set at that moment. Out:
//! the same live set, whose blocks know that they are no blocks of the interval.

use super::{Heap, HeapPeak, LiveBlock, MovingBlock};

impl Heap {
    /// Begins the interval: the blocks that are live now are older, and the peak is that of the
    /// interval from now on.
    pub(in crate::load) fn begin_interval(&mut self, us: u64) {
        let age = |block: &mut LiveBlock| block.birth = block.birth.older();
        self.blocks.values_mut().for_each(age);
        for moving in self.threads.iter_mut().flat_map(|thread| &mut thread.moving) {
            if let MovingBlock::Live(_, block) = moving {
                age(block);
            }
        }
        self.has_older = true;
        self.peak = HeapPeak { bytes: self.live_bytes, blocks: self.live_blocks, us, event: self.events };
        (self.foreign_frees, self.foreign_bytes) = (0, 0);
    }

    /// Returns for each thread how many heap events it has made so far.
    pub(in crate::load) fn events_by_thread(&self) -> Vec<u64> {
        self.threads.iter().map(|thread| thread.events).collect()
    }

    /// Marks the blocks that were born after these events of their threads, as if they were older:
    /// they do not belong to the interval either.
    pub(in crate::load) fn mark_born_after(&mut self, events_by_thread: &[u64]) {
        let mark = |block: &mut LiveBlock| {
            let events = events_by_thread.get(block.birth.thread());
            if events.is_none_or(|events| block.birth.is_after(*events)) {
                block.birth = block.birth.older();
            }
        };
        self.blocks.values_mut().for_each(mark);
        for moving in self.threads.iter_mut().flat_map(|thread| &mut thread.moving) {
            if let MovingBlock::Live(_, block) = moving {
                mark(block);
            }
        }
        self.has_older = true;
    }

    /// Returns the live blocks that are older than the interval.
    pub(in crate::load) fn older_blocks(&self) -> impl Iterator<Item = &LiveBlock> {
        // Without an interval there is none, and the search would take time.
        let all = self.has_older.then(|| self.blocks()).into_iter().flatten();
        all.map(|(_, block)| block).filter(|block| block.birth.is_older())
    }

    /// Returns the bytes and the number of the live blocks that are not older than the interval.
    pub(in crate::load) fn born_in_interval(&self) -> (u64, u64) {
        let young = self.blocks().filter(|(_, block)| !block.birth.is_older());
        young.fold((0, 0), |(bytes, blocks): (u64, u64), (_, block)| {
            (bytes.wrapping_add(block.size), blocks + 1)
        })
    }
}
