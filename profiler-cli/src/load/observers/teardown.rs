//! When the program began to free its memory at its end. In: heap events. Out:
//! [`Profile::teardown`].
//!
//! A program that ends cleanly drops what it has: for a while it frees blocks and allocates next to
//! none. This observer follows a balance, to which each allocation adds [`BIRTH_WEIGHT`] and from
//! which each free takes 1. The teardown begins where the balance was highest for the last time:
//!
//! ```text
//! balance      /\        a batch is freed, but later births outweigh that
//!             /  \  /\
//!            /    \/  \   <- from here on there are only frees
//!           /          \
//! ```
//!
//! It counts as a teardown only if at least half of the blocks that were live there are freed.

use super::{Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent};
use crate::profile::{Profile, Teardown};

/// The place where the balance was highest, so far.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct TeardownObserver {
    births: u64,
    frees: u64,
    balance: i64,
    highest: i64,
    /// Births and frees up to the highest place.
    counts: (u64, u64),
    place: Teardown,
    live_blocks: u64,
}

impl Observer for TeardownObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        match (event.added.is_some(), event.removed.is_some()) {
            (true, false) => {
                self.births += 1;
                self.balance += BIRTH_WEIGHT;
            }
            (false, true) => {
                self.frees += 1;
                self.balance -= 1;
            }
            _ => {}
        }
        if self.balance >= self.highest {
            self.highest = self.balance;
            self.counts = (self.births, self.frees);
            self.place = Teardown { event: heap.events(), us: event.origin.us };
            self.live_blocks = heap.live_blocks();
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        let (births, frees) = (self.births - self.counts.0, self.frees - self.counts.1);
        let fewer = frees.saturating_sub(births);
        if fewer > 0 && fewer.saturating_mul(2) >= self.live_blocks {
            profile.teardown = Some(self.place);
        }
    }
}

/// As many frees outweigh one allocation: a destructor may log a line.
const BIRTH_WEIGHT: i64 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::made_records::{alloc, free};
    use crate::load::replay::{Replay, ReplayScope};
    use alloc_dump::header::Header;
    use alloc_dump::layout::StackId;
    use alloc_dump::read::Damage;
    use alloc_dump::record::Record;

    const STACK: StackId = StackId(3);

    fn teardown(records: &[Record<'_>]) -> Option<Teardown> {
        let header = Header { session: [0; 16], created_unix_ns: 0 };
        let mut replay = Replay::new(&header, ReplayScope::default());
        replay.record(&Record::Node { id: STACK, parent: StackId::ROOT, pc: 7 });
        records.iter().for_each(|record| replay.record(record));
        replay.finish(None, Damage::default()).teardown
    }

    /// Allocates blocks at the addresses of a range.
    fn allocs(blocks: std::ops::Range<u64>) -> impl Iterator<Item = Record<'static>> {
        blocks.map(|block| alloc(block, 8, STACK))
    }

    #[test]
    fn it_begins_after_the_last_allocation_that_frees_do_not_outweigh() {
        let mut records = vec![Record::Time { us: 5 }];
        records.extend(allocs(1..101));
        records.extend([Record::Time { us: 9 }, free(1), free(2)]);
        // One allocation amid the frees, as of a destructor that logs.
        records.push(alloc(500, 8, STACK));
        records.push(Record::Time { us: 20 });
        records.extend((3..101).map(free));
        assert_eq!(teardown(&records), Some(Teardown { event: 103, us: 9 }));
        records.push(alloc(600, 8, STACK));
        assert_eq!(teardown(&records), Some(Teardown { event: 103, us: 9 }), "one more amid the frees");
    }

    #[test]
    fn a_program_that_keeps_most_blocks_or_goes_on_has_none() {
        let mut records: Vec<Record<'_>> = allocs(1..101).collect();
        records.extend((1..50).map(free));
        assert_eq!(teardown(&records), None, "49 of 100");
        records.push(free(50));
        assert_eq!(teardown(&records), Some(Teardown { event: 100, us: 0 }), "50 of 100");
        // A cleared cache is filled again.
        records.extend(allocs(200..210));
        assert_eq!(teardown(&records), None);
        assert_eq!(teardown(&[]), None);
    }
}
