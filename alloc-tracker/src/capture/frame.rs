//! One frame of a walk: where it returns to, and all that an unwinder knows there.

use alloc_dump::layout::StackId;

use super::array::Filler;
use crate::base::sys::Plain;

/// A frame, and the state that the unwinder was in. PERF: two of them fill a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Frame {
    /// Return address; for code that a signal interrupted, its own address.
    pub(super) pc: u64,
    /// Stack pointer; 0 for a frame whose state is not known.
    pub(super) sp: u64,
    /// The frame pointer of its function: its value, or the address of the slot that it was saved in.
    pub(super) fp: u64,
    /// Flags in the lowest bits, above them a number of words: of a new frame, how many were read before it was left; of a recorded
    /// one, how many were read from here to the root. In the upper half its node in the call tree, once it is recorded.
    ///
    /// PERF: one word, because it is stored and soon loaded as one.
    rest: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Frame {}

impl Filler for Frame {
    /// A frame outside of all others.
    fn filler() -> Frame {
        Frame::in_register(0, u64::MAX, 0)
    }
}

/// Whether words must be compared in the order in which they were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct InOrder(u64);

impl InOrder {
    /// It is so if one of the two is.
    #[inline(always)]
    pub(super) fn or(self, other: bool) -> InOrder {
        InOrder(self.0 | (u64::from(other) * IN_ORDER))
    }

    pub(super) const NO: InOrder = InOrder(0);
}

const FP_IN_SLOT: u64 = 1;
const INTERRUPTED: u64 = 2;
/// The return address does not lie just below the stack pointer.
const ELSEWHERE: u64 = 4;
/// What the walk from here on reads must be read in order.
const IN_ORDER: u64 = ELSEWHERE << 1;
/// What belongs to an unwinder's state.
const STATE: u64 = FP_IN_SLOT | INTERRUPTED;
const FLAGS: u64 = 15;
const FLAG_BITS: u32 = 4;
const NODE_SHIFT: u32 = 32;

impl Frame {
    /// A frame that another unwinder has found.
    pub(super) const fn without_state(pc: u64) -> Frame {
        Frame::in_register(pc, 0, 0)
    }

    /// The same frame, field by field.
    ///
    /// PERF: one that was just stored in words must not be loaded as a whole: the processor waits until all of its words have
    /// left for the cache. The compiler makes one load of two words, unless they are volatile.
    #[inline(always)]
    pub(super) fn copied(&self) -> Frame {
        // SAFETY: fields of a valid frame.
        unsafe {
            Frame {
                pc: (&raw const self.pc).read_volatile(),
                sp: (&raw const self.sp).read_volatile(),
                fp: (&raw const self.fp).read_volatile(),
                rest: (&raw const self.rest).read_volatile(),
            }
        }
    }

    /// A frame whose function's frame pointer has this value.
    #[inline(always)]
    pub(super) const fn in_register(pc: u64, sp: u64, fp: u64) -> Frame {
        Frame { pc, sp, fp, rest: 0 }
    }

    /// A frame whose function's frame pointer was saved at this address.
    #[inline(always)]
    pub(super) const fn in_slot(pc: u64, sp: u64, slot: u64) -> Frame {
        Frame { rest: FP_IN_SLOT, ..Frame::in_register(pc, sp, slot) }
    }

    /// The caller's frame, if this one's function leaves the frame pointer alone.
    #[inline(always)]
    pub(super) fn caller_with_same_fp(&self, pc: u64, sp: u64) -> Frame {
        self.caller(pc, sp, false, 0)
    }

    /// The caller's frame, if this one's function has `saved` the frame pointer in this slot, or else leaves it alone.
    #[inline(always)]
    pub(super) fn caller(&self, pc: u64, sp: u64, saved: bool, slot: u64) -> Frame {
        let fp = std::hint::select_unpredictable(saved, slot, self.fp);
        let flags = (self.rest & FP_IN_SLOT) | (saved as u64 * FP_IN_SLOT);
        Frame { rest: flags, ..Frame::in_register(pc, sp, fp) }
    }

