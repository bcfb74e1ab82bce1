//! The buffers of one thread's stack walks: the one that was recorded last, and the new one.

use alloc_dump::layout::StackId;

use super::stack::{Bounds, StackRanges};
use crate::sys::{Mapping, Plain};

/// A frame of a walk: where it returns to, the state that the unwinder was in, and what it read to leave it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Frame {
    /// Return address.
    pub(super) pc: u64,
    /// Stack pointer; 0 for a frame whose state is not known.
    pub(super) sp: u64,
    /// The frame pointer of its function: its value, or the address of the slot that it was saved in.
    fp: u64,
    /// What was read from that slot.
    fp_word: u64,
    /// Node in the call tree, once it is recorded.
    node: u32,
    flags: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Frame {}

const FP_IN_SLOT: u32 = 1;
const FP_WAS_READ: u32 = 2;

impl Frame {
    /// A frame that another unwinder has found.
    pub(super) const fn without_state(pc: u64) -> Frame {
        Frame { pc, sp: 0, fp: 0, fp_word: 0, node: 0, flags: 0 }
    }

    /// A frame whose function's frame pointer is still in its register.
    pub(super) const fn in_register(pc: u64, sp: u64, fp: u64) -> Frame {
        Frame { sp, fp, ..Frame::without_state(pc) }
    }

    /// A frame whose function's frame pointer was saved at this address.
    #[inline]
    pub(super) const fn in_slot(pc: u64, sp: u64, slot: u64) -> Frame {
        Frame { sp, fp: slot, flags: FP_IN_SLOT, ..Frame::without_state(pc) }
    }

    /// The caller's frame, if this one's function leaves the frame pointer alone.
    #[inline]
    pub(super) const fn caller_with_same_fp(&self, pc: u64, sp: u64) -> Frame {
        Frame { sp, fp: self.fp, flags: self.flags & FP_IN_SLOT, ..Frame::without_state(pc) }
    }

    /// The frame as it was before anything was read to leave it.
    #[inline]
    pub(super) const fn state(&self) -> Frame {
        Frame { fp_word: 0, node: 0, flags: self.flags & FP_IN_SLOT, ..*self }
    }

    /// The slot of the frame pointer, if it is in one.
    #[inline]
    pub(super) fn fp_slot(&self) -> Option<u64> {
        (self.flags & FP_IN_SLOT != 0).then_some(self.fp)
    }

    /// The slot of the frame pointer and what it held, if that mattered.
    #[inline]
    pub(super) fn fp_that_was_read(&self) -> Option<(u64, u64)> {
        (self.flags & FP_WAS_READ != 0).then_some((self.fp, self.fp_word))
    }

    /// Notes what the slot held.
    #[inline]
    pub(super) fn read_fp(&mut self, word: u64) {
        self.fp_word = word;
        self.flags |= FP_WAS_READ;
    }

    /// The value of the frame pointer; read before if it is in a slot.
    #[inline]
    pub(super) fn fp_value(&self) -> u64 {
        if self.flags & FP_IN_SLOT != 0 { self.fp_word } else { self.fp }
    }

    #[inline]
    pub(super) fn is_in_state_of(&self, other: &Frame) -> bool {
        (self.pc, self.sp, self.fp) == (other.pc, other.sp, other.fp)
            && (self.flags ^ other.flags) & FP_IN_SLOT == 0
    }
}

/// The last walk of a thread, outermost frame first, and the new frames of the next one.
///
/// One mapping holds two arrays of equal capacity: the new frames as they come (innermost first), and the frames of
/// the walk that was recorded last. It grows when a stack is deeper than any before.
#[derive(Debug)]
pub(crate) struct Walk {
    memory: Option<Mapping>,
    capacity: usize,
    /// New frames.
    fresh: usize,
    /// Frames of the recorded walk.
    known: usize,
    /// Leading frames of the recorded walk that the new one shares.
    shared: usize,
    /// What the recorded walk hangs under.
    root: StackId,
    /// Whether the nodes of the recorded walk are those of the current tree.
    nodes_hold: bool,
    stacks: StackRanges,
}

impl Walk {
    pub(crate) const fn new() -> Walk {
        Walk {
            memory: None,
            capacity: 0,
            fresh: 0,
            known: 0,
            shared: 0,
            root: StackId::ROOT,
            nodes_hold: true,
            stacks: StackRanges::new(),
        }
    }

