//! One frame of a walk: where its function continues, and the unwinder state there.
//!
//! The unwinder state is all that an unwinder knows at a frame: the return address, the stack
//! pointer, and the frame pointer of the frame's function, or the stack slot that it was saved in.
//! Two frames with equal states have equal callers, as long as the words that an unwinder reads on
//! its way are equal too.
//!
//! In this folder a frame is *outside* of another one if it is nearer to the root, and *inside* of
//! it if it is nearer to the leaf: its stack pointer is lower. The same holds for stack pointers.
//!
//! In: numbers. Out: numbers. Nothing here reads a stack.

use alloc_dump::layout::StackId;

use super::code_address::{CodeAddress, ReturnAddress};
use super::padded_array::Padding;
use crate::base::sys::Plain;

/// A frame with its unwinder state.
///
/// PERF: 32 bytes, so two of them fill a cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Frame {
    /// Where the function continues. For code that a signal interrupted: the interrupted
    /// instruction.
    pub(super) pc: ReturnAddress,
    /// The stack pointer: the lowest address of the frame. It is 0 for a frame without a state. So
    /// that frame lies inside of every new frame, and no search by state finds it.
    pub(super) sp: u64,
    /// The frame pointer of the frame's function: its value, or with [`FP_IN_SLOT`] the address of
    /// the stack slot that holds it.
    pub(super) fp: u64,
    /// Three parts:
    ///
    /// ```text
    ///  63          32 31            4 3     0
    /// +--------------+---------------+-------+
    /// |     node     |  word count   | flags |
    /// +--------------+---------------+-------+
    /// ```
    ///
    /// - node: the call tree node, once the frame is recorded.
    /// - word count, in a new walk: how many words the walk had read before it left this frame.
    /// - word count, in a recorded walk: how many words the walk has read from this frame to the
    ///   root.
    ///
    /// PERF: one word, because it is stored and soon loaded as one.
    packed: u64,
}

// SAFETY: `Plain` wants a `repr(C)` struct of integers without padding; these are four of eight
// bytes.
unsafe impl Plain for Frame {}

impl Padding for Frame {
    /// Returns a frame outside of all others.
    fn padding() -> Frame {
        Frame::with_fp_value(ReturnAddress::NONE, u64::MAX, 0)
    }
}

/// Where the frame pointer of a frame's function is: two parts of the unwinder state in one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FpSource {
    /// It has this value.
    Value(u64),
    /// The stack slot at this address holds it.
    Slot(u64),
}

/// In which order a walk's words may be compared with their noted values.
///
/// Words on the thread's own stack may be compared in any order: that stack is mapped as long as
/// the thread lives. Elsewhere the address of a word may depend on the words read before it, and
/// may be unmapped once one of those has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct WordOrder(u64);

impl WordOrder {
    pub(super) const ANY: WordOrder = WordOrder(0);

    /// Returns this order, or the order of reading if `must_be_as_read`.
    #[inline(always)]
    pub(super) fn or_as_read_if(self, must_be_as_read: bool) -> WordOrder {
        WordOrder(self.0 | (u64::from(must_be_as_read) * ORDER_AS_READ))
    }
}

/// `fp` is the address of the slot that holds the frame pointer.
const FP_IN_SLOT: u64 = 1;
/// A signal interrupted the frame's function: `pc` is the next instruction, not a return address.
const INTERRUPTED: u64 = 2;
/// The return address does not lie just below the stack pointer, but in a word that the walk has
/// noted.
const RETURN_ADDRESS_ELSEWHERE: u64 = 4;
/// The words from here to the root must be compared in the order in which they were read.
const ORDER_AS_READ: u64 = RETURN_ADDRESS_ELSEWHERE << 1;
/// The flags that belong to the unwinder state.
const STATE_FLAGS: u64 = FP_IN_SLOT | INTERRUPTED;
const ALL_FLAGS: u64 = 15;
const FLAG_BITS: u32 = 4;
const NODE_SHIFT: u32 = 32;

