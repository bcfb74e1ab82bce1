//! The number of allocations by size, in classes of powers of two. In: heap events. Out: one count
//! for each class. Reallocations are not counted.

use super::{Observer, ReplayEnd};
use crate::load::heap::{EventKind, Heap, HeapEvent};
use crate::profile::Profile;

/// Counts allocations by the size that they asked for.
#[derive(Clone, Debug)]
pub(in crate::load) struct SizesObserver {
    counts: [u64; SIZE_CLASSES],
}

impl Default for SizesObserver {
    fn default() -> SizesObserver {
        SizesObserver { counts: [0; SIZE_CLASSES] }
    }
}

impl Observer for SizesObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        if event.kind == EventKind::Alloc {
            self.counts[size_class(event.allocated)] += 1;
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.sizes = self.counts.to_vec();
    }
}

/// One class for each power of two that fits in 64 bits, and one for the sizes 0 and 1.
const SIZE_CLASSES: usize = 65;

/// Returns the class of a size: class i has the sizes of more than 2^(i-1) and at most 2^i bytes.
#[inline]
fn size_class(size: u64) -> usize {
    64 - size.saturating_sub(1).leading_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fall_into_powers_of_two() {
        for (size, class) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (u64::MAX, 64)]
        {
            assert_eq!(size_class(size), class, "{size}");
        }
    }
}
