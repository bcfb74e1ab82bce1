//! The bytes and blocks that each stack held at the global peak, and those that it holds at the
//! end. In: heap events. Out: figures by stack, in one pass.
//!
//! Copying the live bytes of every stack at each new peak would cost stacks times peaks. Instead
//! each stack copies its own figures, and as late as possible: just before its next change. If
//! there was a peak since its last change, the stack still holds the blocks that it held at that
//! peak.
//!
//! ```text
//! event                process  peak number   stack A: holds, at peak (noted at)   stack B
//! A allocates 10            10       1                 10      0 (0)                  0     0 (0)
//! B allocates 20            30       2                 10      0 (0)                 20     0 (1)
//! A frees 10                20       2                  0     10 (2)                 20     0 (1)
//! end                                                   0     10                     20    20
//! ```
//!
//! B has not changed since peak 2. So the 20 bytes that B holds at the end are also what it held at
//! that peak.

use super::{IntervalStart, Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent, LiveBlock};
use crate::profile::Profile;

/// Shares of the peak and of the end, by stack.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct PeakObserver {
    shares: PeakShares,
}

impl Observer for PeakObserver {
    fn tree_grows(&mut self, nodes: usize) {
        self.shares.resize(nodes);
    }

    fn block_lost(&mut self, block: &LiveBlock) {
        self.shares.remove(block.stack.0 as usize, block.size);
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        self.event_before(event);
        if event.is_peak {
            self.shares.note_peak();
        }
    }

    #[inline]
    fn event_before(&mut self, event: &HeapEvent) {
        if let Some(block) = &event.removed {
            self.shares.remove(block.stack.0 as usize, block.size);
        }
        if let Some(block) = &event.added {
            self.shares.add(block.stack.0 as usize, block.size);
        }
    }

    fn interval_begins(&mut self, _start: &IntervalStart<'_>) {
        self.shares.begin_interval();
    }

    fn finish(mut self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        // They are part of the interval's peak, but are not live in the sense of an interval.
        for block in end.heap.older_blocks() {
            self.shares.remove(block.stack.0 as usize, block.size);
        }
        for (share, stats) in self.shares.finish().zip(&mut profile.stacks) {
            (stats.live_bytes, stats.live_blocks) = (share.live_bytes, share.live_blocks);
            (stats.peak_bytes, stats.peak_blocks) = (share.peak_bytes, share.peak_blocks);
            (stats.max_live_bytes, stats.max_live_blocks) = (share.max_bytes, share.max_blocks);
            stats.live_first_us = if share.live_blocks > 0 { u64::MAX } else { 0 };
        }
        for (_, block) in end.heap.blocks().filter(|(_, block)| !block.birth.is_older()) {
            let Some(stats) = profile.stacks.get_mut(block.stack.0 as usize) else { continue };
            stats.live_first_us = stats.live_first_us.min(block.birth.us());
            stats.live_last_us = stats.live_last_us.max(block.birth.us());
        }
        if !end.heap.is_consistent() {
            // A dump that contradicts itself may leave a stack with a count of blocks and without
            // any block.
            for stats in profile.stacks.iter_mut().filter(|stats| stats.live_first_us == u64::MAX) {
                stats.live_first_us = 0;
            }
        }
    }
}

/// The blocks that each of many owners holds, and held at the peak of the process. An owner is a
/// stack or a line context, and is known by its index. Changes of an owner beyond the last row are
/// ignored, such as those of [`UNSELECTED`](crate::load::heap::UNSELECTED).
///
/// Sums wrap on overflow, so that even with false sizes every byte that was added can be subtracted
/// again.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct PeakShares {
    held: Vec<HeldShare>,
    /// Number of peaks so far.
    peak_number: u64,
}

/// The blocks that one owner holds.
#[derive(Clone, Copy, Debug, Default)]
struct HeldShare {
    bytes: u64,
    blocks: u64,
    /// Bytes that the owner held at the peak with the number `noted_at`.
    peak_bytes: u64,
    peak_blocks: u64,
    noted_at: u64,
    /// The most bytes that the owner held.
    max_bytes: u64,
    /// Number of its blocks when that was first so.
    max_blocks: u64,
}

/// The blocks that one owner held at the peak, and those that it holds at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct FinalShare {
    pub(in crate::load) peak_bytes: u64,
    pub(in crate::load) peak_blocks: u64,
    pub(in crate::load) live_bytes: u64,
    pub(in crate::load) live_blocks: u64,
    /// The most bytes that the owner held at one time.
    pub(in crate::load) max_bytes: u64,
    /// Number of its blocks when that was first so.
    pub(in crate::load) max_blocks: u64,
}

