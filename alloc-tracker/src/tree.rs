//! Interning: every distinct (caller's node, return address) gets one number, so that a whole stack is one number.
//! In: pairs. Out: [`StackId`]s. An open-addressing table in mapped memory; not synchronised, not allocating.

use alloc_dump::layout::StackId;

use crate::sys::{Errno, Mapping, Plain};

/// The call tree of one recording.
#[derive(Debug)]
pub(crate) struct Tree {
    slots: Option<Mapping>,
    /// Slots in the table, a power of two, or 0 before the first node.
    capacity: usize,
    nodes: usize,
    /// Numbers that were given before the tree was begun anew.
    used_before: usize,
}

/// Why a node has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The tree has [`MAX_NODES`] nodes.
    Bound,
    /// The kernel gives no more memory.
    Memory(Errno),
}

/// Whether a node had a number already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Known(StackId),
    New(StackId),
}

/// At most this many nodes: with the half-empty table that is 4 GiB.
pub(crate) const MAX_NODES: usize = 1 << 27;

impl Tree {
    pub(crate) const fn new() -> Tree {
        Tree { slots: None, capacity: 0, nodes: 0, used_before: 0 }
    }

    /// The number of the node with this caller and return address.
    #[inline]
    pub(crate) fn intern(&mut self, parent: StackId, pc: u64) -> Result<Node, Refused> {
        if self.nodes * 2 >= self.capacity {
            self.grow()?;
        }
        let next = StackId(StackId::FIRST.0 + (self.used_before + self.nodes) as u32);
        let slot = self.find(parent, pc).ok_or(Refused::Bound)?;
        if slot.id != EMPTY {
            return Ok(Node::Known(StackId(slot.id)));
        }
        *slot = Slot { pc, parent: parent.0, id: next.0 };
        self.nodes += 1;
        Ok(Node::New(next))
    }

    /// Forgets every node; numbers go on where they were.
    pub(crate) fn begin_anew(&mut self) {
        *self = Tree { used_before: self.used_before + self.nodes, ..Tree::new() };
    }

    /// The slot that holds the node, or the one where it belongs.
    #[inline]
    fn find(&mut self, parent: StackId, pc: u64) -> Option<&mut Slot> {
        let mask = self.capacity.checked_sub(1)?;
        let mut at = hash(parent, pc) as usize & mask;
        let slots = self.slots.as_mut()?.slice_mut::<Slot>();
        // At least half of the slots are empty, so this ends.
        while let Some(slot) = slots.get(at) {
            if slot.id == EMPTY || (slot.pc == pc && slot.parent == parent.0) {
                break;
            }
            at = (at + 1) & mask;
        }
        slots.get_mut(at)
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Refused> {
        if self.used_before + self.nodes >= MAX_NODES {
            return Err(Refused::Bound);
        }
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 2 };
        let slots = Mapping::anonymous(capacity * size_of::<Slot>()).map_err(Refused::Memory)?;
        let mut larger = Tree { slots: Some(slots), capacity, ..*self };
        for slot in self.slots.iter_mut().flat_map(Mapping::slice_mut::<Slot>) {
            if slot.id != EMPTY
                && let Some(place) = larger.find(StackId(slot.parent), slot.pc)
            {
                *place = *slot;
            }
        }
        *self = larger;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Slot {
    pc: u64,
    parent: u32,
    id: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Slot {}

/// Zero pages are empty tables: no node has the number 0.
const EMPTY: u32 = 0;
const FIRST_CAPACITY: usize = 1 << 12;

/// Mixes both halves well enough for linear probing; the multiplier is 2^64 divided by the golden ratio.
#[inline]
fn hash(parent: StackId, pc: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = (pc ^ u64::from(parent.0).rotate_left(32)).wrapping_mul(GOLDEN);
    (mixed ^ (mixed >> 32)).wrapping_mul(GOLDEN) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_same_pair_is_the_same_number_through_every_growth() {
        let mut tree = Tree::new();
        let mut model = HashMap::new();
        for round in 0..2 {
            for i in 0..50_000u64 {
                let (parent, pc) = (StackId((i % 97) as u32), 0x5555_0000_0000 + i / 3 * 5);
                let expected = model.get(&(parent, pc)).copied();
                match tree.intern(parent, pc).unwrap() {
                    Node::Known(id) => assert_eq!(Some(id), expected),
                    Node::New(id) => {
                        assert_eq!((expected, round), (None, 0));
                        assert_eq!(id.0 as usize, model.len() + StackId::FIRST.0 as usize);
                        model.insert((parent, pc), id);
                    }
                }
            }
        }
    }
}
