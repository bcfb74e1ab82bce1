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
use crate::modules;

/// The frame's caller, if a packed rule says it; `None` if only a full unwinder can tell.
#[inline(always)]
pub(super) fn step(frame: &Frame, words: &mut impl Words) -> Option<Step> {
    let (base, offset, below) = match rule_at(frame.rule_address()) {
        Rule::Frame { base, offset, below } => (base, offset, below),
        Rule::Outermost => return Some(Step::Outermost),
        Rule::Unpackable => return Some(Step::Unpacked),
    };
    let base = match base {
        Base::Sp => frame.sp,
        Base::Fp => match frame.fp_slot() {
            Some(slot) => words.read(slot)?,
            None => {
                words.need_fp();
                frame.fp
            }
        },
    };
    let sp = base.wrapping_add(u64::from(offset));
    // NOTE: there is no rule for an address of zero, which ends the walk by rules.
    let pc = words.return_address(sp, frame.sp)?;
    // PERF: whether it was saved cannot be foreseen, so there is no branch.
    Some(Step::Caller(frame.caller(pc, sp, below != 0, sp.wrapping_sub(u64::from(below)))))
}

pub(super) use compile::evaluate;

/// The bytes that the function around the return address `returns_to` has above its stack pointer, if the function at
/// `caller` calls it, or ends in a jump to it, and if its caller's frame pointer is in the register.
pub(super) fn frame_of_function_called_by(caller: u64, returns_to: u64) -> Option<u64> {
    let (called, _) = compile::function_at(returns_to.wrapping_sub(1))?;
    let (start, len) = compile::function_at(caller)?;
    let mut code = [0; MOST_CODE];
    let code = code.get_mut(..usize::try_from(len).ok()?)?;
    modules::read_memory(start, code)?;
    let word = |at| {
        let mut bytes = [0; 8];
        modules::read_memory(at, &mut bytes).map(|()| u64::from_le_bytes(bytes))
    };
    if !calls(code, start, called, word) {
        return None;
    }
    match rule_at(returns_to.wrapping_sub(1)) {
        Rule::Frame { base: Base::Sp, offset, below: 0 } => Some(u64::from(offset)),
        _ => None,
    }
}

/// Whether the code at an address has a call of `target` or a jump there: directly, or through a word of memory, in which
/// the linker leaves the addresses of functions. Every place is tried as the beginning of an instruction; that one which is
/// none looks like it, with this very target, does not happen by chance.
fn calls(code: &[u8], start: u64, target: u64, word: impl Fn(u64) -> Option<u64>) -> bool {
    let leads_there = |at: usize| {
        let (direct, len) = match *code.get(at..)? {
            [CALL | JUMP, ..] => (true, 5),
            [INDIRECT, CALL_WORD | JUMP_WORD, ..] => (false, 6),
            _ => return None,
        };
        let next = at + len;
        let distance = i32::from_le_bytes(*code.get(next - 4..next)?.first_chunk()?);
        let place = start.wrapping_add(next as u64).wrapping_add_signed(i64::from(distance));
        if direct { Some(place) } else { word(place) }
    };
    (0..code.len()).any(|at| leads_there(at) == Some(target))
}

const CALL: u8 = 0xE8;
const JUMP: u8 = 0xE9;
const INDIRECT: u8 = 0xFF;
const CALL_WORD: u8 = 0x15;
const JUMP_WORD: u8 = 0x25;
/// Bytes of the longest function that is looked at.
const MOST_CODE: usize = 128;

/// A return address as the call tree has it.
#[inline(always)]
pub(super) fn plain_address(pc: u64) -> u64 {
    pc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_jumps_are_found_where_they_lead() {
        // nop; call 0x1016; jmp 0xFEB; jmp [0x1111]; call [0x20F7]
        let code = [
            0x90, 0xE8, 0x10, 0, 0, 0, 0xE9, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 0x25, 0, 1, 0, 0, 0xFF, 0x15,
            0xE0, 0x10, 0, 0,
        ];
        let word =
            |at| [(0x1111, 0x7000), (0x20F7, 0x8000)].iter().find(|word| word.0 == at).map(|word| word.1);
        for target in [0x1016, 0xFEB, 0x7000, 0x8000] {
            assert!(calls(&code, 0x1000, target, word), "{target:x}");
            assert!(!calls(&code, 0x1000, target + 1, word), "{target:x}");
            assert!(!calls(&code, 0x2000, target, word), "{target:x}");
        }
        assert!(!calls(&code[..22], 0x1000, 0x8000, word));
    }
}
