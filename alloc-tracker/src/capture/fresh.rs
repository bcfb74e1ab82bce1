//! The new walk in the making: the frames that it does not share with the one before.

use super::End;
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
        }
    }

    #[inline(always)]
    pub(super) fn begin(&mut self, in_order: bool) {
        (self.frames.len, self.words.len) = (0, 0);
        (self.shared, self.in_order) = (0, in_order);
        (self.stepped, self.needs_fp, self.evaluated) = (true, false, false);
    }

    /// Becomes a walk that has addresses only.
    pub(super) fn fill(&mut self, walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End) -> End {
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

    /// The words that were read from the innermost frame to the junction, the last of them as often as there is room. `None` if
    /// there is not enough, or if it was not all read on this one stack.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn way(&self) -> Option<[Word; LONGEST]> {
        let words = self.words.as_slice();
        let last = *words.last()?;
        if words.len() > LONGEST || self.evaluated {
            return None;
        }
        let mut way = [last; LONGEST];
        for (place, word) in way.iter_mut().zip(words) {
            *place = *word;
        }
        Some(way)
    }

    /// A frame was worked out in full, from words that lie anywhere.
    pub(super) fn was_evaluated(&mut self) {
        self.evaluated = true;
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
        let Some(frame) = recorded.frame(at).copied() else { return false };
        self.in_order |= frame.is_in_order();
        self.evaluated |= frame.is_read_elsewhere();
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

    /// How many words were read to leave the frames inside of this one.
    #[inline(always)]
    pub(super) fn words_before(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|inner| self.frames.get(inner)).map_or(0, Frame::words)
    }
}

/// A deeper stack is cut at its outer end and counted as truncated.
pub(super) const MAX_FRAMES: usize = 1 << 20;
