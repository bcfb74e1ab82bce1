//! A step outwards on x86-64, by the unwind rules that the compiler has left.
//!
//! A packed rule says: the canonical frame address is at a fixed distance from the stack pointer or
//! from the frame pointer, the return address lies just below it, and the caller's frame pointer
//! was saved at a fixed distance below it or left in its register.
//!
//! A frame's state is its return address, its stack pointer, and where the frame pointer of its
//! function is: still in the register, or in a slot further in. The slot is read only when a
//! canonical frame address counts from the frame pointer.
//!
//! In: a frame. Out: its caller's frame. Never allocates; a rule that is not in the table yet is
//! compiled under the locks of `unwind_tables`.

use super::code_address::{CodeAddress, ReturnAddress};
use super::frame::Frame;
use super::incremental::{StackReader, UnwindStep};
use super::rule::{CfaBase, UnwindRule};
use super::unwind_tables::{function_at, rule_at};
use crate::modules;

pub(super) use super::full_rule::step_by_full_rule;

/// Steps to the frame's caller by a packed rule; `None` if only a full unwinder can tell.
#[inline(always)]
pub(super) fn step(frame: &Frame, reader: &mut impl StackReader) -> Option<UnwindStep> {
    let (base, offset, fp_saved_below_cfa) = match rule_at(frame.rule_address()) {
        UnwindRule::Cfa { base, offset, fp_saved_below_cfa } => (base, offset, fp_saved_below_cfa),
        UnwindRule::Outermost => return Some(UnwindStep::Outermost),
        UnwindRule::Unpackable => return Some(UnwindStep::RuleNotPacked),
        UnwindRule::Missing => return Some(UnwindStep::CallerUnknown),
    };
    let base = match base {
        CfaBase::StackPointer => frame.sp,
        CfaBase::FramePointer => match frame.fp_slot() {
            Some(slot) => reader.read(slot)?,
            None => {
                reader.note_fp_register();
                frame.fp
            }
        },
    };
    let cfa = base.wrapping_add(u64::from(offset));
    // NOTE: a return address of zero ends the walk by rules, because no rule exists for it.
    let pc = reader.read_return_address(cfa, frame.sp)?;
    // PERF: whether the frame pointer was saved cannot be predicted, so there is no branch. If it
    // was not saved, the slot is computed and not used.
    let below = fp_saved_below_cfa.map_or(0, |below| u64::from(below.get()));
    Some(UnwindStep::Caller(frame.caller(pc, cfa, below != 0, cfa.wrapping_sub(below))))
}

/// Returns the frame size, in bytes above its stack pointer, of the function that the return
/// address `returns_to` lies in. `None` unless two conditions hold: the function at `caller` calls
/// that function or jumps to it, and that function leaves its caller's frame pointer in the
/// register.
pub(super) fn frame_size_of_function_called_by(
    caller: CodeAddress,
    returns_to: ReturnAddress,
) -> Option<u64> {
    let called = function_at(returns_to.call_address())?.start;
    let caller = function_at(caller)?;
    let len = usize::try_from(caller.end.wrapping_sub(caller.start)).ok()?;
    let mut code = [0; MAX_CODE_LEN];
    let code = code.get_mut(..len)?;
    // The module is running: it is that of this crate, and `caller` is one of its functions.
    modules::read_running_module(caller.start, code)?;
    let read_word = |address| {
        let mut bytes = [0; 8];
        modules::read_running_module(address, &mut bytes).map(|()| u64::from_le_bytes(bytes))
    };
    if !calls(code, caller.start, called, read_word) {
        return None;
    }
    match rule_at(returns_to.call_address()) {
        UnwindRule::Cfa { base: CfaBase::StackPointer, offset, fp_saved_below_cfa: None } => {
            Some(u64::from(offset))
        }
        _ => None,
    }
}

/// Whether the code at the address `start` has a call of `target` or a jump there: a direct one, or
/// one through a word of memory in which the linker leaves a function's address.
///
/// Every byte is tried as the beginning of an instruction, because instructions have different
/// lengths. Other bytes that look like such an instruction with this very target do not occur by
/// chance.
fn calls(code: &[u8], start: u64, target: u64, read_word: impl Fn(u64) -> Option<u64>) -> bool {
    let target_at = |index: usize| {
        let (is_direct, len) = match *code.get(index..)? {
            [CALL | JUMP, ..] => (true, 5),
            [INDIRECT, CALL_WORD | JUMP_WORD, ..] => (false, 6),
            _ => return None,
        };
        let next = index + len;
        // The last four bytes are a distance from the next instruction.
        let distance = i32::from_le_bytes(*code.get(next - 4..next)?.first_chunk()?);
        let address = start.wrapping_add(next as u64).wrapping_add_signed(i64::from(distance));
        if is_direct { Some(address) } else { read_word(address) }
    };
    (0..code.len()).any(|index| target_at(index) == Some(target))
}

const CALL: u8 = 0xE8;
const JUMP: u8 = 0xE9;
const INDIRECT: u8 = 0xFF;
const CALL_WORD: u8 = 0x15;
const JUMP_WORD: u8 = 0x25;
/// The length in bytes of the longest function that is searched for calls.
const MAX_CODE_LEN: usize = 128;

/// Returns the number by which the call tree knows a return address.
#[inline(always)]
pub(super) fn without_signature(pc: ReturnAddress) -> u64 {
    pc.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_target() {
        // nop; call 0x1016; jmp 0xFEB; jmp [0x1111]; call [0x20F7]
        let code = [
            0x90, 0xE8, 0x10, 0, 0, 0, 0xE9, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 0x25, 0, 1, 0, 0, 0xFF, 0x15,
            0xE0, 0x10, 0, 0,
        ];
        let read_word = |address| {
            [(0x1111, 0x7000), (0x20F7, 0x8000)].iter().find(|word| word.0 == address).map(|word| word.1)
        };
        for target in [0x1016, 0xFEB, 0x7000, 0x8000] {
            assert!(calls(&code, 0x1000, target, read_word), "{target:x}");
            assert!(!calls(&code, 0x1000, target + 1, read_word), "{target:x}");
            assert!(!calls(&code, 0x2000, target, read_word), "{target:x}");
        }
        assert!(!calls(&code[..22], 0x1000, 0x8000, read_word));
    }
}
