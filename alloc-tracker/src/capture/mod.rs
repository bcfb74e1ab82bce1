//! Capture: the stack of an event, from the function that called the allocator to the root.
//!
//! In: the registers of that function. Out: the frames of a walk, in a [`StackWalker`], and whether
//! the walk has reached the root; then call tree nodes. Runs without the recorder's lock and never
//! allocates through the global allocator. A walk takes locks of the tracker only for a code
//! address that it meets for the first time, and for rules that do not fit into a word:
//! `unwind_tables` has these locks.
//!
//! | module | idea |
//! | --- | --- |
//! | `incremental` | the walk: steps outwards, shares the unchanged part of the recorded walk |
//! | `x86_64`, `aarch64`, `other` | one step outwards; everything that depends on the processor |
//! | `code_address` | return addresses, and which address to look up for one |
//! | `rule`, `rule_table` | an unwind rule in one word; all rules by code address |
//! | `unwind_tables` | rules out of the unwind tables of the modules |
//! | `full_rule` | a step by a rule that does not fit into a word |
//! | `portable` | the walk by the platform's unwinder, where there is no rule and for checking |
//! | `innermost` | the innermost frames alone, apart from all recorded walks |
//! | `shim` | the compiler's functions around the allocator, which no stack shows |
//! | `shortcut` | remembered paths from a leaf to a frame of the recorded walk |
//! | `walker` | everything that a thread keeps between its walks |
//! | `recorded_walk`, `new_walk` | the last walk on a stack, and the new one in the making |
//! | `deep_proof`, `fp_run` | deep stacks, in bounded time for each event |
//! | `other_walks` | which recorded walk a walk on another stack is compared with |
//! | `frame`, `stack_word`, `padded_array` | the parts of a walk: frames, words, growing arrays of them |
//! | `stack`, `registers` | stack memory; the registers that a walk begins with |

#[cfg_attr(not(target_arch = "aarch64"), cfg(test))]
mod aarch64;
mod code_address;
mod deep_proof;
mod fp_run;
mod frame;
#[cfg(target_arch = "x86_64")]
mod full_rule;
mod incremental;
mod innermost;
mod new_walk;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other;
mod other_walks;
mod padded_array;
mod portable;
mod recorded_walk;
mod registers;
#[cfg(target_arch = "x86_64")]
mod rule;
#[cfg(target_arch = "x86_64")]
mod rule_table;
mod shim;
mod shortcut;
mod stack;
mod stack_word;
#[cfg(target_arch = "x86_64")]
mod unwind_tables;
mod walker;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub(crate) use code_address::ReturnAddress;
pub(crate) use deep_proof::set_compares_every_word;
pub(crate) use innermost::{innermost, innermost_by_platform};
pub(crate) use registers::{EntryFrame, Registers, entry};
pub(crate) use shim::Shim;
pub(crate) use walker::StackWalker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use crate::base::sys::ErrnoGuard;
use crate::tree::{InternError, Parent};

use arch::without_signature;

/// The size in bytes of the table of unwind rules, which all threads share. It is part of the
/// program's image, so it is not among the bytes that the tracker maps.
#[cfg(target_arch = "x86_64")]
pub(crate) const RULE_TABLE_BYTES: u64 = rule_table::TABLE_BYTES;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const RULE_TABLE_BYTES: u64 = 0;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WalkEnd {
    /// At the outermost frame of the thread.
    Root,
    /// Before that frame: a frame has no unwind information, or there is no memory for so many
    /// frames.
    Truncated,
}

