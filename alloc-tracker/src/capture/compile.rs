//! Rules out of the unwind tables that lie mapped in every module. In: a code address. Out: a [`Rule`]. Off the hot path:
//! called once for each code address that is met, behind a lock of its own. Never allocates, never asks the loader.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, Evaluation, EvaluationResult,
    EvaluationStorage, Location, NativeEndian, Piece, Pointer, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use super::frame::Frame;
use super::incremental::{Step, Words};
use super::rule::{Base, Rule, RuleTable};
use crate::base::sys::{ErrnoGuard, FutexLock};
use crate::modules;

static RULES: RuleTable = RuleTable::new();
/// Room for gimli's work: more than a kilobyte, which a signal handler's stack may not have.
static CONTEXT: FutexLock<Option<UnwindContext<usize, InPlace>>> = FutexLock::new(None);

/// Forgets all rules: code may no longer be where it was.
pub(super) fn forget_rules() {
    RULES.clear();
}

/// Begins anew in a forked child.
///
/// # Safety
/// No other thread may walk.
pub(super) unsafe fn renew() {
    // SAFETY: the caller's promise.
    unsafe { CONTEXT.reset(None) };
}

/// Whether the module of this address has been met.
pub(super) fn knows(address: u64) -> bool {
    RULES.get(address).is_some()
}

/// The rule for the instruction at `address`.
#[inline(always)]
pub(super) fn rule_at(address: u64) -> Rule {
    let word = RULES.word(address);
    // PERF: one comparison for what nearly all of them are.
    if word & Rule::KIND == Rule::FRAME {
        return Rule::unpack(word);
    }
    // Of an address in no module that is known nothing is kept: there may be one later.
    Rule::unpack(if word != 0 { word } else { compile_and_keep(address) })
}

/// Makes this the rule for the call that returns to `pc`.
#[cfg(test)]
pub(super) fn know(pc: u64, rule: Rule) {
    RULES.put(pc - 1, rule);
}

/// The caller of a frame whose rule does not fit into a word, worked out in full. Costs a microsecond or two; what it has
/// read is noted, so that the next walk need only compare it.
#[cold]
#[inline(never)]
pub(super) fn evaluate(frame: &Frame, words: &mut impl Words) -> Option<Step> {
    let _errno = ErrnoGuard::new();
    with_row(frame.rule_address(), |entry| Machine { frame, words, entry }.step())
}

#[cold]
#[inline(never)]
fn compile_and_keep(address: u64) -> u64 {
    let _errno = ErrnoGuard::new();
    // NOTE: kept under the lock of the modules, so that none of them goes in between.
    let rule = with_row(address, |entry| {
        let rule = rule_of(entry).unwrap_or(Rule::Unpackable);
        RULES.put(address, rule);
        Some(rule.pack())
    });
    rule.unwrap_or(0)
}

/// The bytes of the function that this address is in: where they begin, and how many. Under no lock.
pub(super) fn function_at(address: u64) -> Option<(u64, u64)> {
    with_row(address, |entry| Some(entry.function))
}

/// What the unwind tables say about one address.
struct Entry<'a> {
    /// Where the function begins, and its bytes.
    function: (u64, u64),
    row: &'a UnwindTableRow<usize, InPlace>,
    frames: EhFrame<Slice<'a>>,
    encoding: Encoding,
    is_signal_trampoline: bool,
}

type Slice<'a> = EndianSlice<'a, NativeEndian>;

/// Calls `f` with what the unwind tables say, under the lock of the modules.
fn with_row<R>(address: u64, f: impl FnOnce(&Entry<'_>) -> Option<R>) -> Option<R> {
    // What lies before the return address 0, which stands for none, is no reason to look for modules.
    if address == 0u64.wrapping_sub(1) {
        return None;
    }
    modules::with_unwind_tables(address, |tables| {
        let mut context = CONTEXT.lock();
        let context = context.get_or_insert_with(UnwindContext::new_in);
        // SAFETY: the modules' table says that these bytes are one readable segment of a module that is mapped; an address
        // inside it is on this thread's stack of calls, so it is not being unmapped.
        let segment = unsafe {
            let start = std::ptr::with_exposed_provenance::<u8>(tables.segment_start as usize);
            std::slice::from_raw_parts(start, tables.segment_len as usize)
        };
        let at = |address: u64| usize::try_from(address.checked_sub(tables.segment_start)?).ok();
        let bases = BaseAddresses::default().set_eh_frame_hdr(tables.header);
        let header = EhFrameHdr::new(segment.get(at(tables.header)?..)?, NativeEndian);
        let header = header.parse(&bases, 8).ok()?;
        let Pointer::Direct(frames_start) = header.eh_frame_ptr() else { return None };
        let frames = EhFrame::new(segment.get(at(frames_start)?..)?, NativeEndian);
        let bases = bases.set_eh_frame(frames_start);
        let find_cie = EhFrame::cie_from_offset;
        let entry = header.table()?.fde_for_address(&frames, &bases, address, find_cie).ok()?;
        let row = entry.unwind_info_for_address(&frames, &bases, context, address).ok()?;
        let (encoding, is_signal_trampoline) = (entry.cie().encoding(), entry.is_signal_trampoline());
        let function = (entry.initial_address(), entry.len());
        f(&Entry { function, row, frames, encoding, is_signal_trampoline })
    })
}

fn rule_of(entry: &Entry<'_>) -> Option<Rule> {
    let row = entry.row;
    if entry.is_signal_trampoline {
        return None;
    }
    if matches!(row.register(RETURN_ADDRESS), Some(RegisterRule::Undefined)) {
        return Some(Rule::Outermost);
    }
    if !matches!(row.register(RETURN_ADDRESS), Some(RegisterRule::Offset(-8))) {
        return None;
    }
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return None };
    let base = match register {
        STACK_POINTER => Base::Sp,
        FRAME_POINTER => Base::Fp,
        _ => return None,
    };
    let below = match row.register(FRAME_POINTER) {
        // A register that the tables do not mention is one that the function leaves alone.
        None | Some(RegisterRule::SameValue) => 0,
        Some(RegisterRule::Offset(offset)) if offset < 0 => u32::try_from(offset.unsigned_abs()).ok()?,
        Some(_) => return None,
    };
    Some(Rule::Frame { base, offset: u32::try_from(offset).ok()?, below })
}

