//! Memory straight from the kernel, so that the tracker's tables never touch the heap that they describe.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Errno, File};

static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that the tracker has mapped in this process.
pub(crate) fn mapped_bytes() -> u64 {
    MAPPED.load(Ordering::Relaxed) as u64
}

/// A zeroed, page-aligned, writable stretch of memory; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that belongs to its owner alone.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Memory of this process alone.
    pub(crate) fn anonymous(len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// The first `len` bytes of a file, shared with the kernel: what is stored here outlives the process.
    pub(crate) fn shared(file: &File, len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_SHARED | libc::MAP_POPULATE, file.fd())
    }

    fn new(len: usize, flags: i32, fd: i32) -> Result<Mapping, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of anybody's.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno(libc::ENOMEM))?;
        MAPPED.fetch_add(len, Ordering::Relaxed);
        Ok(Mapping { start, len })
    }

    /// Makes a forked child find zeros here; false if the kernel cannot (before 4.14).
    pub(crate) fn wipe_on_fork(&self) -> bool {
        // SAFETY: the range is ours.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_WIPEONFORK) == 0 }
    }

    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; shared for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable, initialised (zeros) and borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The mapping as an array of words or other plain values.
    #[inline]
    pub(crate) fn slice_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: pages are aligned for every `Plain` type, every bit pattern is a valid one, and the length is rounded
        // down; borrowed as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// Gives the memory up for good: it stays mapped until the process ends.
    pub(crate) fn leak(self) -> *mut u8 {
        std::mem::ManuallyDrop::new(self).start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        MAPPED.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Types that any bytes are a value of, with an alignment below that of a page.
///
/// # Safety
/// Implement it only for integers and for `repr(C)` structs of integers without padding.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
