//! The walk before: what a new one is compared with.

use alloc_dump::layout::StackId;

use super::array::Array;
use super::frame::Frame;
use super::fresh::Fresh;
use super::plain_address;
use super::word::{Word, differences_of, read};
use crate::tree::Refused;

/// The last walk on one stack, outermost frame first, with the words that were noted.
///
/// A frame's return address is the word just below its stack pointer, so it is not noted: the frame says it all. Noted are
/// words that a step needs beyond that, and return addresses that lie elsewhere.
#[derive(Debug)]
pub(super) struct Recorded {
    frames: Array<Frame, BLOCK>,
    words: Array<Word, 32>,
    /// What it hangs under.
    pub(super) root: StackId,
    /// What its code and its nodes belong to.
    pub(super) epoch: u64,
    /// Where its stack ends.
    pub(super) end: u64,
}

impl Recorded {
    pub(super) const fn new() -> Recorded {
        Recorded { frames: Array::new(), words: Array::new(), root: StackId::ROOT, epoch: 0, end: 0 }
    }

    /// Forgets the walk if its code may be another by now, or if its stack has another end and there may be less to be read.
    #[inline(always)]
    pub(super) fn hold_for(&mut self, epoch: u64, end: u64) {
        if (self.epoch ^ epoch) | (self.end ^ end) != 0 {
            (self.epoch, self.end) = (epoch, end);
            (self.frames.len, self.words.len) = (0, 0);
        }
    }

    /// The frame at this place, whatever the walk hangs under.
    #[inline(always)]
    pub(super) fn frame(&self, at: usize) -> Option<&Frame> {
        self.frames.get(at)
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
            let return_address =
                caller.filter(|caller| !caller.is_read_elsewhere()).map(Frame::return_address);
            self.words_of(at).iter().rev().any(differs) || return_address.iter().any(differs)
        })
    }

    /// How many of its frames, from the outermost on, have the return addresses of a whole walk.
    pub(super) fn common(&self, fresh: &Fresh) -> usize {
        let outwards = self.frames.as_slice().iter().zip(fresh.frames.as_slice().iter().rev());
        outwards.take_while(|(known, fresh)| known.pc == fresh.pc).count()
    }

    /// Becomes the new walk. The nodes of its frames come from `node`, which gets the caller's one and the return address.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn take(
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

/// PERF: whether return addresses are still there is asked for so many frames at once: how many there are cannot be foreseen, so
/// the fewer rounds the better. The same holds for words, of which there are few.
const BLOCK: usize = 8;
const FEW: usize = 4;
