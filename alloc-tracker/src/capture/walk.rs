//! The walks that a thread remembers, one for each stack that it runs on, and the new one in the making.

use std::ptr::NonNull;

use alloc_dump::layout::StackId;

use super::End;
use super::frame::Frame;
use super::plain_address;
use super::registers::Registers;
use super::shortcut::{LONGEST, Shortcuts};
use super::stack::{self, Bounds, STACKS, StackRanges};
use crate::sys::{ErrnoGuard, Mapping, Plain};
use crate::tree::{Parent, Refused};

/// The walks of one thread.
#[derive(Debug)]
pub(crate) struct Walks {
    walks: [Walk; STACKS],
    stacks: StackRanges,
    /// Which of them the new walk is compared with.
    current: usize,
    shortcuts: Shortcuts,
}

/// What one walk needs: the walk before and the new one, the stack that it begins on, and the thread's other
/// stacks.
pub(super) struct Beginning<'a> {
    pub(super) recorded: &'a Recorded,
    pub(super) fresh: &'a mut Fresh,
    pub(super) bounds: Bounds,
    pub(super) ranges: &'a mut StackRanges,
}

/// The last walk on one stack, and the new one.
#[derive(Debug)]
struct Walk {
    recorded: Recorded,
    fresh: Fresh,
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
        let walks = [const { Walk { recorded: Recorded::new(), fresh: Fresh::new() } }; STACKS];
        Walks { walks, stacks: StackRanges::new(), current: 0, shortcuts: Shortcuts::new() }
    }

    /// The node of the frame with these registers, if a shortcut leads to it.
    #[inline(always)]
    pub(crate) fn shortcut(&mut self, registers: &Registers, epoch: u64) -> Option<StackId> {
        let stack::Beginning { bounds, walk, .. } = self.stacks.above(registers.sp)?;
        let recorded = &mut self.walks[walk].recorded;
        recorded.hold_for(epoch, bounds.end());
        self.shortcuts.node(registers, recorded, epoch)
    }

    /// Begins a walk from the frame with these registers. What is remembered of another epoch is not used. `None` if it is not
    /// known what stack this is.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn begin(&mut self, registers: &Registers, epoch: u64) -> Option<Beginning<'_>> {
        let stack::Beginning { bounds, walk, stays } = self.stacks.above(registers.sp)?;
        self.current = walk;
        let Walk { recorded, fresh } = &mut self.walks[walk];
        recorded.hold_for(epoch, bounds.end());
        fresh.begin(!stays);
        Some(Beginning { recorded, fresh, bounds, ranges: &mut self.stacks })
    }

    /// Takes the return addresses that `walk` finds, innermost first, for a whole walk. What it shares with the recorded one
    /// is found out by the addresses, from the outermost frame inwards.
    pub(super) fn walk_by_addresses(
        &mut self,
        epoch: u64,
        walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End,
    ) -> End {
        let Walk { recorded, fresh } = &mut self.walks[self.current];
        recorded.hold_for(epoch, recorded.end);
        let end = fresh.fill(walk);
        if recorded.root == end.root() {
            fresh.shared = recorded.common(fresh);
            fresh.frames.len -= fresh.shared;
        }
        end
    }

    /// The node of the stack that `walk` finds, frame by frame, by `intern` alone. What is recorded stays as it is.
    pub(super) fn node_by_addresses(
        &mut self,
        generation: u32,
        walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, Refused>,
    ) -> Result<StackId, Refused> {
        let fresh = &mut self.walks[self.current].fresh;
        let root = fresh.fill(walk).root();
        fresh
            .frames
            .as_slice()
            .iter()
            .rev()
            .try_fold(root, |parent, frame| intern(Parent::of(parent, generation), plain_address(frame.pc)))
    }

    /// Whether the last walk was the platform's unwinder's.
    pub(crate) fn is_by_addresses(&self) -> bool {
        !self.walks[self.current].fresh.stepped
    }

    /// Gives every frame of the new walk a node: the shared ones keep theirs, the others' are what `intern` says of the
    /// caller's node and the return address. The new walk becomes the recorded one. Returns
    /// the innermost frame's node, or the root for an empty walk; an error of `intern`'s makes the walk be forgotten.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn resolve(
        &mut self,
        registers: &Registers,
        end: End,
        generation: u32,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, Refused>,
    ) -> Result<StackId, Refused> {
        let Walk { recorded, fresh } = &mut self.walks[self.current];
        let node =
            recorded.take(fresh, end.root(), |parent, pc| intern(Parent::of(parent, generation), pc))?;
        self.shortcuts.remember(registers, fresh, recorded, recorded.epoch, node);
        Ok(node)
    }
}

