//! Which blocks belong to which annotated lines. In: blocks that come and go, each with the lines that its thread was at. Out:
//! what was allocated at each line and is live at the global peak or at the end, or went at once.
//!
//! A *context* is the set of lines that the annotated functions of a thread are at, one for each function. It has a number,
//! which a block keeps; so its lines are found again when it goes.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use super::peak::PeakTracker;
use crate::profile::StackStats;

/// The context of what no annotated function has allocated.
pub(super) const NO_CONTEXT: u32 = 0;

/// All contexts.
#[derive(Debug)]
pub(super) struct Contexts {
    numbers: HashMap<Box<[u32]>, u32>,
    rows: Vec<Box<[u32]>>,
    /// Lines in all of them.
    entries: usize,
    full: bool,
    tracker: PeakTracker,
    stats: Vec<StackStats>,
}

impl Default for Contexts {
    fn default() -> Contexts {
        let mut tracker = PeakTracker::default();
        tracker.resize(1);
        Contexts {
            numbers: HashMap::default(),
            rows: vec![Box::default()],
            entries: 0,
            full: false,
            tracker,
            stats: vec![StackStats::default()],
        }
    }
}

impl Contexts {
    /// The number of a set of lines.
    pub(super) fn number(&mut self, rows: &[u32]) -> u32 {
        if rows.is_empty() {
            return NO_CONTEXT;
        }
        if let Some(number) = self.numbers.get(rows) {
            return *number;
        }
        self.full |= self.rows.len() == MOST_CONTEXTS || self.entries + rows.len() > MOST_ENTRIES;
        if self.full {
            return NO_CONTEXT;
        }
        let number = self.rows.len() as u32;
        self.numbers.insert(rows.into(), number);
        self.rows.push(rows.into());
        self.entries += rows.len();
        self.stats.push(StackStats::default());
        self.tracker.resize(self.rows.len());
        number
    }

    /// A block gets its size.
    #[inline]
    pub(super) fn add(&mut self, context: u32, bytes: u64) {
        if context != NO_CONTEXT {
            self.tracker.add(&mut self.stats, StackId(context), bytes);
        }
    }

    /// A block loses it.
    #[inline]
    pub(super) fn remove(&mut self, context: u32, bytes: u64) {
        if context != NO_CONTEXT {
            self.tracker.remove(&mut self.stats, StackId(context), bytes);
        }
    }

    /// A block was temporary.
    #[inline]
    pub(super) fn temporary(&mut self, context: u32) {
        if context != NO_CONTEXT
            && let Some(stats) = self.stats.get_mut(context as usize)
        {
            stats.temporary += 1;
        }
    }

    /// The process holds more than ever before.
    #[inline]
    pub(super) fn peak(&mut self) {
        self.tracker.peak();
    }

    /// The lines of each context and what belongs to them. `None` if there were too many to know.
    pub(super) fn finish(mut self) -> Option<Vec<(Box<[u32]>, StackStats)>> {
        self.tracker.finish(&mut self.stats);
        (!self.full).then(|| self.rows.into_iter().zip(self.stats).collect())
    }
}

const MOST_CONTEXTS: usize = 1 << 18;
const MOST_ENTRIES: usize = 1 << 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_the_peak_and_at_the_end_belongs_to_the_lines() {
        let mut contexts = Contexts::default();
        let (both, one) = (contexts.number(&[3, 5]), contexts.number(&[3]));
        assert_eq!((contexts.number(&[3, 5]), contexts.number(&[])), (both, NO_CONTEXT));
        contexts.add(both, 10);
        contexts.peak();
        contexts.add(one, 20);
        contexts.peak();
        contexts.remove(both, 10);
        contexts.temporary(both);
        contexts.add(one, 1);
        let of: Vec<_> = contexts.finish().unwrap();
        let shown = |at: u32| {
            let (rows, stats) = &of[at as usize];
            (rows.to_vec(), stats.peak_bytes, stats.live_bytes, stats.temporary)
        };
        assert_eq!(shown(both), (vec![3, 5], 10, 0, 1));
        assert_eq!(shown(one), (vec![3], 20, 21, 0));
    }

    #[test]
    fn too_many_are_said_and_not_guessed() {
        let mut contexts = Contexts::default();
        for row in 0..=MOST_CONTEXTS as u32 {
            contexts.number(&[row]);
        }
        assert!(contexts.finish().is_none());
    }
}
