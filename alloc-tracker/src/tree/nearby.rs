//! Nodes near their parents: the parent's id says where a node is looked for. In: a parent node and
//! a return address. Out: the node's id, if there is a slot for the node here. A look-up takes no
//! lock. Never allocates through the global allocator.
//!
//! Two parents with neighbouring ids share a group of four slots for their children, half a cache
//! line. 64 parents share a block of 32 groups, which is a kilobyte:
//!
//! ```text
//! block of the parents 64 .. 127
//!
//!   group 0            group 1             group 2             ...  group 31
//!   64, 65             66, 67              68, 69                   126, 127
//!   [ ][ ][ ][ ]       [ ][ ][ ][ ]        [ ][ ][ ][ ]             [ ][ ][ ][ ]
//!   `-- one cache line ----------'         `-- one cache line --..
//!
//! The numbers above the slots are the parents whose children a search expects there first.
//! ```
//!
//! A child of 67 is in the first of these groups that had an empty slot when the child was
//! inserted:
//!
//! 1. its parents' own group, 1,
//! 2. the group beside it in the same cache line, 0,
//! 3. a group of another line of the block, which follows from the hash of the node, 29 say,
//! 4. the group beside that one, 28.
//!
//! Slots never become empty again, so a search may end at the first empty slot. If all four groups
//! are full, the node is in the other table, [`hashed`](super::hashed). Children of roots are
//! always there, and so are nodes whose code lies outside of the sixteen [regions](super::regions).
//!
//! As a slot's address says nearly all about the parent, a slot is one word:
//!
//! ```text
//!  63             37 36      33 32            27 26                0
//! +-----------------+----------+----------------+------------------+
//! | offset, 27 bits | region,4 | parent % 64, 6 | node's id, 27    |
//! +-----------------+----------+----------------+------------------+
//!  `------------- key: what is searched for ---'
//! ```
//!
//! A slot has the wanted node exactly if `slot ^ key` is a node's id, that is, if all bits above
//! the lower 27 are zero.
//!
//! The groups are an array that is indexed by the parent. The array grows by chunks: the first
//! chunk is for 4096 parents, each later chunk for twice as many as the one before. No group ever
//! moves.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use super::regions::{OFFSET_BITS, REGION_BITS, Regions};
use super::{Parent, hash};
use crate::base::sys::{Errno, Mapping};

/// The nodes that are near their parents.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Nearby {
    /// The chunks, indexed by [`chunk_of`] a parent's ordinal; null where there is no chunk.
    chunks: [AtomicPtr<Group>; 64],
    regions: Regions,
}

/// The memory of the chunks, by the same index.
#[derive(Debug)]
pub(super) struct NearbyChunks([Option<Mapping>; 64]);

/// Four slots. PERF: half a cache line; the other half is searched next.
#[derive(Debug)]
#[repr(C, align(32))]
struct Group([AtomicU64; 4]);

/// The outcome of a search.
pub(super) enum NodeSlot<'a> {
    /// The node.
    Known(StackId),
    /// The node is not here; it belongs into this empty slot.
    Empty(EmptySlot<'a>),
    /// The node belongs into the other table. If [`Nearby::find_or_prepare`] returns this, it stays
    /// true as long as the recording lasts: a region without a number never gets one, and full
    /// groups stay full. So no node is ever in both tables.
    Elsewhere,
}

/// A slot without a node, and the key of the node that belongs there.
pub(super) struct EmptySlot<'a> {
    slot: &'a AtomicU64,
    key: NodeKey,
}

/// The key of a node: which parent of its block it has, and its return address.
#[derive(Clone, Copy)]
struct NodeKey(u64);

/// A group of a chunk.
#[derive(Clone, Copy)]
struct GroupInChunk<'a> {
    chunk: NonNull<Group>,
    index: usize,
    lifetime: PhantomData<&'a Group>,
}

