//! The stack of an event: from the function of the hook to the outermost frame. In: the hook's registers. Out: frames in
//! a [`Walk`], outermost first, and whether the walk reached its end. Runs without the recorder's lock; never allocates
//! through the global allocator; locks only to compile the rule of a code address that it meets for the first time.
//!
//! | module | idea |
//! | --- | --- |
//! | `incremental` | the walk: steps by rules, and takes over what has not changed since the last one |
//! | `rule` | a rule in one word, and the table of rules |
//! | `compile` | rules out of the unwind tables of the modules |
//! | `portable` | the walk by the platform's own unwinder, for what rules cannot say, and to compare with |
//! | `walk`, `stack`, `registers` | buffers, stack memory, the starting point |

#[cfg(target_arch = "x86_64")]
mod compile;
#[cfg(target_arch = "x86_64")]
mod incremental;
mod portable;
mod registers;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no rules are compiled there yet"))]
mod rule;
mod stack;
mod walk;

pub(crate) use registers::Registers;
pub(crate) use walk::Walk;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use walk::Frame;

/// Memory that walking needs for all threads together, besides what it maps.
pub(crate) const TABLE_BYTES: u64 = if cfg!(target_arch = "x86_64") { rule::TABLE_BYTES } else { 0 };

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the outermost frame of the thread.
    Root,
    /// Somewhere before it: no unwind information, or no memory for so many frames.
    Truncated,
}

/// Walks the calling thread's stack into `walk`, from the caller of the function that took `registers`.
pub(crate) fn walk(walk: &mut Walk, registers: &Registers) -> End {
    walk.begin();
    #[cfg(target_arch = "x86_64")]
    if let Some(end) = incremental::walk(walk, registers) {
        if CHECKING.load(Ordering::Relaxed) {
            check(walk, registers, end);
        }
        return end;
    }
    walk.begin();
    let end = portable::walk(registers.sp, |pc| walk.push(Frame::without_state(pc)));
    walk.share_by_addresses();
    end
}

/// Walks once for nothing: what the platform's unwinder has to look up when it is first called, and the kilobytes of
/// stack that this takes, do not fall into an event, which may come from a signal handler on a small stack.
pub(crate) fn prepare() {
    portable::walk(0, |_| true);
}

/// Forgets the rules of code that is no longer what it was. Called from time to time.
pub(crate) fn notice_replaced_modules() {
    #[cfg(target_arch = "x86_64")]
    compile::notice_replaced_modules();
}

/// Compares every walk with a full one by the platform's unwinder from now on.
pub(crate) fn start_checking() {
    CHECKING.store(true, Ordering::Relaxed);
}

/// Walks that were compared and how many differed, since the last call.
pub(crate) fn take_checked() -> (u64, u64) {
    (CHECKED.swap(0, Ordering::Relaxed), DIFFERENT.swap(0, Ordering::Relaxed))
}

static CHECKING: AtomicBool = AtomicBool::new(false);
static CHECKED: AtomicU64 = AtomicU64::new(0);
static DIFFERENT: AtomicU64 = AtomicU64::new(0);

#[cfg(target_arch = "x86_64")]
#[cold]
fn check(walk: &mut Walk, registers: &Registers, end: End) {
    let mut same = true;
    let mut addresses = walk.addresses();
    let other = portable::walk(registers.sp, |pc| {
        same &= addresses.next() == Some(pc);
        true
    });
    same &= addresses.next().is_none() && other == end;
    CHECKED.fetch_add(1, Ordering::Relaxed);
    DIFFERENT.fetch_add(u64::from(!same), Ordering::Relaxed);
}
