//! Deep stacks: what a walk compares where a comparison of all words would cost too much.
//!
//! An ordinary walk compares all words from a frame to the root. If a recursion of a million levels
//! frees a block at each, that is half a billion words for every thousand blocks. So from
//! [`DEEP_FRAMES`] frames on a walk compares a bounded number of words:
//!
//! ```text
//!   leaf   new frames         walked frame by frame
//!          nearest words      compared at every event
//!          words between      some at every event, in turn; all of them after
//!                             (words between) / MIDDLE_WORDS events
//!          outermost words    compared at every event
//!   root
//! ```
//!
//! A recursion changes its stack at the leaf end. To change a word further out, the program must
//! return past all frames inside of it, and call them again. An event on the way shows that,
//! because it shortens the recorded walk: deep walks have no shortcuts, so each of them ends with
//! the frames that the stack has. Only a change without any such event can stay unseen, and only if
//! the nearest and the outermost words are what they were. It is found when its turn comes.
//!
//! The outer part of the thread's own stack may lie on another stack. There no word is read before
//! all words that led to it were found unchanged. So such a walk compares the nearest words in the
//! order of reading, and from time to time all words in that order. The average is the same.
//!
//! A walk that begins on another stack compares all words, however deep that stack is.
//!
//! In: recorded walks and the frames of new ones. Out: the frames that are shared, and whether the
//! proof is partial. Nothing here runs before a stack is deep. Never allocates.

use std::sync::atomic::{AtomicBool, Ordering};

use alloc_dump::layout::StackId;

use super::WalkEnd;
use super::fp_run::FpRun;
use super::new_walk::MAX_FRAMES;
use super::recorded_walk::RecordedWalk;
use super::stack_word::{StackWord, have_changed, read_word};

/// A recorded walk with this many frames is deep, and what is shared of it beyond this many frames
/// is compared in part.
///
/// PERF: at this depth the whole comparison costs some four microseconds, and the partial one two.
pub(super) const DEEP_FRAMES: usize = 8192;
/// How many of the nearest words are compared at every event.
pub(super) const NEAR_WORDS: usize = 2048;
/// How many of the outermost words are compared at every event.
pub(super) const OUTER_WORDS: usize = 512;
/// How many words between these are compared at every event.
pub(super) const MIDDLE_WORDS: usize = 512;
// A deep frame has more words than are compared at one event, so its proof is never whole by
// chance.
const _: () = assert!(NEAR_WORDS + OUTER_WORDS + MIDDLE_WORDS < DEEP_FRAMES);
/// Arrays with room for more values give the memory back when the stack is not deep any more.
pub(super) const MAX_SPARE: usize = 4 * DEEP_FRAMES;

/// Stands for the number of frames outside of a walk that ends at a frame without a known caller:
/// however few frames the stack will have, no walk will reach its root.
pub(super) const NO_ROOT: usize = 1 << 40;

/// What walks on a deep stack leave for the next one.
#[derive(Debug)]
pub(super) struct DeepProof {
    /// The words between the nearest and the outermost ones are compared from the inside to the
    /// outside. This is the number of words outside of those that were compared last.
    middle: usize,
    /// How many words may be compared in the order of reading beyond the nearest ones.
    in_order: usize,
    /// Whether the last comparison found all words unchanged that it has looked at, and has not
    /// looked at all.
    is_partial: bool,
    /// For a truncated walk: how many frames there are outside of it. `None` if that is not known.
    frames_outside: Option<usize>,
    /// Frames whose frame pointer has moved.
    pub(super) fp_run: FpRun,
}

impl DeepProof {
    pub(super) const fn new() -> DeepProof {
        DeepProof { middle: 0, in_order: 0, is_partial: false, frames_outside: None, fp_run: FpRun::NONE }
    }
}

impl RecordedWalk {
    /// Whether the walk has so many frames that the next one takes the way of deep stacks.
    #[inline(always)]
    pub(super) fn is_deep(&self) -> bool {
        self.frames.len >= DEEP_FRAMES
    }

    /// Returns how many of the outermost frames a new walk can share. A truncated walk can be
    /// shared if it is known when a new walk would reach the root.
    pub(super) fn sharable_when_deep(&self) -> usize {
        let is_known = self.root == StackId::ROOT || self.deep.frames_outside.is_some();
        if is_known { self.frames.len } else { 0 }
    }

    /// Notes for a walk that ends as truncated how many frames there are outside of it.
    pub(super) fn note_frames_outside(&mut self, frames: Option<usize>) {
        self.deep.frames_outside = frames;
    }

    /// Whether the walk lacks frames that another walk of the same stack may have, because it has
    /// as many as a walk may have.
    pub(super) fn is_cut(&self) -> bool {
        let outside = self.deep.frames_outside.filter(|_| self.root == StackId::TRUNCATED);
        self.frames.len > MAX_FRAMES || outside.is_some_and(|frames| frames != NO_ROOT)
    }