/// The last walk on one stack, outermost frame first, with the words that were noted.
///
/// A frame's return address is the word just below its stack pointer, so it is not noted: the frame says it all. Noted are
/// words that a step needs beyond that, and return addresses that lie elsewhere.
#[derive(Debug)]
pub(super) struct Recorded {
    frames: Array<Frame, BLOCK>,
    words: Array<Word, 32>,
    /// What it hangs under.
    root: StackId,
    /// What its code and its nodes belong to.
    epoch: u64,
    /// Where its stack ends.
    end: u64,
}

impl Recorded {
    const fn new() -> Recorded {
        Recorded { frames: Array::new(), words: Array::new(), root: StackId::ROOT, epoch: 0, end: 0 }
    }

    /// Forgets the walk if its code may be another by now, or if its stack has another end and there may be less to be read.
    #[inline(always)]
    fn hold_for(&mut self, epoch: u64, end: u64) {
        if (self.epoch ^ epoch) | (self.end ^ end) != 0 {
            (self.epoch, self.end) = (epoch, end);
            (self.frames.len, self.words.len) = (0, 0);
        }
    }

    /// The frames that a new walk can share.
    #[inline(always)]
    pub(super) fn frames(&self) -> &[Frame] {
        if self.root == StackId::ROOT { self.frames.as_slice() } else { &[] }
    }

    /// How many of the first `frames` frames lie outside of this stack pointer, or at it.
    ///
    /// PERF: how many have returned cannot be foreseen, so there is no branch for each.
    #[inline(always)]
    pub(super) fn outside_of(&self, sp: u64, mut frames: usize) -> usize {
        while frames > 0 {
            let inside =
                self.frames.last_block::<FEW>(frames).iter().map(|frame| usize::from(frame.sp < sp)).sum();
            // What fills the block may count as well.
            frames = frames.saturating_sub(inside);
            if inside < FEW {
                break;
            }
        }
        frames
    }

    /// The words that were noted to leave a frame, the one that was read last first.
    #[inline(always)]
    pub(super) fn words_of(&self, at: usize) -> &[Word] {
        let to = self.frames.get(at).map_or(0, Frame::words);
        self.words.as_slice().get(self.words_before(at)..to).unwrap_or_default()
    }

    /// Compares what was read from a frame to the root with what is there now. The first frame, from there on, that would
    /// be left differently.
    ///
    /// # Safety
    /// A walk that is in the state of this frame must be able to read what this one has read, as long as all that it has
    /// read before is the same; and, if this frame is not in order, all between its stack pointer and the end of its stack.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn first_difference(&self, from: usize) -> Option<usize> {
        let frame = self.frames.get(from)?;
        if !frame.is_in_order() {
            // PERF: all words lie on the thread's own stack, so they may be read in any order, and need no branch for each.
            let mut differences = 0;
            for callers in self.frames.blocks::<BLOCK>(from) {
                for caller in callers {
                    // SAFETY: this frame's return address was there when it was recorded, or it is the filler.
                    differences |= unsafe { read(caller.sp.wrapping_sub(8)) } ^ caller.pc;
                }
            }
            for words in self.words.blocks::<FEW>(frame.words()) {
                // SAFETY: as above.
                differences |= unsafe { differences_of(words) };
            }
            if differences == 0 {
                return None;
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.first_difference_in_order(from) }
    }