/// Walks the calling thread's stack from the frame that has these registers, and leaves the walk in
/// `walker`. Callers look for a [shortcut](StackWalker::node_by_shortcut) first. Within one `epoch`
/// code addresses and nodes keep their meaning.
///
/// PERF: neither this function nor the portable walk is inlined, so each has all registers for
/// itself.
#[inline(never)]
pub(crate) fn walk(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> WalkEnd {
    if let Some(end) = incremental::walk(walker, registers, epoch) {
        return end;
    }
    walk_otherwise(walker, registers, epoch)
}

/// Walks where the ordinary way is not open: the stack is deep, or has a frame that only the
/// platform's unwinder understands.
#[cold]
#[inline(never)]
fn walk_otherwise(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> WalkEnd {
    incremental::walk_deep(walker, registers).unwrap_or_else(|| walk_portably(walker, registers, epoch))
}

#[cold]
#[inline(never)]
fn walk_portably(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> WalkEnd {
    let _errno = ErrnoGuard::new();
    PORTABLE_WALKS.fetch_add(1, Ordering::Relaxed);
    let mut outermost = ReturnAddress::NONE;
    let end = walker.take_addresses(registers, epoch, |push| {
        portable::walk(registers, |pc| {
            outermost = pc;
            push(pc)
        })
    });
    #[cfg(target_arch = "x86_64")]
    if end == WalkEnd::Truncated {
        unwind_tables::note_end_of_walk(outermost);
    }
    end
}

/// Returns how many walks the platform's unwinder has made since the last call, apart from those
/// for checking.
pub(crate) fn take_portable_walks() -> u64 {
    PORTABLE_WALKS.swap(0, Ordering::Relaxed)
}

static PORTABLE_WALKS: AtomicU64 = AtomicU64::new(0);

impl WalkEnd {
    /// Returns the root of the call tree below which the nodes of such a walk are.
    #[inline(always)]
    pub(crate) fn root(self) -> StackId {
        match self {
            WalkEnd::Root => StackId::ROOT,
            WalkEnd::Truncated => StackId::TRUNCATED,
        }
    }
}

/// Makes a portable walk and discards it. At its first call the platform's unwinder does look-ups
/// that take kilobytes of stack. They must not happen in an event, which may come from a signal
/// handler on a small stack.
pub(crate) fn warm_up() {
    stack::prepare();
    let nowhere = Registers { pc: ReturnAddress::NONE, sp: 1, fp: 0 };
    portable::walk(&nowhere, |_| true);
}

/// Makes the state of walks usable in a forked child, whatever the parent's other threads were
/// doing.
///
/// # Safety
/// No other thread may walk.
pub(crate) unsafe fn renew_after_fork() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller promises that no other thread walks.
    unsafe {
        unwind_tables::renew_after_fork();
    }
}

/// Forgets all unwind rules: other code may be at their addresses now.
pub(crate) fn forget_rules() {
    #[cfg(target_arch = "x86_64")]
    unwind_tables::forget_rules();
}

/// Whether the rule of the call that returns to this address is known. If it is, a walk has met the
/// module of the address, so nobody need look for that module.
pub(crate) fn has_rule_for(pc: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    return unwind_tables::has_rule_for(ReturnAddress(pc));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pc;
        false
    }
}

/// Makes every walk from now on be compared with a full walk by the platform's unwinder.
pub(crate) fn start_checking() {
    CHECKING.store(true, Ordering::Relaxed);
}

/// Whether every walk is to be compared.
#[inline(always)]
pub(crate) fn is_checking() -> bool {
    CHECKING.load(Ordering::Relaxed)
}

/// Returns how many walks were compared since the last call, and how many of them differed.
pub(crate) fn take_check_counts() -> (u64, u64) {
    (CHECKED.swap(0, Ordering::Relaxed), DIFFERENT.swap(0, Ordering::Relaxed))
}

#[unsafe(link_section = "alloc_tracker_hot")]
static CHECKING: AtomicBool = AtomicBool::new(false);
static CHECKED: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: AtomicU64 = AtomicU64::new(0);

/// Compares the last walk, which has too many frames, with a full walk by the platform's own
/// unwinder, and counts the outcome. Both are cut at their outer ends, maybe not at the same frame.
/// So they are compared from the leaf to the frame at which the shorter one ends.
#[cold]
#[inline(never)]
pub(crate) fn check_cut_walk(walker: &mut StackWalker, registers: &Registers) {
    let _errno = ErrnoGuard::new();
    let same = walker.has_addresses(registers, |push| portable::walk(registers, push));
    CHECKED.fetch_add(1, Ordering::Relaxed);
    DIFFERENT.fetch_add(u64::from(!same), Ordering::Relaxed);
}

/// Compares `node`, the node of the frame with these registers, with that of a full walk by the
/// platform's own unwinder, and counts the outcome.
#[cold]
#[inline(never)]
pub(crate) fn check_node(
    walker: &mut StackWalker,
    registers: &Registers,
    node: StackId,
    generation: u32,
    intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
) {
    let _errno = ErrnoGuard::new();
    let walk = |push: &mut dyn FnMut(ReturnAddress) -> bool| portable::walk(registers, push);
    let other = walker.node_of_addresses(generation, walk, intern);
    CHECKED.fetch_add(1, Ordering::Relaxed);
    DIFFERENT.fetch_add(u64::from(other != Ok(node)), Ordering::Relaxed);
}