    /// Starts a new walk.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.fresh = 0;
        self.shared = 0;
    }

    /// Adds the next frame outwards; false if there is no room and none to be had.
    #[inline]
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        if self.fresh == self.capacity && !self.grow() {
            return false;
        }
        let at = self.fresh;
        let [fresh, _] = self.arrays();
        if let Some(slot) = fresh.get_mut(at) {
            *slot = frame;
            self.fresh += 1;
        }
        true
    }

    /// The stack that this address lies in, from there to its end.
    #[inline]
    pub(super) fn stack_above(&mut self, sp: u64) -> Option<Bounds> {
        self.stacks.above(sp)
    }

    /// The recorded walk, outermost frame first, as far as a new one can share it.
    #[inline]
    pub(super) fn recorded(&mut self) -> &[Frame] {
        let known = if self.root == StackId::ROOT { self.known } else { 0 };
        let [_, frames] = self.arrays();
        frames.get(..known).unwrap_or_default()
    }

    /// The new walk goes on as the recorded one does in its first `frames` frames.
    #[inline]
    pub(super) fn share(&mut self, frames: usize) {
        self.shared = frames;
    }

    /// Takes the new frames for a whole walk, and finds out what it shares with the recorded one by its return
    /// addresses, from the outermost frame inwards.
    pub(super) fn share_by_addresses(&mut self) {
        let (count, limit) = (self.fresh, self.known.min(self.fresh));
        let [fresh, known] = self.arrays();
        let same = |at: &usize| match (known.get(*at), fresh.get(count - 1 - at)) {
            (Some(known), Some(fresh)) => known.pc == fresh.pc,
            _ => false,
        };
        self.shared = (0..limit).take_while(same).count();
        self.fresh = count - self.shared;
    }

    /// Gives every frame of the new walk a node: the shared ones keep theirs, `intern` finds the others' from the
    /// parent's node and the return address. The new walk becomes the recorded one. Returns the innermost frame's
    /// node, or `root` for an empty walk; `None`, and forgets the walk, if `intern` does not know what to do.
    pub(crate) fn resolve(
        &mut self,
        root: StackId,
        mut intern: impl FnMut(StackId, u64) -> Option<StackId>,
    ) -> Option<StackId> {
        let (fresh, shared) = (self.fresh, self.shared);
        let nodes_hold = self.nodes_hold && root == self.root;
        self.known = 0;
        self.root = root;
        if self.capacity < shared + fresh && !self.grow() {
            return None;
        }
        let [new, frames] = self.arrays();
        let mut parent = root;
        let keep = if nodes_hold { shared } else { 0 };
        if let Some(last) = keep.checked_sub(1) {
            parent = StackId(frames.get(last)?.node);
        }
        // Under another root, or in another tree, the shared frames have other nodes.
        for frame in frames.get_mut(keep..shared)? {
            parent = intern(parent, frame.pc)?;
            frame.node = parent.0;
        }
        for (slot, frame) in
            frames.get_mut(shared..shared + fresh)?.iter_mut().zip(new.get(..fresh)?.iter().rev())
        {
            parent = intern(parent, frame.pc)?;
            *slot = Frame { node: parent.0, ..*frame };
        }
        (self.known, self.nodes_hold) = (shared + fresh, true);
        Some(parent)
    }

    /// Forgets the nodes of the recorded walk, which belong to another tree. Its frames stay: the new walk may already
    /// be sharing some.
    pub(crate) fn forget_nodes(&mut self) {
        self.nodes_hold = false;
    }

    /// The return addresses of the new walk, innermost first: for comparing two ways to walk.
    pub(super) fn addresses(&mut self) -> impl Iterator<Item = u64> {
        let (count, shared) = (self.fresh, self.shared);
        let [fresh, known] = self.arrays();
        let outer = known.get(..shared).unwrap_or_default().iter().rev();
        fresh.get(..count).unwrap_or_default().iter().chain(outer).map(|frame| frame.pc)
    }

    #[inline]
    fn arrays(&mut self) -> [&mut [Frame]; 2] {
        let capacity = self.capacity;
        let all = self.memory.as_mut().map_or(&mut [][..], Mapping::slice_mut::<Frame>);
        match all.split_at_mut_checked(capacity) {
            Some((fresh, rest)) => [fresh, rest.get_mut(..capacity).unwrap_or_default()],
            None => [&mut [], &mut []],
        }
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let capacity = if self.capacity == 0 { FIRST_CAPACITY } else { self.capacity * 2 };
        if capacity > MAX_FRAMES {
            return false;
        }
        let Ok(memory) = Mapping::anonymous(2 * capacity * size_of::<Frame>()) else { return false };
        let old = self.memory.replace(memory);
        let (old_capacity, mut old) = (std::mem::replace(&mut self.capacity, capacity), old);
        if let Some((fresh, known)) =
            old.as_mut().and_then(|old| old.slice_mut::<Frame>().split_at_mut_checked(old_capacity))
        {
            for (to, from) in self.arrays().into_iter().zip([fresh, known]) {
                let len = from.len().min(old_capacity);
                if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
                    to.copy_from_slice(from);
                }
            }
        }
        true
    }
}

/// 40 KiB of address space a thread, of which only the pages that stacks really reach are ever touched.
const FIRST_CAPACITY: usize = 512;
/// A deeper stack is cut at its outer end and counted as truncated.
const MAX_FRAMES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(walk: &mut Walk, inner_to_outer: &[u64], tree: &mut Vec<(StackId, u64)>) -> (StackId, usize) {
        walk.begin();
        for pc in inner_to_outer {
            assert!(walk.push(Frame::without_state(*pc)));
        }
        walk.share_by_addresses();
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
        walk.forget_nodes();
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walk, mut tree) = (Walk::new(), Vec::new());
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
        walk.begin();
        [3, 2, 1].into_iter().for_each(|pc| assert!(walk.push(Frame::without_state(pc))));
        walk.share_by_addresses();
        let mut parents = Vec::new();
        walk.resolve(StackId::TRUNCATED, |parent, pc| {
            parents.push((parent, pc));
            Some(StackId(pc as u32 + 100))
        });
        let expected = [(StackId::TRUNCATED, 1), (StackId(101), 2), (StackId(102), 3)];
        assert_eq!(parents, expected);
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
        let pushed = (0..).take_while(|pc| walk.push(Frame::without_state(*pc))).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
