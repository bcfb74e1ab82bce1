//! The stacks that a thread runs on, and reading them.
//!
//! In: a stack pointer. Out: bounds within which all memory is readable, and the words there. A
//! word outside of the bounds is never read. Opens no file; never allocates through the global
//! allocator. The kernel tells whether a page is readable, which needs no permission.
//!
//! # The thread's own stack
//! An *anchor* is an address that is known to lie above a thread's own stack, in memory that stays
//! mapped as long as the thread lives. C libraries put a thread's thread-locals above its stack.
//! The kernel puts the start data of a program (its arguments and random bytes, among others) above
//! the stack of the first thread.
//!
//! ```text
//! sp ............ page ............ page ............ anchor
//! +------- all readable: the thread's own stack -------+
//!
//! sp .... page not readable ...................... anchor
//! +------- another stack: of a fiber, or for signals
//! ```
//!
//! So a stack pointer is on the own stack if all pages from there to the anchor are readable. That
//! was proven once for the deepest stack pointer so far; a deeper one needs a proof for the pages
//! below. The own stack stays readable from the stack pointer to the anchor as long as the thread
//! lives.
//!
//! # Other stacks
//! Any other stack may be unmapped before the next walk, with a smaller one in its place. So a
//! proof for one of its pages holds for one walk only. The page of the stack pointer needs none.

use std::sync::atomic::{AtomicU64, Ordering};

use super::code_address::ReturnAddress;
use super::stack_word::read_word;
use crate::base::sys::{self, SMALLEST_PAGE};
use crate::thread;

/// A range of addresses that are all readable, on one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StackBounds {
    start: u64,
    end: u64,
}

impl StackBounds {
    const EMPTY: StackBounds = StackBounds { start: 0, end: 0 };

    /// Returns the bounds of the page that a stack pointer is in, above that stack pointer.
    ///
    /// The page is readable: the word below the stack pointer is part of a frame that has not
    /// returned. If the stack pointer is at a page boundary, the result is empty.
    pub(super) fn in_page_above(sp: u64) -> StackBounds {
        StackBounds { start: sp, end: sp.wrapping_add(SMALLEST_PAGE - 1) & !(SMALLEST_PAGE - 1) }
    }

    /// Reads the word at this address; `None` if the address is not aligned or not within the
    /// bounds.
    #[inline(always)]
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let inside = address >= self.start && address < self.end && address.is_multiple_of(8);
        // SAFETY: `read_word` wants an aligned, readable word. The address is aligned, and lies
        // within the bounds, where all memory is readable. Their end is a multiple of eight, so the
        // whole word is inside.
        inside.then(|| unsafe { read_word(address) })
    }

    /// Reads the return address just below the canonical frame address `cfa` of a frame whose stack
    /// pointer is `sp`. `None` if `cfa` is not aligned, not above `sp`, or not within the bounds,
    /// where `sp` is.
    #[inline(always)]
    pub(super) fn read_return_address(&self, cfa: u64, sp: u64) -> Option<ReturnAddress> {
        // PERF: one comparison for both ends: `sp < cfa` and `cfa <= self.end`.
        let inside = cfa.wrapping_sub(sp).wrapping_sub(1) < self.end.wrapping_sub(sp);
        // SAFETY: the word ends at `cfa`, which is aligned, above `sp` and at most the end of the
        // bounds. As `sp` is not below their start, the word is aligned and readable, as in `read`.
        (inside & cfa.is_multiple_of(8)).then(|| ReturnAddress(unsafe { read_word(cfa.wrapping_sub(8)) }))
    }

    /// Returns the first address within the bounds.
    #[inline]
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Whether an address lies within the bounds.
    #[inline(always)]
    pub(super) fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }

    /// Whether a frame with this stack pointer may have its words within the bounds: they contain
    /// the address or end there. The outermost frame of a stack may be empty.
    #[inline]
    pub(super) fn may_hold_frame_at(&self, sp: u64) -> bool {
        sp >= self.start && sp <= self.end
    }
}

