//! Nodes near their parents: where one is looked for follows from its parent's number. In: the caller's node and a return address.
//! Out: the node's number, if it has found a place here. Whoever looks takes no lock; never allocates.
//!
//! Every second parent has a group of four slots, for the nodes of both, and 64 parents have a block. A node is in one of four
//! groups of its block, the first of them its parents' own. Which of the block's parents it has is written beside it, and its return
//! address by [region](super::regions), so a node is one word. Nodes of roots, of code in other regions, or whose groups
//! are full are for the other table.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use super::regions::{OFFSET_BITS, REGION_BITS, Regions};
use super::{Parent, hash};
use crate::base::sys::{Errno, Mapping};

/// The nodes that are near their parents.
///
/// Their memory grows by chunks: the first one for so many parents, each later one for twice as many as the one before. Nothing in
/// them ever moves.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Nearby {
    /// By [`chunk_of`] their parents; null where there is none.
    chunks: [AtomicPtr<Group>; 64],
    regions: Regions,
}

/// The memory of the chunks, by the same index.
#[derive(Debug)]
pub(super) struct Chunks([Option<Mapping>; 64]);

/// Four slots. PERF: half a cache line; the other half is looked at next.
#[derive(Debug)]
#[repr(C, align(32))]
struct Group([AtomicU64; 4]);

/// Where a node belongs.
pub(super) enum Place<'a> {
    Known(StackId),
    Empty(Empty<'a>),
    /// Not in here. If [`Nearby::make_place`] says so, then for as long as the recording lasts: what has no number, or no room, never
    /// gets any. So no node is ever in both tables.
    Elsewhere,
}

/// A slot without a node.
pub(super) struct Empty<'a> {
    slot: &'a AtomicU64,
    key: Key,
}

/// What a node is found by: which parent of its block calls it, and the return address.
#[derive(Clone, Copy)]
struct Key(u64);

/// Where a group is.
#[derive(Clone, Copy)]
struct Spot<'a> {
    chunk: NonNull<Group>,
    at: usize,
    of: PhantomData<&'a Group>,
}

impl Nearby {
    pub(super) const fn new() -> Nearby {
        Nearby { chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; 64], regions: Regions::new() }
    }

    /// The node, if it is in its parents' group or the one beside it.
    #[inline(always)]
    pub(super) fn find_likely(&self, parent: Parent, pc: u64) -> Option<StackId> {
        let key = self.key(parent, pc)?;
        let spot = self.spot(parent)?;
        spot.group().find_likely(key).or_else(|| spot.beside().group().find_likely(key))
    }

    /// The node, or where it belongs.
    pub(super) fn find(&self, parent: Parent, pc: u64) -> Place<'_> {
        let (Some(key), Some(spot)) = (self.key(parent, pc), self.spot(parent)) else {
            return Place::Elsewhere;
        };
        // Slots are filled in this order, and never become empty again: behind an empty one there is nothing.
        for spot in [spot, spot.other(parent, pc)] {
            for group in [spot.group(), spot.beside().group()] {
                if let Some(place) = group.find(key) {
                    return place;
                }
            }
        }
        Place::Elsewhere
    }

    /// The node, or where it belongs, for good: its region gets a number if there is one, and its parents get their chunk. For one
    /// thread at a time.
    ///
    /// # Errors
    /// If there is no memory for the chunk. The node must not go elsewhere then: there may be memory the next time.
    pub(super) fn make_place(
        &self,
        chunks: &mut Chunks,
        parent: Parent,
        pc: u64,
    ) -> Result<Place<'_>, Errno> {
        self.regions.claim(pc);
        if !parent.is_root() && self.key(parent, pc).is_some() {
            self.make_chunk(chunks, parent)?;
        }
        Ok(self.find(parent, pc))
    }

    fn make_chunk(&self, chunks: &mut Chunks, parent: Parent) -> Result<(), Errno> {
        let chunk = chunk_of(ordinal(parent));
        if chunks.0[chunk].is_none() {
            // PERF: a large chunk is searched all over; huge pages save most of the misses of the address translation.
            let memory = Mapping::of_huge_pages(size_of::<Group>() << chunk >> 1)?;
            self.chunks[chunk].store(memory.start().cast(), Ordering::Release);
            chunks.0[chunk] = Some(memory);
        }
        Ok(())
    }

    /// Forgets all nodes. A thread may still be searching them: it will find nothing.
    pub(super) fn forget(&self, chunks: &mut Chunks) {
        self.leave();
        chunks.0.iter_mut().filter_map(Option::take).for_each(Mapping::release_pages);
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn leave(&self) {
        self.chunks.iter().for_each(|chunk| chunk.store(std::ptr::null_mut(), Ordering::Release));
    }

    #[inline(always)]
    fn key(&self, parent: Parent, pc: u64) -> Option<Key> {
        let region = self.regions.number(pc)?;
        // PERF: one shift leaves the offset alone.
        let (offset, sibling) = (pc << (u64::BITS - OFFSET_BITS), u64::from(parent.0) % BLOCK);
        Some(Key(offset | region << (NODE_BITS + BLOCK_BITS) | sibling << NODE_BITS))
    }

    /// The parents' group, if its chunk is there; those of roots never are.
    #[inline(always)]
    fn spot(&self, parent: Parent) -> Option<Spot<'_>> {
        let ordinal = ordinal(parent);
        let index = chunk_of(ordinal);
        let chunk = NonNull::new(self.chunks[index].load(Ordering::Acquire))?;
        Some(Spot { chunk, at: (ordinal ^ 1 << index) as usize / 2, of: PhantomData })
    }
}

