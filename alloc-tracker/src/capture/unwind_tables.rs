//! Unwind rules out of the unwind tables that every module has mapped (`.eh_frame`).
//!
//! In: a code address. Out: its rule, packed, from the table of all rules; or the whole row of the
//! unwind tables. The rule of an address that is met for the first time is compiled under two
//! locks: first that of the modules, then one of this module. Never allocates, never asks the
//! dynamic loader in a way that takes its lock.

use std::num::NonZeroU32;
use std::ops::Range;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, Encoding, EndianSlice, EvaluationStorage, NativeEndian,
    Operation, Piece, Pointer, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindSection,
    UnwindTableRow, Value,
};

use super::code_address::{CodeAddress, ReturnAddress};
use super::rule::{CfaBase, PackedRule, StackSwitch, UnwindRule};
use super::rule_table::RuleTable;
use crate::base::sys::FutexLock;
use crate::modules::{self, UnwindTables};

static RULES: RuleTable = RuleTable::new();
/// Working memory for gimli: more than a kilobyte, which a signal handler's stack may not have.
static CONTEXT: FutexLock<Option<UnwindContext<usize, InPlace>>> = FutexLock::new(None);

/// Forgets all rules: other code may be at their addresses now.
pub(super) fn forget_rules() {
    RULES.clear();
}

/// Makes the lock of this module free in a forked child, where the thread that held it may not
/// exist.
///
/// # Safety
/// No other thread may walk.
pub(super) unsafe fn renew_after_fork() {
    // SAFETY: no other thread may have the lock or wait for it. Only walks take it, and the caller
    // promises that no other thread walks.
    unsafe { CONTEXT.reset(None) };
}

/// Whether the rule of the call that returns to this address is in the table.
pub(super) fn has_rule_for(pc: ReturnAddress) -> bool {
    RULES.get(pc.call_address()).is_some()
}

/// Returns the rule for the instruction at `address`.
#[inline(always)]
pub(super) fn rule_at(address: CodeAddress) -> UnwindRule {
    // PERF: nearly all rules are of this kind, which one comparison shows.
    match RULES.get(address) {
        Some(rule) if rule.is_cfa() => rule.unpack(),
        known => {
            known.or_else(|| compile_and_store(address)).map_or(UnwindRule::Unpackable, PackedRule::unpack)
        }
    }
}

/// Returns the switch to another stack that is the rule for the instruction at `address`. `None` if
/// the rule is another one, or was not compiled yet.
pub(super) fn stack_switch_at(address: CodeAddress) -> Option<StackSwitch> {
    RULES.get(address)?.stack_switch()
}

/// Makes `rule` the rule of the call that returns to `pc`.
#[cfg(test)]
pub(super) fn set_rule_of_call(pc: ReturnAddress, rule: UnwindRule) {
    RULES.put(pc.call_address(), rule.pack());
}

/// Compiles the rule of an address and stores it in the table. `None` if the address is in no known
/// module: then nothing is stored, because a module may appear there later.
#[cold]
#[inline(never)]
fn compile_and_store(address: CodeAddress) -> Option<PackedRule> {
    // NOTE: the rule is stored under the lock of the modules, so that no module is unloaded, and no
    // rules are forgotten, between compiling and storing.
    with_unwind_info(address, |info| {
        let switch = || info.stack_switch().and_then(StackSwitch::pack);
        let rule = info.rule().map(UnwindRule::pack).or_else(switch);
        let rule = rule.unwrap_or(UnwindRule::Unpackable.pack());
        RULES.put(address, rule);
        Some(rule)
    })
}

/// Returns the addresses of the function that holds this address. Must not be called under the lock
/// of the modules.
pub(super) fn function_at(address: CodeAddress) -> Option<Range<u64>> {
    with_unwind_info(address, |info| Some(info.function.clone()))
}

/// The contents of the unwind tables for one address.
pub(super) struct UnwindInfo<'a> {
    /// The addresses of the function.
    function: Range<u64>,
    pub(super) row: &'a UnwindTableRow<usize, InPlace>,
    pub(super) frames: EhFrame<Slice<'a>>,
    pub(super) encoding: Encoding,
    /// Whether the function is the trampoline that a signal handler returns to. Its caller is the
    /// interrupted code.
    pub(super) is_signal_trampoline: bool,
}

pub(super) type Slice<'a> = EndianSlice<'a, NativeEndian>;

