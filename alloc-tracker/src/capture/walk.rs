//! The buffers of one thread's stack walks: the one before, and the new one.

use alloc_dump::layout::StackId;

use crate::sys::Mapping;

/// The last walk of a thread, outermost frame first, with the call-tree node of each frame.
///
/// One mapping holds three arrays of equal capacity: the new walk as it comes (innermost first), and the return
/// addresses and nodes of the walk that was recorded last. It grows when a stack is deeper than any before.
#[derive(Debug)]
pub(crate) struct Walk {
    memory: Option<Mapping>,
    capacity: usize,
    /// Frames of the new walk.
    fresh: usize,
    /// Frames of the recorded walk.
    known: usize,
    /// Leading frames of the recorded walk that the new one shares.
    shared: usize,
    /// What the recorded walk hangs under.
    root: StackId,
}

impl Walk {
    pub(crate) const fn new() -> Walk {
        Walk { memory: None, capacity: 0, fresh: 0, known: 0, shared: 0, root: StackId::ROOT }
    }

    /// Starts a new walk.
    pub(super) fn begin(&mut self) {
        self.fresh = 0;
    }

    /// Adds the next frame outwards; false if there is no room and none to be had.
    #[inline]
    pub(super) fn push(&mut self, pc: u64) -> bool {
        if self.fresh == self.capacity && !self.grow() {
            return false;
        }
        let at = self.fresh;
        if let Some(slot) = self.fresh_mut().get_mut(at) {
            *slot = pc;
            self.fresh += 1;
        }
        true
    }

    /// Compares the new walk with the recorded one, from the outermost frame inwards.
    pub(super) fn finish(&mut self) {
        let (fresh, limit) = (self.fresh, self.known.min(self.fresh));
        let [new, pcs, _] = self.arrays();
        let mut shared = 0;
        while shared < limit && pcs.get(shared) == new.get(fresh - 1 - shared) {
            shared += 1;
        }
        self.shared = shared;
    }

    /// Gives every frame of the new walk a node: the shared ones keep theirs, `intern` finds the others' from the
    /// parent's node and the return address. The new walk becomes the recorded one. Returns the innermost frame's
    /// node, or `root` for an empty walk; `None`, and forgets the walk, if `intern` does not know what to do.
    pub(crate) fn resolve(
        &mut self,
        root: StackId,
        mut intern: impl FnMut(StackId, u64) -> Option<StackId>,
    ) -> Option<StackId> {
        let shared = if root == self.root { self.shared } else { 0 };
        let fresh = self.fresh;
        (self.known, self.root) = (0, root);
        let [new, pcs, nodes] = self.arrays();
        let mut parent = match shared.checked_sub(1).and_then(|last| nodes.get(last)) {
            Some(node) => StackId(*node as u32),
            None => root,
        };
        for depth in shared..fresh {
            let pc = *new.get(fresh - 1 - depth)?;
            parent = intern(parent, pc)?;
            *pcs.get_mut(depth)? = pc;
            *nodes.get_mut(depth)? = u64::from(parent.0);
        }
        self.known = fresh;
        Some(parent)
    }

    /// Forgets the recorded walk: its nodes belong to another recording, or to another root.
    pub(crate) fn forget(&mut self) {
        self.known = 0;
        self.shared = 0;
    }

    #[inline]
    fn fresh_mut(&mut self) -> &mut [u64] {
        let [new, _, _] = self.arrays();
        new
    }

    #[inline]
    fn arrays(&mut self) -> [&mut [u64]; 3] {
        let capacity = self.capacity;
        let all = self.memory.as_mut().map_or(&mut [][..], Mapping::slice_mut::<u64>);
        let Some((new, rest)) = all.split_at_mut_checked(capacity) else {
            return [&mut [], &mut [], &mut []];
        };
        let Some((pcs, nodes)) = rest.split_at_mut_checked(capacity) else {
            return [&mut [], &mut [], &mut []];
        };
        [new, pcs, nodes]
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 2 };
        if capacity > MAX_FRAMES {
            return false;
        }
        let Ok(memory) = Mapping::anonymous(3 * capacity * size_of::<u64>()) else { return false };
        let Walk { fresh, known, shared, root, .. } = *self;
        let mut larger = Walk { memory: Some(memory), capacity, fresh, known, shared, root };
        for (to, from) in larger.arrays().into_iter().zip(self.arrays()) {
            if let Some(to) = to.get_mut(..from.len()) {
                to.copy_from_slice(from);
            }
        }
        *self = larger;
        true
    }
}

/// 24 KiB of address space a thread, of which only the pages that stacks really reach are ever touched.
const FIRST_CAPACITY: usize = 1024;
/// A deeper stack is cut at its outer end and counted as truncated.
const MAX_FRAMES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(walk: &mut Walk, inner_to_outer: &[u64], tree: &mut Vec<(StackId, u64)>) -> (StackId, usize) {
        walk.begin();
        for pc in inner_to_outer {
            assert!(walk.push(*pc));
        }
        walk.finish();
        let mut interned = 0;
        let node = walk.resolve(StackId::ROOT, |parent, pc| {
            interned += 1;
            let known = tree.iter().position(|node| *node == (parent, pc));
            let index = known.unwrap_or_else(|| {
                tree.push((parent, pc));
                tree.len() - 1
            });
            Some(StackId(index as u32 + 10))
        });
        (node.unwrap(), interned)
    }

    #[test]
    fn only_frames_that_changed_are_interned() {
        let (mut walk, mut tree) = (Walk::new(), Vec::new());
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 0));
        assert_eq!(record(&mut walk, &[9, 2, 1], &mut tree), (StackId(13), 1));
        assert_eq!(record(&mut walk, &[2, 1], &mut tree), (StackId(11), 0));
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 1));
        assert_eq!(record(&mut walk, &[], &mut tree), (StackId::ROOT, 0));
        walk.forget();
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
    }

    #[test]
    fn deep_stacks_grow_the_buffers_and_keep_the_walk_before() {
        let (mut walk, mut tree) = (Walk::new(), Vec::new());
        let deep: Vec<u64> = (1..=5000).rev().collect();
        assert_eq!(record(&mut walk, &[1], &mut tree).1, 1);
        assert_eq!(record(&mut walk, &deep, &mut tree), (StackId(10 + 4999), 4999));
        assert_eq!(record(&mut walk, &deep, &mut tree).1, 0);
    }

    #[test]
    fn there_is_a_bound_and_it_is_said() {
        let mut walk = Walk::new();
        walk.begin();
        let pushed = (0..).take_while(|pc| walk.push(*pc)).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
