//! The walk that reuses the one before: steps from the top until a frame is in the very state of a recorded frame, then
//! compares the words that were read from there to the root.
//!
//! An unwinder is a function of its state and of the words that it reads. If a new frame's state equals that of a
//! recorded one, and all words that led from there to the root still have the values that they had, then the rest of
//! the walk must be the same; so the recorded frames and their nodes are taken over, and only the new frames at the
//! top have to be interned. A word that differs ends the agreement at its frame: stepping goes on from there.
//! Every word is compared only after all words that led to it, so memory that a real walk would not touch is never
//! touched. Comparing code and stack addresses alone would not be sound.
//!
//! The state of a frame is its return address, its stack pointer, and where the frame pointer of its function is: still
//! in the register, or in a slot further in. It is read only when a frame's size depends on it.

use super::End;
use super::compile::rule_at;
use super::registers::Registers;
use super::rule::{Base, Rule};
use super::stack::Bounds;
use super::walk::{Frame, Walk};

/// Walks from the function that took `registers`, which is not recorded itself. `None` if the stack has a frame that
/// only a full unwinder understands.
pub(super) fn walk(walk: &mut Walk, registers: &Registers) -> Option<End> {
    let stack = walk.stack_above(registers.sp)?;
    let mut own = Frame::in_register(registers.pc, registers.sp, registers.fp);
    let mut frame = step(&mut own, rule_at(registers.pc), &stack)??;
    let mut candidates = walk.recorded().len();
    loop {
        let recorded = walk.recorded();
        while candidates > 0 && recorded.get(candidates - 1)?.sp < frame.sp {
            candidates -= 1;
        }
        if candidates > 0 && recorded.get(candidates - 1)?.is_in_state_of(&frame) {
            let Some(differs) = first_difference(recorded.get(..candidates)?, &stack) else {
                walk.share(candidates);
                return Some(End::Root);
            };
            // Further in the recorded frames hold; this one's caller is another.
            for at in (differs + 1..candidates).rev() {
                let holds = *walk.recorded().get(at)?;
                if !walk.push(holds) {
                    return Some(End::Truncated);
                }
            }
            frame = walk.recorded().get(differs)?.state();
            candidates = differs;
        }
        // The rule of a call is that of the instruction before the one that it returns to.
        let rule = rule_at(frame.pc - 1);
        let caller = step(&mut frame, rule, &stack)?;
        if !walk.push(frame) {
            return Some(End::Truncated);
        }
        match caller {
            Some(caller) => frame = caller,
            None => return Some(End::Root),
        }
    }
}

/// Compares what led from the innermost of these frames to the outermost with what is there now. The first frame, from
/// the inside, that would be left differently.
#[inline]
fn first_difference(recorded: &[Frame], stack: &Bounds) -> Option<usize> {
    for inner in (1..recorded.len()).rev() {
        let (frame, caller) = (&recorded[inner], &recorded[inner - 1]);
        let fp_holds = frame.fp_that_was_read().is_none_or(|(slot, word)| stack.read(slot) == Some(word));
        if !fp_holds || stack.read(caller.sp.wrapping_sub(8)) != Some(caller.pc) {
            return Some(inner);
        }
    }
    None
}

/// The caller of a frame, with what had to be read for it noted in the frame; `Some(None)` for the outermost frame.
#[inline]
fn step(frame: &mut Frame, rule: Rule, stack: &Bounds) -> Option<Option<Frame>> {
    let Rule::Frame { base, offset, fp } = rule else {
        return (rule == Rule::Outermost).then_some(None);
    };
    let base = match base {
        Base::Sp => frame.sp,
        Base::Fp => {
            if let Some(slot) = frame.fp_slot() {
                frame.read_fp(stack.read(slot)?);
            }
            frame.fp_value()
        }
    };
    let caller_sp = base.checked_add(u64::from(offset))?;
    // The stack grows down: a caller is above.
    if caller_sp <= frame.sp {
        return None;
    }
    let pc = stack.read(caller_sp - 8).filter(|pc| *pc != 0)?;
    Some(Some(match fp {
        Some(saved) => Frame::in_slot(pc, caller_sp, caller_sp.wrapping_add_signed(i64::from(saved))),
        None => frame.caller_with_same_fp(pc, caller_sp),
    }))
}