/// Calls `f` with what the unwind tables say about an address, under the lock of the modules.
/// `None` if they say nothing, or if `f` returns `None`.
pub(super) fn with_unwind_info<R>(
    address: CodeAddress,
    f: impl FnOnce(&UnwindInfo<'_>) -> Option<R>,
) -> Option<R> {
    // The return address 0 ends a walk: no module is there, so none is looked for.
    if address == ReturnAddress::NONE.call_address() {
        return None;
    }
    modules::with_unwind_tables(address.0, |tables| look_up(tables, address, f))
}

/// Notes that the walk of the platform's unwinder ended at the call that returns to `pc`, which is
/// not in the outermost function. If the unwind tables have nothing about the call either, all
/// later walks end there at once.
///
/// PERF: the platform's unwinder takes microseconds for a stack whose end is known in advance. In
/// code without unwind tables it had taken up to 95 us an event.
pub(super) fn note_end_of_walk(pc: ReturnAddress) {
    let address = pc.call_address();
    if pc == ReturnAddress::NONE {
        return;
    }
    modules::with_module_tables(address.0, |tables| {
        let is_known = tables.is_some_and(|tables| look_up(tables, address, |_| Some(())).is_some());
        if !is_known {
            RULES.put(address, UnwindRule::Missing.pack());
        }
        Some(())
    });
}

/// Calls `f` with what these tables say about an address; `None` as in [`with_unwind_info`].
fn look_up<R>(
    tables: UnwindTables,
    address: CodeAddress,
    f: impl FnOnce(&UnwindInfo<'_>) -> Option<R>,
) -> Option<R> {
    let mut context = CONTEXT.lock();
    let context = context.get_or_insert_with(UnwindContext::new_in);
    // SAFETY: the bytes must be readable and stay unchanged while the slice lives. The table of
    // modules says that they are one readable segment of a mapped module. The address is on
    // this thread's stack of calls, or is that of a function of this crate, so the program is
    // not unmapping the module.
    let segment = unsafe {
        let start = std::ptr::with_exposed_provenance::<u8>(tables.segment_start as usize);
        std::slice::from_raw_parts(start, tables.segment_len as usize)
    };
    let offset_of = |address: u64| usize::try_from(address.checked_sub(tables.segment_start)?).ok();
    let bases = BaseAddresses::default().set_eh_frame_hdr(tables.header);
    let header = EhFrameHdr::new(segment.get(offset_of(tables.header)?..)?, NativeEndian);
    let header = header.parse(&bases, 8).ok()?;
    let Pointer::Direct(frames_start) = header.eh_frame_ptr() else { return None };
    let frames = EhFrame::new(segment.get(offset_of(frames_start)?..)?, NativeEndian);
    let bases = bases.set_eh_frame(frames_start);
    let find_cie = EhFrame::cie_from_offset;
    let entry = header.table()?.fde_for_address(&frames, &bases, address.0, find_cie).ok()?;
    let row = entry.unwind_info_for_address(&frames, &bases, context, address.0).ok()?;
    let (encoding, is_signal_trampoline) = (entry.cie().encoding(), entry.is_signal_trampoline());
    let start = entry.initial_address();
    let function = start..start.wrapping_add(entry.len());
    f(&UnwindInfo { function, row, frames, encoding, is_signal_trampoline })
}

impl UnwindInfo<'_> {
    /// Returns the rule of the address; `None` if no [`PackedRule`] can express it.
    fn rule(&self) -> Option<UnwindRule> {
        let row = self.row;
        if self.is_signal_trampoline {
            return None;
        }
        match row.register(RETURN_ADDRESS) {
            Some(RegisterRule::Undefined) => return Some(UnwindRule::Outermost),
            Some(RegisterRule::Offset(-8)) => {}
            _ => return None,
        }
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { return None };
        let base = match register {
            STACK_POINTER => CfaBase::StackPointer,
            FRAME_POINTER => CfaBase::FramePointer,
            _ => return None,
        };
        let fp_saved_below_cfa = match row.register(FRAME_POINTER) {
            // A register that the tables do not mention is left alone by the function.
            None | Some(RegisterRule::SameValue) => None,
            Some(RegisterRule::Offset(offset)) if offset < 0 => {
                NonZeroU32::new(u32::try_from(offset.unsigned_abs()).ok()?)
            }
            Some(_) => return None,
        };
        Some(UnwindRule::Cfa { base, offset: u32::try_from(offset).ok()?, fp_saved_below_cfa })
    }

    /// Returns the rule of the address if it is a switch to another stack.
    fn stack_switch(&self) -> Option<StackSwitch> {
        let below_cfa = |register| match self.row.register(register) {
            Some(RegisterRule::Offset(offset)) if offset < 0 => u32::try_from(offset.unsigned_abs()).ok(),
            _ => None,
        };
        let CfaRule::Expression(expression) = self.row.cfa() else { return None };
        let mut operations = expression.get(&self.frames).ok()?.operations(self.encoding);
        let mut next = || operations.next().ok();
        let Operation::RegisterOffset { register: FRAME_POINTER, offset: 0, .. } = next()?? else {
            return None;
        };
        let Operation::Deref { size: 8, space: false, .. } = next()?? else { return None };
        let Operation::PlusConstant { value } = next()?? else { return None };
        next()?.is_none().then_some(StackSwitch {
            offset: u32::try_from(value).ok()?,
            pc_below_cfa: below_cfa(RETURN_ADDRESS)?,
            fp_below_cfa: below_cfa(FRAME_POINTER)?,
            is_interrupted: self.is_signal_trampoline,
        })
    }
}

/// DWARF's numbers of the x86-64 registers.
pub(super) const FRAME_POINTER: Register = Register(6);
pub(super) const STACK_POINTER: Register = Register(7);
pub(super) const RETURN_ADDRESS: Register = Register(16);

/// Memory of fixed size for gimli, so that it allocates nothing. Code whose tables need more rows
/// or registers has unpackable rules.
pub(super) struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); 10];
    type Stack = [UnwindTableRow<usize, Self>; 3];
}

impl<'a> EvaluationStorage<Slice<'a>> for InPlace {
    type Stack = [Value; 16];
    type ExpressionStack = [(Slice<'a>, Slice<'a>); 1];
    type Result = [Piece<Slice<'a>>; 1];
}