    /// Whether it has this very frame there, with this node, and is still the stack's from there on.
    ///
    /// # Safety
    /// As for [`first_difference`](Recorded::first_difference), from this frame on, unless that must be in order.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn goes_on_from(&self, depth: usize, junction: &Frame) -> bool {
        let Some(frame) = self.frames().get(depth) else { return false };
        frame.is_in_state_of(junction)
            && frame.node == junction.node
            // SAFETY: the caller's promise.
            && unsafe { self.first_difference(depth) }.is_none()
    }

    /// As [`first_difference`](Recorded::first_difference), each word only after all that were read before it.
    #[cold]
    #[inline(never)]
    unsafe fn first_difference_in_order(&self, from: usize) -> Option<usize> {
        // SAFETY: the caller's promise; what was read before is the same.
        let differs = |word: &Word| unsafe { read(word.address) } != word.value;
        (0..=from).rev().find(|&at| {
            let caller = at.checked_sub(1).and_then(|outer| self.frames.get(outer));
            let return_address = caller
                .filter(|caller| !caller.is_read_elsewhere())
                .map(|caller| Word { address: caller.sp.wrapping_sub(8), value: caller.pc });
            self.words_of(at).iter().rev().any(differs) || return_address.iter().any(differs)
        })
    }

    /// How many of its frames, from the outermost on, have the return addresses of a whole walk.
    fn common(&self, fresh: &Fresh) -> usize {
        let outwards = self.frames.as_slice().iter().zip(fresh.frames.as_slice().iter().rev());
        outwards.take_while(|(known, fresh)| known.pc == fresh.pc).count()
    }

    /// Becomes the new walk. The nodes of its frames come from `node`, which gets the caller's one and the return address.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take(
        &mut self,
        fresh: &Fresh,
        root: StackId,
        mut node: impl FnMut(StackId, u64) -> Result<StackId, Refused>,
    ) -> Result<StackId, Refused> {
        self.root = root;
        self.frames.len = fresh.shared;
        self.words.len = self.words_before(fresh.shared);
        let (mut parent, mut in_order) = (root, fresh.in_order);
        if let Some(last) = self.frames.as_slice().last() {
            parent = StackId(last.node);
            in_order |= last.is_in_order();
        }
        for (at, frame) in fresh.frames.as_slice().iter().enumerate().rev() {
            let frame = frame.copied();
            parent = match node(parent, plain_address(frame.pc)) {
                Ok(node) => node,
                Err(why) => return self.forget(why),
            };
            in_order |= frame.is_read_elsewhere();
            if !fresh.words.is_empty() && !self.take_words(fresh, at) {
                return self.forget(Refused::Bound);
            }
            let frame = Frame { node: parent.0, ..frame };
            if !self.frames.push(frame.with_words(self.words.len).in_order(in_order)) {
                return self.forget(Refused::Bound);
            }
        }
        Ok(parent)
    }

    /// Takes the words that were noted to leave a new frame; false if there is no memory.
    fn take_words(&mut self, fresh: &Fresh, at: usize) -> bool {
        fresh.words_of(at).iter().rev().all(|word| self.words.push(*word))
    }

    #[cold]
    fn forget(&mut self, why: Refused) -> Result<StackId, Refused> {
        (self.frames.len, self.words.len) = (0, 0);
        Err(why)
    }

    /// Words that were noted by the frames outside of this one.
    #[inline(always)]
    fn words_before(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|outer| self.frames.get(outer)).map_or(0, Frame::words)
    }
}

/// The new frames of a walk in the making, innermost first, with the words that were noted.
#[derive(Debug)]
pub(super) struct Fresh {
    frames: Array<Frame, 48>,
    words: Array<Word, 128>,
    /// Outermost frames of the recorded walk that the new one shares.
    shared: usize,
    /// Whether what was read on the way must be compared in that order, because the walk has not stayed on the thread's own
    /// stack.
    in_order: bool,
    /// Whether the frames are those of an unwinder, with its states.
    stepped: bool,
    /// Whether they depend on what was in the frame pointer's register.
    needs_fp: bool,
}

