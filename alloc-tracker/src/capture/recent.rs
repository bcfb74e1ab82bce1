//! Nodes that one thread has found lately, so that it need not search the whole tree for them. PERF: the tree of a large
//! program does not fit into the processor's caches, the nodes that one thread meets again and again do.

use alloc_dump::layout::StackId;

use crate::sys::{Mapping, Plain};
use crate::tree::Parent;

/// The nodes found last, by their parents and return addresses; each forgets another one that falls onto its place.
#[derive(Debug)]
pub(crate) struct Recent {
    memory: Mapping,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Found {
    pc: u64,
    parent: u32,
    /// 0 for none.
    node: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Found {}

impl Recent {
    pub(crate) const fn new() -> Recent {
        Recent { memory: Mapping::empty() }
    }

    /// Forgets everything: the numbers belong to another recording.
    pub(crate) fn clear(&mut self) {
        if self.memory.is_empty() {
            // Without memory for it everything is searched for.
            self.memory = Mapping::anonymous(PLACES * size_of::<Found>()).unwrap_or(Mapping::empty());
        } else {
            self.memory.bytes_mut().fill(0);
        }
    }

    /// The node, if it is remembered, else what `find` says.
    #[inline]
    pub(crate) fn node(
        &mut self,
        parent: Parent,
        pc: u64,
        find: impl FnOnce() -> Option<StackId>,
    ) -> Option<StackId> {
        let Some(place) = self.memory.slice_mut::<Found>().get_mut(place(parent, pc)) else { return find() };
        if place.pc == pc && place.parent == parent.number() && place.node != 0 {
            return Some(StackId(place.node));
        }
        let node = find()?;
        *place = Found { pc, parent: parent.number(), node: node.0 };
        Some(node)
    }
}

/// PERF: 64 KiB, in the second-level cache.
const PLACES: usize = 1 << 12;

#[inline]
fn place(parent: Parent, pc: u64) -> usize {
    let mixed = (pc ^ u64::from(parent.number()) << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 52) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_same_pair_is_found() {
        let mut recent = Recent::new();
        recent.clear();
        for round in 0..3 {
            for i in 0..20_000u64 {
                let parent = Parent::node(StackId(3 + (i % 7) as u32));
                let node = StackId(10 + i as u32);
                let found = recent.node(parent, i, || Some(node));
                assert_eq!(found, Some(node), "round {round}");
            }
        }
        recent.clear();
        assert_eq!(recent.node(Parent::node(StackId(3)), 0, || None), None);
    }
}
