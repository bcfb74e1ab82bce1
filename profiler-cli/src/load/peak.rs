//! What each stack held at the global peak, in one pass.
//!
//! Copying every stack's live bytes at each new maximum would cost stacks times maxima. Instead every stack
//! remembers what it held at the last peak that it has seen pass: when a stack is about to change and a newer peak has
//! happened since its last change, what it holds right now is what it held at that peak.

use alloc_dump::layout::StackId;

use crate::profile::StackStats;

/// What a stack holds now, and at which peak the `peak_*` of its [`StackStats`] was noted.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: u64,
    blocks: u64,
    noted_at: u64,
}

/// Live totals and shares. Sums wrap, so that even in a dump that lies what was added can be taken away again.
#[derive(Debug, Default)]
pub(super) struct PeakTracker {
    held: Vec<Held>,
    /// Counts maxima; 0 before the first.
    peak_number: u64,
    pub(super) live_bytes: u64,
    pub(super) live_blocks: u64,
    pub(super) peak_bytes: u64,
    pub(super) peak_blocks: u64,
    pub(super) peak_us: u64,
}

impl PeakTracker {
    /// Makes room for stacks up to the given number of nodes.
    #[inline]
    pub(super) fn resize(&mut self, nodes: usize) {
        self.held.resize(nodes, Held::default());
    }

    /// A stack gains a block.
    #[inline]
    pub(super) fn add(&mut self, stacks: &mut [StackStats], stack: StackId, bytes: u64) {
        if let Some(held) = self.change(stacks, stack) {
            held.bytes = held.bytes.wrapping_add(bytes);
            held.blocks += 1;
        }
        self.live_bytes = self.live_bytes.wrapping_add(bytes);
        self.live_blocks += 1;
    }

    /// A stack loses a block.
    #[inline]
    pub(super) fn remove(&mut self, stacks: &mut [StackStats], stack: StackId, bytes: u64) {
        if let Some(held) = self.change(stacks, stack) {
            held.bytes = held.bytes.wrapping_sub(bytes);
            held.blocks -= 1;
        }
        self.live_bytes = self.live_bytes.wrapping_sub(bytes);
        self.live_blocks -= 1;
    }

    /// An event is complete: is this the new maximum?
    #[inline]
    pub(super) fn settle(&mut self, now_us: u64) -> bool {
        let higher = self.live_bytes > self.peak_bytes;
        if higher {
            self.peak_bytes = self.live_bytes;
            self.peak_blocks = self.live_blocks;
            self.peak_us = now_us;
            self.peak();
        }
        higher
    }

    /// What is held now is what is held at the peak, until there is a higher one.
    #[inline]
    pub(super) fn peak(&mut self) {
        self.peak_number += 1;
    }

    /// Writes the shares of all stacks that have not changed since the last peak, and what each holds at the end.
    pub(super) fn finish(&mut self, stacks: &mut [StackStats]) {
        for (held, stats) in self.held.iter().zip(stacks) {
            if held.noted_at != self.peak_number {
                (stats.peak_bytes, stats.peak_blocks) = (held.bytes, held.blocks);
            }
            (stats.live_bytes, stats.live_blocks) = (held.bytes, held.blocks);
        }
    }

    #[inline]
    fn change(&mut self, stacks: &mut [StackStats], stack: StackId) -> Option<&mut Held> {
        let held = self.held.get_mut(stack.0 as usize)?;
        if held.noted_at != self.peak_number {
            let stats = stacks.get_mut(stack.0 as usize)?;
            (stats.peak_bytes, stats.peak_blocks) = (held.bytes, held.blocks);
            held.noted_at = self.peak_number;
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_peak_whatever_comes_after() {
        let mut tracker = PeakTracker::default();
        let mut stacks = vec![StackStats::default(); 3];
        tracker.resize(3);
        let steps: [(u32, i64); 8] =
            [(0, 10), (1, 20), (0, -10), (1, 5), (2, 40), (1, -20), (2, -40), (0, 64)];
        for (us, (stack, change)) in steps.into_iter().enumerate() {
            match u64::try_from(change) {
                Ok(bytes) => tracker.add(&mut stacks, StackId(stack), bytes),
                Err(_) => tracker.remove(&mut stacks, StackId(stack), change.unsigned_abs()),
            }
            tracker.settle(us as u64);
        }
        tracker.finish(&mut stacks);
        // 10, 30, 20, 25, 65, 45, 5, 69: the maximum is the last one.
        assert_eq!((tracker.peak_bytes, tracker.peak_us, tracker.peak_blocks), (69, 7, 2));
        assert_eq!(stacks.iter().map(|stats| stats.peak_bytes).collect::<Vec<_>>(), [64, 5, 0]);
    }

    #[test]
    fn the_first_instant_of_the_maximum_counts() {
        let mut tracker = PeakTracker::default();
        let mut stacks = vec![StackStats::default(); 2];
        tracker.resize(2);
        tracker.add(&mut stacks, StackId(0), 7);
        tracker.settle(1);
        tracker.remove(&mut stacks, StackId(0), 7);
        tracker.settle(2);
        tracker.add(&mut stacks, StackId(1), 7);
        tracker.settle(3);
        tracker.finish(&mut stacks);
        assert_eq!((tracker.peak_us, stacks[0].peak_bytes, stacks[1].peak_bytes), (1, 7, 0));
    }
}