impl Fresh {
    const fn new() -> Fresh {
        Fresh {
            frames: Array::new(),
            words: Array::new(),
            shared: 0,
            in_order: false,
            stepped: false,
            needs_fp: false,
        }
    }

    #[inline(always)]
    fn begin(&mut self, in_order: bool) {
        (self.frames.len, self.words.len) = (0, 0);
        (self.shared, self.in_order) = (0, in_order);
        (self.stepped, self.needs_fp) = (true, false);
    }

    /// Becomes a walk that has addresses only.
    fn fill(&mut self, walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End) -> End {
        self.begin(true);
        self.stepped = false;
        walk(&mut |pc| self.push(Frame::without_state(pc)))
    }

    /// The frames depend on what was in the frame pointer's register.
    #[inline(always)]
    pub(super) fn depend_on_fp(&mut self) {
        self.needs_fp = true;
    }

    /// Whether the frames depend on what was in the frame pointer's register.
    #[inline(always)]
    pub(super) fn needs_fp(&self) -> bool {
        self.needs_fp
    }

    /// Where the new frames begin: at which frame of the recorded walk, which has taken them, and which one that is. `None`
    /// if there is no such frame, or if no shortcut can lead there.
    #[inline(always)]
    pub(super) fn junction<'a>(&self, recorded: &'a Recorded) -> Option<(u16, &'a Frame)> {
        let at = self.shared.checked_sub(1).filter(|_| self.stepped && !self.in_order)?;
        let junction = recorded.frames.get(at).filter(|frame| !frame.is_in_order())?;
        Some((u16::try_from(at).ok()?, junction))
    }

    /// The words that were read from the innermost frame to the junction: return addresses, and what was noted; filled up with
    /// what does not differ. `None` if there is no room for them, or if not all of the return addresses are where they usually are.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn way(&self, junction: &Frame) -> Option<[Word; LONGEST]> {
        let frames = self.frames.as_slice();
        if frames.len() + self.words.len > LONGEST {
            return None;
        }
        let mut way = [Word::filler(); LONGEST];
        let mut places = way.iter_mut();
        for (word, place) in self.words.as_slice().iter().zip(&mut places) {
            *place = *word;
        }
        let mut usual = true;
        for (caller, place) in frames.get(1..)?.iter().chain(std::iter::once(junction)).zip(places) {
            *place = Word { address: caller.sp.wrapping_sub(8), value: caller.pc };
            usual &= !caller.is_read_elsewhere();
        }
        usual.then_some(way)
    }

    /// Notes a word that was read to leave the frame that is pushed next; false if there is no memory.
    #[inline(always)]
    pub(super) fn note(&mut self, word: Word) -> bool {
        self.words.push(word)
    }

    /// Adds the next frame outwards; false if there is no room and none to be had.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        self.frames.len < MAX_FRAMES && self.frames.push(frame.with_words(self.words.len))
    }

    /// Adds a frame of the recorded walk again, with its words.
    pub(super) fn push_recorded(&mut self, recorded: &Recorded, at: usize) -> bool {
        let Some(frame) = recorded.frames.get(at).copied() else { return false };
        self.in_order |= frame.is_in_order();
        // It may.
        self.needs_fp = true;
        recorded.words_of(at).iter().rev().all(|word| self.note(*word)) && self.push(frame)
    }

    /// The walk goes on, on another stack than the one where it began.
    pub(super) fn leave_stack(&mut self) {
        self.in_order = true;
    }

    /// The walk goes on as the recorded one does in its first `frames` frames.
    #[inline(always)]
    pub(super) fn share(&mut self, frames: usize) {
        self.shared = frames;
    }

    /// The words that were noted to leave a frame, in the order in which they were read.
    fn words_of(&self, at: usize) -> &[Word] {
        let from = at.checked_sub(1).and_then(|inner| self.frames.get(inner)).map_or(0, Frame::words);
        let to = self.frames.get(at).map_or(0, Frame::words);
        self.words.as_slice().get(from..to).unwrap_or_default()
    }
}

