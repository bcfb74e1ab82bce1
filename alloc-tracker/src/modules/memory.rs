//! Reading memory of this process that may not be mapped, or may be unmapped by another thread.
//!
//! In: addresses. Out: bytes; `None` if any of them is not readable. An address that is not mapped
//! never raises a signal. Never locks, never allocates.
//!
//! Containers and sandboxes refuse some system calls, so there are several ways. The first one that
//! the process may use serves all later calls:
//!
//! | way | system calls | if the memory is unmapped meanwhile |
//! | --- | --- | --- |
//! | the kernel copies the memory | `process_vm_readv` | an error |
//! | the memory as a file | `openat` of /proc/self/mem, `pread64` | an error |
//! | ask whether each page is readable, then read | `rt_sigprocmask` | a fault |
//!
//! The last way has a gap of some nanoseconds between the question and the reading. It is the only
//! one for memory that cannot be unmapped meanwhile, because it needs the fewest rights.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::sys::{self, File};

/// Copies memory of this process; `None` if any of it is not readable.
pub(super) fn read_memory(at: u64, into: &mut [u8]) -> Option<()> {
    if WAY.load(Ordering::Relaxed) == KERNEL_COPIES {
        match sys::copy_own_memory(at, into) {
            Ok(len) => return (len == into.len()).then_some(()),
            Err(errno) if errno.0 == libc::EFAULT => return None,
            Err(_) => WAY.store(AS_A_FILE, Ordering::Relaxed),
        }
    }
    if WAY.load(Ordering::Relaxed) == AS_A_FILE {
        match File::open(c"/proc/self/mem", libc::O_RDONLY, 0) {
            Ok(memory) => return memory.read_exact_at(at, into).ok(),
            Err(_) => WAY.store(ASK_FIRST, Ordering::Relaxed),
        }
    }
    read_after_asking(at, into)
}

/// Copies memory of a module that cannot be unmapped now, because its code is running; `None` if
/// any of it is not readable.
pub(crate) fn read_running_module(at: u64, into: &mut [u8]) -> Option<()> {
    read_after_asking(at, into).or_else(|| read_memory(at, into))
}

fn read_after_asking(at: u64, into: &mut [u8]) -> Option<()> {
    let end = at.checked_add(into.len() as u64)?;
    let mut page = at / PAGE * PAGE;
    while page < end {
        if !sys::is_readable(page) {
            return None;
        }
        page += PAGE;
    }
    let start = std::ptr::with_exposed_provenance::<u8>(at as usize);
    for (index, byte) in into.iter_mut().enumerate() {
        // SAFETY: the kernel has just found the page of this byte readable. The callers know that
        // it stays mapped, or there was no other way. The read is volatile because the memory
        // belongs to other code.
        *byte = unsafe { start.add(index).read_volatile() };
    }
    Some(())
}

/// The smallest pages that processors have; each page of the kernel consists of whole ones.
const PAGE: u64 = 4096;

/// The first way that has not been refused.
static WAY: AtomicU8 = AtomicU8::new(KERNEL_COPIES);
const KERNEL_COPIES: u8 = 0;
const AS_A_FILE: u8 = 1;
const ASK_FIRST: u8 = 2;

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::base::sys::Mapping;

    #[test]
    fn every_way_reads_what_is_mapped_and_nothing_else() {
        let mut memory = Mapping::anonymous(2 * 4096).unwrap();
        memory.bytes_mut()[4090..4100].copy_from_slice(b"0123456789");
        let at = memory.start() as u64 + 4090;
        for way in [KERNEL_COPIES, AS_A_FILE, ASK_FIRST] {
            WAY.store(way, Ordering::Relaxed);
            let mut bytes = [0; 10];
            assert_eq!((read_memory(at, &mut bytes), &bytes), (Some(()), b"0123456789"), "{way}");
            assert_eq!(read_memory(8, &mut bytes), None, "{way}");
            assert_eq!(WAY.load(Ordering::Relaxed), way);
        }
        WAY.store(KERNEL_COPIES, Ordering::Relaxed);
        drop(memory);
        assert_eq!(read_running_module(at, &mut [0; 10]), None);
    }
}
