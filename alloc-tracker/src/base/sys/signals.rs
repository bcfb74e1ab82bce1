//! Blocks signals in the calling thread for a limited time.
//!
//! In: which signals. Out: a guard. Never allocates.

use super::Errno;
use super::system_call::system_call;

/// Blocks some signals in the calling thread until this guard is dropped. Processes that the
/// calling thread starts in the meantime inherit the blocked signals for good.
pub(crate) struct BlockedSignals {
    /// The signals that were blocked before.
    before: SignalSet,
    blocked: SignalSet,
}

/// The kernel's set of signals: bit `n - 1` stands for signal `n`.
type SignalSet = u64;

impl BlockedSignals {
    /// Blocks all signals.
    pub(crate) fn all() -> BlockedSignals {
        BlockedSignals::block(SignalSet::MAX)
    }

    /// Blocks SIGXFSZ and SIGPIPE, which a failing write raises.
    pub(super) fn of_failing_writes() -> BlockedSignals {
        BlockedSignals::block(1 << (libc::SIGXFSZ - 1) | 1 << (libc::SIGPIPE - 1))
    }

    fn block(blocked: SignalSet) -> BlockedSignals {
        let mut before = 0;
        // SAFETY: both sets are valid for the call, and have the length that is passed.
        let _ = unsafe { set_mask(libc::SIG_BLOCK, &raw const blocked, &raw mut before) };
        BlockedSignals { before, blocked }
    }

    /// Takes the pending signal that came with this error of a write, so that unblocking does not
    /// deliver it.
    pub(super) fn take_pending(&self, errno: Errno) {
        if matches!(errno.0, libc::EFBIG | libc::EPIPE) {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the set and the time are valid for reads, and a null pointer asks for no
            // information about the signal.
            let _ = unsafe {
                let set = &raw const self.blocked;
                system_call!(libc::SYS_rt_sigtimedwait, set, 0, &raw const now, size_of::<SignalSet>())
            };
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is valid for the call. A null pointer asks for no old set.
        let _ = unsafe { set_mask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Changes which signals the calling thread blocks.
///
/// # Safety
/// `set` must be valid for reads, and `before` for writes or null.
unsafe fn set_mask(how: i32, set: *const SignalSet, before: *mut SignalSet) -> Result<usize, Errno> {
    // SAFETY: the caller vouches for both pointers, and the length is that of the sets.
    unsafe { system_call!(libc::SYS_rt_sigprocmask, how, set, before, size_of::<SignalSet>()) }
}
