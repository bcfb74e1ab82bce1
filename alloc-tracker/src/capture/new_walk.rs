//! The new walk while it is being made: the frames that it does not share with the recorded walk.
//!
//! In: frames, and the words that led out of each. Out: both lists, for the recorded walk to take
//! over and for a shortcut to remember. Never allocates through the global allocator. If there is
//! no memory for the lists, methods return false and the walk ends as truncated.

use alloc_dump::layout::StackId;

use super::WalkEnd;
use super::code_address::ReturnAddress;
use super::deep_proof::MAX_SPARE;
use super::frame::Frame;
use super::padded_array::PaddedArray;
use super::recorded_walk::RecordedWalk;
use super::shortcut::MAX_PATH_WORDS;
use super::stack_word::StackWord;

/// The new frames of a walk, innermost first, and the words that were read, in the order of
/// reading.
#[derive(Debug)]
pub(super) struct NewWalk {
    pub(super) frames: PaddedArray<Frame, 48>,
    pub(super) words: PaddedArray<StackWord, 128>,
    /// How many of the outermost frames of the recorded walk this walk shares.
    pub(super) shared: usize,
    /// Whether the words must be compared in the order in which they were read, because the walk
    /// has not stayed on the thread's own stack.
    pub(super) must_compare_as_read: bool,
    /// Whether the frames have unwinder states. Frames of the platform's unwinder are addresses
    /// only.
    pub(super) has_states: bool,
    /// Whether the frames depend on the value that was in the frame pointer register.
    depends_on_fp_register: bool,
    /// Whether a frame was left by a rule that is not packed, which may read words anywhere.
    has_full_rule: bool,
    /// Whether all words could be noted: false once there was no memory.
    has_all_words: bool,
    /// How many words were noted when the last frame was pushed: the words that led out of all
    /// frames so far. Words that are noted later lead out of the frame that is pushed next.
    words_before_next: usize,
}

impl NewWalk {
    pub(super) const fn new() -> NewWalk {
        NewWalk {
            frames: PaddedArray::new(),
            words: PaddedArray::new(),
            shared: 0,
            must_compare_as_read: false,
            has_states: false,
            depends_on_fp_register: false,
            has_full_rule: false,
            has_all_words: true,
            words_before_next: 0,
        }
    }

    /// Empties the walk for a new one whose frames have states.
    #[inline(always)]
    pub(super) fn restart(&mut self, must_compare_as_read: bool) {
        (self.frames.len, self.words.len) = (0, 0);
        (self.shared, self.must_compare_as_read, self.words_before_next) = (0, must_compare_as_read, 0);
        (self.has_states, self.depends_on_fp_register) = (true, false);
        (self.has_full_rule, self.has_all_words) = (false, true);
    }

    /// Becomes a walk without states, of the return addresses that `walk` finds, innermost first.
    pub(super) fn collect_addresses(
        &mut self,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> WalkEnd {
        self.restart(true);
        self.has_states = false;
        walk(&mut |pc| self.push(Frame::without_state(pc)))
    }

    /// Shares the frames of the recorded walk that have the same return addresses, from the
    /// outermost one inwards, if the nodes of both walks are below `root`.
    pub(super) fn share_addresses_with(&mut self, recorded: &RecordedWalk, root: StackId) {
        if recorded.is_below(root) {
            self.shared = recorded.count_common_addresses(self);
            self.frames.len -= self.shared;
        }
    }

    /// Notes that the frames depend on the value that was in the frame pointer register.
    #[inline(always)]
    pub(super) fn note_fp_register(&mut self) {
        self.depends_on_fp_register = true;
    }

    /// Whether the frames depend on the value that was in the frame pointer register.
    #[inline(always)]
    pub(super) fn depends_on_fp_register(&self) -> bool {
        self.depends_on_fp_register
    }

    /// Returns the innermost frame of the recorded walk that this walk shares, and its index there.
    /// Call it when `recorded` has taken this walk over. `None` if no frame is shared, or if no
    /// shortcut can lead to that frame.
    #[inline(always)]
    pub(super) fn join_frame<'a>(&self, recorded: &'a RecordedWalk) -> Option<(u16, &'a Frame)> {
        let can_join = self.has_states && !self.must_compare_as_read;
        let index = self.shared.checked_sub(1).filter(|_| can_join)?;
        let frame = recorded.frame(index).filter(|frame| !frame.must_compare_as_read())?;
        Some((u16::try_from(index).ok()?, frame))
    }

    /// Returns the words that were read from the leaf to the join frame. `None` if there are none,
    /// if there are more than a shortcut holds, or if a rule that is not packed has read some of
    /// them.
    #[inline(always)]
    pub(super) fn path_words(&self) -> Option<&[StackWord]> {
        let words = self.words.as_slice();
        (!words.is_empty() && words.len() <= MAX_PATH_WORDS && !self.has_full_rule).then_some(words)
    }

    /// Notes that a frame was left by a rule that is not packed.
    pub(super) fn note_full_rule(&mut self) {
        self.has_full_rule = true;
    }

    /// Notes a word that was read to leave the frame that is pushed next.
    #[inline(always)]
    pub(super) fn note_word(&mut self, word: StackWord) {
        self.has_all_words &= self.words.push(word);
    }

    /// Forgets the words that were noted since the last frame was pushed: the step that has read
    /// them is made once more.
    pub(super) fn begin_step_again(&mut self) {
        self.words.len = self.words_before_next;
    }