/// The thread's own stack, as far as it is known.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct OwnStack {
    /// From the page of the deepest stack pointer so far to the anchor. Empty before the first
    /// proof.
    bounds: StackBounds,
    /// How many proofs have failed since the last one that succeeded.
    failures: u32,
    /// For how many more stack pointers no proof is tried.
    skip: u32,
}

impl OwnStack {
    pub(super) const fn new() -> OwnStack {
        OwnStack { bounds: StackBounds::EMPTY, failures: 0, skip: 0 }
    }

    /// Whether this stack pointer is known to be on the own stack.
    #[inline(always)]
    pub(super) fn contains(&self, sp: u64) -> bool {
        self.bounds.contains(sp)
    }

    /// Returns the own stack from this stack pointer, which is on it, to its end.
    #[inline(always)]
    pub(super) fn from(&self, sp: u64) -> StackBounds {
        StackBounds { start: sp, end: self.bounds.end }
    }

    /// Tries to prove that this stack pointer is on the own stack, and notes it if it is.
    ///
    /// PERF: a thread that runs fibers must not look for the end of each fiber's stack at every
    /// event. So after a failure the next stack pointers are taken for those of other stacks, twice
    /// as many after each failure, and the next proofs reach less far.
    #[cold]
    pub(super) fn prove(&mut self, sp: u64) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let known = (self.bounds != StackBounds::EMPTY).then_some(self.bounds);
        // Memory above the anchor is no part of the stack.
        let end = known.map_or_else(anchor, |own| own.end);
        let target = known.map_or(end, |own| own.start);
        let start = sp & !(SMALLEST_PAGE - 1);
        let longest = LONGEST_PROOF >> self.failures.min(4);
        let is_near = start < target && target - start <= longest;
        if is_near && sys::readable_until(start, target) == target {
            *self = OwnStack { bounds: StackBounds { start, end }, failures: 0, skip: 0 };
            return true;
        }
        self.skip = 1 << self.failures;
        self.failures = (self.failures + 1).min(MAX_FAILURES);
        false
    }

    /// Returns bounds that hold this address: the own stack if it is there, else its page, joined
    /// with `before` if that ends where the page begins. The result is empty if the page is not
    /// readable.
    pub(super) fn bounds_at(&self, address: u64, before: &StackBounds) -> StackBounds {
        if self.contains(address) {
            return self.bounds;
        }
        let start = address & !(SMALLEST_PAGE - 1);
        if !sys::is_readable(start) {
            return StackBounds { start: address, end: address };
        }
        let joined = if before.end == start { before.start } else { start };
        StackBounds { start: joined, end: start.saturating_add(SMALLEST_PAGE) }
    }
}

/// Returns the anchor of the calling thread, rounded down to a whole word; 0 if there is none.
///
/// Only the first thread has the start data above its stack, and only other threads have their
/// thread-locals above their stacks. Those of the first thread may lie anywhere, even just above a
/// fiber's stack. In a forked child the only thread is taken for a first one. If it is none, its
/// proof fails unless it has known its stack before the fork.
fn anchor() -> u64 {
    let anchor = if sys::tid() == sys::pid() {
        START_DATA.load(Ordering::Relaxed)
    } else {
        thread::address_of_local().unwrap_or(0)
    };
    anchor & !7
}

/// Looks up the start data of the program, once. NOTE: calls the C library, so this is done when a
/// recording begins.
pub(super) fn prepare() {
    // SAFETY: `getauxval` has no preconditions: it reads a table that the kernel has made.
    START_DATA.store(unsafe { libc::getauxval(libc::AT_RANDOM) }, Ordering::Relaxed);
}

/// Address of the start data of the program; 0 if there is none.
static START_DATA: AtomicU64 = AtomicU64::new(0);