impl Frame {
    /// Returns a frame that another unwinder has found: its return address is known, its state is
    /// not.
    pub(super) const fn without_state(pc: ReturnAddress) -> Frame {
        Frame::with_fp_value(pc, 0, 0)
    }

    /// Copies the frame field by field.
    ///
    /// PERF: a frame that was just stored word by word must not be loaded as a whole: the processor
    /// cannot forward two stores to one wide load, and waits until all of them have left for the
    /// cache. The compiler makes one load of two words, unless the reads are volatile.
    #[inline(always)]
    pub(super) fn copy_by_words(&self) -> Frame {
        // SAFETY: each pointer is made of a reference to a valid frame, so it is aligned and
        // readable.
        unsafe {
            Frame {
                pc: (&raw const self.pc).read_volatile(),
                sp: (&raw const self.sp).read_volatile(),
                fp: (&raw const self.fp).read_volatile(),
                packed: (&raw const self.packed).read_volatile(),
            }
        }
    }

    /// Returns a frame whose function's frame pointer has the value `fp`.
    #[inline(always)]
    pub(super) const fn with_fp_value(pc: ReturnAddress, sp: u64, fp: u64) -> Frame {
        Frame { pc, sp, fp, packed: 0 }
    }

    /// Returns a frame whose function's frame pointer was saved at the address `slot`.
    #[inline(always)]
    pub(super) const fn with_fp_slot(pc: ReturnAddress, sp: u64, slot: u64) -> Frame {
        Frame { packed: FP_IN_SLOT, ..Frame::with_fp_value(pc, sp, slot) }
    }

    /// Returns the caller's frame, if this frame's function leaves the frame pointer alone. `cfa`
    /// is the canonical frame address, which is the caller's stack pointer.
    #[inline(always)]
    pub(super) fn caller_with_same_fp(&self, pc: ReturnAddress, cfa: u64) -> Frame {
        self.caller(pc, cfa, false, 0)
    }

    /// Returns the caller's frame. If `saves_fp`, this frame's function saves the frame pointer in
    /// `slot`; otherwise it leaves the frame pointer alone.
    #[inline(always)]
    pub(super) fn caller(&self, pc: ReturnAddress, cfa: u64, saves_fp: bool, slot: u64) -> Frame {
        let fp = std::hint::select_unpredictable(saves_fp, slot, self.fp);
        let flags = (self.packed & FP_IN_SLOT) | (saves_fp as u64 * FP_IN_SLOT);
        Frame { packed: flags, ..Frame::with_fp_value(pc, cfa, fp) }
    }

    /// Returns this frame as one that a signal has interrupted.
    pub(super) const fn interrupted(self) -> Frame {
        Frame { packed: self.packed | INTERRUPTED, ..self }
    }

    /// Returns this frame as one whose return address does not lie just below its stack pointer.
    pub(super) const fn with_return_address_elsewhere(self) -> Frame {
        Frame { packed: self.packed | RETURN_ADDRESS_ELSEWHERE, ..self }
    }

    /// Whether the return address does not lie just below the stack pointer.
    #[inline(always)]
    pub(super) const fn has_return_address_elsewhere(&self) -> bool {
        self.packed & RETURN_ADDRESS_ELSEWHERE != 0
    }

    /// Whether the words from this recorded frame to the root must be compared in the order of
    /// reading.
    #[inline(always)]
    pub(super) const fn must_compare_as_read(&self) -> bool {
        self.packed & ORDER_AS_READ != 0
    }

    /// Returns the order in which the words from this recorded frame to the root may be compared.
    #[inline(always)]
    pub(super) const fn word_order(&self) -> WordOrder {
        WordOrder(self.packed & ORDER_AS_READ)
    }

    /// Returns the address whose unwind rule leads from this frame to its caller.
    #[inline(always)]
    pub(super) const fn rule_address(&self) -> CodeAddress {
        self.pc.lookup_address(self.packed & INTERRUPTED != 0)
    }

