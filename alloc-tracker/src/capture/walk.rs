//! The walks that a thread remembers, one for each stack that it runs on, and the new one in the making.

use alloc_dump::layout::StackId;

use super::frame::Frame;
use super::plain_address;
use super::stack::{Bounds, STACKS, StackRanges};
use crate::sys::{ErrnoGuard, Mapping, Plain};

/// The walks of one thread.
#[derive(Debug)]
pub(crate) struct Walks {
    walks: [Walk; STACKS],
    stacks: StackRanges,
    /// Which of them the new walk is compared with.
    current: usize,
}

/// A word that was read, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Word {
    pub(super) address: u64,
    pub(super) value: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Word {}

impl Walks {
    pub(crate) const fn new() -> Walks {
        Walks { walks: [const { Walk::new() }; STACKS], stacks: StackRanges::new(), current: 0 }
    }

    /// Chooses the walk that belongs to the stack with this address: the walk, and the stack from there to its end.
    #[inline]
    pub(super) fn on_stack(&mut self, sp: u64) -> Option<(&mut Walk, &mut StackRanges, Bounds)> {
        let (bounds, which) = self.stacks.above(sp)?;
        self.current = which;
        Some((&mut self.walks[which], &mut self.stacks, bounds))
    }

    pub(super) fn current(&mut self) -> &mut Walk {
        &mut self.walks[self.current]
    }

    /// Gives every frame of the new walk a node: the shared ones keep theirs, `intern` finds the others' from the
    /// parent's node and the return address. The new walk becomes the recorded one. Returns the innermost frame's
    /// node, or `root` for an empty walk; `None`, and forgets the walk, if `intern` does not know what to do. Nodes are
    /// kept only within one `epoch`.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        root: StackId,
        epoch: u64,
        intern: impl FnMut(StackId, u64) -> Option<StackId>,
    ) -> Option<StackId> {
        self.current().resolve(root, epoch, intern)
    }
}

/// The last walk on one stack, outermost frame first, and the new frames of the next one, innermost first; of both the
/// words that were read.
#[derive(Debug)]
pub(crate) struct Walk {
    frames: Array<Frame>,
    words: Array<Word>,
    fresh_frames: Array<Frame>,
    fresh_words: Array<Word>,
    /// Leading frames of the recorded walk that the new one shares.
    shared: usize,
    /// What the recorded walk hangs under.
    root: StackId,
    /// What the nodes of the recorded walk belong to.
    epoch: u64,
}

impl Walk {
    pub(crate) const fn new() -> Walk {
        Walk {
            frames: Array::new(),
            words: Array::new(),
            fresh_frames: Array::new(),
            fresh_words: Array::new(),
            shared: 0,
            root: StackId::ROOT,
            epoch: 0,
        }
    }

