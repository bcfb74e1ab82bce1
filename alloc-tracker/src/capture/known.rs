//! What one thread knows of the return addresses that it meets: how to leave the frame, and which nodes it was under which
//! callers lately.
//!
//! PERF: a step needs the one and interning the other, so they share a cache line: whatever a thread does not meet again and
//! again costs one miss for each frame, not one in the table of rules and another one in a table of nodes.

use alloc_dump::layout::StackId;

use crate::sys::{ErrnoGuard, Mapping, Plain};
use crate::tree::Parent;

/// Return addresses by a part of them; each forgets another one that falls onto its place.
#[derive(Debug)]
pub(crate) struct Known {
    memory: Mapping,
    /// Bits of the hash that are of no use.
    shift: u32,
    /// Addresses that were not there, since the table has its size.
    misses: usize,
    /// What rules and nodes belong to.
    epoch: u64,
}

/// PERF: a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Address {
    /// 0 for none.
    pc: u64,
    /// The packed rule by which a call is left that returns there; 0 if it is not known.
    rule: u64,
    found: [Found; FOUND],
}

/// Where in the table a return address belongs, until the table becomes larger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(pub(super) u32);

/// A node with this return address.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Found {
    parent: u32,
    /// 0 for none.
    node: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Address {}

impl Known {
    pub(super) const fn new() -> Known {
        Known { memory: Mapping::empty(), shift: u64::BITS - FIRST_BITS, misses: 0, epoch: 0 }
    }

