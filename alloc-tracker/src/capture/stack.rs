//! The stacks that a thread runs on, and reading them.
//!
//! In: a stack pointer. Out: the bounds of its stack, and words between the stack pointer and the
//! end. A word outside of the bounds is never read. Never allocates through the global allocator;
//! asks the kernel only about a stack that the thread does not remember.

use super::code_address::ReturnAddress;
use super::stack_word::read_word;
use crate::base::sys::ErrnoGuard;
use crate::modules;
use crate::thread;

/// The part of a stack that may be read: from a stack pointer, or from the beginning of the
/// mapping, to the end of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackBounds {
    start: u64,
    end: u64,
}

/// The stack that a walk begins on.
#[derive(Clone, Copy, Debug)]
pub(super) struct CurrentStack {
    pub(super) bounds: StackBounds,
    /// Whether it is the thread's own stack. The own stack stays mapped, with the same end, as long
    /// as the thread lives. Any other stack may be unmapped before the next walk, with a smaller
    /// one in its place.
    pub(super) is_own: bool,
}

impl StackBounds {
    const EMPTY: StackBounds = StackBounds { start: 0, end: 0 };

    /// Reads the word at this address; `None` if the address is not aligned or not within the
    /// bounds.
    #[inline(always)]
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let inside = address >= self.start && address < self.end && address.is_multiple_of(8);
        // SAFETY: `read_word` wants an aligned, readable word. The address is aligned, and lies
        // between the stack pointer of a function that has not returned and the end of the mapping
        // of its stack, which is readable throughout. The end is a multiple of eight, so the whole
        // word is inside.
        inside.then(|| unsafe { read_word(address) })
    }

    /// Reads the return address just below the canonical frame address `cfa` of a frame whose stack
    /// pointer is `sp`. `None` if `cfa` is not aligned, not above `sp`, or not on this stack, where
    /// `sp` is.
    #[inline(always)]
    pub(super) fn read_return_address(&self, cfa: u64, sp: u64) -> Option<ReturnAddress> {
        // PERF: one comparison for both ends: `sp < cfa` and `cfa <= self.end`.
        let inside = cfa.wrapping_sub(sp).wrapping_sub(1) < self.end.wrapping_sub(sp);
        // SAFETY: the word ends at `cfa`, which is aligned, above the stack pointer of a function
        // that has not returned and at most the end of its stack. So the word is aligned and
        // readable, as in `read`.
        (inside & cfa.is_multiple_of(8)).then(|| ReturnAddress(unsafe { read_word(cfa.wrapping_sub(8)) }))
    }

    /// Returns the end of the stack: the address behind its outermost byte.
    #[inline(always)]
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether an address lies within the bounds.
    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }

    fn overlaps(&self, other: &StackBounds) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The stacks that have recorded walks, the one used last first.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentStacks([RecentStack; STACKS]);

#[derive(Clone, Copy, Debug)]
struct RecentStack {
    bounds: StackBounds,
    is_own: bool,
}

/// The mappings that this thread has used as stacks: its own, an alternate one for signals, those
/// of fibers.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackMappings {
    mappings: [StackBounds; MAPPINGS],
    /// The entry that the next new mapping replaces.
    next: usize,
    look_ups: u32,
}

/// How many stacks have a recorded walk: the thread's own, one for signals, and two for fibers.
pub(super) const STACKS: usize = 4;
const MAPPINGS: usize = 64;
/// A program with more stacks than entries must not ask the kernel at every event. After this many
/// look-ups only one in as many is made, and the platform's unwinder walks in between.
const FREE_LOOK_UPS: u32 = 1024;

impl RecentStacks {
    pub(super) const fn new() -> RecentStacks {
        RecentStacks([RecentStack { bounds: StackBounds::EMPTY, is_own: false }; STACKS])
    }

    /// Whether this stack pointer is on the stack that was used last.
    #[inline(always)]
    pub(super) fn is_current(&self, sp: u64) -> bool {
        self.0[0].bounds.contains(sp)
    }

    /// Returns the stack that was used last, from this stack pointer, which is on it, to its end.
    #[inline(always)]
    pub(super) fn current_from(&self, sp: u64) -> CurrentStack {
        let RecentStack { bounds, is_own } = self.0[0];
        CurrentStack { bounds: StackBounds { start: sp, end: bounds.end }, is_own }
    }

    /// Makes the stack with this address the one that was used last, and returns the index that it
    /// had before; the last index if the stack had no recorded walk. `None` if the address is in no
    /// mapping, or if looking it up would cost too much.
    pub(super) fn switch_to(&mut self, sp: u64, mappings: &mut StackMappings) -> Option<usize> {
        let mapping = mappings.find(sp)?;
        let stack = stack_within(mapping, sp);
        // A stack is known by its end: the start of a stack that grows moves with every new page.
        let index = self.0.iter().position(|recent| recent.bounds.end == stack.bounds.end);
        let index = index.unwrap_or(STACKS - 1);
        self.0[..=index].rotate_right(1);
        self.0[0] = stack;
        Some(index)
    }
}

impl StackMappings {
    pub(super) const fn new() -> StackMappings {
        StackMappings { mappings: [StackBounds::EMPTY; MAPPINGS], next: 0, look_ups: 0 }
    }

