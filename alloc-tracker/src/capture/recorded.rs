//! The walk before: what a new one is compared with.

use alloc_dump::layout::StackId;

use super::array::Array;
use super::frame::{Frame, InOrder};
use super::fresh::Fresh;
use super::plain_address;
use super::stack::Bounds;
use super::word::{Word, differences_of, read};
use crate::tree::InternError;

/// The last walk on one stack, outermost frame first, with the words that were read: those that led out of a frame are before
/// those of the frames inside of it, the one that was read last first. So what was read from a frame to the root are the
/// first words, read backwards.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Recorded {
    /// How many of the frames a new walk can share.
    sharable: usize,
    frames: Array<Frame, 8>,
    words: Array<Word, 32>,
    /// What it hangs under.
    root: StackId,
    /// Where its stack ends.
    end: u64,
}

impl Recorded {
    pub(super) const fn new() -> Recorded {
        Recorded { sharable: 0, frames: Array::new(), words: Array::new(), root: StackId::ROOT, end: 0 }
    }

    /// Forgets the walk: its code may be another by now.
    pub(super) fn forget(&mut self) {
        (self.frames.len, self.words.len, self.sharable) = (0, 0, 0);
    }

    /// Forgets the walk if its stack has another end, and there may be less to be read.
    pub(super) fn hold_for(&mut self, end: u64) {
        if self.end != end {
            self.end = end;
            self.forget();
        }
    }

    /// Whether the walk hangs under this root.
    pub(super) fn hangs_under(&self, root: StackId) -> bool {
        self.root == root
    }

    /// The frame at this place, whatever the walk hangs under.
    #[inline(always)]
    pub(super) fn frame(&self, at: usize) -> Option<&Frame> {
        self.frames.get(at)
    }

