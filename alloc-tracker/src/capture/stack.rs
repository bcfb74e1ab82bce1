//! The stacks that a thread runs on, and reading them. In: a stack pointer. Out: words between it and the stack's end.

use super::word;
use crate::base::sys::ErrnoGuard;
use crate::modules;
use crate::thread;

/// The part of a stack that is in use: from a stack pointer to the end of the mapping that it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    start: u64,
    end: u64,
}

/// The stack that a walk begins on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) bounds: Bounds,
    /// Whether all of it is there for as long as the thread is, whatever was found out about it earlier.
    pub(super) stays: bool,
}

impl Bounds {
    /// The word at this address; `None` if it is not an aligned one inside.
    #[inline(always)]
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let inside = address >= self.start && address < self.end && address.is_multiple_of(8);
        // SAFETY: aligned, and between the stack pointer of a function that has not returned and the end of the mapping
        // that it lies in, which is readable throughout. The mapping's end is page-aligned, so the whole word is inside.
        inside.then(|| unsafe { word::read(address) })
    }

    /// The return address just below the stack pointer `sp` of a caller; `None` if that is not an aligned one, above the stack
    /// pointer `inner` of the frame that it has called, on this stack, where `inner` is.
    #[inline(always)]
    pub(super) fn return_address(&self, sp: u64, inner: u64) -> Option<u64> {
        // PERF: one comparison for both ends.
        let above = sp.wrapping_sub(inner).wrapping_sub(1) < self.end.wrapping_sub(inner);
        // SAFETY: aligned, and between the stack pointer of a function that has not returned and the end, as in `read`.
        (above & sp.is_multiple_of(8)).then(|| unsafe { word::read(sp.wrapping_sub(8)) })
    }

    /// Where the stack ends.
    #[inline(always)]
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether an address lies on this stack.
    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end
    }
}

/// The stacks that have remembered walks, the one used last first.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecentStacks([Recent; STACKS]);

/// Mappings that this thread has used as stacks: its own, an alternate one for signals, fibers'.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackRanges {
    ranges: [(u64, u64); RANGES],
    next: usize,
    look_ups: u32,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    start: u64,
    end: u64,
    stays: bool,
}

impl Recent {
    #[inline(always)]
    fn contains(&self, sp: u64) -> bool {
        self.start <= sp && sp < self.end
    }
}

/// Walks that a thread remembers: its own stack's, one for signals, and two for fibers.
pub(super) const STACKS: usize = 4;
const RANGES: usize = 64;
/// A program with more stacks than are remembered must not ask the kernel at every event: after this many look-ups
/// only one in as many is made, and the walks between them are left to the platform's unwinder.
const LOOK_UPS: u32 = 1024;

impl RecentStacks {
    pub(super) const fn new() -> RecentStacks {
        RecentStacks([Recent { start: 0, end: 0, stays: false }; STACKS])
    }

    /// Whether this stack pointer is on the stack that was used last.
    #[inline(always)]
    pub(super) fn is_current(&self, sp: u64) -> bool {
        self.0[0].contains(sp)
    }

    /// From this stack pointer to the end of the stack that was used last, which it is on.
    #[inline(always)]
    pub(super) fn above(&self, sp: u64) -> Beginning {
        let Recent { end, stays, .. } = self.0[0];
        Beginning { bounds: Bounds { start: sp, end }, stays }
    }

    /// Makes the stack with this address the one that was used last, and says which one before it was. `None` if it is not in any
    /// mapping, or not worth finding out.
    pub(super) fn switch(&mut self, sp: u64, ranges: &mut StackRanges) -> Option<usize> {
        let range = ranges.range_of(sp)?;
        let (start, end, stays) = own_part(range, sp);
        // A stack that grows has another start at every new page.
        let at = self.0.iter().position(|recent| recent.end == end).unwrap_or(STACKS - 1);
        self.0[..=at].rotate_right(1);
        self.0[0] = Recent { start, end, stays };
        Some(at)
    }
}

impl StackRanges {
    pub(super) const fn new() -> StackRanges {
        StackRanges { ranges: [(0, 0); RANGES], next: 0, look_ups: 0 }
    }

    /// A stack that a walk comes to from another one.
    pub(super) fn beyond(&mut self, sp: u64) -> Option<Bounds> {
        let (start, end) = self.range_of(sp)?;
        Some(Bounds { start, end })
    }