    /// Starts a new walk.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.fresh_frames.len = 0;
        self.fresh_words.len = 0;
        self.shared = 0;
    }

    /// Notes a word that was read to leave the frame that is pushed next; false if there is no memory.
    #[inline(always)]
    pub(super) fn note(&mut self, word: Word) -> bool {
        self.fresh_words.push(word)
    }

    /// Adds the next frame outwards; false if there is no room and none to be had.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        self.fresh_frames.len < MAX_FRAMES && self.fresh_frames.push(frame.with_words(self.fresh_words.len))
    }

    /// Adds a recorded frame again, with its words.
    pub(super) fn push_recorded(&mut self, at: usize) -> bool {
        let Some(frame) = self.frames.get(at).copied() else { return false };
        for word in (self.words_before(at)..frame.words()).rev() {
            let Some(word) = self.words.get(word).copied() else { return false };
            if !self.note(word) {
                return false;
            }
        }
        self.push(frame)
    }

    /// How many frames of the recorded walk a new one can share.
    #[inline]
    pub(super) fn recorded(&self) -> usize {
        if self.root == StackId::ROOT { self.frames.len } else { 0 }
    }

    /// A frame of the recorded walk, below [`recorded`](Walk::recorded).
    #[inline(always)]
    pub(super) fn recorded_frame(&self, at: usize) -> &Frame {
        &self.frames.as_slice()[at]
    }

    /// The new walk goes on as the recorded one does in its first `frames` frames.
    #[inline]
    pub(super) fn share(&mut self, frames: usize) {
        self.shared = frames;
    }

    /// Compares what was read from a recorded frame to the root with what is there now, in the order in which it was read.
    /// The first frame that would be left differently.
    ///
    /// # Safety
    /// A walk that is in the state of this frame must be able to read what the recorded one has read, as long as all that
    /// it has read before is the same.
    #[inline]
    pub(super) unsafe fn first_difference(&self, from: usize) -> Option<usize> {
        let mut at = self.frames.get(from)?.words();
        let words = self.words.as_slice().get(..at).unwrap_or_default();
        while at > 0 {
            at -= 1;
            // SAFETY: `at` is below the length.
            let word = unsafe { words.get_unchecked(at) };
            // SAFETY: the caller's promise; all words before this one are the same.
            if unsafe { read(word.address) } != word.value {
                return Some(self.frame_of(at, from));
            }
        }
        None
    }

    /// Takes the new frames for a whole walk, and finds out what it shares with the recorded one by its return
    /// addresses, from the outermost frame inwards.
    pub(super) fn share_by_addresses(&mut self) {
        let count = self.fresh_frames.len;
        let same = |at: &usize| match (self.frames.get(*at), self.fresh_frames.get(count - 1 - at)) {
            (Some(known), Some(fresh)) => known.pc == fresh.pc,
            _ => false,
        };
        self.shared = (0..self.frames.len.min(count)).take_while(same).count();
        self.fresh_frames.len = count - self.shared;
    }

    /// The return addresses of the new walk, innermost first: for comparing two ways to walk.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> {
        let outer = self.frames.as_slice().get(..self.shared).unwrap_or_default().iter().rev();
        self.fresh_frames.as_slice().iter().chain(outer).map(|frame| plain_address(frame.pc))
    }

    #[inline]
    fn resolve(
        &mut self,
        root: StackId,
        epoch: u64,
        mut intern: impl FnMut(StackId, u64) -> Option<StackId>,
    ) -> Option<StackId> {
        let (shared, fresh) = (self.shared, self.fresh_frames.len);
        let nodes_hold = self.epoch == epoch && root == self.root;
        (self.root, self.epoch) = (root, epoch);
        self.frames.len = shared;
        let mut parent = root;
        if nodes_hold {
            if let Some(last) = shared.checked_sub(1) {
                parent = StackId(self.frames.get(last)?.node);
            }
        } else {
            // Under another root, or in another tree, the shared frames have other nodes.
            for at in 0..shared {
                let Some(node) = intern(parent, plain_address(self.frames.get(at)?.pc)) else {
                    return self.forget();
                };
                parent = node;
                self.frames.as_mut_slice()[at].node = node.0;
            }
        }
        self.words.len = self.words_before(shared);
        for at in (0..fresh).rev() {
            let frame = self.fresh_frames.as_slice()[at];
            let first = if at == 0 { 0 } else { self.fresh_frames.as_slice()[at - 1].words() };
            for word in (first..frame.words()).rev() {
                if !self.words.push(self.fresh_words.as_slice()[word]) {
                    return self.forget();
                }
            }
            let Some(node) = intern(parent, plain_address(frame.pc)) else { return self.forget() };
            parent = node;
            let mut frame = frame.with_words(self.words.len);
            frame.node = node.0;
            if !self.frames.push(frame) {
                return self.forget();
            }
        }
        Some(parent)
    }

    #[cold]
    fn forget(&mut self) -> Option<StackId> {
        (self.frames.len, self.words.len) = (0, 0);
        None
    }

    /// Words that were read by the frames outside of this one.
    #[inline]
    fn words_before(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|outer| self.frames.get(outer)).map_or(0, Frame::words)
    }

    #[cold]
    fn frame_of(&self, word: usize, mut at: usize) -> usize {
        while self.words_before(at) > word {
            at -= 1;
        }
        at
    }
}

