//! The recorded walk: the last walk on one stack, which the next one is compared with.
//!
//! In: the frames and words of each new walk. Out: the frames that a new walk shares, and whether
//! they are still on the stack. Words are read only where the caller promises that they are
//! readable.

use alloc_dump::layout::StackId;

use super::deep_proof::DeepProof;
use super::frame::{Frame, WordOrder};
use super::new_walk::NewWalk;
use super::padded_array::PaddedArray;
use super::stack::StackBounds;
use super::stack_word::{StackWord, changed_bits, read_word};
use super::without_signature;
use crate::tree::InternError;

/// The last walk on one stack, with the words that it has read.
///
/// Frames stand outermost first. The words that led out of a frame stand before those of the frames
/// inside of it. Among the words of one frame, the word that was read last stands first. Each frame
/// has the number of words from itself to the root. For a stack of four frames:
///
/// ```text
/// frames       root   main      run            parse
/// word count   1      3         4              6
/// words        r      m2 m1     u              p2 p1      (p1 was read first, r last)
/// ```
///
/// So the words from `run` to the root are the first four, read backwards: u, m1, m2, r.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RecordedWalk {
    /// How many of the outermost frames a new walk may share. 0 for a truncated walk.
    sharable: usize,
    pub(super) frames: PaddedArray<Frame, 8>,
    pub(super) words: PaddedArray<StackWord, 32>,
    /// The root of the call tree that the outermost frame's node is a child of.
    pub(super) root: StackId,
    /// What walks on a deep stack leave for the next one.
    pub(super) deep: DeepProof,
}

impl RecordedWalk {
    pub(super) const fn new() -> RecordedWalk {
        RecordedWalk {
            sharable: 0,
            frames: PaddedArray::new(),
            words: PaddedArray::new(),
            root: StackId::ROOT,
            deep: DeepProof::new(),
        }
    }

    /// Forgets the walk: its addresses may mean other code by now.
    pub(super) fn forget(&mut self) {
        (self.frames.len, self.words.len, self.sharable) = (0, 0, 0);
        self.deep = DeepProof::new();
    }

    /// Whether the walk's nodes are below this root.
    pub(super) fn is_below(&self, root: StackId) -> bool {
        self.root == root
    }