    fn range_of(&mut self, sp: u64) -> Option<(u64, u64)> {
        let holds = |range: &&(u64, u64)| range.0 <= sp && sp < range.1;
        match self.ranges.iter().find(holds) {
            Some(range) => Some(*range),
            None => self.look_up(sp),
        }
    }

    /// Asks the kernel. What lies below a stack that grows is not assumed to belong to it.
    #[cold]
    fn look_up(&mut self, sp: u64) -> Option<(u64, u64)> {
        let _errno = ErrnoGuard::new();
        self.look_ups = self.look_ups.wrapping_add(1);
        if self.look_ups > LOOK_UPS && !self.look_ups.is_multiple_of(LOOK_UPS) {
            return None;
        }
        let (start, end) = modules::mapping_around(sp)?;
        // What overlaps it is no longer what it was.
        let at = self.ranges.iter().position(|range| range.0 < end && start < range.1).unwrap_or(self.next);
        for range in self.ranges.iter_mut().filter(|range| range.0 < end && start < range.1) {
            *range = (0, 0);
        }
        if at == self.next {
            self.next = (self.next + 1) % RANGES;
        }
        self.ranges[at] = (start, end);
        Some((start, end))
    }
}

/// The part of a mapping that may be the stack with this address, and whether it is the thread's own one, which is not
/// unmapped before the thread ends. A fiber's may be, and a smaller one be mapped in its place.
///
/// C libraries put the thread-locals of a thread above its stack, in the same mapping, and the kernel what a program is
/// started with above that of its first thread. What the kernel has joined to that from above is no part of the stack.
fn own_part((mut start, end): (u64, u64), sp: u64) -> (u64, u64, bool) {
    // SAFETY: reads a table that the kernel has made.
    let of_the_process = unsafe { libc::getauxval(libc::AT_RANDOM) };
    for anchor in [thread::address_of_local(), of_the_process].map(|anchor| anchor & !7) {
        if sp < anchor && start <= sp && anchor < end {
            return (start, anchor, true);
        }
        if start < anchor && anchor <= sp {
            start = anchor;
        }
    }
    (start, end, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_of_the_stack_are_not_read() {
        let here = [0x1234_5678_9ABC_DEF0u64, 1];
        let address = here.as_ptr().expose_provenance() as u64;
        let (mut stacks, mut ranges) = (RecentStacks::new(), StackRanges::new());
        stacks.switch(address, &mut ranges).unwrap();
        let bounds = stacks.above(address).bounds;
        assert_eq!((bounds.read(address), bounds.read(address + 8)), (Some(here[0]), Some(1)));
        assert_eq!(
            (bounds.read(address - 8), bounds.read(address + 1), bounds.read(bounds.end)),
            (None, None, None)
        );
        assert!(bounds.read(bounds.end - 8).is_some());
        assert_eq!(bounds.return_address(address + 8, address), Some(here[0]));
        for sp in [address, address - 8, address + 12, bounds.end + 8, 0, u64::MAX] {
            assert_eq!(bounds.return_address(sp, address), None, "{sp:#x}");
        }
        assert!(bounds.return_address(bounds.end, address).is_some());
        assert_eq!(stacks.switch(8, &mut ranges), None);
    }

    #[test]
    fn every_stack_keeps_its_walk_while_others_are_used() {
        let stack = Box::new(0u64);
        let (own, other) = (&raw const OWN as u64, &raw const *stack as u64);
        let (mut stacks, mut ranges) = (RecentStacks::new(), StackRanges::new());
        let mut switch = |to| stacks.switch(to, &mut ranges);
        assert_eq!([own, other].map(&mut switch), [Some(STACKS - 1); 2]);
        for _ in 0..5 {
            assert_eq!([own, own, other].map(&mut switch), [Some(1), Some(0), Some(1)]);
        }
        assert!(stacks.is_current(other) && !stacks.is_current(own));
        assert_eq!(ranges.look_ups, 2);
    }

    #[test]
    fn the_threads_own_stack_stays_and_others_may_go() {
        let (local, boxed) = (0u64, Box::new(0u64));
        let (mut stacks, mut ranges) = (RecentStacks::new(), StackRanges::new());
        let mut looked_at = |place: &u64| {
            let sp = &raw const *place as u64;
            stacks.switch(sp, &mut ranges).unwrap();
            let Beginning { bounds, stays } = stacks.above(sp);
            (stays, bounds.contains(thread::address_of_local()))
        };
        for _ in 0..2 {
            assert_eq!(looked_at(&local), (true, false));
            assert!(!looked_at(&boxed).0);
        }
    }

    static OWN: u64 = 0;
}
