//! The new walk in the making: the frames that it does not share with the one before.

use super::WalkEnd;
use super::array::Array;
use super::frame::Frame;
use super::recorded::Recorded;
use super::shortcut::LONGEST;
use super::word::Word;

/// The new frames of a walk in the making, innermost first, with the words that were read.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) frames: Array<Frame, 48>,
    pub(super) words: Array<Word, 128>,
    /// Outermost frames of the recorded walk that the new one shares.
    pub(super) shared: usize,
    /// Whether what was read on the way must be compared in that order, because the walk has not stayed on the thread's own
    /// stack.
    pub(super) in_order: bool,
    /// Whether the frames are those of an unwinder, with its states.
    pub(super) stepped: bool,
    /// Whether they depend on what was in the frame pointer's register.
    needs_fp: bool,
    /// Whether one of them was not found by a packed rule.
    evaluated: bool,
    /// Whether there was memory to note everything.
    enough: bool,
    /// Words that were read to leave the frames that have been pushed.
    left: usize,
}

impl Fresh {
    pub(super) const fn new() -> Fresh {
        Fresh {
            frames: Array::new(),
            words: Array::new(),
            shared: 0,
            in_order: false,
            stepped: false,
            needs_fp: false,
            evaluated: false,
            enough: true,
            left: 0,
        }
    }

    #[inline(always)]
    pub(super) fn begin(&mut self, in_order: bool) {
        (self.frames.len, self.words.len) = (0, 0);
        (self.shared, self.in_order, self.left) = (0, in_order, 0);
        (self.stepped, self.needs_fp, self.evaluated, self.enough) = (true, false, false, true);
    }

    /// Becomes a walk that has addresses only.
    pub(super) fn fill(&mut self, walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> WalkEnd) -> WalkEnd {
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
        let junction = recorded.frame(at).filter(|frame| !frame.is_in_order())?;
        Some((u16::try_from(at).ok()?, junction))
    }

    /// The words that were read from the innermost frame to the junction. `None` if there are none, or too many, or if they were not
    /// all read on this one stack.
    #[inline(always)]
    pub(super) fn way(&self) -> Option<&[Word]> {
        let words = self.words.as_slice();
        (!words.is_empty() && words.len() <= LONGEST && !self.evaluated).then_some(words)
    }

    /// A frame was worked out in full, from words that lie anywhere.
    pub(super) fn was_evaluated(&mut self) {
        self.evaluated = true;
    }

    /// Notes a word that was read to leave the frame that is pushed next.
    #[inline(always)]
    pub(super) fn note(&mut self, word: Word) {
        self.enough &= self.words.push(word);
    }

    /// Adds the next frame outwards; false if there is no room and none to be had.
    #[inline(always)]
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        let before = std::mem::replace(&mut self.left, self.words.len);
        self.enough && self.frames.len < MAX_FRAMES && self.frames.push(frame.with_words(before))
    }

    /// Adds a frame of the recorded walk again, with its words.
    pub(super) fn push_recorded(&mut self, recorded: &Recorded, at: usize) -> bool {
        let Some(frame) = recorded.frame(at).copied() else { return false };
        self.in_order |= frame.is_in_order();
        self.evaluated |= frame.is_read_elsewhere();
        // It may.
        self.needs_fp = true;
        recorded.words_of(at).iter().rev().for_each(|word| self.note(*word));
        self.push(frame)
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
}

/// The frames of a walk while it is on its way, and the words that were read.
///
/// PERF: how many there are is counted in registers meanwhile, and noted in the end.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    fresh: &'a mut Fresh,
    frames: usize,
    words: usize,
    /// As in [`Fresh`].
    left: usize,
    needs_fp: bool,
}

/// Words that a step by a packed rule reads.
pub(super) const MOST_WORDS: usize = 2;

impl<'a> Trail<'a> {
    #[inline(always)]
    pub(super) fn of(fresh: &'a mut Fresh) -> Trail<'a> {
        Trail { fresh, frames: 0, words: 0, left: 0, needs_fp: false }
    }

    /// Whether there is room for one frame more and for the [`MOST_WORDS`] that are read to leave it.
    #[inline(always)]
    pub(super) fn has_room(&mut self) -> bool {
        let Fresh { frames, words, enough, .. } = &mut *self.fresh;
        *enough
            && self.frames < MAX_FRAMES
            && frames.has_room(self.frames, 1)
            && words.has_room(self.words, MOST_WORDS)
    }

    /// As [`Fresh::note`].
    ///
    /// # Safety
    /// No more than [`MOST_WORDS`] after [`has_room`](Trail::has_room) has said so.
    #[inline(always)]
    pub(super) unsafe fn note(&mut self, word: Word) {
        // SAFETY: the caller's promise.
        unsafe { self.fresh.words.put(self.words, word) };
        self.words += 1;
    }

    /// As [`Fresh::push`].
    ///
    /// # Safety
    /// Once, after [`has_room`](Trail::has_room) has said so.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, frame: Frame) {
        // SAFETY: the caller's promise.
        unsafe { self.fresh.frames.put(self.frames, frame.with_words(self.left)) };
        self.frames += 1;
        self.left = self.words;
    }

    /// As [`Fresh::depend_on_fp`].
    #[inline(always)]
    pub(super) fn depend_on_fp(&mut self) {
        self.needs_fp = true;
    }

    /// Where all of it is, as far as the walk has come.
    #[inline(always)]
    pub(super) fn end(&mut self) -> &mut Fresh {
        (self.fresh.frames.len, self.fresh.words.len) = (self.frames, self.words);
        self.fresh.needs_fp |= self.needs_fp;
        self.fresh.left = self.left;
        self.fresh
    }

    /// Goes on from there.
    #[inline(always)]
    pub(super) fn go_on(&mut self) {
        (self.frames, self.words) = (self.fresh.frames.len, self.fresh.words.len);
        self.left = self.fresh.left;
    }
}

/// A deeper stack is cut at its outer end and counted as truncated.
pub(super) const MAX_FRAMES: usize = 1 << 20;
