//! Which memory is readable. In: addresses. Out: the kernel's word.
//!
//! The kernel copies the argument of a system call before it looks at the other arguments. So we
//! make a call that always fails. Its error says whether the kernel could read the memory. The call
//! is `rt_sigprocmask` with an operation that does not exist: it changes no mask, opens no file,
//! needs no permission, and is allowed in nearly every sandbox, because every program makes it.
//!
//! Never allocates, never locks.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Errno;
use super::system_call::system_call;

/// Returns the first address from `start` on that is not known to be readable; at most `end`. Both
/// are multiples of eight.
///
/// PERF: 0.1 us for each page.
pub(crate) fn readable_until(start: u64, end: u64) -> u64 {
    let mut at = start;
    while at < end && is_readable(at) {
        at = (at | (SMALLEST_PAGE - 1)) + 1;
    }
    at.min(end)
}

/// Whether the word at this address, a multiple of eight, is readable. False as well if the kernel
/// does not tell.
pub(crate) fn is_readable(address: u64) -> bool {
    kernel_tells() && try_to_copy(address) == CopyOutcome::Copied
}

/// The smallest page of any processor. Protection is the same throughout a page.
pub(crate) const SMALLEST_PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CopyOutcome {
    Copied,
    NotReadable,
    /// The call itself was refused, by a sandbox say.
    Refused,
}

fn try_to_copy(address: u64) -> CopyOutcome {
    // SAFETY: the kernel reads the eight bytes itself and fails if it cannot. The operation does
    // not exist, so the signal mask stays as it is. There is no old mask to store.
    let result = unsafe { system_call!(libc::SYS_rt_sigprocmask, NO_OPERATION, address, 0, SIGNAL_SET_LEN) };
    match result {
        Err(Errno(libc::EINVAL)) => CopyOutcome::Copied,
        Err(Errno(libc::EFAULT)) => CopyOutcome::NotReadable,
        _ => CopyOutcome::Refused,
    }
}

/// Whether the call tells readable from unreadable memory here. Only an answer about memory that
/// surely is not readable shows that. Kernels differ in the length of a signal set, and with a
/// wrong length they refuse every address with the same error.
fn kernel_tells() -> bool {
    match KERNEL_TELLS.load(Ordering::Relaxed) {
        UNKNOWN => {
            let tells = try_to_copy(IN_THE_KERNEL) == CopyOutcome::NotReadable;
            KERNEL_TELLS.store(if tells { YES } else { NO }, Ordering::Relaxed);
            tells
        }
        known => known == YES,
    }
}

static KERNEL_TELLS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// An operation on signal masks that no kernel has.
const NO_OPERATION: libc::c_int = libc::c_int::MAX;
/// The kernel's signal set has 64 signals, except on MIPS.
const SIGNAL_SET_LEN: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 16 } else { 8 };
/// The last page of the address space, which no program can read.
const IN_THE_KERNEL: u64 = (usize::MAX as u64) & !(SMALLEST_PAGE - 1);

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn readable_memory_ends_at_a_page_that_may_not_be_read() {
        const PAGES: u64 = 4;
        for protection in [libc::PROT_NONE, libc::PROT_READ] {
            // SAFETY: a new mapping, of which nothing else knows.
            let start = unsafe {
                let (len, flags) =
                    ((PAGES * SMALLEST_PAGE) as usize, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                let start = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, -1, 0);
                assert_ne!(start, libc::MAP_FAILED);
                let third = start.byte_add(2 * SMALLEST_PAGE as usize);
                assert_eq!(libc::mprotect(third, SMALLEST_PAGE as usize, protection), 0);
                start as u64
            };
            let end = start + PAGES * SMALLEST_PAGE;
            let until = if protection == libc::PROT_NONE { start + 2 * SMALLEST_PAGE } else { end };
            for from in [start, start + 8, start + SMALLEST_PAGE - 8, start + SMALLEST_PAGE] {
                assert_eq!(readable_until(from, end), until);
                assert_eq!(readable_until(from, from), from);
                assert_eq!(readable_until(from, from + 8), from + 8);
            }
            assert!(is_readable(end - 8));
            assert_eq!(is_readable(start + 3 * SMALLEST_PAGE - 8), protection != libc::PROT_NONE);
        }
        assert!(!is_readable(8) && !is_readable(IN_THE_KERNEL));
    }

    #[test]
    fn asking_does_not_change_the_signal_mask() {
        let mask = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|line| line.starts_with("SigBlk")).unwrap().to_owned()
        };
        let before = mask();
        // All bits are set, so that an operation that blocked them would show.
        let word = u64::MAX;
        assert!(is_readable(&raw const word as u64));
        assert_eq!(mask(), before);
    }
}
