//! Nodes near their parents: where one is looked for follows from its parent's number. In: the caller's node and a return address.
//! Out: the node's number, if it has found a place here. Whoever looks takes no lock; never allocates.
//!
//! Every second parent's number has a group of four places, for the nodes of both, and 64 parents have a block. A node is in one of
//! a few groups of its block, the first one its parents' own; which parent of the block it has is written beside it, so a
//! node is one word: that, its number, and its return address as an offset into a region. There are sixteen of these, of
//! 128 MiB, which the program's code is in. A node without such an offset, without a free place, or of a root is for the other table.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use super::{Parent, hash};
use crate::sys::{Errno, Mapping};

/// The nodes that are near their parents.
///
/// Their memory grows by chunks, each as large as all before it, and nothing in it ever moves.
#[derive(Debug)]
pub(super) struct Nearby {
    /// By the highest bit of a parent's place; null where there is none.
    chunks: [AtomicPtr<Group>; 64],
    /// The number of the region of addresses that is known by this index, one more than it is; 0 for none yet. Once it has one, it keeps it.
    regions: [AtomicU64; 1 << REGION_BITS],
}

/// The memory of the chunks, by the same index.
#[derive(Debug)]
pub(super) struct Chunks([Option<Mapping>; 64]);

/// Four places. PERF: half a cache line; the other half is looked at next.
#[derive(Debug)]
#[repr(C, align(32))]
struct Group([AtomicU64; 4]);

/// Where a node belongs.
pub(super) enum Place<'a> {
    Known(StackId),
    Empty(Empty<'a>),
    /// Not in here.
    Elsewhere,
}

/// A place without a node.
pub(super) struct Empty<'a> {
    slot: &'a AtomicU64,
    key: Key,
}

/// What a node is found by: which parent of its block calls it, and the return address.
#[derive(Clone, Copy)]
struct Key(u64);

/// A group's place in its chunk.
#[derive(Clone, Copy)]
struct Spot<'a> {
    chunk: NonNull<Group>,
    at: usize,
    of: PhantomData<&'a Group>,
}

impl Nearby {
    pub(super) const fn new() -> Nearby {
        Nearby {
            chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; 64],
            regions: [const { AtomicU64::new(0) }; 1 << REGION_BITS],
        }
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
        // Places are filled in this order, and never become empty again: behind an empty one there is nothing.
        for spot in [spot, spot.other(parent, pc)] {
            for group in [spot.group(), spot.beside().group()] {
                if let Some(place) = group.find(key) {
                    return place;
                }
            }
        }
        Place::Elsewhere
    }

    /// The same, once there is a place if there can be one. For one thread at a time.
    pub(super) fn make_place(
        &self,
        chunks: &mut Chunks,
        parent: Parent,
        pc: u64,
    ) -> Result<Place<'_>, Errno> {
        // Taken by the first one that asks for it.
        let _ = self.region(pc).compare_exchange(0, base(pc) + 1, Ordering::Relaxed, Ordering::Relaxed);
        if !parent.is_root() {
            self.make_chunk(chunks, parent)?;
        }
        Ok(self.find(parent, pc))
    }

    fn make_chunk(&self, chunks: &mut Chunks, parent: Parent) -> Result<(), Errno> {
        let index = index_of(place_of(parent));
        if chunks.0[index].is_none() {
            // PERF: a large chunk is searched all over; huge pages save most of the misses of the address translation.
            let memory = Mapping::of_huge_pages(size_of::<Group>() << index >> 1)?;
            self.chunks[index].store(memory.start().cast(), Ordering::Release);
            chunks.0[index] = Some(memory);
        }
        Ok(())
    }

    /// Forgets all nodes. A thread may still be searching them: it will find nothing.
    pub(super) fn forget(&self, chunks: &mut Chunks) {
        self.leave();
        chunks.0.iter_mut().filter_map(Option::take).for_each(Mapping::retire);
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn leave(&self) {
        self.chunks.iter().for_each(|chunk| chunk.store(std::ptr::null_mut(), Ordering::Release));
    }

    #[inline(always)]
    fn key(&self, parent: Parent, pc: u64) -> Option<Key> {
        let index = region_index(pc);
        if self.region(pc).load(Ordering::Relaxed) != base(pc) + 1 {
            return None;
        }
        // PERF: one shift leaves the offset alone.
        let (offset, sibling) = (pc << (u64::BITS - OFFSET_BITS), u64::from(parent.0) % BLOCK);
        Some(Key(offset | (index as u64) << (NODE_BITS + BLOCK_BITS) | sibling << NODE_BITS))
    }

    #[inline(always)]
    fn region(&self, pc: u64) -> &AtomicU64 {
        &self.regions[region_index(pc)]
    }

    /// The parents' group, if its chunk is there; those of roots never are.
    #[inline(always)]
    fn spot(&self, parent: Parent) -> Option<Spot<'_>> {
        let place = place_of(parent);
        let index = index_of(place);
        let chunk = NonNull::new(self.chunks[index].load(Ordering::Acquire))?;
        Some(Spot { chunk, at: (place ^ 1 << index) as usize / 2, of: PhantomData })
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
        // SAFETY: chunks are published whole, with a group for every second place, and never unmapped; one that was retired is
        // zeros. All spots that are made of one are in its block, which is in one chunk.
        unsafe { &*self.chunk.as_ptr().add(self.at) }
    }

    /// Where in its block a node is that has no place in these two.
    fn other(self, parent: Parent, pc: u64) -> Spot<'a> {
        let farther = 2 + hash(parent, pc) as usize % (BLOCK as usize / 2 - 2);
        Spot { at: self.at ^ farther, ..self }
    }
}