    /// Adds the next frame outwards. The words that lead out of it have been noted before. False if
    /// the walk has [`MAX_FRAMES`] or there is no memory.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        let before = std::mem::replace(&mut self.words_before_next, self.words.len);
        self.has_all_words && self.frames.len < MAX_FRAMES && self.frames.push(frame.with_word_count(before))
    }

    /// Adds a copy of a frame of the recorded walk, with its words; false as in
    /// [`push`](NewWalk::push).
    pub(super) fn push_recorded(&mut self, recorded: &RecordedWalk, index: usize) -> bool {
        let Some(frame) = recorded.current_frame(index) else { return false };
        self.must_compare_as_read |= frame.must_compare_as_read();
        self.has_full_rule |= frame.has_return_address_elsewhere();
        // A recorded frame does not say whether it depends on that value, so this walk assumes that
        // it does.
        self.depends_on_fp_register = true;
        recorded
            .words_of(index)
            .iter()
            .rev()
            .for_each(|word| self.note_word(recorded.current_word(index, word)));
        self.push(frame)
    }

    /// Gives memory back that only a deep walk needs. Call it when the recorded walk has taken this
    /// walk over.
    pub(super) fn give_memory_back(&mut self) {
        (self.frames.len, self.words.len) = (0, 0);
        self.frames.shrink_if_above(MAX_SPARE);
        self.words.shrink_if_above(MAX_SPARE);
    }

    /// Notes that the walk continues on another stack than the one where it began.
    pub(super) fn note_stack_switch(&mut self) {
        self.must_compare_as_read = true;
    }

    /// Ends the walk: from here to the root it has the outermost `frames` frames of the recorded
    /// walk.
    #[inline(always)]
    pub(super) fn share(&mut self, frames: usize) {
        self.shared = frames;
    }
}

/// Appends frames and words to a [`NewWalk`] while the walk steps by packed rules.
///
/// PERF: the counters are fields of this value, which lives in registers. The walk has its own
/// counters in memory: [`write_back`](WalkWriter::write_back) stores this value's counters there,
/// and [`reload`](WalkWriter::reload) loads them after the walk was changed directly.
#[derive(Debug)]
pub(super) struct WalkWriter<'a> {
    walk: &'a mut NewWalk,
    frames: usize,
    words: usize,
    /// See [`NewWalk`].
    words_before_next: usize,
    depends_on_fp_register: bool,
}

/// The largest number of words that a step by a packed rule reads.
pub(super) const MAX_STEP_WORDS: usize = 2;

impl<'a> WalkWriter<'a> {
    /// Returns a writer for a walk that was just restarted.
    #[inline(always)]
    pub(super) fn new(walk: &'a mut NewWalk) -> WalkWriter<'a> {
        WalkWriter { walk, frames: 0, words: 0, words_before_next: 0, depends_on_fp_register: false }
    }

    /// Makes sure that there is room for one more frame, and for the [`MAX_STEP_WORDS`] words that
    /// lead out of it; false if the walk has [`MAX_FRAMES`] or there is no memory.
    #[inline(always)]
    pub(super) fn ensure_room(&mut self) -> bool {
        let NewWalk { frames, words, has_all_words, .. } = &mut *self.walk;
        *has_all_words
            && self.frames < MAX_FRAMES
            && frames.ensure_room(self.frames, 1)
            && words.ensure_room(self.words, MAX_STEP_WORDS)
    }

    /// Notes a word, as [`NewWalk::note_word`] does.
    ///
    /// # Safety
    /// [`ensure_room`](WalkWriter::ensure_room) must have returned true, and at most
    /// [`MAX_STEP_WORDS`] may follow each such call.
    #[inline(always)]
    pub(super) unsafe fn note_word(&mut self, word: StackWord) {
        // SAFETY: `ensure_room` has made room for the words of this step, of which this is one.
        unsafe { self.walk.words.write(self.words, word) };
        self.words += 1;
    }

    /// Adds the next frame outwards, as [`NewWalk::push`] does.
    ///
    /// # Safety
    /// [`ensure_room`](WalkWriter::ensure_room) must have returned true, and at most one frame may
    /// follow each such call.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, frame: Frame) {
        let frame = frame.with_word_count(self.words_before_next);
        // SAFETY: `ensure_room` has made room for the frame of this step.
        unsafe { self.walk.frames.write(self.frames, frame) };
        self.frames += 1;
        self.words_before_next = self.words;
    }

    /// Notes that the frames depend on the frame pointer register, as [`NewWalk::note_fp_register`]
    /// does.
    #[inline(always)]
    pub(super) fn note_fp_register(&mut self) {
        self.depends_on_fp_register = true;
    }

    /// Stores the counters into the walk and returns the walk.
    #[inline(always)]
    pub(super) fn write_back(&mut self) -> &mut NewWalk {
        (self.walk.frames.len, self.walk.words.len) = (self.frames, self.words);
        self.walk.depends_on_fp_register |= self.depends_on_fp_register;
        self.walk.words_before_next = self.words_before_next;
        self.walk
    }

    /// Loads the counters from the walk, to which frames and words were added since
    /// [`write_back`](WalkWriter::write_back).
    #[inline(always)]
    pub(super) fn reload(&mut self) {
        (self.frames, self.words) = (self.walk.frames.len, self.walk.words.len);
        self.words_before_next = self.walk.words_before_next;
    }
}

/// A deeper stack is cut at its outer end and counted as truncated.
pub(super) const MAX_FRAMES: usize = 1 << 20;
