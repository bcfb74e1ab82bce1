//! Finds the block of an address. In: the live blocks in the order of their addresses. Out: the
//! index of the block that contains an address, be it at its start or in its middle.
//!
//! For each page in which blocks start there is a bitmap with a bit for each 8 bytes, and the
//! number of blocks that start before the page:
//!
//! ```text
//! page 5   blocks before: 7   bits: 1 0 0 1 0 0 0 0 ...
//!                                   ^     ^   ^ an address here: the 2nd bit up to it,
//!                                 [7]   [8]     so it can only be in block 8
//! ```
//!
//! PERF: a binary search in ten million blocks misses the cache a dozen times, this look-up twice.
//! A pointer to the start of a block, as most are, does not even read the block.

use crate::profile::HeapBlock;

/// Index of a block in the slice of live blocks.
pub(super) type BlockIndex = u32;

/// The blocks by address.
pub(super) struct BlockFinder<'a> {
    blocks: &'a [HeapBlock],
    /// Sizes of the blocks, those beyond 4 GiB cut. PERF: a look-up reads 4 bytes of a block
    /// instead of 32, so that more of them are in the cache.
    sizes: Vec<u32>,
    /// `None` if blocks are found by a binary search.
    starts: Option<Starts>,
}

/// Where blocks start.
struct Starts {
    /// For each 8 GiB of addresses the index in `chunks` of its first chunk, or [`NONE`].
    spans: Vec<u32>,
    /// For each chunk of 2 MiB the index in `pages` of its first page, or [`NONE`].
    chunks: Vec<u32>,
    /// For each page the index of its bits, or [`NONE`].
    pages: Vec<u32>,
    bits: Vec<PageStarts>,
    /// Blocks that extend beyond the page in which they start.
    long: Vec<BlockIndex>,
}

/// The blocks that start in a page.
///
/// PERF: aligned, so that a look-up reads two neighbouring lines of the cache at most.
#[repr(align(128))]
struct PageStarts {
    bits: [u64; WORDS],
    /// For each word of `bits` the number of blocks that start in the page before it.
    before_word: [u16; WORDS],
    /// Number of blocks that start before the page.
    before: BlockIndex,
}

const WORDS: usize = (PAGE / GRANULE / 64) as usize;

const NONE: u32 = u32::MAX;
const PAGE: u64 = 4096;
const GRANULE: u64 = 8;
const PAGES_OF_CHUNK: u64 = 512;
const CHUNKS_OF_SPAN: u64 = 4096;
const SPANS: u64 = 1 << 14;

/// The last block that starts at or below an address.
enum FoundStart {
    /// A block that starts so many bytes below the address.
    InPage(BlockIndex, u64),
    /// A block that starts in another page.
    Elsewhere(BlockIndex),
}

impl<'a> BlockFinder<'a> {
    /// Takes blocks in the order of their addresses, fewer than 2^31.
    pub(super) fn new(blocks: &'a [HeapBlock]) -> BlockFinder<'a> {
        let sizes = blocks.iter().map(|block| u32::try_from(block.size).unwrap_or(u32::MAX)).collect();
        BlockFinder { blocks, sizes, starts: Starts::new(blocks) }
    }

    /// Returns the block that contains an address.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<BlockIndex> {
        let start = match &self.starts {
            Some(starts) => starts.find(self.blocks, address)?,
            None => {
                let after = self.blocks.partition_point(|block| block.address <= address);
                FoundStart::Elsewhere(after.checked_sub(1)? as BlockIndex)
            }
        };
        match start {
            FoundStart::InPage(at, distance) => (distance < u64::from(self.sizes[at as usize])).then_some(at),
            FoundStart::Elsewhere(at) => (address < end_of(&self.blocks[at as usize])).then_some(at),
        }
    }
}

impl BlockFinder<'_> {
    /// Returns the block that ends at an address, if no block contains the address.
    #[inline]
    pub(super) fn find_end(&self, address: u64) -> Option<BlockIndex> {
        let at = self.find(address.checked_sub(1)?)?;
        (end_of(&self.blocks[at as usize]) == address).then_some(at)
    }
}

impl Starts {
    /// Returns `None` if bits cannot tell the blocks apart, or would need too much memory: a forged
    /// dump may have blocks anywhere.
    fn new(blocks: &[HeapBlock]) -> Option<Starts> {
        let mut starts = Starts {
            spans: vec![NONE; SPANS as usize],
            chunks: Vec::new(),
            pages: Vec::new(),
            bits: Vec::new(),
            long: Vec::new(),
        };
        let most_entries = 4 * blocks.len() + (1 << 20);
        let mut at = 0;
        while let Some(first) = blocks.get(at) {
            let page = first.address / PAGE;
            let mut of_page =
                PageStarts { bits: [0; WORDS], before_word: [0; WORDS], before: at as BlockIndex };
            while let Some(block) = blocks.get(at).filter(|block| block.address / PAGE == page) {
                let bit = block.address % PAGE / GRANULE;
                let word = &mut of_page.bits[(bit / 64) as usize];
                if !block.address.is_multiple_of(GRANULE) || *word >> (bit % 64) & 1 == 1 || block.size == 0 {
                    return None;
                }
                *word |= 1 << (bit % 64);
                if (end_of(block) - 1) / PAGE > page {
                    starts.long.push(at as BlockIndex);
                }
                at += 1;
            }
            for word in 1..WORDS {
                let starts_before = of_page.bits[word - 1].count_ones() as u16;
                of_page.before_word[word] = of_page.before_word[word - 1] + starts_before;
            }
            let slot = starts.page_slot(page)?;
            starts.pages[slot] = starts.bits.len() as u32;
            starts.bits.push(of_page);
            if starts.pages.len() + starts.chunks.len() > most_entries {
                return None;
            }
        }
        Some(starts)
    }

