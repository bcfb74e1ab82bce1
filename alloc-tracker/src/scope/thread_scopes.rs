//! What a thread knows of scopes: those that it is inside of, and the blocks that it is moving.
//!
//! In: entries into scopes and exits, first and second halves of reallocs. Out: the innermost scope
//! of the thread. Only the thread itself touches this, while it is in the hook. Never locks, never
//! allocates.

use super::blocks::BornBlock;
use super::slots::{self, ScopeId};

/// A thread's part in the scopes of the process.
#[derive(Debug)]
pub(crate) struct ThreadScopes {
    /// The scopes that the thread is inside of, outermost first. Each holds a reference to its
    /// slot.
    entered: [EnteredSlot; MAX_DEPTH],
    depth: usize,
    /// The number of the last entry.
    entries: u32,
    /// Blocks that are out of the table because the inner allocator is moving them. There is more
    /// than one only where a signal handler has interrupted a realloc.
    moving: [Option<BornBlock>; MAX_MOVES],
    /// How many reallocs are between their halves. May be more than [`MAX_MOVES`], so that each
    /// second half finds the block of its own first half.
    moves: usize,
    /// When those of `moving` began, see [`super::period`].
    moving_since: u32,
    /// The process that all this belongs to: a forked child starts anew.
    process: u32,
}

/// An entry of the thread into a scope.
#[derive(Clone, Copy, Debug)]
struct EnteredSlot {
    /// The slot of the scope; [`slots::NONE`] if the thread is outside of all scopes for a while.
    slot: u32,
    entry: u32,
}

/// The number of a thread's entry into a scope, by which it leaves the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryNumber(u32);

impl ThreadScopes {
    pub(crate) const fn new() -> ThreadScopes {
        ThreadScopes {
            entered: [EnteredSlot { slot: slots::NONE, entry: 0 }; MAX_DEPTH],
            depth: 0,
            entries: 0,
            moving: [None; MAX_MOVES],
            moves: 0,
            moving_since: 0,
            process: 0,
        }
    }

    /// Forgets everything that a forked child has inherited. `process` differs between the parent
    /// and a child that uses scopes.
    pub(super) fn belong_to(&mut self, process: u32) {
        if self.process != process {
            let entries = self.entries;
            *self = ThreadScopes { entries, process, ..ThreadScopes::new() };
        }
    }

    /// Returns the innermost scope that the thread is inside of and that has not ended; `None` if
    /// there is none, or if the thread is outside of all scopes for a while.
    pub(super) fn innermost_alive(&self) -> Option<ScopeId> {
        let inside_out = self.entered[..self.depth].iter().rev();
        inside_out
            .take_while(|entered| entered.slot != slots::NONE)
            .find_map(|entered| slots::innermost_alive(entered.slot))
    }

    /// Whether the thread is outside of all scopes for a while.
    pub(super) fn is_outside(&self) -> bool {
        self.entered[..self.depth].iter().any(|entered| entered.slot == slots::NONE)
    }

    /// Enters the scope in this slot, and takes over the caller's reference to it. `None`, without
    /// taking it, if the thread is inside of [`MAX_DEPTH`] scopes.
    pub(super) fn enter(&mut self, slot: u32) -> Option<EntryNumber> {
        let place = self.entered.get_mut(self.depth)?;
        self.entries = self.entries.wrapping_add(1);
        *place = EnteredSlot { slot, entry: self.entries };
        self.depth += 1;
        Some(EntryNumber(self.entries))
    }

    /// Leaves the scope of this entry, also if it is not the innermost one.
    pub(super) fn leave(&mut self, EntryNumber(entry): EntryNumber) {
        let entered = &mut self.entered[..self.depth];
        if let Some(at) = entered.iter().rposition(|entered| entered.entry == entry) {
            slots::release(entered[at].slot);
            entered.copy_within(at + 1.., at);
            self.depth -= 1;
        }
    }

    /// Leaves all scopes: the thread ends.
    pub(crate) fn end(&mut self) {
        if super::is_own_process(self.process) {
            self.entered[..self.depth].iter().for_each(|entered| slots::release(entered.slot));
            self.drop_moves();
        }
        *self = ThreadScopes::new();
    }

    /// Notes the first half of a realloc, whose block is out of the table now, or was never in it.
    /// False if there is no room for the block. [`end_move`](ThreadScopes::end_move) is to be
    /// called all the same.
    pub(super) fn begin_move(&mut self, block: Option<BornBlock>, period: u32) -> bool {
        if self.moving_since != period {
            // Scopes were switched off before those moves ended.
            self.drop_moves();
            self.moving_since = period;
        }
        let place = self.moving.get_mut(self.moves);
        self.moves += 1;
        place.map(|place| *place = block).is_some()
    }

    /// Returns the block of the innermost realloc, whose second half this is. `None` also if there
    /// was no room for it, or if scopes were off when it began.
    pub(super) fn end_move(&mut self, period: u32) -> Option<BornBlock> {
        if self.moving_since != period || self.moves == 0 {
            return None;
        }
        self.moves -= 1;
        self.moving.get_mut(self.moves)?.take()
    }

    fn drop_moves(&mut self) {
        self.moving.iter_mut().filter_map(Option::take).for_each(|block| slots::count_end(&block));
        self.moves = 0;
    }
}

/// A thread is inside of at most this many scopes.
pub(crate) const MAX_DEPTH: usize = 32;
/// A realloc that interrupts a realloc that interrupts a realloc is followed, no more.
const MAX_MOVES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// A realloc is interrupted by a signal handler whose realloc is interrupted, and so on.
    #[test]
    fn each_realloc_ends_with_the_block_that_it_began_with() {
        let block = |addr| BornBlock { addr, size: 8, scope: 0, stack: 0 };
        let mut thread = ThreadScopes::new();
        for addr in 1..=MAX_MOVES as u64 {
            assert!(thread.begin_move(Some(block(addr)), 1));
        }
        assert!(!thread.begin_move(Some(block(100)), 1) && !thread.begin_move(None, 1));
        assert_eq!((thread.end_move(1), thread.end_move(1)), (None, None));
        for addr in (1..=MAX_MOVES as u64).rev() {
            assert_eq!(thread.end_move(1), Some(block(addr)));
        }
        assert_eq!(thread.end_move(1), None);
    }
}