impl Nearby {
    pub(super) const fn new() -> Nearby {
        Nearby { chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; 64], regions: Regions::new() }
    }

    /// Returns the node if it is in its parents' group or in the one beside it.
    #[inline(always)]
    pub(super) fn find_likely(&self, parent: Parent, pc: u64) -> Option<StackId> {
        let key = self.key(parent, pc)?;
        let own = self.own_group(parent)?;
        own.group().find_likely(key).or_else(|| own.beside().group().find_likely(key))
    }

    /// Returns the node, or the table or slot where it belongs.
    pub(super) fn find(&self, parent: Parent, pc: u64) -> NodeSlot<'_> {
        let (Some(key), Some(own)) = (self.key(parent, pc), self.own_group(parent)) else {
            return NodeSlot::Elsewhere;
        };
        // Slots are filled in this order and never become empty again, so behind an empty slot
        // there is no node.
        for first in [own, own.in_other_line(parent, pc)] {
            for group in [first.group(), first.beside().group()] {
                if let Some(slot) = group.find(key) {
                    return slot;
                }
            }
        }
        NodeSlot::Elsewhere
    }

    /// Returns the node, or the table or slot where it belongs as long as the recording lasts.
    /// Gives the node's region a number if one is left, and makes the chunk of its parent. For one
    /// thread at a time.
    ///
    /// # Errors
    /// There is no memory for the chunk. Then the node must not be put into the other table,
    /// because there may be memory the next time.
    pub(super) fn find_or_prepare(
        &self,
        chunks: &mut NearbyChunks,
        parent: Parent,
        pc: u64,
    ) -> Result<NodeSlot<'_>, Errno> {
        self.regions.claim(pc);
        if !parent.is_root() && self.key(parent, pc).is_some() {
            self.make_chunk(chunks, parent)?;
        }
        Ok(self.find(parent, pc))
    }

    fn make_chunk(&self, chunks: &mut NearbyChunks, parent: Parent) -> Result<(), Errno> {
        let chunk = chunk_of(ordinal(parent));
        if chunks.0[chunk].is_none() {
            // PERF: searches are spread over all of a large chunk; huge pages save most misses of
            // the address translation.
            let memory = Mapping::of_huge_pages(size_of::<Group>() << chunk >> 1)?;
            self.chunks[chunk].store(memory.start().cast(), Ordering::Release);
            chunks.0[chunk] = Some(memory);
        }
        Ok(())
    }

    /// Forgets all nodes. A thread may still be searching them: it will find nothing.
    pub(super) fn clear(&self, chunks: &mut NearbyChunks) {
        self.detach();
        chunks.0.iter_mut().filter_map(Option::take).for_each(Mapping::release_pages);
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn detach(&self) {
        self.chunks.iter().for_each(|chunk| chunk.store(std::ptr::null_mut(), Ordering::Release));
    }

    #[inline(always)]
    fn key(&self, parent: Parent, pc: u64) -> Option<NodeKey> {
        let region = self.regions.number(pc)?;
        // PERF: one shift removes the region and keeps the offset.
        let (offset, sibling) = (pc << (u64::BITS - OFFSET_BITS), u64::from(parent.0) % BLOCK);
        Some(NodeKey(offset | region << (NODE_BITS + BLOCK_BITS) | sibling << NODE_BITS))
    }

    /// Returns the group of the parent and its neighbour, if their chunk exists. Roots never have a
    /// chunk.
    #[inline(always)]
    fn own_group(&self, parent: Parent) -> Option<GroupInChunk<'_>> {
        let ordinal = ordinal(parent);
        let index = chunk_of(ordinal);
        let chunk = NonNull::new(self.chunks[index].load(Ordering::Acquire))?;
        let index = (ordinal ^ 1 << index) as usize / 2;
        Some(GroupInChunk { chunk, index, lifetime: PhantomData })
    }
}

impl NearbyChunks {
    pub(super) const fn new() -> NearbyChunks {
        NearbyChunks([const { None }; 64])
    }
}

impl<'a> GroupInChunk<'a> {
    /// Returns the other group of the cache line.
    #[inline(always)]
    fn beside(self) -> GroupInChunk<'a> {
        GroupInChunk { index: self.index ^ 1, ..self }
    }

    #[inline(always)]
    fn group(self) -> &'a Group {
        // SAFETY: chunks are published whole, with a group for every second of their parents, and
        // never unmapped; a retired chunk reads as zeros. `beside` and `in_other_line` stay in the
        // block, which lies in one chunk.
        unsafe { &*self.chunk.as_ptr().add(self.index) }
    }

    /// Returns the group in another cache line of the block that the node's hash selects.
    fn in_other_line(self, parent: Parent, pc: u64) -> GroupInChunk<'a> {
        let distance = 2 + hash(parent, pc) as usize % (BLOCK as usize / 2 - 2);
        GroupInChunk { index: self.index ^ distance, ..self }
    }
}

impl Group {
    /// Returns the node with this key.
    ///
    /// PERF: the processor cannot predict which slot the node is in, so there is no branch for each
    /// slot. `slot ^ key` is below [`NODES`] for the node alone, so the smallest of the four
    /// results is the node's, if the node is here.
    #[inline(always)]
    fn find_likely(&self, NodeKey(key): NodeKey) -> Option<StackId> {
        let [first, second, third, fourth] = self.0.each_ref().map(|slot| slot.load(Ordering::Acquire) ^ key);
        let found = first.min(second).min(third.min(fourth));
        // If the key is zero, an empty slot gives zero, which is not an id.
        (EMPTY + 1..NODES).contains(&found).then_some(StackId(found as u32))
    }

