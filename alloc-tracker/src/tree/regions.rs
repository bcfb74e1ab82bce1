//! Addresses of code in 31 bits instead of 64. A program's code lies in a few regions of 128 MiB,
//! so a region's number (4 bits) and an offset in the region (27 bits) identify an address. In: an
//! address. Out: the number of its region, for the first sixteen regions that are met; none for
//! others. A look-up takes no lock; nothing here allocates.

use std::sync::atomic::{AtomicU64, Ordering};

/// The regions that have a number. They keep it as long as the process lives, because the addresses
/// of code do not depend on the recording.
#[derive(Debug)]
pub(super) struct Regions {
    /// Indexed by a hash of the region. A word is zero, or [`word_of`] the region with the region's
    /// number in its lowest bits.
    ///
    /// PERF: there are so many words that two regions seldom have the same hash. If they do, the
    /// region that is met later gets no number.
    words: [AtomicU64; 1 << WORD_BITS],
    /// How many regions have a number.
    known: AtomicU64,
}

/// Bits of a region's number.
pub(super) const REGION_BITS: u32 = 4;
/// Bits of an offset.
pub(super) const OFFSET_BITS: u32 = 27;

impl Regions {
    pub(super) const fn new() -> Regions {
        Regions { words: [const { AtomicU64::new(0) }; 1 << WORD_BITS], known: AtomicU64::new(0) }
    }

    /// Returns the number of the region that an address lies in, if the region has one.
    #[inline(always)]
    pub(super) fn number(&self, pc: u64) -> Option<u64> {
        let number = self.words[index_of(pc)].load(Ordering::Relaxed) ^ word_of(pc);
        (number < MOST).then_some(number)
    }

    /// Gives the region of an address a number, if the region has none and a number is left. For
    /// one thread at a time.
    pub(super) fn claim(&self, pc: u64) {
        let (word, known) = (&self.words[index_of(pc)], self.known.load(Ordering::Relaxed));
        if word.load(Ordering::Relaxed) == 0 && known < MOST {
            self.known.store(known + 1, Ordering::Relaxed);
            word.store(word_of(pc) | known, Ordering::Relaxed);
        }
    }
}

/// Returns the region of an address, shifted to make room for a number. Never zero.
#[inline(always)]
fn word_of(pc: u64) -> u64 {
    ((pc >> OFFSET_BITS) + 1) << REGION_BITS
}

#[inline(always)]
fn index_of(pc: u64) -> usize {
    (((pc >> OFFSET_BITS) as u32).wrapping_mul(0x9E37_79B1) >> (u32::BITS - WORD_BITS)) as usize
}

const MOST: u64 = 1 << REGION_BITS;
const WORD_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sixteen_regions_get_numbers_of_their_own() {
        let regions = Regions::new();
        assert_eq!(regions.number(0), None);
        let addresses = (0..100u64).chain([(1 << 37) - 1, (1 << 37) - 2]).map(|region| region << OFFSET_BITS);
        let mut numbers: Vec<u64> = addresses
            .filter_map(|start| {
                regions.claim(start + 7);
                let number = regions.number(start);
                assert_eq!(number, regions.number(start | ((1 << OFFSET_BITS) - 1)), "{start:#x}");
                number
            })
            .collect();
        assert_eq!(numbers.len(), 16);
        assert_eq!(regions.number(0), Some(0), "the first one keeps its number");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 16);
    }
}
