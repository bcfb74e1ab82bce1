//! The graph of pointers between blocks. In: the words of an image in the order of their places.
//! Out: for each block the blocks that it points to, and the pointers outside of all blocks.
//!
//! Words come in ascending order, so the edges of one block come together, and the graph is built
//! in one pass: an edge takes eight bytes, whatever the number of words.

use alloc_dump::snapshot::SnapshotThread;

use super::index::{BlockFinder, BlockIndex, end_of};
use super::places::{Area, ImageMemory, PlaceOwner, RootKind, end_of_old_stack};
use crate::profile::HeapBlock;

/// The pointers of an image that point into live blocks.
#[derive(Debug, Default)]
pub struct BlockGraph {
    /// For each block, the index in `targets` of its first edge; one more entry than blocks.
    rows: Vec<u32>,
    /// The target of each edge, perhaps with [`WEAK`].
    targets: Vec<BlockIndex>,
    /// The offset of each edge's pointer in its block, in bytes. Offsets beyond 4 GiB are cut.
    offsets: Vec<u32>,
    /// Pointers outside of all blocks.
    pub(super) roots: Vec<RootPointer>,
}

/// A pointer to a block from outside of all blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPointer {
    /// Where the pointer is; 0 for a register.
    pub place: u64,
    /// The block, perhaps with [`WEAK`].
    pub(super) target: BlockIndex,
    /// Whose memory the place is.
    pub owner: PlaceOwner,
}

impl RootPointer {
    /// Returns the block. `None` if the pointer does not count.
    pub(super) fn strong_target(&self) -> Option<BlockIndex> {
        (self.target & WEAK == 0).then_some(self.target)
    }
}

/// Bit of a target: the pointer counts only if nothing else holds the block, because it is more
/// likely the end of a range.
///
/// ```text
/// | block 4          | block 5 |        a slice iterator over block 4:
///   ^ pointer          ^ end                its second word is no pointer to block 5
///
/// | block 7          |  gap             an `Arc` of a value without size, as a raw pointer:
///                    ^ pointer              only its end holds block 7
/// ```
pub(super) const WEAK: BlockIndex = 1 << 31;

/// The words before a pointer that may be the start of the range whose end the pointer is.
const RANGE_WORDS: u64 = 4;

impl BlockGraph {
    /// Returns the number of blocks.
    pub(super) fn rows_len(&self) -> usize {
        self.rows.len().saturating_sub(1)
    }

    /// Returns the number of edges.
    pub fn edges(&self) -> usize {
        self.targets.len()
    }

    /// Returns the range of the edges of a block.
    #[inline]
    pub(super) fn row(&self, block: BlockIndex) -> std::ops::Range<usize> {
        self.rows[block as usize] as usize..self.rows[block as usize + 1] as usize
    }

    /// Returns the target of an edge. `None` for an edge that does not count.
    #[inline]
    pub(super) fn target(&self, edge: usize) -> Option<BlockIndex> {
        let target = self.targets[edge];
        (target & WEAK == 0).then_some(target)
    }

    /// Returns the target of an edge, even if the edge does not count.
    #[inline]
    pub(super) fn target_of_any(&self, edge: usize) -> (BlockIndex, bool) {
        let target = self.targets[edge];
        (target & !WEAK, target & WEAK != 0)
    }

    /// Makes an edge count.
    pub(super) fn strengthen(&mut self, edge: usize) {
        self.targets[edge] &= !WEAK;
    }

    /// Makes all edges between blocks of different classes not count.
    pub(super) fn separate(&mut self, class: impl Fn(BlockIndex) -> u8) {
        for block in 0..self.rows_len() as BlockIndex {
            let own = class(block);
            for edge in self.row(block) {
                let target = &mut self.targets[edge];
                if *target & WEAK == 0 && class(*target) != own {
                    *target |= WEAK;
                }
            }
        }
    }

    /// Returns the offset in `from` of a pointer to `to`.
    pub(super) fn offset(&self, from: BlockIndex, to: BlockIndex) -> u64 {
        let edge = self.row(from).find(|edge| self.target(*edge) == Some(to));
        edge.map_or(0, |edge| u64::from(self.offsets[edge]))
    }
}