    /// Which frame is in the state of this one, if one of the first `candidates` is, of which those remain that have not returned.
    /// `as_it_is`: no frame is made one.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        frame: &Frame,
        bounds: &Bounds,
        candidates: &mut usize,
        as_it_is: bool,
    ) -> Option<usize> {
        *candidates = self.outside_of(frame.sp, *candidates);
        let at = candidates.checked_sub(1)?;
        let known = self.frames.get(at)?;
        if known.is_in_state_of(frame) {
            return Some(at);
        }
        if as_it_is || !known.is_where(frame) {
            return None;
        }
        // PERF: copies, so that the others can stay in registers.
        *candidates = self.move_slot(at, *frame, *bounds);
        (*candidates > at).then_some(at)
    }

    /// Makes a frame one that is in the state of this one, if they differ in the slot of the frame pointer alone, and the same is
    /// saved in both. The number of frames that may be in the state of one of this walk.
    ///
    /// Where no function near the root saves the frame pointer, and one there needs it, as the C library's first one of a thread
    /// does, all frames would else be others whenever it is saved at another depth.
    #[cold]
    #[inline(never)]
    fn move_slot(&mut self, at: usize, frame: Frame, bounds: Bounds) -> usize {
        let from = self.frames.get(at).and_then(Frame::fp_slot);
        // Outside of it nothing is read that lies inside, but what was saved there.
        let slots = from.zip(frame.fp_slot()).filter(|(from, to)| *from < frame.sp && *to < frame.sp);
        let Some((from, to)) = slots else { return at };
        let (frames, words) = (self.frames.as_slice(), self.words.as_slice());
        let with_slot = frames.iter().take(at + 1).rev().take_while(|frame| frame.fp_slot() == Some(from));
        let first = at + 1 - with_slot.count();
        let read = self.words_before(first)..self.words_before(at + 1);
        let mut readers =
            words.get(read.clone()).unwrap_or_default().iter().filter(|word| word.address == from);
        if let Some(reader) = readers.next()
            && (bounds.read(to) != Some(reader.value) || readers.any(|other| other.value != reader.value))
        {
            // So it is for all frames that have this slot.
            return first;
        }
        // What lies further in has led to the other slot.
        (self.frames.len, self.words.len, self.sharable) = (at + 1, read.end, self.sharable.min(at + 1));
        self.frames.as_mut_slice().iter_mut().skip(first).for_each(|frame| frame.fp = to);
        let words = self.words.as_mut_slice().iter_mut().skip(read.start);
        words.filter(|word| word.address == from).for_each(|word| word.address = to);
        at + 1
    }

    /// The frames that a new walk can share.
    #[inline(always)]
    pub(super) fn sharable(&self) -> usize {
        self.sharable
    }

    /// How many of the first `frames` frames lie outside of this stack pointer, or at it.
    ///
    /// PERF: how many have returned cannot be foreseen, so there is no branch for each.
    #[inline(always)]
    fn outside_of(&self, sp: u64, mut frames: usize) -> usize {
        while frames > 0 {
            let inside: usize =
                self.frames.last_block::<FEW>(frames).iter().map(|frame| usize::from(frame.sp < sp)).sum();
            // What fills the block lies outside of everything.
            frames -= inside;
            if inside < FEW {
                break;
            }
        }
        frames
    }

    /// The words that were read to leave a frame, the one that was read last first.
    pub(super) fn words_of(&self, at: usize) -> &[Word] {
        let to = self.frames.get(at).map_or(0, Frame::words);
        self.words.as_slice().get(self.words_before(at)..to).unwrap_or_default()
    }

    /// Compares what was read from a frame to the root with what is there now. The first frame, from there on, that would
    /// be left differently. `in_order`: no word behind the first one that differs is looked at.
    ///
    /// # Safety
    /// A walk that is in the state of this frame must be able to read what this one has read, as long as all that it has
    /// read before is the same; and, if this frame is not in order, all between its stack pointer and the end of its stack.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn first_difference(&self, from: usize, in_order: bool) -> Option<usize> {
        let frame = self.frames.get(from)?;
        // SAFETY: the caller's promise.
        if !in_order && !frame.is_in_order() && unsafe { self.is_the_same_from(frame) } {
            return None;
        }
        // SAFETY: the caller's promise.
        unsafe { self.first_difference_in_order(from) }
    }

    /// Whether all words that were read from this frame, one of its own, to the root are what they were.
    ///
    /// PERF: all words lie on the thread's own stack, so they may be read in any order, and need no branch for each.
    ///
    /// # Safety
    /// All of them must be readable.
    #[inline(always)]
    unsafe fn is_the_same_from(&self, frame: &Frame) -> bool {
        let mut differences = 0;
        for words in self.words.blocks::<BLOCK>(frame.words()) {
            // SAFETY: the caller's promise.
            differences |= unsafe { differences_of(words) };
        }
        differences == 0
    }

    /// Whether it has this very frame there, with this node, and is still the stack's from there on, so far as that may be found
    /// out in any order.
    ///
    /// # Safety
    /// All between the frame's stack pointer and the end of the stack must be readable.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) unsafe fn goes_on_from(&self, depth: usize, junction: &Frame) -> bool {
        let Some(frame) = self.frames.get(depth).filter(|_| depth < self.sharable) else { return false };
        // SAFETY: the caller's promise; nothing else was read for a frame that is not in order.
        frame.has_node_and_state_of(junction)
            && !frame.is_in_order()
            && unsafe { self.is_the_same_from(frame) }
    }

    /// As [`first_difference`](Recorded::first_difference), each word only after all that were read before it.
    #[cold]
    #[inline(never)]
    unsafe fn first_difference_in_order(&self, from: usize) -> Option<usize> {
        // SAFETY: the caller's promise; what was read before is the same.
        let differs = |word: &Word| unsafe { read(word.address) } != word.value;
        (0..=from).rev().find(|&at| self.words_of(at).iter().rev().any(differs))
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
        mut node: impl FnMut(StackId, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        self.root = root;
        self.frames.len = fresh.shared;
        let before = self.words_before(fresh.shared);
        let outside = self.frames.as_slice().last().map(|last| (last.node(), last.in_order()));
        let (mut parent, in_order) = outside.unwrap_or((root, InOrder::NO));
        let mut in_order = in_order.or(fresh.in_order);
        if !self.take_words(fresh, before) {
            return self.refuse(InternError::TreeFull);
        }
        let (frames, words) = (fresh.frames.as_slice(), self.words.len);
        let Some(places) = self.frames.room_for(frames.len()) else {
            return self.refuse(InternError::TreeFull);
        };
        let mut places = places.iter_mut();
        for frame in frames.iter().rev() {
            let frame = frame.copied();
            parent = match node(parent, plain_address(frame.pc)) {
                Ok(node) => node,
                Err(why) => return self.refuse(why),
            };
            let Some(place) = places.next() else { break };
            (*place, in_order) = frame.recorded(parent, words - frame.words(), in_order);
        }
        self.frames.len += frames.len();
        self.sharable = if root == StackId::ROOT { self.frames.len } else { 0 };
        Ok(parent)
    }

    /// Takes all words that were read to leave new frames, behind so many of its own; false if there is no memory.
    #[inline(always)]
    fn take_words(&mut self, fresh: &Fresh, before: usize) -> bool {
        self.words.len = before;
        let words = fresh.words.as_slice();
        let Some(places) = self.words.room_for(words.len()) else { return false };
        for (place, word) in places.iter_mut().zip(words.iter().rev()) {
            *place = *word;
        }
        self.words.len += words.len();
        true
    }

    #[cold]
    fn refuse(&mut self, why: InternError) -> Result<StackId, InternError> {
        self.forget();
        Err(why)
    }

    /// Words that were read to leave the frames outside of this one.
    #[inline(always)]
    fn words_before(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|outer| self.frames.get(outer)).map_or(0, Frame::words)
    }
}

/// PERF: so many words are compared at once: how many there are cannot be foreseen, so the fewer rounds the better.
const BLOCK: usize = 8;
/// As many frames are looked at at once.
const FEW: usize = 4;