/// The word at an aligned address.
///
/// # Safety
/// It must be readable.
#[inline]
pub(super) unsafe fn read(address: u64) -> u64 {
    // SAFETY: the caller's promise. Volatile: the memory belongs to other code.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}

/// A growing array in mapped memory.
#[derive(Debug)]
struct Array<T> {
    memory: Mapping,
    capacity: usize,
    len: usize,
    _of: std::marker::PhantomData<T>,
}

impl<T: Plain> Array<T> {
    const fn new() -> Array<T> {
        Array { memory: Mapping::empty(), capacity: 0, len: 0, _of: std::marker::PhantomData }
    }

    #[inline(always)]
    fn as_slice(&self) -> &[T] {
        // SAFETY: the mapping has `capacity` values, and `len` is never above it.
        unsafe { self.memory.slice::<T>().get_unchecked(..self.len) }
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [T] {
        let len = self.len;
        &mut self.memory.slice_mut::<T>()[..len]
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&T> {
        self.as_slice().get(at)
    }

    #[inline(always)]
    fn push(&mut self, value: T) -> bool {
        if self.len == self.capacity && !self.grow() {
            return false;
        }
        // SAFETY: there is room.
        unsafe { *self.memory.slice_mut::<T>().get_unchecked_mut(self.len) = value };
        self.len += 1;
        true
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let _errno = ErrnoGuard::new();
        let capacity = (self.capacity * 2).max(FIRST_CAPACITY);
        let Ok(mut memory) = Mapping::anonymous(capacity * size_of::<T>()) else { return false };
        memory.slice_mut::<T>()[..self.len].copy_from_slice(self.as_slice());
        self.memory = memory;
        self.capacity = capacity;
        true
    }
}

/// Of address space only: no page is touched that stacks do not reach.
const FIRST_CAPACITY: usize = 512;
/// A deeper stack is cut at its outer end and counted as truncated.
const MAX_FRAMES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(walk: &mut Walk, inner_to_outer: &[u64], tree: &mut Vec<(StackId, u64)>) -> (StackId, usize) {
        record_in(walk, inner_to_outer, tree, 0)
    }

    fn record_in(
        walk: &mut Walk,
        inner_to_outer: &[u64],
        tree: &mut Vec<(StackId, u64)>,
        epoch: u64,
    ) -> (StackId, usize) {
        walk.begin();
        for pc in inner_to_outer {
            assert!(walk.push(Frame::without_state(*pc)));
        }
        walk.share_by_addresses();
        let mut interned = 0;
        let node = walk.resolve(StackId::ROOT, epoch, |parent, pc| {
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
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
        assert_eq!(record_in(&mut walk, &[3, 2, 1], &mut tree, 1), (StackId(12), 3), "another epoch");
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walk, mut tree) = (Walk::new(), Vec::new());
        assert_eq!(record(&mut walk, &[3, 2, 1], &mut tree), (StackId(12), 3));
        walk.begin();
        [3, 2, 1].into_iter().for_each(|pc| assert!(walk.push(Frame::without_state(pc))));
        walk.share_by_addresses();
        let mut parents = Vec::new();
        walk.resolve(StackId::TRUNCATED, 0, |parent, pc| {
            parents.push((parent, pc));
            Some(StackId(pc as u32 + 100))
        });
        let expected = [(StackId::TRUNCATED, 1), (StackId(101), 2), (StackId(102), 3)];
        assert_eq!(parents, expected);
        assert_eq!(walk.recorded(), 0, "a walk that was cut is not shared by its states");
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