    /// Returns the place in `pages` of a page, which is made if it is missing.
    fn page_slot(&mut self, page: u64) -> Option<usize> {
        let chunk = page / PAGES_OF_CHUNK;
        let span = self.spans.get_mut((chunk / CHUNKS_OF_SPAN) as usize)?;
        if *span == NONE {
            *span = self.chunks.len() as u32;
            self.chunks.resize(self.chunks.len() + CHUNKS_OF_SPAN as usize, NONE);
        }
        let slot = &mut self.chunks[*span as usize + (chunk % CHUNKS_OF_SPAN) as usize];
        if *slot == NONE {
            *slot = self.pages.len() as u32;
            self.pages.resize(self.pages.len() + PAGES_OF_CHUNK as usize, NONE);
        }
        Some(*slot as usize + (page % PAGES_OF_CHUNK) as usize)
    }

    #[inline]
    fn bits_of(&self, page: u64) -> Option<&PageStarts> {
        let chunk = page / PAGES_OF_CHUNK;
        let span = self.spans.get((chunk / CHUNKS_OF_SPAN) as usize).filter(|span| **span != NONE)?;
        let slot = self.chunks[*span as usize + (chunk % CHUNKS_OF_SPAN) as usize];
        if slot == NONE {
            return None;
        }
        self.bits.get(self.pages[slot as usize + (page % PAGES_OF_CHUNK) as usize] as usize)
    }

    #[inline]
    fn find(&self, blocks: &[HeapBlock], address: u64) -> Option<FoundStart> {
        let Some(page) = self.bits_of(address / PAGE) else {
            let after = self.long.partition_point(|at| blocks[*at as usize].address <= address);
            return Some(FoundStart::Elsewhere(self.long[after.checked_sub(1)?]));
        };
        let bit = address % PAGE / GRANULE;
        let word = (bit / 64) as usize;
        let up_to = page.bits[word] & (u64::MAX >> (63 - bit % 64));
        let count = page.before + u32::from(page.before_word[word]) + up_to.count_ones();
        let at = count.checked_sub(1)?;
        if up_to == 0 {
            return Some(FoundStart::Elsewhere(at));
        }
        let start = GRANULE * (64 * word as u64 + u64::from(63 - up_to.leading_zeros()));
        Some(FoundStart::InPage(at, address % PAGE - start))
    }
}

/// Returns the first address after a block.
#[inline]
pub(super) fn end_of(block: &HeapBlock) -> u64 {
    block.address.saturating_add(block.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(places: &[(u64, u64)]) -> Vec<HeapBlock> {
        places.iter().map(|&(address, size)| HeapBlock { address, size, ..HeapBlock::default() }).collect()
    }

    /// Compares with a search of all blocks, from the last one to the first.
    fn check(places: &[(u64, u64)], addresses: impl Iterator<Item = u64>) {
        let blocks = blocks(places);
        let finder = BlockFinder::new(&blocks);
        for address in addresses {
            let expected = places.iter().rposition(|(start, _)| *start <= address);
            let expected = expected.filter(|at| address - places[*at].0 < places[*at].1);
            assert_eq!(finder.find(address).map(|at| at as usize), expected, "{address:#x}");
            let ends = places.iter().rposition(|(start, size)| start.checked_add(*size) == Some(address));
            let ends = ends.filter(|_| expected.is_none() && address > 0);
            assert_eq!(finder.find_end(address).filter(|_| expected.is_none()).map(|at| at as usize), ends);
        }
    }

    #[test]
    fn starts_interiors_gaps_and_ends() {
        let places = [(0x1000, 8), (0x1008, 24), (0x1030, 0x3000), (0x4040, 1), (0x9000, 0x10), (0x9ff8, 16)];
        check(&places, 0xff0..0xa020);
        check(&[], 0..3);
    }

    #[test]
    fn blocks_of_any_alignment() {
        check(&[(0x1001, 2), (0x100b, 9), (0x1019, 1), (0x2fff, 2)], 0xff0..0x3010);
        // Several blocks within 8 bytes.
        check(&[(0x1001, 2), (0x1003, 2), (0x1007, 90), (0x2000, 5)], 0xff0..0x3010);
    }

    #[test]
    fn the_end_of_the_address_space() {
        let last = u64::MAX - 15;
        check(&[(last, 8)], last - 2..=u64::MAX);
        // Blocks far apart, for which a table would be too large.
        let far: Vec<(u64, u64)> = (0..4000).map(|at| (0x1000 + at * (1 << 33), 64)).collect();
        check(&far, (0..4000).map(|at| 0x1020 + at * (1 << 33)));
        let blocks = blocks(&[(last, u64::MAX)]);
        assert_eq!(BlockFinder::new(&blocks).find(u64::MAX - 1), Some(0), "a false size");
    }
}