    /// The frame as code that a signal interrupted, not that has called something.
    pub(super) const fn interrupted(self) -> Frame {
        Frame { rest: self.rest | INTERRUPTED, ..self }
    }

    /// The frame as one whose return address does not lie just below its stack pointer, but in a word that was noted.
    pub(super) const fn read_elsewhere(self) -> Frame {
        Frame { rest: self.rest | ELSEWHERE, ..self }
    }

    /// Whether the return address does not lie just below the stack pointer.
    #[inline(always)]
    pub(super) const fn is_read_elsewhere(&self) -> bool {
        self.rest & ELSEWHERE != 0
    }

    /// Whether words must be compared in the order in which they were read, from here on.
    #[inline(always)]
    pub(super) const fn is_in_order(&self) -> bool {
        self.rest & IN_ORDER != 0
    }

    /// The address whose unwind rule holds here: of a call, that of the instruction before the one that it returns to.
    #[inline(always)]
    pub(super) const fn rule_address(&self) -> u64 {
        self.pc.wrapping_sub((self.rest & INTERRUPTED == 0) as u64)
    }

    /// The slot of the frame pointer, if it is in one.
    #[inline(always)]
    pub(super) fn fp_slot(&self) -> Option<u64> {
        (self.rest & FP_IN_SLOT != 0).then_some(self.fp)
    }

    #[inline(always)]
    pub(super) fn is_in_state_of(&self, other: &Frame) -> bool {
        // PERF: one branch instead of four.
        (self.pc ^ other.pc) | (self.sp ^ other.sp) | (self.fp ^ other.fp) | (self.rest ^ other.rest) & STATE
            == 0
    }

    /// Whether it is where the other one is; what is known of the frame pointer may be something else.
    #[inline(always)]
    pub(super) fn is_where(&self, other: &Frame) -> bool {
        (self.pc ^ other.pc) | (self.sp ^ other.sp) | (self.rest ^ other.rest) & INTERRUPTED == 0
    }

    /// Whether it has the same node, and is in the same state. PERF: of the same node is what has the same return address.
    #[inline(always)]
    pub(super) fn has_node_and_state_of(&self, other: &Frame) -> bool {
        let rest = (self.rest ^ other.rest) & (u64::MAX << NODE_SHIFT | STATE);
        (self.sp ^ other.sp) | (self.fp ^ other.fp) | rest == 0
    }

    /// Its node, once it is recorded.
    #[inline(always)]
    pub(super) const fn node(&self) -> StackId {
        StackId((self.rest >> NODE_SHIFT) as u32)
    }

    /// A number of words; the walk's business.
    #[inline(always)]
    pub(super) const fn words(&self) -> usize {
        (self.rest as u32 >> FLAG_BITS) as usize
    }

    /// The same frame, with this number of words.
    #[inline(always)]
    pub(super) const fn with_words(self, words: usize) -> Frame {
        Frame { rest: self.rest & FLAGS | (words as u64) << FLAG_BITS, ..self }
    }

    /// The same frame with this node and this number of words, in order if one outside of it `is`, or if it is read elsewhere. Also
    /// says which.
    ///
    /// PERF: a bit among others, so that nothing depends on it.
    #[inline(always)]
    pub(super) const fn recorded(self, node: StackId, words: usize, is: InOrder) -> (Frame, InOrder) {
        let in_order = is.0 | (self.rest & ELSEWHERE) << 1;
        let rest = (node.0 as u64) << NODE_SHIFT | (words as u64) << FLAG_BITS | in_order;
        (Frame { rest: self.rest & (STATE | ELSEWHERE) | rest, ..self }, InOrder(in_order))
    }

    /// Whether words must be compared in the order in which they were read, from here on.
    #[inline(always)]
    pub(super) const fn in_order(&self) -> InOrder {
        InOrder(self.rest & IN_ORDER)
    }
}
