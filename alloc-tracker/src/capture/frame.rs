//! One frame of a walk: where it returns to, and all that an unwinder knows there.

use crate::sys::Plain;

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
    /// Flags in the lowest bits, above them how many words were read by the end of this frame.
    flags_and_words: u32,
    /// Node in the call tree, once it is recorded.
    pub(super) node: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Frame {}

const FP_IN_SLOT: u32 = 1;
const INTERRUPTED: u32 = 2;
const FLAGS: u32 = 3;
const FLAG_BITS: u32 = 2;

impl Frame {
    /// A frame that another unwinder has found.
    pub(super) const fn without_state(pc: u64) -> Frame {
        Frame::in_register(pc, 0, 0)
    }

    /// A frame whose function's frame pointer has this value.
    #[inline(always)]
    pub(super) const fn in_register(pc: u64, sp: u64, fp: u64) -> Frame {
        Frame { pc, sp, fp, flags_and_words: 0, node: 0 }
    }

    /// A frame whose function's frame pointer was saved at this address.
    #[inline(always)]
    pub(super) const fn in_slot(pc: u64, sp: u64, slot: u64) -> Frame {
        Frame { flags_and_words: FP_IN_SLOT, ..Frame::in_register(pc, sp, slot) }
    }

    /// The caller's frame, if this one's function leaves the frame pointer alone.
    #[inline(always)]
    pub(super) const fn caller_with_same_fp(&self, pc: u64, sp: u64) -> Frame {
        Frame { flags_and_words: self.flags_and_words & FP_IN_SLOT, ..Frame::in_register(pc, sp, self.fp) }
    }

    /// The frame as code that a signal interrupted, not that has called something.
    pub(super) const fn interrupted(self) -> Frame {
        Frame { flags_and_words: self.flags_and_words | INTERRUPTED, ..self }
    }

    /// The address whose unwind rule holds here: of a call, that of the instruction before the one that it returns to.
    #[inline(always)]
    pub(super) const fn rule_address(&self) -> u64 {
        self.pc.wrapping_sub((self.flags_and_words & INTERRUPTED == 0) as u64)
    }

    /// The slot of the frame pointer, if it is in one.
    #[inline(always)]
    pub(super) fn fp_slot(&self) -> Option<u64> {
        (self.flags_and_words & FP_IN_SLOT != 0).then_some(self.fp)
    }

    #[inline(always)]
    pub(super) fn is_in_state_of(&self, other: &Frame) -> bool {
        let flags = u64::from((self.flags_and_words ^ other.flags_and_words) & FLAGS);
        // PERF: one branch instead of four.
        (self.pc ^ other.pc) | (self.sp ^ other.sp) | (self.fp ^ other.fp) | flags == 0
    }

    /// How many words were read by the end of this frame; the walk's business.
    #[inline(always)]
    pub(super) const fn words(&self) -> usize {
        (self.flags_and_words >> FLAG_BITS) as usize
    }

    #[inline(always)]
    pub(super) const fn with_words(self, words: usize) -> Frame {
        Frame { flags_and_words: (self.flags_and_words & FLAGS) | (words as u32) << FLAG_BITS, ..self }
    }
}
