//! Signals that the calling thread does not get for some time.

use super::Errno;

/// While it lives, the calling thread gets none of these signals, nor do threads that it starts ever.
pub(super) struct BlockedSignals {
    before: libc::sigset_t,
    blocked: libc::sigset_t,
}

impl BlockedSignals {
    /// All there are.
    pub(super) fn all() -> BlockedSignals {
        // SAFETY: the set is valid.
        BlockedSignals::of(|set| unsafe { _ = libc::sigfillset(set) })
    }

    /// SIGXFSZ and SIGPIPE, which a failing write raises.
    pub(super) fn of_failing_writes() -> BlockedSignals {
        // SAFETY: the set is valid.
        BlockedSignals::of(|set| unsafe {
            libc::sigemptyset(set);
            libc::sigaddset(set, libc::SIGXFSZ);
            libc::sigaddset(set, libc::SIGPIPE);
        })
    }

    fn of(fill: impl FnOnce(&mut libc::sigset_t)) -> BlockedSignals {
        // SAFETY: all-zero is a valid place for a signal set; `fill` initialises one and the call the other.
        unsafe {
            let mut before: libc::sigset_t = std::mem::zeroed();
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            fill(&mut blocked);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
            BlockedSignals { before, blocked }
        }
    }

    /// Takes the signal that came with this error of a write, so that unblocking does not deliver it.
    pub(super) fn swallow(&self, errno: Errno) {
        if matches!(errno.0, libc::EFBIG | libc::EPIPE) {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let nothing = std::ptr::null_mut::<libc::siginfo_t>();
            // NOTE: a bare system call, as in `file.rs`. The kernel's sets of signals have 64 bits.
            // SAFETY: the set and the time are valid, and no information about the signal is asked for.
            unsafe {
                let set = &raw const self.blocked;
                libc::syscall(libc::SYS_rt_sigtimedwait, set, nothing, &raw const now, size_of::<u64>())
            };
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by the call that blocked.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
