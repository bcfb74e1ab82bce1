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
        Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, (-1, 0))
    }

    /// Memory of this process alone, of huge pages as far as it fills some and the kernel gives them for the asking.
    pub(crate) fn of_huge_pages(len: usize) -> Result<Mapping, Errno> {
        if len < HUGE_PAGE {
            return Mapping::anonymous(len);
        }
        let len = len.next_multiple_of(HUGE_PAGE);
        let all = Mapping::anonymous(len + HUGE_PAGE)?.leak();
        let before = all.align_offset(HUGE_PAGE);
        // SAFETY: both ends are inside of what was just mapped, and nobody has them yet; the rest is as large as asked for.
        unsafe {
            let start = all.add(before);
            if before > 0 {
                libc::munmap(all.cast(), before);
            }
            libc::munmap(start.add(len).cast(), HUGE_PAGE - before);
            MAPPED.fetch_sub(HUGE_PAGE, Ordering::Relaxed);
            libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE);
            Ok(Mapping { start: NonNull::new_unchecked(start), len })
        }
    }

    /// No memory at all.
    pub(crate) const fn empty() -> Mapping {
        // SAFETY: not null; aligned as pages are, for empty slices of any type.
        let start = unsafe { NonNull::new_unchecked(std::ptr::without_provenance_mut(PAGE)) };
        Mapping { start, len: 0 }
    }

    /// The `len` bytes of a file from `offset` on, shared with the kernel: what is stored here outlives the process.
    pub(crate) fn shared(file: &File, offset: u64, len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_SHARED, (file.fd(), offset))
    }

    fn new(len: usize, flags: i32, (fd, offset): (i32, u64)) -> Result<Mapping, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of anybody's.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset as libc::off_t) };
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

    /// As [`slice_mut`](Mapping::slice_mut), for reading.
    #[inline]
    pub(crate) fn slice<T: Plain>(&self) -> &[T] {
        // SAFETY: as in `slice_mut`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// The mapping as an array of words or other plain values.
    #[inline]
    pub(crate) fn slice_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: pages are aligned for every `Plain` type, every bit pattern is a valid one, and the length is rounded
        // down; borrowed as in `bytes_mut`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// Gives the memory back, but not its addresses: whoever still reads there finds zeros.
    pub(crate) fn release_pages(self) {
        #[cfg(not(miri))]
        // SAFETY: the range is ours, private and anonymous; it stays readable.
        unsafe {
            libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED);
        }
        #[cfg(miri)]
        for at in 0..self.len / 8 {
            // SAFETY: the range is ours, and whoever still reads there reads whole words atomically.
            let word =
                unsafe { std::sync::atomic::AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(at)) };
            word.store(0, Ordering::Relaxed);
        }
        MAPPED.fetch_sub(self.len, Ordering::Relaxed);
        std::mem::forget(self);
    }

    /// Gives the memory up for good: it stays mapped until the process ends.
    pub(crate) fn leak(self) -> *mut u8 {
        std::mem::ManuallyDrop::new(self).start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: the range is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        MAPPED.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Unmaps what [`Mapping::leak`] has given up.
pub(crate) fn unmap_leaked(start: u64, len: usize) {
    // SAFETY: callers know that it was leaked with this length and that nobody uses it any more.
    unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start as usize), len) };
    MAPPED.fetch_sub(len, Ordering::Relaxed);
}

/// Makes memory of a file, which was leaked, no longer resident; what it holds stays.
pub(crate) fn discard_resident(start: u64, len: usize) {
    // SAFETY: callers know that the range is a shared mapping of a file: the kernel forgets pages of the process, not of the
    // file.
    unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(start as usize), len, libc::MADV_DONTNEED);
    }
}

/// Of x86-64 and of most others.
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// Types that any bytes are a value of, with an alignment below that of a page.
///
/// # Safety
/// Implement it only for integers and for `repr(C)` structs of integers without padding.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