    /// Returns the mapping that holds this stack pointer: the bounds of the stack that a walk
    /// switches to. `None` as in [`RecentStacks::switch_to`].
    pub(super) fn find(&mut self, sp: u64) -> Option<StackBounds> {
        match self.mappings.iter().find(|mapping| mapping.contains(sp)) {
            Some(mapping) => Some(*mapping),
            None => self.look_up(sp),
        }
    }

    /// Asks the kernel for the mapping. Memory below the mapping of a growing stack is not taken
    /// for a part of that stack.
    #[cold]
    fn look_up(&mut self, sp: u64) -> Option<StackBounds> {
        let _errno = ErrnoGuard::new();
        self.look_ups = self.look_ups.wrapping_add(1);
        if self.look_ups > FREE_LOOK_UPS && !self.look_ups.is_multiple_of(FREE_LOOK_UPS) {
            return None;
        }
        let (start, end) = modules::mapping_around(sp)?;
        let new = StackBounds { start, end };
        // Entries that overlap the new mapping are out of date.
        let index = self.mappings.iter().position(|old| old.overlaps(&new)).unwrap_or(self.next);
        for old in self.mappings.iter_mut().filter(|old| old.overlaps(&new)) {
            *old = StackBounds::EMPTY;
        }
        if index == self.next {
            self.next = (self.next + 1) % MAPPINGS;
        }
        self.mappings[index] = new;
        Some(new)
    }
}

/// Returns the part of a mapping that may be the stack with this address, and whether it is the
/// thread's own stack. A fiber's stack may be unmapped before the thread ends, and a smaller one be
/// mapped in its place. The thread's own stack cannot.
///
/// Two anchors are known to lie above a thread's own stack. C libraries put a thread's
/// thread-locals above its stack, in the same mapping. The kernel puts the start data of a program
/// (its arguments and random bytes, among others) above the stack of the first thread.
///
/// ```text
/// mapping:   start ........ sp ......... anchor ........ end
///            +---- the thread's own stack ----+
///
/// mapping:   start ........ anchor ........ sp ......... end
///                             +----- another stack -------+
/// ```
///
/// The kernel joins neighbouring mappings, so a mapping may hold other memory above the anchor.
/// Such memory is not part of the stack.
fn stack_within(mapping: StackBounds, sp: u64) -> RecentStack {
    let StackBounds { mut start, end } = mapping;
    // SAFETY: `getauxval` has no preconditions: it reads a table that the kernel has made.
    let start_data = unsafe { libc::getauxval(libc::AT_RANDOM) };
    for anchor in thread::address_of_local().into_iter().chain([start_data]).map(|anchor| anchor & !7) {
        if sp < anchor && start <= sp && anchor < end {
            return RecentStack { bounds: StackBounds { start, end: anchor }, is_own: true };
        }
        if start < anchor && anchor <= sp {
            start = anchor;
        }
    }
    RecentStack { bounds: StackBounds { start, end }, is_own: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_of_the_stack_are_not_read() {
        let here = [0x1234_5678_9ABC_DEF0u64, 1];
        let address = here.as_ptr().expose_provenance() as u64;
        let (mut stacks, mut mappings) = (RecentStacks::new(), StackMappings::new());
        stacks.switch_to(address, &mut mappings).unwrap();
        let bounds = stacks.current_from(address).bounds;
        assert_eq!((bounds.read(address), bounds.read(address + 8)), (Some(here[0]), Some(1)));
        assert_eq!(
            (bounds.read(address - 8), bounds.read(address + 1), bounds.read(bounds.end)),
            (None, None, None)
        );
        assert!(bounds.read(bounds.end - 8).is_some());
        assert_eq!(bounds.read_return_address(address + 8, address), Some(ReturnAddress(here[0])));
        for sp in [address, address - 8, address + 12, bounds.end + 8, 0, u64::MAX] {
            assert_eq!(bounds.read_return_address(sp, address), None, "{sp:#x}");
        }
        assert!(bounds.read_return_address(bounds.end, address).is_some());
        assert_eq!(stacks.switch_to(8, &mut mappings), None);
    }

    #[test]
    fn every_stack_keeps_its_index_while_others_are_used() {
        let stack = Box::new(0u64);
        let (own, other) = (&raw const OWN as u64, &raw const *stack as u64);
        let (mut stacks, mut mappings) = (RecentStacks::new(), StackMappings::new());
        let mut switch = |to| stacks.switch_to(to, &mut mappings);
        assert_eq!([own, other].map(&mut switch), [Some(STACKS - 1); 2]);
        for _ in 0..5 {
            assert_eq!([own, own, other].map(&mut switch), [Some(1), Some(0), Some(1)]);
        }
        assert!(stacks.is_current(other) && !stacks.is_current(own));
        assert_eq!(mappings.look_ups, 2);
    }

    #[test]
    fn only_the_threads_own_stack_is_known_as_such() {
        let (local, boxed) = (0u64, Box::new(0u64));
        let (mut stacks, mut mappings) = (RecentStacks::new(), StackMappings::new());
        let mut inspect = |word: &u64| {
            let sp = &raw const *word as u64;
            stacks.switch_to(sp, &mut mappings).unwrap();
            let CurrentStack { bounds, is_own } = stacks.current_from(sp);
            (is_own, bounds.contains(thread::address_of_local().unwrap()))
        };
        for _ in 0..2 {
            assert_eq!(inspect(&local), (true, false));
            assert!(!inspect(&boxed).0);
        }
    }

    static OWN: u64 = 0;
}
