//! One step outwards on x86-64, by the rules that the compiler has left: the caller's stack pointer is at a fixed
//! distance from the stack pointer or from the frame pointer, its return address lies just below, and its frame pointer
//! was saved somewhere near, or was left alone.
//!
//! The state of a frame is its return address, its stack pointer, and where the frame pointer of its function is: still
//! in the register, or in a slot further in. It is read only when a frame's size depends on it.

use super::compile::{self, rule_at};
use super::frame::Frame;
use super::incremental::{Step, Words};
use super::rule::{Base, Rule};

/// The frame's caller; `None` if only a full unwinder can tell.
#[inline(always)]
pub(super) fn step(frame: &Frame, words: &mut impl Words) -> Option<Step> {
    let (base, offset, fp) = match rule_at(frame.rule_address()) {
        Rule::Frame { base, offset, fp } => (base, offset, fp),
        Rule::Outermost => return Some(Step::Outermost),
        // PERF: a copy, so that the frame itself can stay in registers.
        Rule::Unpackable => return compile::evaluate(&{ *frame }, words),
    };
    let base = match base {
        Base::Sp => frame.sp,
        Base::Fp => match frame.fp_slot() {
            Some(slot) => words.read(slot)?,
            None => frame.fp,
        },
    };
    let sp = base.checked_add(u64::from(offset))?;
    // The stack grows down: a caller is above.
    if sp <= frame.sp {
        return None;
    }
    let pc = words.read(sp - 8).filter(|pc| *pc != 0)?;
    Some(Step::Caller(match fp {
        Some(saved) => Frame::in_slot(pc, sp, sp.wrapping_add_signed(i64::from(saved))),
        None => frame.caller_with_same_fp(pc, sp),
    }))
}

/// A return address as the call tree has it.
#[inline(always)]
pub(super) fn plain_address(pc: u64) -> u64 {
    pc
}
