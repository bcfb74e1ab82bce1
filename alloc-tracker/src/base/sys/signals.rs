//! Blocks signals in the calling thread for a limited time.
//!
//! In: which signals. Out: a guard. Never allocates.

use super::Errno;

/// Blocks some signals in the calling thread until this guard is dropped. Threads that the calling
/// thread starts in the meantime inherit the blocked signals for good.
pub(crate) struct BlockedSignals {
    /// The signals that were blocked before.
    before: libc::sigset_t,
    blocked: libc::sigset_t,
}

impl BlockedSignals {
    /// Blocks all signals.
    pub(crate) fn all() -> BlockedSignals {
        // SAFETY: `block` passes a valid signal set.
        BlockedSignals::block(|set| unsafe { _ = libc::sigfillset(set) })
    }

    /// Blocks SIGXFSZ and SIGPIPE, which a failing write raises.
    pub(super) fn of_failing_writes() -> BlockedSignals {
        // SAFETY: `block` passes a valid signal set.
        BlockedSignals::block(|set| unsafe {
            libc::sigemptyset(set);
            libc::sigaddset(set, libc::SIGXFSZ);
            libc::sigaddset(set, libc::SIGPIPE);
        })
    }

    fn block(fill: impl FnOnce(&mut libc::sigset_t)) -> BlockedSignals {
        // SAFETY: a signal set is an array of integers, so all zeros are a valid value. `fill`
        // initialises one set and `pthread_sigmask` the other, and both pointers are valid.
        unsafe {
            let mut before: libc::sigset_t = std::mem::zeroed();
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            fill(&mut blocked);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
            BlockedSignals { before, blocked }
        }
    }

    /// Takes the pending signal that came with this error of a write, so that unblocking does not
    /// deliver it.
    pub(super) fn take_pending(&self, errno: Errno) {
        if matches!(errno.0, libc::EFBIG | libc::EPIPE) {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let no_info = std::ptr::null_mut::<libc::siginfo_t>();
            // NOTE: a bare system call, for the reason that `file.rs` gives.
            // SAFETY: the set and the time are valid for reads, a null pointer asks for no
            // information about the signal, and the kernel's signal sets have 64 bits.
            unsafe {
                let set = &raw const self.blocked;
                libc::syscall(libc::SYS_rt_sigtimedwait, set, no_info, &raw const now, size_of::<u64>())
            };
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is a valid set: `pthread_sigmask` has filled it. A null pointer asks for
        // no old set.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
