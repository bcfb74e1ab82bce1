//! The recorded walks of a thread on stacks that are not its own: fibers, segments, signals.
//!
//! In: the stack pointer that a walk begins at. Out: a recorded walk to compare the new one with.
//! Any recorded walk may be compared with any new one, because the words decide. So the choice here
//! is about speed alone:
//!
//! | the stack pointer is | the walk |
//! | --- | --- |
//! | near those of earlier walks | is compared with the last of these walks |
//! | elsewhere, and there is an unused slot | begins there |
//! | elsewhere, and all slots are used | is compared with the walk that was made last |
//!
//! The last row is for programs with hundreds of stacks. Two fibers that one scheduler resumes have
//! the outer part of their stacks in common. Two segments of one recursion have even more.
//!
//! Never allocates; reads no stack.

use super::recorded_walk::RecordedWalk;
use crate::base::sys::SMALLEST_PAGE;

/// The recorded walks on other stacks.
#[derive(Debug)]
pub(super) struct OtherWalks {
    slots: [OtherWalk; SLOTS],
    /// The slot that was used last.
    current: usize,
    /// How often no slot was near.
    misses: usize,
}

/// A recorded walk, and the stack pointers that walks in this slot began at.
#[derive(Debug)]
struct OtherWalk {
    lowest: u64,
    highest: u64,
    recorded: RecordedWalk,
}

/// PERF: a scheduler with four fibers finds each of their walks again, and a signal handler too.
pub(super) const SLOTS: usize = 8;
/// After so many misses another slot is given away, so that stacks which are gone leave their slots
/// to new ones.
const MISSES_PER_RENEWAL: usize = 16;

impl OtherWalks {
    pub(super) const fn new() -> OtherWalks {
        const UNUSED: OtherWalk = OtherWalk { lowest: 0, highest: 0, recorded: RecordedWalk::new() };
        OtherWalks { slots: [UNUSED; SLOTS], current: 0, misses: 0 }
    }

    /// Forgets all walks, but not which stacks they were on.
    pub(super) fn forget(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.recorded.forget());
    }

    /// Makes the recorded walk to compare with a walk that begins at `sp` the current one.
    pub(super) fn switch_to(&mut self, sp: u64) {
        let is_near = |slot: &OtherWalk| slot.is_near(sp);
        if !is_near(&self.slots[self.current]) {
            let near = self.slots.iter().position(is_near);
            self.current = near.unwrap_or_else(|| self.give_away(sp));
        }
        let slot = &mut self.slots[self.current];
        (slot.lowest, slot.highest) = (slot.lowest.min(sp), slot.highest.max(sp));
    }

    /// Returns the walk that was chosen last.
    #[inline]
    pub(super) fn current(&mut self) -> &mut RecordedWalk {
        &mut self.slots[self.current].recorded
    }

    /// Gives a slot to the stack with this stack pointer.
    fn give_away(&mut self, sp: u64) -> usize {
        self.misses += 1;
        let unused = self.slots.iter().position(|slot| slot.highest == 0);
        let renewed = self.misses.is_multiple_of(MISSES_PER_RENEWAL);
        let index =
            unused.unwrap_or(if renewed { self.misses / MISSES_PER_RENEWAL % SLOTS } else { self.current });
        (self.slots[index].lowest, self.slots[index].highest) = (sp, sp);
        index
    }
}

impl OtherWalk {
    /// Whether a stack pointer is less than a page away from those of the slot. So it is on the
    /// same stack, if there is a page between two stacks that may not be touched, as there should
    /// be.
    fn is_near(&self, sp: u64) -> bool {
        sp.saturating_add(SMALLEST_PAGE) > self.lowest && sp < self.highest.saturating_add(SMALLEST_PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(walks: &mut OtherWalks, sp: u64) -> usize {
        walks.switch_to(sp);
        walks.current
    }

    const STACK: u64 = 64 << 10;

    #[test]
    fn few_stacks_keep_their_walks() {
        let mut walks = OtherWalks::new();
        for _ in 0..100 {
            for stack in 0..SLOTS {
                let top = (stack as u64 + 1) * STACK;
                for depth in [600, 4_600, 8_600] {
                    assert_eq!(choose(&mut walks, top - depth), stack);
                }
            }
        }
        assert_eq!(walks.misses, SLOTS);
    }

    #[test]
    fn neighbouring_stacks_with_a_guard_page_between_them_are_told_apart() {
        let mut walks = OtherWalks::new();
        // The upper stack is used down to its last word, the lower one begins below the guard page.
        let bottom = 10 * STACK;
        assert_eq!(choose(&mut walks, bottom), 0);
        assert_eq!(choose(&mut walks, bottom - SMALLEST_PAGE - 8), 1);
        assert_eq!(choose(&mut walks, bottom), 0);
    }

    #[test]
    fn many_stacks_share_the_walk_that_was_made_last() {
        let mut walks = OtherWalks::new();
        let mut choices = [0usize; SLOTS];
        let mut before = 0;
        for stack in 1..=1000 {
            let slot = choose(&mut walks, stack * STACK);
            choices[slot] += 1;
            assert!(slot == before || stack <= SLOTS as u64 || stack % 16 == 0, "{stack}");
            before = slot;
        }
        // No slot is kept for ever.
        assert!(choices.iter().all(|count| *count > 50), "{choices:?}");
    }
}