/// Builds a [`BlockGraph`].
pub struct GraphBuilder<'a> {
    blocks: &'a [HeapBlock],
    finder: BlockFinder<'a>,
    areas: Vec<Area>,
    knows_all_stacks: bool,
    graph: BlockGraph,
    /// The first block that ends behind the present place, and the first such area.
    at_block: usize,
    at_area: usize,
    next_place: u64,
    /// The last words that point to blocks: place, target.
    last: [(u64, BlockIndex); RANGE_WORDS as usize],
    last_at: usize,
    /// For each block which pointers to it in memory of unknown owner are known already. One of
    /// each kind is enough.
    unknown_pointers: Vec<KnownPointers>,
    /// Words in mappings that may be old stacks that look like a part of a thread's control block:
    /// the address of the block, and whether the word is the first of two.
    control_words: Vec<(u64, bool)>,
    /// Pointers in mappings that may be old stacks.
    doubtful: Vec<RootPointer>,
    thread_pointers: Vec<u64>,
}

impl<'a> GraphBuilder<'a> {
    /// Starts a graph of these blocks, which are in the order of their addresses. Blocks beyond the
    /// first 2^31 - 1 are ignored.
    pub fn new(blocks: &'a [HeapBlock], memory: &ImageMemory<'_>) -> GraphBuilder<'a> {
        let blocks = &blocks[..blocks.len().min((WEAK - 1) as usize)];
        let finder = BlockFinder::new(blocks);
        let mut graph = BlockGraph { rows: vec![0], ..BlockGraph::default() };
        graph.rows.reserve_exact(blocks.len());
        add_registers(memory.threads, &finder, &mut graph.roots);
        GraphBuilder {
            blocks,
            finder,
            areas: memory.areas(),
            knows_all_stacks: memory.knows_all_stacks(),
            graph,
            at_block: 0,
            at_area: 0,
            next_place: 0,
            last: [(0, WEAK); RANGE_WORDS as usize],
            last_at: 0,
            unknown_pointers: vec![KnownPointers::default(); blocks.len()],
            control_words: Vec::new(),
            doubtful: Vec::new(),
            thread_pointers: memory.threads.iter().map(|thread| thread.thread_pointer).collect(),
        }
    }

    /// Adds a word. Places must ascend; a word at an earlier place is ignored.
    #[inline]
    pub fn add(&mut self, place: u64, value: u64) {
        if place < self.next_place {
            return;
        }
        self.next_place = place.saturating_add(1);
        while self.blocks.get(self.at_block).is_some_and(|block| end_of(block) <= place) {
            self.at_block += 1;
        }
        match self.blocks.get(self.at_block) {
            Some(block) if block.address <= place => {
                if let Some(target) = self.target(place, value) {
                    self.add_edge(place - block.address, target);
                }
            }
            _ => self.add_root(place, value),
        }
    }

    /// Ends the graph.
    pub fn finish(mut self) -> BlockGraph {
        let end = self.graph.targets.len() as u32;
        self.graph.rows.resize(self.blocks.len() + 1, end);
        let old_stacks = self.old_stacks();
        let is_old = |pointer: &RootPointer| {
            let after = old_stacks.partition_point(|(start, _)| *start <= pointer.place);
            old_stacks[..after].last().is_some_and(|(_, end)| pointer.place < *end)
        };
        for pointer in self.doubtful.iter().filter(|pointer| !is_old(pointer)) {
            if self.unknown_pointers[(pointer.target & !WEAK) as usize].is_new(pointer.target) {
                self.graph.roots.push(*pointer);
            }
        }
        self.graph.targets.shrink_to_fit();
        self.graph.offsets.shrink_to_fit();
        self.graph
    }

    /// Returns the block that a word points to, with [`WEAK`] if it is more likely the end of a
    /// range.
    #[inline]
    fn target(&mut self, place: u64, value: u64) -> Option<BlockIndex> {
        let Some(target) = self.finder.find(value) else {
            let is_aligned = value.is_multiple_of(8);
            return is_aligned.then(|| self.finder.find_end(value)).flatten().map(|target| target | WEAK);
        };
        // PERF: the blocks themselves are read last, because that misses the cache.
        let is_end = target > 0
            && self.last.iter().any(|(before, other)| {
                *other == target - 1 && place.wrapping_sub(*before) <= 8 * RANGE_WORDS
            })
            && value == self.blocks[target as usize].address
            && end_of(&self.blocks[target as usize - 1]) == value;
        self.last[self.last_at] = (place, target);
        self.last_at = (self.last_at + 1) % self.last.len();
        Some(if is_end { target | WEAK } else { target })
    }

    #[inline]
    fn add_edge(&mut self, offset: u64, target: BlockIndex) {
        let source = self.at_block;
        if target & !WEAK == source as BlockIndex {
            return;
        }
        let edges = self.graph.targets.len();
        let is_repeated = self.graph.rows.len() == source + 1
            && edges > self.graph.rows[source] as usize
            && self.graph.targets[edges - 1] == target;
        // The indices of edges have 32 bits.
        if is_repeated || edges >= u32::MAX as usize {
            return;
        }
        self.graph.rows.resize(source + 1, edges as u32);
        self.graph.targets.push(target);
        self.graph.offsets.push(u32::try_from(offset).unwrap_or(u32::MAX));
    }

    fn add_root(&mut self, place: u64, value: u64) {
        while self.areas.get(self.at_area).is_some_and(|area| area.end <= place) {
            self.at_area += 1;
        }
        let Some(area) = self.areas.get(self.at_area).copied().filter(|area| area.start <= place) else {
            return;
        };
        let Some(owner) = area.owner else { return };
        if area.may_be_old_stack && (value == place || value.wrapping_add(16) == place) {
            self.control_words.push((value, value == place));
        }
        let Some(target) = self.target(place, value) else { return };
        let block = &self.blocks[(target & !WEAK) as usize];
        if area.may_have_allocator_notes && is_next_chunk_of_glibc(block, value) {
            return;
        }
        let pointer = RootPointer { place, target, owner };
        if area.may_be_old_stack && self.knows_all_stacks {
            self.doubtful.push(pointer);
        } else if owner.kind != RootKind::Unknown && self.graph.roots.len() < MOST_ROOT_POINTERS
            || self.unknown_pointers[(target & !WEAK) as usize].is_new(target)
        {
            self.graph.roots.push(pointer);
        }
    }

    /// Returns the ranges of memory that are stacks of threads that have ended. The C library keeps
    /// them for new threads.
    ///
    /// Such a mapping has a guard before it, no thread is in it, and it still has a control block
    /// of the C library, whose first and third words are its own address.
    fn old_stacks(&self) -> Vec<(u64, u64)> {
        let mut stacks = Vec::new();
        for pair in self.control_words.windows(2) {
            let [(first, true), (third, false)] = *pair else { continue };
            // The C library aligns control blocks so.
            let is_aligned = first.is_multiple_of(64);
            if first != third || !is_aligned || self.thread_pointers.contains(&first) {
                continue;
            }
            let after = self.areas.partition_point(|area| area.start <= first);
            let end = end_of_old_stack(first);
            // Other things may look like a control block, but hardly at the end of a mapping.
            let is_stack = |area: &&Area| area.may_be_old_stack && area.end == end;
            if let Some(area) = self.areas[..after].last().filter(is_stack) {
                stacks.push((area.start, end));
            }
        }
        stacks
    }
}

