//! Deep stacks on which the frame pointer is saved at another depth in each event.
//!
//! [`RecordedWalk::move_fp_slot`] gives all frames that lie below such a function a new slot. On a
//! deep stack these can be a million frames in each event. So here the frames stay as they are, and
//! the run of them is described once:
//!
//! ```text
//!   recorded frames     main   start   descend  descend  ...  descend
//!   fp in               0x7fd0 0x7f10  0x7f10   0x7f10        0x7f10    where it once was
//!                              +------ run: fp in 0x4a20 ----------+    where it is now
//! ```
//!
//! The frames of a run leave the register alone, so its value is one and the same for all of them.
//! A run also covers frames that know the value itself, because the leaf of their walk had left it
//! in the register. If the words of the run's frames say nothing of its value, no frame depends on
//! it, and any value is right.
//!
//! In: recorded walks and frames of new ones. Out: the recorded frame with the state of a new one.

use super::deep_proof::DEEP_FRAMES;
use super::frame::{FpSource, Frame};
use super::padded_array::Padding;
use super::recorded_walk::RecordedWalk;
use super::stack::StackBounds;
use super::stack_word::StackWord;

/// Neighbouring frames of a deep recorded walk whose frame pointer is elsewhere than they say.
///
/// The words that read it are words of padding in the recorded walk, which never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FpRun {
    /// The outermost frame of the run.
    first: usize,
    /// The first frame inside of the run; `first` if there is no run.
    end: usize,
    /// Where the frame pointer of all of these frames is.
    source: FpSource,
    /// The value of the frame pointer; `None` if no frame depends on it.
    value: Option<u64>,
}

impl FpRun {
    pub(super) const NONE: FpRun = FpRun { first: 0, end: 0, source: FpSource::Value(0), value: None };

    fn is_none(&self) -> bool {
        self.first == self.end
    }

    fn covers(&self, index: usize) -> bool {
        (self.first..self.end).contains(&index)
    }

    /// Ends the run before this frame, because the stack has other frames from there on.
    fn end_at(&mut self, frames: usize) {
        self.end = self.end.min(frames);
        if self.end <= self.first {
            *self = FpRun::NONE;
        }
    }
}

/// Whether a frame pointer that is found there has this value; true if no frame depends on it.
fn has_value(source: FpSource, value: Option<u64>, bounds: &StackBounds) -> bool {
    value.is_none_or(|value| match source {
        FpSource::Value(fp) => fp == value,
        FpSource::Slot(slot) => bounds.read(slot) == Some(value),
    })
}

impl RecordedWalk {
    /// Returns the frame at this index, with its frame pointer where it is now.
    pub(super) fn current_frame(&self, index: usize) -> Option<Frame> {
        let frame = *self.frame(index)?;
        let run = &self.deep.fp_run;
        Some(if run.covers(index) { frame.with_fp_source(run.source) } else { frame })
    }

    /// Returns a word of the frame at this index as a new walk would read it: if it is the one that
    /// stands for the frame pointer of the run, the word that holds that.
    pub(super) fn current_word(&self, index: usize, word: &StackWord) -> StackWord {
        match self.deep.fp_run {
            run @ FpRun { source: FpSource::Slot(address), value: Some(value), .. }
                if run.covers(index) && *word == StackWord::padding() =>
            {
                StackWord { address, value }
            }
            _ => *word,
        }
    }

    /// Finds the frame that [`find_same_state`](RecordedWalk::find_same_state) finds, on a deep
    /// stack.
    pub(super) fn find_same_state_when_deep(
        &mut self,
        frame: &Frame,
        bounds: &StackBounds,
        candidates: &mut usize,
        exact: bool,
    ) -> Option<usize> {
        *candidates = self.count_not_inside(frame.sp, *candidates);
        let index = candidates.checked_sub(1)?;
        let recorded = self.current_frame(index)?;
        if !recorded.has_state_but_fp_of(frame) {
            return None;
        }
        let run = self.deep.fp_run;
        if !run.is_none() && index >= run.first {
            // A frame inside of the run may have the run's frame pointer too. Otherwise a function
            // in between has saved that.
            let is_of_run = recorded.fp_source() == run.source;
            let source = if is_of_run { frame.fp_source() } else { run.source };
            // If the value is another one, all frames of the run differ. And ordinary walks know of
            // no runs.
            if index < DEEP_FRAMES || !has_value(source, run.value, bounds) {
                *candidates = self.forget_fp_run();
                return None;
            }
        }
        if recorded.has_state_of(frame) {
            return Some(index);
        }
        if exact {
            return None;
        }
        *candidates = index;
        if run.is_none() && index < 2 * DEEP_FRAMES {
            // PERF: a run must be walked anew when the stack is not deep any more. A stack that is
            // about as deep as `DEEP_FRAMES` would pay that again and again.
            *candidates = self.move_fp_slot(index, *frame, *bounds);
        }
        if *candidates == index && index >= DEEP_FRAMES {
            *candidates = self.move_fp_run(index, frame, bounds);
        }
        (*candidates > index).then_some(index)
    }