    /// Returns the slot that holds the frame pointer; `None` if the frame knows its value.
    #[inline(always)]
    pub(super) fn fp_slot(&self) -> Option<u64> {
        (self.packed & FP_IN_SLOT != 0).then_some(self.fp)
    }

    /// Returns where the frame pointer of the frame's function is.
    pub(super) fn fp_source(&self) -> FpSource {
        self.fp_slot().map_or(FpSource::Value(self.fp), FpSource::Slot)
    }

    /// Returns this frame with the frame pointer of its function elsewhere.
    pub(super) const fn with_fp_source(self, source: FpSource) -> Frame {
        let (fp, flag) = match source {
            FpSource::Value(fp) => (fp, 0),
            FpSource::Slot(slot) => (slot, FP_IN_SLOT),
        };
        Frame { fp, packed: self.packed & !FP_IN_SLOT | flag, ..self }
    }

    /// Whether both frames have the same unwinder state.
    #[inline(always)]
    pub(super) fn has_state_of(&self, other: &Frame) -> bool {
        // PERF: one branch instead of four.
        (self.pc.0 ^ other.pc.0)
            | (self.sp ^ other.sp)
            | (self.fp ^ other.fp)
            | (self.packed ^ other.packed) & STATE_FLAGS
            == 0
    }

    /// Whether both states are the same, not counting the frame pointers and where these were
    /// saved.
    #[inline(always)]
    pub(super) fn has_state_but_fp_of(&self, other: &Frame) -> bool {
        (self.pc.0 ^ other.pc.0) | (self.sp ^ other.sp) | (self.packed ^ other.packed) & INTERRUPTED == 0
    }

    /// Whether both recorded frames have the same node and the same state.
    ///
    /// PERF: the return addresses need no comparison: a node stands for one return address.
    #[inline(always)]
    pub(super) fn has_node_and_state_of(&self, other: &Frame) -> bool {
        let packed = (self.packed ^ other.packed) & (u64::MAX << NODE_SHIFT | STATE_FLAGS);
        (self.sp ^ other.sp) | (self.fp ^ other.fp) | packed == 0
    }

    /// Returns the call tree node of a recorded frame.
    #[inline(always)]
    pub(super) const fn node(&self) -> StackId {
        StackId((self.packed >> NODE_SHIFT) as u32)
    }

    /// Returns the word count: see `packed` in [`Frame`].
    #[inline(always)]
    pub(super) const fn word_count(&self) -> usize {
        (self.packed as u32 >> FLAG_BITS) as usize
    }

    /// Returns this frame with this word count and no node.
    #[inline(always)]
    pub(super) const fn with_word_count(self, words: usize) -> Frame {
        Frame { packed: self.packed & ALL_FLAGS | (words as u64) << FLAG_BITS, ..self }
    }

    /// Returns this frame as a recorded frame with this node and word count. Also returns the order
    /// in which the words from this frame to the root must be compared; the next frame inwards
    /// gets that order as `outside`.
    ///
    /// Words on the thread's own stack may be compared in any order, because that stack is
    /// readable throughout. An ordinary step stays on the stack that it is on: it finds the return
    /// address just below the caller's stack pointer. After any other step, such as one out of a
    /// signal handler, the words may lie on another stack, which may be gone by now. So one such
    /// step between this frame and the root is enough: the words are then compared in the order in
    /// which the walk read them, and no word behind a changed one is read.
    ///
    /// PERF: the order is a bit that is shifted into its position, so that no branch depends on it.
    #[inline(always)]
    pub(super) const fn into_recorded(
        self,
        node: StackId,
        words: usize,
        outside: WordOrder,
    ) -> (Frame, WordOrder) {
        let order = outside.0 | (self.packed & RETURN_ADDRESS_ELSEWHERE) << 1;
        let packed = (node.0 as u64) << NODE_SHIFT | (words as u64) << FLAG_BITS | order;
        let kept = self.packed & (STATE_FLAGS | RETURN_ADDRESS_ELSEWHERE);
        (Frame { packed: kept | packed, ..self }, WordOrder(order))
    }
}