/// A stack pointer farther below the known part of the own stack is taken for another stack's.
/// PERF: 32,768 pages take some milliseconds. After four failures it is a sixteenth, at one of a
/// thousand stack pointers.
const LONGEST_PROOF: u64 = 128 << 20;
const MAX_FAILURES: u32 = 10;

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn address_of<T>(place: &T) -> u64 {
        (&raw const *place).expose_provenance() as u64
    }

    #[test]
    fn words_outside_of_the_bounds_are_not_read() {
        let here = [0x1234_5678_9ABC_DEF0u64, 1];
        let address = address_of(&here);
        let mut own = OwnStack::new();
        assert!(!own.contains(address) && own.prove(address) && own.contains(address));
        let bounds = own.from(address);
        assert_eq!((bounds.read(address), bounds.read(address + 8)), (Some(here[0]), Some(1)));
        assert_eq!(
            (bounds.read(address - 8), bounds.read(address + 1), bounds.read(bounds.end)),
            (None, None, None)
        );
        assert!(bounds.read(bounds.end - 8).is_some());
        assert_eq!(bounds.read_return_address(address + 8, address), Some(ReturnAddress(here[0])));
        for cfa in [address, address - 8, address + 12, bounds.end + 8, 0, u64::MAX] {
            assert_eq!(bounds.read_return_address(cfa, address), None, "{cfa:#x}");
        }
        assert!(bounds.read_return_address(bounds.end, address).is_some());
    }

    #[test]
    fn only_the_threads_own_stack_is_known_as_such() {
        let (local, boxed) = (0u64, Box::new(0u64));
        let mut own = OwnStack::new();
        assert!(own.prove(address_of(&local)));
        assert_eq!(own.bounds.end, thread::address_of_local().unwrap() & !7);
        for other in [address_of(&*boxed), address_of(&OTHER), own.bounds.end, 8, u64::MAX] {
            let mut own = OwnStack { skip: 0, ..own };
            assert!(!own.contains(other) && !own.prove(other), "{other:#x}");
        }
    }

    #[test]
    fn the_own_stack_is_proven_again_where_it_is_deeper() {
        #[inline(never)]
        fn deeper(own: &mut OwnStack, before: StackBounds) {
            let room = std::hint::black_box([1u8; 64 << 10]);
            assert!(!own.contains(address_of(&room)) && own.prove(address_of(&room)));
            assert!(own.contains(address_of(&room)));
            assert_eq!(own.bounds.end, before.end);
            assert!(before.start - own.bounds.start >= 60 << 10);
        }
        let (mut own, here) = (OwnStack::new(), 0u64);
        assert!(own.prove(address_of(&here)));
        let before = own.bounds;
        deeper(&mut own, before);
    }

    #[test]
    fn proofs_that_fail_become_rare() {
        let (mut own, here, other) = (OwnStack::new(), 0u64, Box::new(0u64));
        let tries = (0..4096).filter(|_| {
            let skips = own.skip > 0;
            assert!(!own.prove(address_of(&*other)));
            !skips
        });
        // After 1, 2, 4, .. 512 skipped stack pointers, one of 1,025 is tried.
        assert_eq!(tries.count(), 10 + (4096 - 1023 - 10usize).div_ceil(1025));
        // A success makes the next failure cheap again.
        own.skip = 0;
        assert!(own.prove(address_of(&here)) && own.failures == 0);
    }

    #[test]
    fn bounds_on_another_stack_are_pages() {
        let own = OwnStack::new();
        let pages = vec![7u64; 4 * SMALLEST_PAGE as usize / 8];
        let first = address_of(&pages[0]).next_multiple_of(SMALLEST_PAGE);
        let nowhere = StackBounds::in_page_above(first);
        assert_eq!(nowhere, StackBounds { start: first, end: first });
        let page = own.bounds_at(first + 16, &nowhere);
        // The page begins where the empty bounds end, so both are joined.
        assert_eq!(page, StackBounds { start: first, end: first + SMALLEST_PAGE });
        let two = own.bounds_at(page.end, &StackBounds { start: first + 8, ..page });
        assert_eq!(two, StackBounds { start: first + 8, end: first + 2 * SMALLEST_PAGE });
        let apart = own.bounds_at(first + 2 * SMALLEST_PAGE, &page);
        assert_eq!(apart.start, first + 2 * SMALLEST_PAGE);
        assert_eq!(own.bounds_at(8, &page), StackBounds { start: 8, end: 8 });
    }

    static OTHER: u64 = 0;
}