    /// Gives the recorded frame at `index`, and all frames with the same frame pointer, the frame
    /// pointer of `frame`, if it has the same value. Returns how many of the outermost frames may
    /// still have the state of a new frame: `index + 1` on success.
    fn move_fp_run(&mut self, index: usize, frame: &Frame, bounds: &StackBounds) -> usize {
        let run = self.deep.fp_run;
        let (Some(recorded), to) = (self.current_frame(index), frame.fp_source()) else { return index };
        let from = recorded.fp_source();
        // The words of this frame and of those outside of it lie above its stack pointer, except
        // for the saved frame pointer. So a word below it is that frame pointer and nothing else.
        let is_inside = |source| !matches!(source, FpSource::Slot(slot) if slot >= frame.sp);
        if !is_inside(from) || !is_inside(to) {
            return index;
        }
        // PERF: frames of the run need not be looked at again. So each frame is looked at once,
        // and not in each event.
        let frames = self.frames.as_slice();
        let outside_of_run = frames.iter().take(index + 1).enumerate().rev();
        let added =
            outside_of_run.take_while(|(at, frame)| !run.covers(*at) && frame.fp_source() == from).count();
        let first_added = index + 1 - added;
        let extends = first_added > 0 && run.covers(first_added - 1) && run.source == from;
        if !run.is_none() && !extends {
            // There can be one run, so the walk goes on as far as the other one reaches.
            return self.forget_fp_run().min(index);
        }
        let first = if extends { run.first } else { first_added };
        let mut value = match from {
            FpSource::Value(fp) => Some(fp),
            FpSource::Slot(_) if extends => run.value,
            FpSource::Slot(_) => None,
        };
        let words = self.words_outside_of(first_added)..self.words_outside_of(index + 1);
        let reads_fp = |word: &StackWord| from == FpSource::Slot(word.address);
        for word in self.words.as_slice().get(words.clone()).unwrap_or_default() {
            if reads_fp(word) && *value.get_or_insert(word.value) != word.value {
                return first;
            }
        }
        if !has_value(to, value, bounds) {
            return first;
        }
        // The recorded frames inside of this one have led to the old frame pointer, so they are out
        // of date.
        (self.frames.len, self.words.len) = (index + 1, words.end);
        let added_words = self.words.as_mut_slice().get_mut(words).unwrap_or_default();
        added_words.iter_mut().filter(|word| reads_fp(word)).for_each(|word| *word = StackWord::padding());
        self.deep.fp_run = FpRun { first, end: index + 1, source: to, value };
        index + 1
    }

    /// Ends the run of frames with a moved frame pointer where a new walk ends that shares this
    /// many of the recorded frames.
    pub(super) fn end_fp_run_at(&mut self, shared: usize) {
        self.deep.fp_run.end_at(shared);
    }

    /// Forgets the run, its frames and those inside of it. Returns how many frames are left.
    fn forget_fp_run(&mut self) -> usize {
        let FpRun { first, .. } = std::mem::replace(&mut self.deep.fp_run, FpRun::NONE);
        (self.words.len, self.frames.len) = (self.words_outside_of(first), first);
        first
    }

    /// Begins a walk that finds return addresses only. It knows nothing of frames whose frame
    /// pointer is elsewhere than they say, so with such frames the walk is forgotten.
    pub(super) fn begin_walk_of_addresses(&mut self) {
        self.note_frames_outside(None);
        if !self.deep.fp_run.is_none() {
            self.forget();
        }
    }
}