    /// Returns the end of a new walk that has this many frames of its own, and shares this many of
    /// the recorded ones. `None` if the walk is to go on to the root: it would be truncated, though
    /// the stack has no more than [`MAX_FRAMES`].
    pub(super) fn end_with(&mut self, new: usize, shared: usize) -> Option<WalkEnd> {
        if self.root == StackId::ROOT {
            return Some(WalkEnd::Root);
        }
        let frames = self.deep.frames_outside.map(|outside| outside + shared + new);
        if frames.is_some_and(|frames| frames > MAX_FRAMES) {
            return Some(WalkEnd::Truncated);
        }
        self.deep.is_partial = false;
        None
    }

    /// Whether the words of the last stack were compared in part only. Asked once for each stack.
    pub(super) fn take_partial_proof(&mut self) -> bool {
        std::mem::take(&mut self.deep.is_partial)
    }

    /// Forgets the outcome of the last comparison: a new walk begins.
    pub(super) fn begin_deep_walk(&mut self) {
        self.deep.is_partial = false;
    }

    /// Gives memory back that only a deep walk needs.
    pub(super) fn give_memory_back(&mut self) {
        self.frames.shrink_if_above(MAX_SPARE);
        self.words.shrink_if_above(MAX_SPARE);
    }

    /// Compares noted words from the frame at `index` outwards with the words that the stack holds
    /// now: all of them if the frame is not deep, else a bounded number. Returns the innermost
    /// frame out of which a changed word leads; `None` if no compared word has changed.
    ///
    /// # Safety
    /// As for [`first_changed_frame`](RecordedWalk::first_changed_frame).
    pub(super) unsafe fn first_changed_frame_when_deep(
        &mut self,
        index: usize,
        as_read: bool,
    ) -> Option<usize> {
        self.deep.is_partial = false;
        let frame = *self.frames.get(index)?;
        if index < DEEP_FRAMES || compares_every_word() {
            // SAFETY: as the caller promises.
            return unsafe { self.first_changed_frame(index, as_read) };
        }
        let words = frame.word_count();
        let near = words.saturating_sub(NEAR_WORDS);
        let must_be_as_read = frame.must_compare_as_read();
        if as_read || must_be_as_read {
            // SAFETY: as the caller promises.
            let changed = unsafe { self.first_changed_frame_near(index, near) };
            if changed.is_some() {
                return changed;
            }
        }
        let has_changed = if must_be_as_read {
            self.deep.in_order += MIDDLE_WORDS;
            self.deep.in_order >= words
        } else {
            let middle = self.next_middle(near);
            let all = self.words.as_slice();
            [near..words, middle, 0..OUTER_WORDS].into_iter().any(|range| {
                let words = all.get(range).unwrap_or_default();
                // SAFETY: the words of a frame that may be compared in any order lie between its
                // stack pointer and the end of its stack, which the caller promises to be readable.
                unsafe { have_changed(words) }
            })
        };
        if !has_changed {
            self.deep.is_partial = true;
            return None;
        }
        self.deep.in_order = 0;
        // SAFETY: as the caller promises.
        unsafe { self.first_changed_frame_as_read(index) }
    }

    /// Returns the next words between the outermost ones and the `near` ones, which begin at this
    /// index.
    fn next_middle(&mut self, near: usize) -> std::ops::Range<usize> {
        let end = if self.deep.middle > OUTER_WORDS { self.deep.middle.min(near) } else { near };
        let start = end.saturating_sub(MIDDLE_WORDS).max(OUTER_WORDS.min(end));
        self.deep.middle = start;
        start..end
    }

    /// Compares in the order of reading, from the frame at `index` to the one whose words begin
    /// below `near`. Returns what
    /// [`first_changed_frame`](RecordedWalk::first_changed_frame) returns.
    ///
    /// # Safety
    /// As for [`first_changed_frame`](RecordedWalk::first_changed_frame).
    unsafe fn first_changed_frame_near(&self, index: usize, near: usize) -> Option<usize> {
        // SAFETY: the iteration stops at the first changed word, so all words before this one are
        // unchanged.
        let has_changed = |word: &StackWord| unsafe { read_word(word.address) } != word.value;
        let mut frames = (0..=index).rev().take_while(|&index| self.words_outside_of(index + 1) > near);
        frames.find(|&index| self.words_of(index).iter().rev().any(has_changed))
    }
}

/// Makes every walk compare every word, however deep the stack is.
pub(crate) fn set_compares_every_word(every: bool) {
    COMPARES_EVERY_WORD.store(every, Ordering::Relaxed);
}

fn compares_every_word() -> bool {
    COMPARES_EVERY_WORD.load(Ordering::Relaxed)
}

static COMPARES_EVERY_WORD: AtomicBool = AtomicBool::new(false);
