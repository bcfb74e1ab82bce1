//! The stacks that a thread runs on, and reading them. In: a stack pointer. Out: words between it and the stack's end.

use crate::modules;

/// The part of a stack that is in use: from a stack pointer to the end of the mapping that it lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    start: u64,
    end: u64,
}

impl Bounds {
    /// The word at this address; `None` if it is not an aligned one inside.
    #[inline]
    pub(super) fn read(&self, address: u64) -> Option<u64> {
        let inside = address >= self.start && address < self.end && address.is_multiple_of(8);
        // SAFETY: aligned, and between the stack pointer of a function that has not returned and the end of the mapping
        // that it lies in, which is readable throughout. The mapping's end is page-aligned, so the whole word is inside.
        inside.then(|| unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() })
    }
}

/// Mappings that this thread has used as stacks, newest first: its own, an alternate one for signals, fibers'.
#[derive(Clone, Copy, Debug)]
pub(super) struct StackRanges {
    ranges: [(u64, u64); RANGES],
    look_ups: u32,
}

const RANGES: usize = 4;
/// A program with more stacks than are remembered must not ask the kernel at every event: after this many look-ups
/// only one in as many is made, and the walks between them are left to the platform's unwinder.
const LOOK_UPS: u32 = 64;

impl StackRanges {
    pub(super) const fn new() -> StackRanges {
        StackRanges { ranges: [(0, 0); RANGES], look_ups: 0 }
    }

    /// The stack from `sp` to its end; `None` if that is not in any mapping, or not worth finding out.
    #[inline]
    pub(super) fn above(&mut self, sp: u64) -> Option<Bounds> {
        let holds = |range: &&(u64, u64)| range.0 <= sp && sp < range.1;
        let end = match self.ranges.iter().find(holds) {
            Some((_, end)) => *end,
            None => self.look_up(sp)?,
        };
        Some(Bounds { start: sp, end })
    }

    /// Asks the kernel. A stack that grows is looked up again at every new page, so what lies below is not assumed to
    /// belong to it.
    #[cold]
    fn look_up(&mut self, sp: u64) -> Option<u64> {
        self.look_ups = self.look_ups.wrapping_add(1);
        if self.look_ups > LOOK_UPS && !self.look_ups.is_multiple_of(LOOK_UPS) {
            return None;
        }
        let (start, end) = modules::mapping_around(sp)?;
        let kept = self.ranges.iter().position(|range| range.1 == end).unwrap_or(RANGES - 1);
        self.ranges[..=kept].rotate_right(1);
        self.ranges[0] = (start, end);
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_outside_of_the_stack_are_not_read() {
        let here = [0x1234_5678_9ABC_DEF0u64, 1];
        let address = here.as_ptr().expose_provenance() as u64;
        let mut ranges = StackRanges::new();
        let bounds = ranges.above(address).unwrap();
        assert_eq!((bounds.read(address), bounds.read(address + 8)), (Some(here[0]), Some(1)));
        assert_eq!(
            (bounds.read(address - 8), bounds.read(address + 1), bounds.read(bounds.end)),
            (None, None, None)
        );
        assert!(bounds.read(bounds.end - 8).is_some());
        assert!(ranges.above(8).is_none());
    }
}
