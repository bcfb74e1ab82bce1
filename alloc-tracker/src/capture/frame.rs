//! One frame of a walk: where it returns to, and all that an unwinder knows there.

use super::array::Filler;
use super::word::Word;
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
    /// Flags in the lowest bits, above them how many words were noted by the end of this frame.
    pub(super) flags_and_words: u32,
    /// Node in the call tree once it is recorded.
    pub(super) node: u32,
}

// SAFETY: integers without padding.
unsafe impl Plain for Frame {}

impl Filler for Frame {
    /// A frame whose return address is always there.
    fn filler() -> Frame {
        let Word { address, value } = Word::filler();
        Frame::in_register(value, address + 8, 0)
    }
}

const FP_IN_SLOT: u32 = 1;
const INTERRUPTED: u32 = 2;
/// The return address does not lie just below the stack pointer.
const ELSEWHERE: u32 = 4;
/// What the walk from here on reads must be read in order.
const IN_ORDER: u32 = 8;
/// What belongs to an unwinder's state.
const STATE: u32 = FP_IN_SLOT | INTERRUPTED;
const FLAGS: u32 = 15;
const FLAG_BITS: u32 = 4;

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
                flags_and_words: (&raw const self.flags_and_words).read_volatile(),
                node: (&raw const self.node).read_volatile(),
            }
        }
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
        self.caller(pc, sp, false, 0)
    }

    /// The caller's frame, if this one's function has `saved` the frame pointer in this slot, or else leaves it alone.
    #[inline(always)]
    pub(super) const fn caller(&self, pc: u64, sp: u64, saved: bool, slot: u64) -> Frame {
        let mask = 0u64.wrapping_sub(saved as u64);
        let fp = slot & mask | self.fp & !mask;
        let flags = (self.flags_and_words & FP_IN_SLOT) | (saved as u32 * FP_IN_SLOT);
        Frame { flags_and_words: flags, ..Frame::in_register(pc, sp, fp) }
    }

    /// The frame as code that a signal interrupted, not that has called something.
    pub(super) const fn interrupted(self) -> Frame {
        Frame { flags_and_words: self.flags_and_words | INTERRUPTED, ..self }
    }

    /// The frame as one whose return address does not lie just below its stack pointer, but in a word that was noted.
    pub(super) const fn read_elsewhere(self) -> Frame {
        Frame { flags_and_words: self.flags_and_words | ELSEWHERE, ..self }
    }

    /// The word that a call leaves this frame's return address in, if it is where it usually is.
    #[inline(always)]
    pub(super) const fn return_address(&self) -> Word {
        Word { address: self.sp.wrapping_sub(8), value: self.pc }
    }

    /// Whether the return address does not lie just below the stack pointer.
    #[inline(always)]
    pub(super) const fn is_read_elsewhere(&self) -> bool {
        self.flags_and_words & ELSEWHERE != 0
    }

    /// The frame as one from which on words must be compared in the order in which they were read, if `it_is` so.
    #[inline(always)]
    pub(super) const fn in_order(self, it_is: bool) -> Frame {
        Frame { flags_and_words: self.flags_and_words & !IN_ORDER | if it_is { IN_ORDER } else { 0 }, ..self }
    }

    /// Whether words must be compared in the order in which they were read, from here on.
    #[inline(always)]
    pub(super) const fn is_in_order(&self) -> bool {
        self.flags_and_words & IN_ORDER != 0
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
        let flags = u64::from((self.flags_and_words ^ other.flags_and_words) & STATE);
        // PERF: one branch instead of four.
        (self.pc ^ other.pc) | (self.sp ^ other.sp) | (self.fp ^ other.fp) | flags == 0
    }

    /// How many words were noted by the end of this frame; the walk's business.
    #[inline(always)]
    pub(super) const fn words(&self) -> usize {
        (self.flags_and_words >> FLAG_BITS) as usize
    }

    #[inline(always)]
    pub(super) const fn with_words(self, words: usize) -> Frame {
        Frame { flags_and_words: (self.flags_and_words & FLAGS) | (words as u32) << FLAG_BITS, ..self }
    }
}