impl PeakShares {
    /// Changes the number of owners.
    #[inline]
    pub(in crate::load) fn resize(&mut self, owners: usize) {
        self.held.resize(owners, HeldShare::default());
    }

    /// Adds a block to an owner.
    #[inline]
    pub(in crate::load) fn add(&mut self, owner: usize, bytes: u64) {
        if let Some(held) = self.owner_before_change(owner) {
            held.bytes = held.bytes.wrapping_add(bytes);
            held.blocks += 1;
            if held.bytes > held.max_bytes {
                (held.max_bytes, held.max_blocks) = (held.bytes, held.blocks);
            }
        }
    }

    /// Removes a block from an owner.
    #[inline]
    pub(in crate::load) fn remove(&mut self, owner: usize, bytes: u64) {
        if let Some(held) = self.owner_before_change(owner) {
            held.bytes = held.bytes.wrapping_sub(bytes);
            held.blocks -= 1;
        }
    }

    /// Notes a new peak of the process: the blocks that every owner holds now are those of the
    /// peak.
    #[inline]
    pub(in crate::load) fn note_peak(&mut self) {
        self.peak_number += 1;
    }

    /// Begins an interval: the most that an owner held is that of the interval from now on.
    pub(in crate::load) fn begin_interval(&mut self) {
        self.note_peak();
        for held in &mut self.held {
            (held.max_bytes, held.max_blocks) = (held.bytes, held.blocks);
        }
    }

    /// Returns the shares of all owners.
    pub(in crate::load) fn finish(self) -> impl Iterator<Item = FinalShare> {
        let peak_number = self.peak_number;
        self.held.into_iter().map(move |mut held| {
            held.note(peak_number);
            FinalShare {
                peak_bytes: held.peak_bytes,
                peak_blocks: held.peak_blocks,
                live_bytes: held.bytes,
                live_blocks: held.blocks,
                max_bytes: held.max_bytes,
                max_blocks: held.max_blocks,
            }
        })
    }

    #[inline]
    fn owner_before_change(&mut self, owner: usize) -> Option<&mut HeldShare> {
        let held = self.held.get_mut(owner)?;
        held.note(self.peak_number);
        Some(held)
    }
}

impl HeldShare {
    /// Copies the present figures to those of the peak, if there was a peak since the last change.
    #[inline]
    fn note(&mut self, peak_number: u64) {
        if self.noted_at != peak_number {
            (self.peak_bytes, self.peak_blocks) = (self.bytes, self.blocks);
            self.noted_at = peak_number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies changes of one owner each; every sum that is higher than all before is a peak.
    fn shares_after(owners: usize, steps: &[(usize, i64)]) -> Vec<FinalShare> {
        let mut shares = PeakShares::default();
        shares.resize(owners);
        let (mut live, mut peak) = (0, 0);
        for (owner, change) in steps {
            match u64::try_from(*change) {
                Ok(bytes) => shares.add(*owner, bytes),
                Err(_) => shares.remove(*owner, change.unsigned_abs()),
            }
            live += change;
            if live > peak {
                peak = live;
                shares.note_peak();
            }
        }
        shares.finish().collect()
    }

    #[test]
    fn shares_add_up_to_the_peak_whatever_comes_after() {
        let steps = [(0, 10), (1, 20), (0, -10), (1, 5), (2, 40), (1, -20), (2, -40), (0, 64), (0, -64)];
        let shares = shares_after(3, &steps);
        // 10, 30, 20, 25, 65, 45, 5, 69, 5: the peak is the last but one.
        assert_eq!(shares.iter().map(|share| share.peak_bytes).collect::<Vec<_>>(), [64, 5, 0]);
        assert_eq!(shares.iter().map(|share| share.peak_blocks).sum::<u64>(), 2);
        assert_eq!(shares.iter().map(|share| share.live_bytes).collect::<Vec<_>>(), [0, 5, 0]);
    }

    #[test]
    fn the_most_that_an_owner_held_need_not_be_at_the_peak() {
        let shares = shares_after(2, &[(0, 10), (0, 10), (0, -10), (1, 50), (0, 5), (0, 5)]);
        // Owner 0 holds 10, 20, 10, 15, 20: its most is 20, first of two blocks. The peak has 20 too,
        // of three blocks.
        assert_eq!((shares[0].max_bytes, shares[0].max_blocks, shares[0].peak_blocks), (20, 2, 3));
        assert_eq!((shares[1].max_bytes, shares[1].max_blocks), (50, 1));
    }

    #[test]
    fn the_first_instant_of_the_peak_counts() {
        let shares = shares_after(2, &[(0, 7), (0, -7), (1, 7)]);
        assert_eq!((shares[0].peak_bytes, shares[1].peak_bytes), (7, 0));
    }
}
