//! The stack of an event: from the function of the hook to the outermost frame. In: the hook's registers. Out: frames in
//! a [`Walk`], outermost first, and whether the walk reached its end. Runs without the recorder's lock; never allocates
//! through the global allocator; locks only to compile the rule of a code address that it meets for the first time.
//!
//! | module | idea |
//! | --- | --- |
//! | `incremental` | the walk: steps outwards, and takes over what has not changed since the last one |
//! | `x86_64`, `aarch64`, `other` | one step outwards; all that depends on the processor |
//! | `rule` | a rule in one word, and the table of rules |
//! | `compile` | rules out of the unwind tables of the modules |
//! | `portable` | the walk by the platform's own unwinder, for what rules cannot say, and to compare with |
//! | `shim` | the compiler's functions around the allocator, which no stack shows |
//! | `shortcut` | ways from a stack's innermost frame to its node that were gone before |
//! | `walk` | the walks of a thread: `recorded` the one before on each stack, `fresh` the new one in the making |
//! | `frame`, `word`, `array` | what walks are made of |
//! | `stack`, `registers` | stack memory, the starting point |

#[cfg_attr(not(target_arch = "aarch64"), cfg(test))]
mod aarch64;
mod array;
#[cfg(target_arch = "x86_64")]
mod compile;
mod frame;
mod fresh;
mod incremental;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod other;
mod portable;
mod recorded;
mod registers;
#[cfg(target_arch = "x86_64")]
mod rule;
mod shim;
mod shortcut;
mod stack;
mod walk;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use other as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub(crate) use registers::{Entered, Registers, entry};
pub(crate) use shim::Shim;
pub(crate) use walk::Walks;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use crate::base::sys::ErrnoGuard;
use crate::tree::{InternError, Parent};

/// Memory that walking needs for all threads together, besides what it maps.
#[cfg(target_arch = "x86_64")]
pub(crate) const TABLE_BYTES: u64 = rule::TABLE_BYTES;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const TABLE_BYTES: u64 = 0;

use arch::plain_address;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the outermost frame of the thread.
    Root,
    /// Somewhere before it: no unwind information, or no memory for so many frames.
    Truncated,
}

/// Walks the calling thread's stack into `walks`, from the frame that has these registers, when no
/// [shortcut](Walks::shortcut) leads there. Addresses and nodes mean the same within one `epoch`.
///
/// PERF: not inlined, nor is what follows: each has the registers for itself.
#[inline(never)]
pub(crate) fn walk(walks: &mut Walks, registers: &Registers, epoch: u64) -> End {
    if let Some(end) = incremental::walk(walks, registers, epoch) {
        return end;
    }
    walk_portably(walks, registers, epoch)
}

#[cold]
#[inline(never)]
fn walk_portably(walks: &mut Walks, registers: &Registers, epoch: u64) -> End {
    let _errno = ErrnoGuard::new();
    walks.walk_by_addresses(epoch, |push| portable::walk(registers.sp - 1, push))
}

impl End {
    /// What the nodes of such a walk hang under.
    #[inline(always)]
    pub(crate) fn root(self) -> StackId {
        match self {
            End::Root => StackId::ROOT,
            End::Truncated => StackId::TRUNCATED,
        }
    }
}

/// Walks once for nothing: what the platform's unwinder has to look up when it is first called, and the kilobytes of
/// stack that this takes, do not fall into an event, which may come from a signal handler on a small stack.
pub(crate) fn prepare() {
    portable::walk(0, |_| true);
}

/// Begins anew in a forked child.
///
/// # Safety
/// No other thread may walk.
pub(crate) unsafe fn renew() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        compile::renew();
    }
}

/// Forgets the rules of code that is no longer what it was.
pub(crate) fn forget_rules() {
    #[cfg(target_arch = "x86_64")]
    compile::forget_rules();
}

/// Whether the module of this return address has been met by a walk, so that it need not be looked for.
pub(crate) fn knows(pc: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    return compile::knows(pc - 1);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = pc;
        false
    }
}

/// Compares every walk with a full one by the platform's unwinder from now on.
pub(crate) fn start_checking() {
    CHECKING.store(true, Ordering::Relaxed);
}

/// Whether every walk is to be compared.
#[inline(always)]
pub(crate) fn is_checking() -> bool {
    CHECKING.load(Ordering::Relaxed)
}

/// Walks that were compared and how many differed, since the last call.
pub(crate) fn take_checked() -> (u64, u64) {
    (CHECKED.swap(0, Ordering::Relaxed), DIFFERENT.swap(0, Ordering::Relaxed))
}

#[unsafe(link_section = "alloc_tracker_hot")]
static CHECKING: AtomicBool = AtomicBool::new(false);
static CHECKED: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: AtomicU64 = AtomicU64::new(0);

/// Compares the node of the stack that the frame with these registers has with that of a full walk by the platform's own
/// unwinder.
#[cold]
#[inline(never)]
pub(crate) fn check(
    walks: &mut Walks,
    registers: &Registers,
    node: StackId,
    generation: u32,
    intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
) {
    let _errno = ErrnoGuard::new();
    let walk = |push: &mut dyn FnMut(u64) -> bool| portable::walk(registers.sp - 1, push);
    let other = walks.node_by_addresses(generation, walk, intern);
    CHECKED.fetch_add(1, Ordering::Relaxed);
    DIFFERENT.fetch_add(u64::from(other != Ok(node)), Ordering::Relaxed);
}