/// One step by rules of any kind.
struct Machine<'a, 'e, W> {
    frame: &'a Frame,
    words: &'a mut W,
    entry: &'a Entry<'e>,
}

impl<W: Words> Machine<'_, '_, W> {
    fn step(mut self) -> Option<Step> {
        let row = self.entry.row;
        let cfa = match *row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(register)?.wrapping_add_signed(offset)
            }
            CfaRule::Expression(ref expression) => self.run(expression, None)?,
        };
        let pc = match row.register(RETURN_ADDRESS) {
            Some(RegisterRule::Undefined) => return Some(Step::Outermost),
            Some(RegisterRule::Offset(offset)) => self.read(cfa.wrapping_add_signed(offset))?,
            Some(RegisterRule::Expression(ref expression)) => {
                let address = self.run(expression, Some(cfa))?;
                self.read(address)?
            }
            Some(RegisterRule::ValExpression(ref expression)) => self.run(expression, Some(cfa))?,
            _ => return None,
        };
        if pc == 0 {
            return None;
        }
        // Its return address was noted, wherever it lay.
        let caller = match row.register(FRAME_POINTER) {
            None | Some(RegisterRule::SameValue) => self.frame.caller_with_same_fp(pc, cfa),
            Some(RegisterRule::Offset(offset)) => Frame::in_slot(pc, cfa, cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Expression(ref expression)) => {
                Frame::in_slot(pc, cfa, self.run(expression, Some(cfa))?)
            }
            Some(_) => return None,
        };
        self.words.go_to(cfa)?;
        let caller = caller.read_elsewhere();
        Some(Step::Caller(if self.entry.is_signal_trampoline { caller.interrupted() } else { caller }))
    }

    fn register(&mut self, register: Register) -> Option<u64> {
        match register {
            STACK_POINTER => Some(self.frame.sp),
            FRAME_POINTER => match self.frame.fp_slot() {
                Some(slot) => self.read(slot),
                None => {
                    self.words.need_fp();
                    Some(self.frame.fp)
                }
            },
            _ => None,
        }
    }

    /// The word at this address, which may be on another stack: the walk then goes on there.
    fn read(&mut self, address: u64) -> Option<u64> {
        match self.words.read(address) {
            Some(word) => Some(word),
            None => {
                self.words.go_to(address)?;
                self.words.read(address)
            }
        }
    }

    fn run(&mut self, expression: &UnwindExpression<usize>, initial: Option<u64>) -> Option<u64> {
        let expression = expression.get(&self.entry.frames).ok()?;
        let mut evaluation = Evaluation::<Slice<'_>, InPlace>::new_in(expression.0, self.entry.encoding);
        evaluation.set_max_iterations(MOST_OPERATIONS);
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

/// No expression of a compiler's is longer.
const MOST_OPERATIONS: u32 = 100;

/// DWARF's numbers for x86-64.
const FRAME_POINTER: Register = Register(6);
const STACK_POINTER: Register = Register(7);
const RETURN_ADDRESS: Register = Register(16);

/// How much room gimli gets. A program that needs more rows or registers has rules that are unpackable.
struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); 10];
    type Stack = [UnwindTableRow<usize, Self>; 3];
}

impl<'a> EvaluationStorage<Slice<'a>> for InPlace {
    type Stack = [Value; 16];
    type ExpressionStack = [(Slice<'a>, Slice<'a>); 1];
    type Result = [Piece<Slice<'a>>; 1];
}