/// Whether a pointer is the one by which glibc's allocator knows the free memory behind a block:
/// the address of the header of the next chunk, which begins 16 bytes below it. Its first word
/// belongs to the block, and so do the block's last bytes where the size is a little above a
/// multiple of 16.
///
/// ```text
/// | header | block of 20 bytes ... | 4 bytes | size | free memory
///                                  ^ next chunk
/// ```
///
/// Source: "MallocInternals" of the GNU C Library's wiki.
fn is_next_chunk_of_glibc(block: &HeapBlock, pointer: u64) -> bool {
    let chunk = (block.size.saturating_add(8 + 15) & !15).max(32);
    pointer.is_multiple_of(16) && pointer.wrapping_sub(block.address) == chunk - 16
}

/// Root pointers that are kept one by one; only a forged snapshot has more. After these, one of
/// each kind is kept for each block.
const MOST_ROOT_POINTERS: usize = 1 << 24;

/// Which pointers to a block memory has of which one pointer is enough.
#[derive(Clone, Copy, Debug, Default)]
struct KnownPointers {
    weak: bool,
    strong: bool,
}

impl KnownPointers {
    /// Notes a pointer to this target, and whether it is the first of its kind.
    fn is_new(&mut self, target: BlockIndex) -> bool {
        let known = if target & WEAK == 0 { &mut self.strong } else { &mut self.weak };
        !std::mem::replace(known, true)
    }
}

fn add_registers(threads: &[SnapshotThread], finder: &BlockFinder<'_>, roots: &mut Vec<RootPointer>) {
    for (index, thread) in threads.iter().enumerate() {
        for register in thread.registers.iter().flatten() {
            if let Some(target) = finder.find(*register) {
                let owner = PlaceOwner { kind: RootKind::Register, index: index as u32 };
                roots.push(RootPointer { place: 0, target, owner });
            }
        }
    }
}
