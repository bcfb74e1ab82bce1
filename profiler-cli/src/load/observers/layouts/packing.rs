//! How tightly the live blocks of each stack are packed: which part of the pages and cache lines
//! that they are on is theirs. In: the live set. Out: [`Packing`] by stack.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::load::heap::Heap;
use crate::profile::Packing;

/// Divides each page, and each cache line, among the live blocks on it in proportion to their bytes
/// there.
pub(super) fn of_blocks(heap: &Heap, page: u64) -> HashMap<StackId, Packing> {
    let mut blocks: Vec<PlacedBlock> = heap
        .blocks()
        .filter(|(_, block)| block.size > 0)
        .map(|(start, block)| PlacedBlock {
            start,
            end: start.saturating_add(block.size),
            stack: block.stack,
        })
        .collect();
    blocks.sort_unstable_by_key(|block| block.start);
    let mut packing: HashMap<StackId, Packing> = HashMap::default();
    for block in &blocks {
        let of_stack = packing.entry(block.stack).or_default();
        of_stack.bytes = of_stack.bytes.wrapping_add(block.end - block.start);
        of_stack.blocks += 1;
    }
    let mut add = |unit: u64, field: fn(&mut Packing) -> &mut f64| {
        divide(&blocks, unit, |stack, bytes| {
            if let Some(packing) = packing.get_mut(&stack) {
                *field(packing) += bytes;
            }
        });
    };
    add(page, |packing| &mut packing.page_bytes);
    add(CACHE_LINE, |packing| &mut packing.line_bytes);
    packing
}

/// A live block with its addresses.
#[derive(Clone, Copy, Debug)]
struct PlacedBlock {
    start: u64,
    end: u64,
    stack: StackId,
}

/// Calls `f` with the part of each unit (a page or a line) that belongs to a block on it. `blocks`
/// ascend.
fn divide(blocks: &[PlacedBlock], unit: u64, mut f: impl FnMut(StackId, f64)) {
    // The blocks on the unit that is being looked at, with their bytes there.
    let mut on_unit: Vec<(StackId, u64)> = Vec::new();
    let mut current = u64::MAX;
    let mut close = |on_unit: &mut Vec<(StackId, u64)>| {
        let all: u64 = on_unit.iter().map(|(_, bytes)| bytes).sum();
        for (stack, bytes) in on_unit.drain(..) {
            f(stack, unit as f64 * bytes as f64 / all.max(1) as f64);
        }
    };
    let mut whole_units: Vec<(StackId, u64)> = Vec::new();
    for block in blocks {
        let (first, last) = (block.start / unit, (block.end - 1) / unit);
        if first != current {
            close(&mut on_unit);
            current = first;
        }
        let first_end = block.end.min((first + 1).saturating_mul(unit));
        on_unit.push((block.stack, first_end - block.start));
        if last > first {
            close(&mut on_unit);
            current = last;
            on_unit.push((block.stack, block.end - last * unit));
            whole_units.push((block.stack, last - first - 1));
        }
    }
    close(&mut on_unit);
    for (stack, units) in whole_units {
        f(stack, (units * unit) as f64);
    }
}

const CACHE_LINE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(blocks: &[(u64, u64, u32)], unit: u64) -> Vec<(u32, f64)> {
        let place = |(start, end, stack): &(u64, u64, u32)| PlacedBlock {
            start: *start,
            end: *end,
            stack: StackId(*stack),
        };
        let blocks: Vec<PlacedBlock> = blocks.iter().map(place).collect();
        let mut sums: HashMap<u32, f64> = HashMap::default();
        divide(&blocks, unit, |stack, bytes| *sums.entry(stack.0).or_default() += bytes);
        let mut sums: Vec<(u32, f64)> = sums.into_iter().collect();
        sums.sort_by_key(|(stack, _)| *stack);
        sums
    }

    #[test]
    fn a_page_belongs_to_the_blocks_on_it_by_their_bytes() {
        // Stacks 1 and 2 have 100 and 300 bytes on the first page; stack 3 has the rest.
        let blocks = [(0, 100, 1), (200, 500, 2), (4096, 4097, 3)];
        assert_eq!(shares(&blocks, 4096), [(1, 1024.0), (2, 3072.0), (3, 4096.0)]);
    }

    #[test]
    fn a_large_block_has_the_pages_in_its_middle_alone() {
        // From the middle of page 0 to byte 1024 of page 3, where another block has 1024 bytes.
        let blocks = [(2048, 3 * 4096 + 1024, 1), (3 * 4096 + 2048, 3 * 4096 + 3072, 2)];
        assert_eq!(shares(&blocks, 4096), [(1, 4096.0 * 3.5), (2, 2048.0)]);
        let alone = [(10, 20, 7)];
        assert_eq!(shares(&alone, 64), [(7, 64.0)]);
        assert_eq!(shares(&[(60, 70, 7)], 64), [(7, 128.0)]);
    }
}