/// In which bits words differ from what they were.
///
/// # Safety
/// They must be readable, in any order.
#[inline(always)]
pub(super) unsafe fn differences_of<const N: usize>(words: &[Word; N]) -> u64 {
    // SAFETY: the caller's promise.
    words.iter().fold(0, |differences, word| differences | unsafe { read(word.address) } ^ word.value)
}

/// The word at an aligned address.
///
/// # Safety
/// It must be readable.
#[inline(always)]
pub(super) unsafe fn read(address: u64) -> u64 {
    // SAFETY: the caller's promise. Volatile: the memory belongs to other code.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address as usize).read_volatile() }
}

/// A growing array in mapped memory, behind room for `SKIP` values, which are all the same.
///
/// PERF: mappings begin at pages, and the beginnings of all pages share a few places in the nearest cache. Arrays that are
/// used together begin at different distances.
#[derive(Debug)]
struct Array<T, const SKIP: usize> {
    /// What the pointer points into.
    memory: Mapping,
    /// The first value.
    start: NonNull<T>,
    capacity: usize,
    len: usize,
}

impl<T: Plain + Filler, const SKIP: usize> Array<T, SKIP> {
    const fn new() -> Array<T, SKIP> {
        Array { memory: Mapping::empty(), start: NonNull::dangling(), capacity: 0, len: 0 }
    }