    /// Returns the frame at this index, counted from the outermost one.
    #[inline(always)]
    pub(super) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames.get(index)
    }

    /// Returns the index of the recorded frame that has the state of `frame`, among the outermost
    /// `candidates` frames. Lowers `candidates` to the frames that have not returned since:
    /// recorded frames inside of `frame` are no longer on the stack.
    ///
    /// `exact`: only compare; never repair a frame whose frame pointer slot has moved.
    #[inline(always)]
    pub(super) fn find_same_state(
        &mut self,
        frame: &Frame,
        bounds: &StackBounds,
        candidates: &mut usize,
        exact: bool,
    ) -> Option<usize> {
        *candidates = self.count_not_inside(frame.sp, *candidates);
        let index = candidates.checked_sub(1)?;
        let recorded = self.frames.get(index)?;
        if recorded.has_state_of(frame) {
            return Some(index);
        }
        if exact || !recorded.has_state_but_fp_of(frame) {
            return None;
        }
        // PERF: copies, so that the originals can stay in registers.
        *candidates = self.move_fp_slot(index, *frame, *bounds);
        (*candidates > index).then_some(index)
    }

    /// Returns how many of the outermost frames may have the state of a new frame, now that the
    /// walk has come to `frame` on another stack: the frames up to the recorded one with that
    /// state, among the outermost `limit` frames.
    ///
    /// On one stack, stack pointers say which recorded frames have returned. From one stack to
    /// another they say nothing, because an outer stack may have lower addresses. If no recorded
    /// frame has the state, the frames are counted as if `frame` were on the outermost stack.
    #[cold]
    pub(super) fn count_up_to_state(&self, frame: &Frame, limit: usize) -> usize {
        let frames = self.frames.as_slice().get(..limit).unwrap_or_default();
        let same = frames.iter().rposition(|recorded| recorded.has_state_of(frame));
        same.map_or_else(
            || frames.iter().take_while(|recorded| recorded.sp >= frame.sp).count(),
            |index| index + 1,
        )
    }

    /// Gives the recorded frame at `index` the state of `frame`, if both differ in the frame
    /// pointer's slot alone and both slots hold the same value. Returns how many of the outermost
    /// frames may still have the state of a new frame: `index + 1` on success.
    ///
    /// An example: the caller of `start`, the C library's first function of a thread, is found by
    /// the frame pointer of `start`, and no function between `start` and the allocator saves that
    /// register. Then the allocator's function saves its value, at another depth in each event:
    ///
    /// ```text
    /// recorded walk                        new walk
    /// clone   sp 0x7fe0  fp in 0x7fd0      clone   sp 0x7fe0  fp in 0x7fd0
    /// start   sp 0x7fa0  fp in 0x7f10      start   sp 0x7fa0  fp in 0x7ed0
    /// main    sp 0x7f60  fp in 0x7f10      main    sp 0x7f60  fp in 0x7ed0
    /// parse   sp 0x7f20  fp in 0x7f10      parse   sp 0x7f20  fp in 0x7ed0
    /// malloc  sp 0x7f00  fp in register    string  sp 0x7ee0  fp in 0x7ed0
    ///                                      malloc  sp 0x7ec0  fp in register
    /// ```
    ///
    /// By their states `start` and `main` are other frames, though nothing in them has changed. If
    /// the word at 0x7ed0 is what was read from 0x7f10, both recorded frames and the recorded word
    /// move to the slot 0x7ed0, and the new walk shares them. (`parse` is a new frame anyway: it
    /// has called another function.)
    #[cold]
    #[inline(never)]
    pub(super) fn move_fp_slot(&mut self, index: usize, frame: Frame, bounds: StackBounds) -> usize {
        let from = self.frames.get(index).and_then(Frame::fp_slot);
        // The words of this frame and of those outside of it lie above its stack pointer, except
        // for the saved frame pointer. So a word below it is that frame pointer and nothing else.
        let slots = from.zip(frame.fp_slot()).filter(|(from, to)| *from < frame.sp && *to < frame.sp);
        let Some((from, to)) = slots else { return index };
        let (frames, words) = (self.frames.as_slice(), self.words.as_slice());
        let with_slot = frames.iter().take(index + 1).rev().take_while(|frame| frame.fp_slot() == Some(from));
        let first = index + 1 - with_slot.count();
        let their_words = self.words_outside_of(first)..self.words_outside_of(index + 1);
        let mut reads_of_slot =
            words.get(their_words.clone()).unwrap_or_default().iter().filter(|word| word.address == from);
        if let Some(read) = reads_of_slot.next()
            && (bounds.read(to) != Some(read.value) || reads_of_slot.any(|other| other.value != read.value))
        {
            // The slots hold different values, so all frames with this slot differ.
            return first;
        }
        // The recorded frames inside of this one have led to the old slot, so they are out of date.
        (self.frames.len, self.words.len) = (index + 1, their_words.end);
        self.sharable = self.sharable.min(index + 1);
        self.frames.as_mut_slice().iter_mut().skip(first).for_each(|frame| frame.fp = to);
        let words = self.words.as_mut_slice().iter_mut().skip(their_words.start);
        words.filter(|word| word.address == from).for_each(|word| word.address = to);
        index + 1
    }

    /// Returns how many of the outermost frames a new walk can share.
    #[inline(always)]
    pub(super) fn sharable(&self) -> usize {
        self.sharable
    }

    /// Returns how many of the outermost `frames` frames do not lie inside of this stack pointer.
    ///
    /// PERF: how many frames have returned cannot be predicted, so they are counted in groups,
    /// without a branch for each.
    #[inline(always)]
    pub(super) fn count_not_inside(&self, sp: u64, mut frames: usize) -> usize {
        while frames > 0 {
            let group = self.frames.last_group::<FRAME_GROUP>(frames);
            let inside: usize = group.iter().map(|frame| usize::from(frame.sp < sp)).sum();
            // Padding lies outside of everything, so it is never counted as inside.
            frames -= inside;
            if inside < FRAME_GROUP {
                break;
            }
        }
        frames
    }

    /// Returns the words that were read to leave a frame. The word that was read last stands first.
    pub(super) fn words_of(&self, index: usize) -> &[StackWord] {
        let end = self.frames.get(index).map_or(0, Frame::word_count);
        self.words.as_slice().get(self.words_outside_of(index)..end).unwrap_or_default()
    }

    /// Compares the noted words, from the frame at `index` to the root, with the words that the
    /// stack holds now. Returns the innermost frame out of which a changed word leads; `None` if
    /// all words are unchanged.
    ///
    /// `as_read`: compare in the order of reading only, and look at no word behind the first
    /// changed one.
    ///
    /// # Safety
    /// A walk in the state of this frame must be able to read the words that the recorded walk has
    /// read: each word must be readable as long as all words that were read before it are
    /// unchanged. If the frame may be compared in any order, all memory from its stack pointer to
    /// the end of its stack must be readable.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn first_changed_frame(&self, index: usize, as_read: bool) -> Option<usize> {
        let frame = self.frames.get(index)?;
        // SAFETY: the words of a frame that may be compared in any order lie between its stack
        // pointer and the end of its stack, which the caller promises to be readable.
        if !as_read && !frame.must_compare_as_read() && unsafe { self.words_are_unchanged_from(frame) } {
            return None;
        }
        // SAFETY: the caller promises that each word is readable once all words before it are
        // unchanged.
        unsafe { self.first_changed_frame_as_read(index) }
    }

    /// Whether all words from this frame of the walk to the root are unchanged.
    ///
    /// PERF: the words lie on the thread's own stack, so they may be read in any order and need no
    /// branch for each.
    ///
    /// # Safety
    /// All of these words must be readable.
    #[inline(always)]
    unsafe fn words_are_unchanged_from(&self, frame: &Frame) -> bool {
        let mut changed = 0;
        for words in self.words.groups::<WORD_GROUP>(frame.word_count()) {
            // SAFETY: the caller promises that the frame's words are readable; words of padding
            // always are.
            changed |= unsafe { changed_bits(words) };
        }
        changed == 0
    }

    /// Whether the frame at `index` still is the join frame of a shortcut: it has the same node and
    /// the same state, and all words from there to the root are unchanged. False as well if only a
    /// comparison in the order of reading could tell.
    ///
    /// # Safety
    /// All memory between the join frame's stack pointer and the end of the stack must be readable.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn still_holds_from(&self, index: usize, join_frame: &Frame) -> bool {
        let Some(frame) = self.frames.get(index).filter(|_| index < self.sharable) else { return false };
        // SAFETY: the frame has the state of the join frame, and its words may be compared in any
        // order, so all of them lie in the memory that the caller promises to be readable.
        frame.has_node_and_state_of(join_frame)
            && !frame.must_compare_as_read()
            && unsafe { self.words_are_unchanged_from(frame) }
    }

    /// Finds the frame that [`first_changed_frame`](RecordedWalk::first_changed_frame) returns, by
    /// comparing in the order of reading.
    ///
    /// # Safety
    /// Each word must be readable once all words that were read before it are found unchanged.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn first_changed_frame_as_read(&self, index: usize) -> Option<usize> {
        let words = self.words.as_slice().get(..self.frames.get(index)?.word_count())?;
        // SAFETY: the words stand in the opposite order of reading. The search begins at the end
        // and stops at the first changed word, so all words that were read before this one are
        // unchanged.
        let has_changed = |word: &StackWord| unsafe { read_word(word.address) } != word.value;
        let changed = words.iter().rposition(has_changed)?;
        // The changed word led out of the outermost frame that counts more words than stand before
        // it.
        Some(self.frames.as_slice().partition_point(|frame| frame.word_count() <= changed))
    }

    /// Returns how many frames, from the outermost one inwards, have the same return addresses as
    /// those of `new`, a walk with all frames of its stack.
    pub(super) fn count_common_addresses(&self, new: &NewWalk) -> usize {
        let both = self.frames.as_slice().iter().zip(new.frames.as_slice().iter().rev());
        both.take_while(|(recorded, new)| recorded.pc == new.pc).count()
    }

    /// Becomes the new walk: keeps the shared frames with their nodes, and takes over the new
    /// frames. `intern` gives each new frame a node; its arguments are the caller's node and the
    /// return address. Returns the leaf's node, or `root` for an empty walk. After an error the
    /// walk is forgotten.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn become_new_walk(
        &mut self,
        new: &NewWalk,
        root: StackId,
        mut intern: impl FnMut(StackId, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        self.root = root;
        self.frames.len = new.shared;
        let shared_words = self.words_outside_of(new.shared);
        let shared = self.frames.as_slice().last().map(|last| (last.node(), last.word_order()));
        let (mut parent, order) = shared.unwrap_or((root, WordOrder::ANY));
        let mut order = order.or_as_read_if(new.must_compare_as_read);
        if !self.append_words(new, shared_words) {
            return self.forget_and_fail(InternError::TreeFull);
        }
        let (frames, words) = (new.frames.as_slice(), self.words.len);
        let Some(slots) = self.frames.spare_slots(frames.len()) else {
            return self.forget_and_fail(InternError::TreeFull);
        };
        let mut slots = slots.iter_mut();
        for frame in frames.iter().rev() {
            let frame = frame.copy_by_words();
            parent = match intern(parent, without_signature(frame.pc)) {
                Ok(node) => node,
                Err(why) => return self.forget_and_fail(why),
            };
            let Some(slot) = slots.next() else { break };
            (*slot, order) = frame.into_recorded(parent, words - frame.word_count(), order);
        }
        self.frames.len += frames.len();
        self.sharable = if root == StackId::ROOT { self.frames.len } else { 0 };
        Ok(parent)
    }

    /// Appends the words of the new frames behind the first `shared_words` ones, backwards; false
    /// if there is no memory.
    #[inline(always)]
    fn append_words(&mut self, new: &NewWalk, shared_words: usize) -> bool {
        self.words.len = shared_words;
        let words = new.words.as_slice();
        let Some(slots) = self.words.spare_slots(words.len()) else { return false };
        for (slot, word) in slots.iter_mut().zip(words.iter().rev()) {
            *slot = *word;
        }
        self.words.len += words.len();
        true
    }

    #[cold]
    fn forget_and_fail(&mut self, why: InternError) -> Result<StackId, InternError> {
        self.forget();
        Err(why)
    }

    /// Returns how many words were read to leave the frames outside of the one at `index`.
    #[inline(always)]
    pub(super) fn words_outside_of(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|outer| self.frames.get(outer)).map_or(0, Frame::word_count)
    }
}

/// How many words are compared at once.
///
/// PERF: the number of groups cannot be predicted, so few large groups are better than many small
/// ones.
const WORD_GROUP: usize = 8;
/// How many frames are counted at once.
const FRAME_GROUP: usize = 4;