impl Group {
    /// The node with this key.
    ///
    /// PERF: which place it is in cannot be foreseen, so there is no branch for each: only the word of that node differs from its
    /// key in nothing but the number.
    #[inline(always)]
    fn find_likely(&self, Key(key): Key) -> Option<StackId> {
        let [first, second, third, fourth] = self.0.each_ref().map(|slot| slot.load(Ordering::Acquire) ^ key);
        let found = first.min(second).min(third.min(fourth));
        // Should the key be zero, empty places look like it.
        (EMPTY + 1..NODES).contains(&found).then_some(StackId(found as u32))
    }

    /// The node with this key, or the first empty place.
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

/// Where the parents' groups begin to be counted: so that there is a highest bit.
#[inline(always)]
fn place_of(parent: Parent) -> u64 {
    u64::from(parent.0) + (1 << FIRST_BITS)
}

#[inline(always)]
fn index_of(place: u64) -> usize {
    place.ilog2() as usize
}

/// The region that an address is in.
#[inline(always)]
fn base(pc: u64) -> u64 {
    pc >> OFFSET_BITS
}

/// By which index a region is known: always by the same one, so two of them may not have one both.
#[inline(always)]
fn region_index(pc: u64) -> usize {
    ((base(pc) as u32).wrapping_mul(0x9E37_79B1) >> (u32::BITS - REGION_BITS)) as usize
}

/// Zero pages are empty places: no node has the number 0.
const EMPTY: u64 = 0;
/// Above the numbers of all nodes.
const NODES: u64 = 1 << NODE_BITS;
/// Parents of a block.
const BLOCK: u64 = 1 << BLOCK_BITS;

pub(super) const NODE_BITS: u32 = 27;
const BLOCK_BITS: u32 = 6;
const REGION_BITS: u32 = 4;
const OFFSET_BITS: u32 = u64::BITS - REGION_BITS - BLOCK_BITS - NODE_BITS;
/// Of the parents that the first chunk has room for. Miri takes a minute for a thousand nodes.
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
            assert!(insert(&nearby, &mut chunks, Parent(node), 0x5555_0000_0000, node + 1));
        }
        assert!((3..deep).all(|node| {
            nearby.find_likely(Parent(node), 0x5555_0000_0000) == Some(StackId(node + 1))
                && nearby.find_likely(Parent(node), 0x5555_0000_0001).is_none()
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