    /// Returns the node with this key, or the first empty slot.
    #[inline]
    fn find(&self, key: NodeKey) -> Option<NodeSlot<'_>> {
        for slot in &self.0 {
            match slot.load(Ordering::Acquire) {
                EMPTY => return Some(NodeSlot::Empty(EmptySlot { slot, key })),
                word if word ^ key.0 < NODES => return Some(NodeSlot::Known(StackId((word ^ key.0) as u32))),
                _ => {}
            }
        }
        None
    }
}

impl EmptySlot<'_> {
    /// Stores the node in this slot.
    pub(super) fn fill(self, id: StackId) {
        self.slot.store(self.key.0 | u64::from(id.0), Ordering::Release);
    }
}

/// Returns a parent's ordinal: its number plus that of the first chunk's parents. So the highest
/// bit of the ordinal says which chunk the parent's children are in.
#[inline(always)]
fn ordinal(parent: Parent) -> u64 {
    u64::from(parent.0) + (1 << FIRST_BITS)
}

#[inline(always)]
fn chunk_of(ordinal: u64) -> usize {
    ordinal.ilog2() as usize
}

/// Zero pages are empty slots: no node has the id 0.
const EMPTY: u64 = 0;
/// Above the ids of all nodes.
const NODES: u64 = 1 << NODE_BITS;
/// How many parents share a block.
const BLOCK: u64 = 1 << BLOCK_BITS;

pub(super) const NODE_BITS: u32 = 27;
const BLOCK_BITS: u32 = 6;
const _: () = assert!(NODE_BITS + BLOCK_BITS + REGION_BITS + OFFSET_BITS == u64::BITS);
/// The first chunk is for 2 to the power of this many parents. Fewer under Miri, which takes a
/// minute for a thousand nodes.
pub(super) const FIRST_BITS: u32 = if cfg!(miri) { 6 } else { 12 };

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(nearby: &Nearby, chunks: &mut NearbyChunks, parent: Parent, pc: u64, id: u32) -> bool {
        match nearby.find_or_prepare(chunks, parent, pc).unwrap() {
            NodeSlot::Known(_) => panic!("inserted twice"),
            NodeSlot::Empty(empty) => empty.fill(StackId(id)),
            NodeSlot::Elsewhere => return false,
        }
        true
    }

    #[test]
    fn the_nodes_of_a_deep_stack_are_where_a_search_begins() {
        let (nearby, mut chunks) = (Nearby::new(), NearbyChunks::new());
        let deep = 5 << FIRST_BITS;
        for node in 3..deep {
            assert!(insert(&nearby, &mut chunks, Parent(node), 0x5555_0000_1230, node + 1));
        }
        assert!((3..deep).all(|node| {
            nearby.find_likely(Parent(node), 0x5555_0000_1230) == Some(StackId(node + 1))
                && nearby.find_likely(Parent(node), 0x5555_0000_1231).is_none()
        }));
        assert_eq!(
            chunks.0.iter().flatten().count(),
            3,
            "as large as the parents are many, twice, and four times"
        );
    }

    #[test]
    fn a_parent_with_many_children_fills_its_four_groups_and_no_more() {
        let (nearby, mut chunks) = (Nearby::new(), NearbyChunks::new());
        let parent = Parent(100);
        let taken: Vec<u64> =
            (1..1000).filter(|&pc| insert(&nearby, &mut chunks, parent, pc, 7 + pc as u32)).collect();
        assert!((8..=4 * BLOCK as usize / 2).contains(&taken.len()), "{}", taken.len());
        for pc in 1..1000 {
            match nearby.find(parent, pc) {
                NodeSlot::Known(id) => assert!(taken.contains(&pc) && id == StackId(7 + pc as u32)),
                NodeSlot::Elsewhere => assert!(!taken.contains(&pc)),
                NodeSlot::Empty(_) => panic!("there was no room for {pc}"),
            }
        }
    }

    #[test]
    fn a_search_of_nodes_that_were_forgotten_finds_nothing() {
        let (nearby, mut chunks) = (Nearby::new(), NearbyChunks::new());
        let (parent, pc) = (Parent(9), 0x40_1234);
        assert!(insert(&nearby, &mut chunks, parent, pc, 10));
        let (key, own) = (nearby.key(parent, pc).unwrap(), nearby.own_group(parent).unwrap());
        assert_eq!(own.group().find_likely(key), Some(StackId(10)));
        nearby.clear(&mut chunks);
        assert_eq!(own.group().find_likely(key), None);
        assert!(matches!(nearby.find(parent, pc), NodeSlot::Elsewhere));
    }

    #[test]
    fn children_of_roots_belong_elsewhere() {
        let (nearby, mut chunks) = (Nearby::new(), NearbyChunks::new());
        for root in [StackId::ROOT, StackId::TRUNCATED].map(|root| Parent::root(root, 5)) {
            assert!(!insert(&nearby, &mut chunks, root, 7, 3));
            assert_eq!(nearby.find_likely(root, 7), None);
        }
    }
}
