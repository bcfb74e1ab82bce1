//! A step outwards by an unwind rule of any kind, evaluated from the unwind tables.
//!
//! Two kinds of rules do not fit into a word: those of signal trampolines, whose caller is the
//! interrupted code, and DWARF expressions, which fibers have where they switch stacks. Evaluating
//! one costs a microsecond or two, except for the expression that corosensei's fibers have (see
//! [`StackSwitch`]). The words that the rule reads are noted like all others, so the next walk need
//! only compare them.
//!
//! In: a frame. Out: its caller's frame. Takes the locks of the unwind tables; never allocates.

use gimli::{
    CfaRule, Evaluation, EvaluationResult, Location, Piece, Register, RegisterRule, UnwindExpression, Value,
};

use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::incremental::{StackReader, UnwindStep};
use super::rule::StackSwitch;
use super::unwind_tables::{
    FRAME_POINTER, InPlace, RETURN_ADDRESS, STACK_POINTER, Slice, UnwindInfo, stack_switch_at,
    with_unwind_info,
};

/// Steps from a frame to its caller; `None` if the unwind tables have no rule for the frame, or a
/// rule that this module does not evaluate.
#[cold]
#[inline(never)]
pub(super) fn step_by_full_rule(frame: &Frame, reader: &mut impl StackReader) -> Option<UnwindStep> {
    if let Some(switch) = stack_switch_at(frame.rule_address()) {
        return step_to_other_stack(frame, switch, reader);
    }
    with_unwind_info(frame.rule_address(), |info| FullRule { frame, reader, info }.step())
}

/// Steps from the outermost frame of a fiber to the frame that has resumed the fiber.
fn step_to_other_stack(
    frame: &Frame,
    switch: StackSwitch,
    reader: &mut impl StackReader,
) -> Option<UnwindStep> {
    let fp = match frame.fp_slot() {
        Some(slot) => reader.read(slot)?,
        None => {
            reader.note_fp_register();
            frame.fp
        }
    };
    let cfa = reader.read(fp)?.wrapping_add(u64::from(switch.offset));
    let pc = ReturnAddress(reader.read(cfa.wrapping_sub(u64::from(switch.pc_below_cfa)))?);
    if pc == ReturnAddress::NONE {
        return None;
    }
    let slot = cfa.wrapping_sub(u64::from(switch.fp_below_cfa));
    reader.continue_at(cfa)?;
    let caller = Frame::with_fp_slot(pc, cfa, slot).with_return_address_elsewhere();
    Some(UnwindStep::Caller(if switch.is_interrupted { caller.interrupted() } else { caller }))
}

/// The rule of one frame while it is evaluated.
struct FullRule<'a, 'e, R> {
    frame: &'a Frame,
    reader: &'a mut R,
    info: &'a UnwindInfo<'e>,
}

impl<R: StackReader> FullRule<'_, '_, R> {
    fn step(mut self) -> Option<UnwindStep> {
        let row = self.info.row;
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(register)?.wrapping_add_signed(offset)
            }
            CfaRule::Expression(ref expression) => self.evaluate(expression, None)?,
        };
        let pc = match row.register(RETURN_ADDRESS) {
            Some(RegisterRule::Undefined) => return Some(UnwindStep::Outermost),
            Some(RegisterRule::Offset(offset)) => self.read(cfa.wrapping_add_signed(offset))?,
            Some(RegisterRule::Expression(ref expression)) => {
                let address = self.evaluate(expression, Some(cfa))?;
                self.read(address)?
            }
            Some(RegisterRule::ValExpression(ref expression)) => self.evaluate(expression, Some(cfa))?,
            _ => return None,
        };
        let pc = ReturnAddress(pc);
        if pc == ReturnAddress::NONE {
            return None;
        }
        let caller = match row.register(FRAME_POINTER) {
            None | Some(RegisterRule::SameValue) => self.frame.caller_with_same_fp(pc, cfa),
            Some(RegisterRule::Offset(offset)) => {
                Frame::with_fp_slot(pc, cfa, cfa.wrapping_add_signed(offset))
            }
            Some(RegisterRule::Expression(ref expression)) => {
                Frame::with_fp_slot(pc, cfa, self.evaluate(expression, Some(cfa))?)
            }
            Some(_) => return None,
        };
        self.reader.continue_at(cfa)?;
        // The return address was read and noted as a word, wherever it lay.
        let caller = caller.with_return_address_elsewhere();
        let caller = if self.info.is_signal_trampoline { caller.interrupted() } else { caller };
        Some(UnwindStep::Caller(caller))
    }

    /// Returns the value of a register in the frame; `None` for a register other than the stack
    /// pointer and the frame pointer.
    fn register(&mut self, register: Register) -> Option<u64> {
        match register {
            STACK_POINTER => Some(self.frame.sp),
            FRAME_POINTER => match self.frame.fp_slot() {
                Some(slot) => self.read(slot),
                None => {
                    self.reader.note_fp_register();
                    Some(self.frame.fp)
                }
            },
            _ => None,
        }
    }

    /// Reads the word at this address. If the address is on another stack, the walk continues
    /// there.
    fn read(&mut self, address: u64) -> Option<u64> {
        match self.reader.read(address) {
            Some(word) => Some(word),
            None => {
                self.reader.continue_at(address)?;
                self.reader.read(address)
            }
        }
    }

    /// Evaluates a DWARF expression, which computes an address. `initial` is on its stack at the
    /// beginning.
    fn evaluate(&mut self, expression: &UnwindExpression<usize>, initial: Option<u64>) -> Option<u64> {
        let expression = expression.get(&self.info.frames).ok()?;
        let mut evaluation = Evaluation::<Slice<'_>, InPlace>::new_in(expression.0, self.info.encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().ok()?;
        loop {
            result = match result {
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.register(register)?;
                    evaluation.resume_with_register(Value::Generic(value)).ok()?
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    let value = self.read(address)?;
                    evaluation.resume_with_memory(Value::Generic(value)).ok()?
                }
                EvaluationResult::Complete => break,
                _ => return None,
            };
        }
        match evaluation.as_result() {
            [Piece { location: Location::Address { address }, .. }] => Some(*address),
            _ => None,
        }
    }
}

/// More operations than any expression of a compiler has.
const MAX_OPERATIONS: u32 = 100;
