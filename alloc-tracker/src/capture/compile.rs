//! Rules out of the unwind tables that lie mapped in every module. In: a code address. Out: a [`Rule`]. Off the hot path:
//! called once for each code address that is met, behind a lock of its own. Never allocates, never asks the loader.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, NativeEndian, Pointer, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow,
};

use super::rule::{Base, Rule, RuleTable};
use crate::modules::{Found, Modules, UnwindTables};
use crate::sys::{self, Errno, FutexLock};

static RULES: RuleTable = RuleTable::new();
static MODULES: FutexLock<Known> =
    FutexLock::new(Known { modules: Modules::new(), next_scan_ns: 0, context: None });

struct Known {
    modules: Modules,
    next_scan_ns: u64,
    /// Room for gimli's work: more than a kilobyte, which a signal handler's stack may not have.
    context: Option<UnwindContext<usize, InPlace>>,
}

impl Known {
    fn scan(&mut self) -> Result<(), Errno> {
        let mut vanished = false;
        let scanned = self.modules.scan(&mut |found| vanished |= matches!(found, Found::Vanished(_)));
        if vanished {
            RULES.clear();
        }
        scanned
    }
}

/// Forgets all rules if a module is no longer where it was.
pub(super) fn notice_replaced_modules() {
    // Whoever has the lock is just looking.
    let Some(mut known) = MODULES.try_lock() else { return };
    if known.modules.any_replaced() {
        // What cannot be read now will be when an address is not in any known module.
        let _ = known.scan();
    }
}

/// The rule for the instruction at `address`.
#[inline]
pub(super) fn rule_at(address: u64) -> Rule {
    match RULES.get(address) {
        Some(rule) => rule,
        None => compile_and_keep(address),
    }
}

#[cold]
#[inline(never)]
fn compile_and_keep(address: u64) -> Rule {
    let mut known = MODULES.lock();
    if !known.modules.covers(address) {
        let now = sys::clock_ns(libc::CLOCK_MONOTONIC);
        if now < known.next_scan_ns {
            // Code that is in no file must not cost a scan for each of its frames.
            return Rule::Unpackable;
        }
        let scanned = known.scan();
        if scanned.is_err() || !known.modules.covers(address) {
            known.next_scan_ns = now + SCAN_INTERVAL_NS;
            return Rule::Unpackable;
        }
    }
    let Known { modules, context, .. } = &mut *known;
    let tables = modules.unwind_tables(address);
    let context = context.get_or_insert_with(UnwindContext::new_in);
    let rule = tables.and_then(|tables| compile(&tables, address, context)).unwrap_or(Rule::Unpackable);
    RULES.put(address, rule);
    rule
}

const SCAN_INTERVAL_NS: u64 = 100_000_000;

#[inline(never)]
fn compile(tables: &UnwindTables, address: u64, context: &mut UnwindContext<usize, InPlace>) -> Option<Rule> {
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
    if entry.is_signal_trampoline() {
        return None;
    }
    let row = entry.unwind_info_for_address(&frames, &bases, context, address).ok()?;
    rule_of(row)
}

fn rule_of(row: &UnwindTableRow<usize, InPlace>) -> Option<Rule> {
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
    let fp = match row.register(FRAME_POINTER) {
        // A register that the tables do not mention is one that the function leaves alone.
        None | Some(RegisterRule::SameValue) => None,
        Some(RegisterRule::Offset(offset)) => Some(i32::try_from(offset).ok()?),
        Some(_) => return None,
    };
    Some(Rule::Frame { base, offset: u32::try_from(offset).ok()?, fp })
}

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