    #[inline(always)]
    fn as_slice(&self) -> &[T] {
        // SAFETY: `start` has `capacity` values, and `len` is never above that.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Blocks of `N` values, which together are the first `len` ones; before those, what fills the first block.
    #[inline(always)]
    fn blocks<const N: usize>(&self, len: usize) -> impl Iterator<Item = &[T; N]> {
        const { assert!(N <= SKIP + 1) };
        let len = len.min(self.len);
        let blocks = len.div_ceil(N);
        // SAFETY: the first block begins less than `N` values before `start`, where there are `SKIP`, unless there are no blocks.
        unsafe {
            let first = self.start.as_ptr().wrapping_add(len).wrapping_sub(blocks * N).cast::<[T; N]>();
            std::slice::from_raw_parts(first, blocks).iter()
        }
    }

    /// The last `N` values of the first `len` ones, of which there is at least one; before those, what fills the block.
    #[inline(always)]
    fn last_block<const N: usize>(&self, len: usize) -> &[T; N] {
        const { assert!(N <= SKIP + 1) };
        debug_assert!((1..=self.len).contains(&len));
        // SAFETY: there is a value, hence memory, with `SKIP` values before the first.
        unsafe { &*self.start.as_ptr().wrapping_add(len).wrapping_sub(N).cast::<[T; N]>() }
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&T> {
        self.as_slice().get(at)
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    fn push(&mut self, value: T) -> bool {
        if self.len == self.capacity && !self.grow() {
            return false;
        }
        // SAFETY: there is room.
        unsafe { self.start.add(self.len).write(value) };
        self.len += 1;
        true
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let _errno = ErrnoGuard::new();
        let capacity = (self.capacity * 2).max(FIRST_CAPACITY);
        let Ok(mut memory) = Mapping::anonymous((SKIP + capacity) * size_of::<T>()) else { return false };
        let values = memory.slice_mut::<T>();
        values[..SKIP].fill(T::filler());
        values[SKIP..SKIP + self.len].copy_from_slice(self.as_slice());
        let Some(start) = NonNull::new(values[SKIP..].as_mut_ptr()) else { return false };
        (self.memory, self.start, self.capacity) = (memory, start, capacity);
        true
    }
}

/// What stands in an array before its first value.
pub(super) trait Filler {
    fn filler() -> Self;
}

impl Filler for Frame {
    /// A frame whose return address is always there.
    fn filler() -> Frame {
        let Word { address, value } = Word::filler();
        Frame::in_register(value, address + 8, 0)
    }
}

impl Filler for Word {
    /// A word that is always what it was.
    fn filler() -> Word {
        static WORD: u64 = 0;
        Word { address: (&raw const WORD).expose_provenance() as u64, value: WORD }
    }
}

/// PERF: whether return addresses are still there is asked for so many frames at once: how many there are cannot be foreseen, so
/// the fewer rounds the better. The same holds for words, of which there are few.
const BLOCK: usize = 8;
const FEW: usize = 4;
/// Of address space only: no page is touched that stacks do not reach.
const FIRST_CAPACITY: usize = 512;
/// A deeper stack is cut at its outer end and counted as truncated.
const MAX_FRAMES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(
        Walk { recorded, fresh }: &mut Walk,
        (inner_to_outer, end): (&[u64], End),
        tree: &mut Vec<(StackId, u64)>,
    ) -> (StackId, usize) {
        fresh.fill(|push| {
            assert!(inner_to_outer.iter().all(|pc| push(*pc)));
            end
        });
        if recorded.root == end.root() {
            fresh.shared = recorded.common(fresh);
            fresh.frames.len -= fresh.shared;
        }
        let mut interned = 0;
        let node = recorded.take(fresh, end.root(), |parent, pc| {
            interned += 1;
            let known = tree.iter().position(|node| *node == (parent, pc));
            let index = known.unwrap_or_else(|| {
                tree.push((parent, pc));
                tree.len() - 1
            });
            Ok(StackId(index as u32 + 10))
        });
        (node.unwrap(), interned)
    }

    const fn walk() -> Walk {
        Walk { recorded: Recorded::new(), fresh: Fresh::new() }
    }

    #[test]
    fn only_frames_that_changed_are_interned() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let mut record = |stack: &[u64]| record(&mut walk, (stack, End::Root), &mut tree);
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 0));
        assert_eq!(record(&[9, 2, 1]), (StackId(13), 1));
        assert_eq!(record(&[2, 1]), (StackId(11), 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 1));
        assert_eq!(record(&[]), (StackId::ROOT, 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
    }

    #[test]
    fn another_epoch_or_another_end_of_the_stack_forgets() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        for (epoch, end, interned) in [(0, 0, 3), (0, 0, 0), (1, 0, 3), (1, 0, 0), (1, 64, 3)] {
            walk.recorded.hold_for(epoch, end);
            let recorded = record(&mut walk, (&[3, 2, 1], End::Root), &mut tree);
            assert_eq!(recorded, (StackId(12), interned), "{epoch} {end}");
        }
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Root), &mut tree), (StackId(12), 3));
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Truncated), &mut tree), (StackId(15), 3));
        assert_eq!(tree[3..], [(StackId::TRUNCATED, 1), (StackId(13), 2), (StackId(14), 3)]);
        assert!(walk.recorded.frames().is_empty(), "a walk that was cut is not shared by its states");
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Root), &mut tree), (StackId(12), 3));
    }

    #[test]
    fn deep_stacks_grow_the_buffers_and_keep_the_walk_before() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let deep: Vec<u64> = (1..=5000).rev().collect();
        assert_eq!(record(&mut walk, (&[1], End::Root), &mut tree).1, 1);
        assert_eq!(record(&mut walk, (&deep, End::Root), &mut tree), (StackId(10 + 4999), 4999));
        assert_eq!(record(&mut walk, (&deep, End::Root), &mut tree).1, 0);
    }

    #[test]
    fn there_is_a_bound_and_it_is_said() {
        let mut walk = walk();
        walk.fresh.begin(true);
        let pushed = (0..).take_while(|pc| walk.fresh.push(Frame::without_state(*pc))).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
