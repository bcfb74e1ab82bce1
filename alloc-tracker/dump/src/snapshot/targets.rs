//! Which words are pointers. In: regions that may have blocks, and the bytes of a page. Out: the
//! place and the value of each aligned word that points into one of them. Pure; the scan never
//! allocates.

use super::region::{MemoryRegion, RegionKind};

/// The addresses that a word may point to: regions that may have contents of the program, but for
/// those of the tracker and for files that nobody may write to.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Starts and ends, ascending; neighbouring regions are one range.
    ranges: Vec<(u64, u64)>,
    /// The lowest address, and the number of bytes from there to the highest one.
    lowest: u64,
    span: u64,
    /// One bit for each group of granules that some range touches. Granules share a bit if their
    /// numbers are equal modulo the number of bits. So a clear bit excludes an address, and a set
    /// one does not confirm it.
    touched: Vec<u64>,
}

/// A granule has 2^21 bytes.
const GRANULE_SHIFT: u32 = 21;
/// Number of bits of the filter; 8 KiB, which stay in the first-level cache.
const FILTER_BITS: u64 = 1 << 16;

impl Targets {
    /// Collects the regions that count, in any order.
    pub fn new<'a>(regions: impl IntoIterator<Item = &'a MemoryRegion>) -> Targets {
        // A program may take away the right to write to memory of its own.
        let counts = |region: &&MemoryRegion| {
            let has_no_file = matches!(region.kind(), RegionKind::Anonymous | RegionKind::Heap);
            let may_have_blocks = region.writable || region.readable && has_no_file;
            may_have_blocks && !region.of_tracker && region.end > region.start
        };
        let mut all: Vec<(u64, u64)> =
            regions.into_iter().filter(counts).map(|region| (region.start, region.end)).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match ranges.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => ranges.push((start, end)),
            }
        }
        let mut touched = vec![0u64; (FILTER_BITS / 64) as usize];
        for &(start, end) in &ranges {
            let (first, last) = (start >> GRANULE_SHIFT, (end - 1) >> GRANULE_SHIFT);
            if last - first >= FILTER_BITS {
                touched.fill(u64::MAX);
                break;
            }
            for granule in first..=last {
                let bit = granule % FILTER_BITS;
                touched[(bit / 64) as usize] |= 1 << (bit % 64);
            }
        }
        let lowest = ranges.first().map_or(0, |range| range.0);
        let span = ranges.last().map_or(0, |range| range.1 - lowest);
        Targets { ranges, lowest, span, touched }
    }

    /// Whether the address is in one of the regions.
    #[inline]
    pub fn contains(&self, address: u64) -> bool {
        self.range_of(address).is_some()
    }

    /// Returns the range that has the address.
    #[inline]
    fn range_of(&self, address: u64) -> Option<(u64, u64)> {
        // Most words are no pointers; these two tests exclude nearly all of them.
        if address.wrapping_sub(self.lowest) >= self.span {
            return None;
        }
        let bit = (address >> GRANULE_SHIFT) % FILTER_BITS;
        if self.touched[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return None;
        }
        let after = self.ranges.partition_point(|range| range.0 <= address);
        self.ranges[..after].last().copied().filter(|range| address < range.1)
    }
}

/// Calls `found` with the place and the value of each aligned word of a page that points to a
/// target, in ascending order of the places. `base` is the address of the first byte, a multiple of
/// 8. Bytes behind the last whole word are ignored.
#[inline]
pub fn scan_page(base: u64, bytes: &[u8], targets: &Targets, mut found: impl FnMut(u64, u64)) {
    // Neighbouring words mostly point into one region.
    let mut last = (0, 0);
    for (index, word) in bytes.chunks_exact(8).enumerate() {
        let Some(word) = word.first_chunk::<8>() else { return };
        let value = u64::from_le_bytes(*word);
        if !(last.0..last.1).contains(&value) {
            match targets.range_of(value) {
                Some(range) => last = range,
                None => continue,
            }
        }
        found(base + 8 * index as u64, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64) -> MemoryRegion {
        MemoryRegion { start, end, readable: true, writable: true, ..MemoryRegion::default() }
    }

    #[test]
    fn the_filter_and_the_ranges_agree_with_the_regions() {
        let regions = [
            region(0x5000_0000_0000, 0x5000_0000_2000),
            region(0x5000_0000_2000, 0x5000_0000_3000),
            MemoryRegion { of_tracker: true, ..region(0x5000_0010_0000, 0x5000_0020_0000) },
            // A file that nobody may write to, and memory that nobody may access.
            MemoryRegion { writable: false, inode: 5, ..region(0x5100_0000_0000, 0x5100_0000_1000) },
            MemoryRegion { writable: false, readable: false, ..region(0x5200_0000_0000, 0x5200_0000_1000) },
            // Memory that was frozen.
            MemoryRegion { writable: false, ..region(0x5300_0000_0000, 0x5300_0000_1000) },
            // More granules than the filter has bits.
            region(0x6000_0000_0000, 0x6000_0000_0000 + (FILTER_BITS << (GRANULE_SHIFT + 1))),
            region(0x7fff_ffff_f000, 0x8000_0000_0000),
        ];
        let counts = [true, true, false, false, false, true, true, true];
        let all: Vec<usize> = (0..regions.len()).collect();
        for chosen in [&all[..], &all[..6], &all[7..]] {
            let some: Vec<&MemoryRegion> = chosen.iter().map(|at| &regions[*at]).collect();
            let targets = Targets::new(some.iter().copied());
            for edge in regions.iter().flat_map(|region| [region.start, region.end]) {
                for address in [edge - 1, edge, edge + 1, edge ^ 1 << 60] {
                    let expected = chosen.iter().any(|at| counts[*at] && regions[*at].contains(address));
                    assert_eq!(targets.contains(address), expected, "{address:x}");
                }
            }
        }
        assert!(!Targets::new([]).contains(0));
    }

    #[test]
    fn a_page_is_scanned_by_aligned_words() {
        let targets = Targets::new(&[region(0x1000, 0x2000), region(0x9000, 0xA000)]);
        let words = [0, 0x1000, 0x1FFF, 0x2000, 0x8FFF, 0x9001, u64::MAX, 0x1008];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        bytes.extend_from_slice(&[0, 0x10, 0]);
        let mut found = Vec::new();
        scan_page(0x4000, &bytes, &targets, |place, value| found.push((place, value)));
        assert_eq!(found, [(0x4008, 0x1000), (0x4010, 0x1FFF), (0x4028, 0x9001), (0x4038, 0x1008)]);
    }
}