impl Chunks {
    pub(super) const fn new() -> Chunks {
        Chunks([const { None }; 64])
    }
}

impl<'a> Spot<'a> {
    #[inline(always)]
    fn beside(self) -> Spot<'a> {
        Spot { at: self.at ^ 1, ..self }
    }

    #[inline(always)]
    fn group(self) -> &'a Group {
        // SAFETY: chunks are published whole, with a group for every second of their parents, and never unmapped; one that was
        // retired is zeros. All spots that are made of one are in its block, which is in one chunk.
        unsafe { &*self.chunk.as_ptr().add(self.at) }
    }

    /// Where in its block a node is that has no slot in this line.
    fn other(self, parent: Parent, pc: u64) -> Spot<'a> {
        let farther = 2 + hash(parent, pc) as usize % (BLOCK as usize / 2 - 2);
        Spot { at: self.at ^ farther, ..self }
    }
}

impl Group {
    /// The node with this key.
    ///
    /// PERF: which slot it is in cannot be foreseen, so there is no branch for each: only the word of that node differs from its
    /// key in nothing but the number.
    #[inline(always)]
    fn find_likely(&self, Key(key): Key) -> Option<StackId> {
        let [first, second, third, fourth] = self.0.each_ref().map(|slot| slot.load(Ordering::Acquire) ^ key);
        let found = first.min(second).min(third.min(fourth));
        // Should the key be zero, empty slots look like it.
        (EMPTY + 1..NODES).contains(&found).then_some(StackId(found as u32))
    }

    /// The node with this key, or the first empty slot.
    #[inline]
    fn find(&self, key: Key) -> Option<Place<'_>> {
        for slot in &self.0 {
            match slot.load(Ordering::Acquire) {
                EMPTY => return Some(Place::Empty(Empty { slot, key })),
                word if word ^ key.0 < NODES => return Some(Place::Known(StackId((word ^ key.0) as u32))),
                _ => {}
            }
        }
        None
    }
}

impl Empty<'_> {
    pub(super) fn fill(self, id: StackId) {
        self.slot.store(self.key.0 | u64::from(id.0), Ordering::Release);
    }
}

/// A parent's number, counted from so far above zero that its highest bit says which chunk its nodes are in.
#[inline(always)]
fn ordinal(parent: Parent) -> u64 {
    u64::from(parent.0) + (1 << FIRST_BITS)
}

#[inline(always)]
fn chunk_of(ordinal: u64) -> usize {
    ordinal.ilog2() as usize
}

/// Zero pages are empty slots: no node has the number 0.
const EMPTY: u64 = 0;
/// Above the numbers of all nodes.
const NODES: u64 = 1 << NODE_BITS;
/// Parents of a block.
const BLOCK: u64 = 1 << BLOCK_BITS;

pub(super) const NODE_BITS: u32 = 27;
const BLOCK_BITS: u32 = 6;
const _: () = assert!(NODE_BITS + BLOCK_BITS + REGION_BITS + OFFSET_BITS == u64::BITS);
/// Of the number of parents that the first chunk is for. Miri takes a minute for a thousand nodes.
pub(super) const FIRST_BITS: u32 = if cfg!(miri) { 6 } else { 12 };

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(nearby: &Nearby, chunks: &mut Chunks, parent: Parent, pc: u64, id: u32) -> bool {
        match nearby.make_place(chunks, parent, pc).unwrap() {
            Place::Known(_) => panic!("inserted twice"),
            Place::Empty(empty) => empty.fill(StackId(id)),
            Place::Elsewhere => return false,
        }
        true
    }

    #[test]
    fn the_nodes_of_a_deep_stack_are_where_they_are_looked_for_first() {
        let (nearby, mut chunks) = (Nearby::new(), Chunks::new());
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
    fn a_parent_with_many_callees_takes_what_is_near_and_no_more() {
        let (nearby, mut chunks) = (Nearby::new(), Chunks::new());
        let parent = Parent(100);
        let taken: Vec<u64> =
            (1..1000).filter(|&pc| insert(&nearby, &mut chunks, parent, pc, 7 + pc as u32)).collect();
        assert!((8..=4 * BLOCK as usize / 2).contains(&taken.len()), "{}", taken.len());
        for pc in 1..1000 {
            match nearby.find(parent, pc) {
                Place::Known(id) => assert!(taken.contains(&pc) && id == StackId(7 + pc as u32)),
                Place::Elsewhere => assert!(!taken.contains(&pc)),
                Place::Empty(_) => panic!("there was no room for {pc}"),
            }
        }
    }

    #[test]
    fn whoever_still_searches_what_was_forgotten_finds_nothing() {
        let (nearby, mut chunks) = (Nearby::new(), Chunks::new());
        let (parent, pc) = (Parent(9), 0x40_1234);
        assert!(insert(&nearby, &mut chunks, parent, pc, 10));
        let (key, spot) = (nearby.key(parent, pc).unwrap(), nearby.spot(parent).unwrap());
        assert_eq!(spot.group().find_likely(key), Some(StackId(10)));
        nearby.forget(&mut chunks);
        assert_eq!(spot.group().find_likely(key), None);
        assert!(matches!(nearby.find(parent, pc), Place::Elsewhere));
    }

    #[test]
    fn roots_have_no_nodes_here() {
        let (nearby, mut chunks) = (Nearby::new(), Chunks::new());
        for root in [StackId::ROOT, StackId::TRUNCATED].map(|root| Parent::root(root, 5)) {
            assert!(!insert(&nearby, &mut chunks, root, 7, 3));
            assert_eq!(nearby.find_likely(root, 7), None);
        }
    }
}
