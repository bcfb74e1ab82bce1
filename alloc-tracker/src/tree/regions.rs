//! Addresses of code in few bits: a program's code is in a few regions of 128 MiB, so the number of one and an offset into it say as
//! much. In: an address. Out: both, for the first sixteen regions that are met, and nothing for others. Whoever asks takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// The regions that have a number. They keep it as long as the process lives: what lies where has nothing to do with a recording.
#[derive(Debug)]
pub(super) struct Regions {
    /// By a hash of the region. Zero, or [`word_of`] the region with its number.
    ///
    /// PERF: so many that two regions seldom have the same place; whichever comes later has no number then.
    words: [AtomicU64; 1 << WORD_BITS],
    /// How many there are.
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

    /// The number of the region that an address is in, if it has one.
    #[inline(always)]
    pub(super) fn number(&self, pc: u64) -> Option<u64> {
        let number = self.words[place_of(pc)].load(Ordering::Relaxed) ^ word_of(pc);
        (number < MOST).then_some(number)
    }

    /// Gives the region of an address a number, if it has none and there is one. For one thread at a time.
    pub(super) fn claim(&self, pc: u64) {
        let (word, known) = (&self.words[place_of(pc)], self.known.load(Ordering::Relaxed));
        if word.load(Ordering::Relaxed) == 0 && known < MOST {
            self.known.store(known + 1, Ordering::Relaxed);
            word.store(word_of(pc) | known, Ordering::Relaxed);
        }
    }
}

/// The region of an address, never zero, above room for a number.
#[inline(always)]
fn word_of(pc: u64) -> u64 {
    ((pc >> OFFSET_BITS) + 1) << REGION_BITS
}

#[inline(always)]
fn place_of(pc: u64) -> usize {
    (((pc >> OFFSET_BITS) as u32).wrapping_mul(0x9E37_79B1) >> (u32::BITS - WORD_BITS)) as usize
}

const MOST: u64 = 1 << REGION_BITS;
const WORD_BITS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sixteen_have_numbers_of_their_own() {
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
        assert_eq!(regions.number(0), Some(0), "the first one keeps it");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 16);
    }
}
