//! One fence for all threads, which the drainer requests from the kernel, so that no thread needs a
//! fence of its own at every entry. In: a call of the drainer. Out: all earlier stores of all
//! threads are visible. Never locks, never allocates.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::base::sys;

/// Makes everything visible to this thread that any other thread had stored before the call.
pub(crate) fn synchronize() {
    if NEEDS_FENCE.load(Ordering::Relaxed) {
        fence(Ordering::SeqCst);
    } else if !sys::membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        // This failure was never seen after a successful registration. From now on threads execute
        // the fence themselves.
        NEEDS_FENCE.store(true, Ordering::SeqCst);
    }
}

/// Registers with the kernel for [`synchronize`]. Where the kernel has no such call, every entry of
/// every thread costs a fence.
pub(crate) fn prepare() {
    let registered = sys::membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
    NEEDS_FENCE.store(!registered, Ordering::SeqCst);
}

/// Whether the kernel has refused the registration, so that every entry costs a fence.
pub(crate) fn is_missing() -> bool {
    NEEDS_FENCE.load(Ordering::Relaxed)
}

const MEMBARRIER_CMD_PRIVATE_EXPEDITED: i32 = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

/// Whether a thread has to execute a fence between its store of `INTENT` and its timestamp, because
/// [`synchronize`] does not execute one for it.
#[inline(always)]
pub(super) fn needs_fence() -> bool {
    NEEDS_FENCE.load(Ordering::Relaxed)
}

// PERF: read at every entry.
#[unsafe(link_section = "alloc_tracker_hot")]
static NEEDS_FENCE: AtomicBool = AtomicBool::new(true);