    /// Forgets everything that is not of this epoch.
    #[inline(always)]
    pub(super) fn hold_for(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.forget(epoch);
        }
    }

    /// The packed rule of a return address, from `find` if it is not remembered, and where it is; 0 is not remembered.
    #[inline(always)]
    pub(super) fn rule(&mut self, pc: u64, find: impl FnOnce(u64) -> u64) -> (u64, Place) {
        let place = self.place(pc);
        match self.at(place) {
            Some(address) if address.pc == pc && address.rule != 0 => (address.rule, place),
            _ => (self.find_rule(pc, find), place),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_rule(&mut self, pc: u64, find: impl FnOnce(u64) -> u64) -> u64 {
        let rule = find(pc);
        if let Some(address) = self.occupy(pc) {
            address.rule = rule;
        }
        rule
    }

    /// The node of a frame with this return address, which is at `place` if it is known, from `find` if it is not remembered.
    #[inline(always)]
    pub(super) fn node<E>(
        &mut self,
        place: Place,
        parent: Parent,
        pc: u64,
        find: impl FnOnce() -> Result<StackId, E>,
    ) -> Result<StackId, E> {
        let which = place_of_node(parent);
        match self.at(place) {
            Some(&mut Address { pc: known, ref found, .. })
                if known == pc && found[which].parent == parent.number() && found[which].node != 0 =>
            {
                Ok(StackId(found[which].node))
            }
            _ => self.find_node(parent, pc, find),
        }
    }

    #[inline(never)]
    fn find_node<E>(
        &mut self,
        parent: Parent,
        pc: u64,
        find: impl FnOnce() -> Result<StackId, E>,
    ) -> Result<StackId, E> {
        let node = find()?;
        if let Some(address) = self.occupy(pc) {
            address.found[place_of_node(parent)] = Found { parent: parent.number(), node: node.0 };
        }
        Ok(node)
    }

    #[inline(always)]
    fn place(&self, pc: u64) -> Place {
        Place((hash(pc) >> self.shift) as u32)
    }

    #[inline(always)]
    fn at(&mut self, place: Place) -> Option<&mut Address> {
        self.memory.slice_mut::<Address>().get_mut(place.0 as usize)
    }

    /// The place of this address, which is the address's from now on. `None` without memory: everything is then looked
    /// for whenever it is needed.
    fn occupy(&mut self, pc: u64) -> Option<&mut Address> {
        let mut place = self.place(pc);
        if self.at(place).is_none_or(|address| address.pc != pc) {
            self.misses += 1;
            if self.misses > self.memory.slice::<Address>().len() / 2 {
                self.grow();
                place = self.place(pc);
            }
            *self.at(place)? = Address { pc, rule: 0, found: [Found::default(); FOUND] };
        }
        self.at(place)
    }

    /// A table for the few addresses of a short thread is a page, and becomes larger while there are many more.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.misses = 0;
        let _errno = ErrnoGuard::new();
        let shift = if self.memory.is_empty() { self.shift } else { self.shift - GROWTH_BITS };
        if u64::BITS - shift > MOST_BITS {
            return;
        }
        let Ok(memory) = Mapping::anonymous(size_of::<Address>() << (u64::BITS - shift)) else { return };
        let old = std::mem::replace(&mut self.memory, memory);
        self.shift = shift;
        for address in old.slice::<Address>().iter().filter(|address| address.pc != 0) {
            if let Some(place) = self.at(self.place(address.pc)) {
                *place = *address;
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn forget(&mut self, epoch: u64) {
        let _errno = ErrnoGuard::new();
        *self = Known { epoch, ..Known::new() };
    }
}

/// Nodes of an address that are remembered.
const FOUND: usize = 6;
const FIRST_BITS: u32 = 6;
const GROWTH_BITS: u32 = 2;
/// PERF: half a mebibyte, of which a thread touches a line for each address that it meets.
const MOST_BITS: u32 = 13;

/// The multiplier is 2^64 divided by the golden ratio.
#[inline(always)]
fn hash(pc: u64) -> u64 {
    pc.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[inline(always)]
fn place_of_node(parent: Parent) -> usize {
    let mixed = parent.number().wrapping_mul(0x9E37_79B9) >> 16;
    (mixed as usize * FOUND) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_was_found() {
        let mut known = Known::new();
        known.hold_for(1);
        let mut looked_for = 0;
        for round in 0..3 {
            for i in 1..20_000u64 {
                let parent = Parent::node(StackId(3 + (i % 7) as u32));
                let node = StackId(10 + i as u32);
                assert_eq!(node_of(&mut known, parent, i, Ok(node)), Ok(node), "round {round}");
                assert_eq!(known.rule(i, |pc| pc * 3).0, i * 3, "round {round}");
            }
            for again in [false, true] {
                for i in 1..100u64 {
                    known.rule(i, |pc| {
                        looked_for += usize::from(again);
                        pc * 3
                    });
                }
            }
        }
        assert!(looked_for < 30, "{looked_for} of 300 were forgotten at once");
    }

    #[test]
    fn an_address_has_several_nodes() {
        let mut known = Known::new();
        known.hold_for(1);
        let mut looked_for = 0;
        for round in 0..10 {
            for parent in 3..6 {
                let place = known.place(77);
                let node = known.node(place, Parent::node(StackId(parent)), 77, || {
                    looked_for += 1;
                    Ok::<_, ()>(StackId(parent * 10))
                });
                assert_eq!(node, Ok(StackId(parent * 10)), "round {round}");
            }
        }
        assert!(looked_for < 30, "none was remembered");
    }

    #[test]
    fn nothing_outlives_its_epoch() {
        let mut known = Known::new();
        known.hold_for(1);
        let parent = Parent::node(StackId(3));
        assert_eq!(known.rule(5, |_| 8).0, 8);
        assert_eq!(node_of(&mut known, parent, 5, Ok(StackId(9))), Ok(StackId(9)));
        known.hold_for(1);
        assert_eq!(known.rule(5, |_| 9).0, 8);
        known.hold_for(2);
        assert_eq!(known.rule(5, |_| 0).0, 0);
        assert_eq!(known.rule(5, |_| 9).0, 9, "what is not known is asked for again");
        assert_eq!(node_of(&mut known, parent, 5, Err(())), Err(()));
    }

    fn node_of(
        known: &mut Known,
        parent: Parent,
        pc: u64,
        found: Result<StackId, ()>,
    ) -> Result<StackId, ()> {
        let place = known.place(pc);
        known.node(place, parent, pc, || found)
    }
}
