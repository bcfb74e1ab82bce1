//! Memory directly from the kernel, so that the tracker's tables never touch the heap that they
//! describe.
//!
//! In: sizes, files. Out: mappings, which unmap themselves, and the number of bytes that are
//! mapped. Never allocates through the global allocator.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::system_call::system_call;
use super::{Errno, File, own_mappings};

static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// Returns how many bytes the tracker has mapped in this process.
pub(crate) fn mapped_bytes() -> u64 {
    MAPPED.load(Ordering::Relaxed) as u64
}

/// A page-aligned, readable and writable range of memory, which is unmapped when dropped. New
/// anonymous memory is zeroed.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that its owner alone refers to, whichever thread that is.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps zeroed memory of this process alone.
    pub(crate) fn anonymous(len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, (-1, 0))
    }

    /// Maps zeroed memory of this process alone, in huge pages if `len` fills at least one and the
    /// kernel gives them to programs that ask. The length is rounded up to whole huge pages then.
    ///
    /// One huge page more than needed is mapped. Then both ends are unmapped, so that the rest is
    /// aligned:
    ///
    /// ```text
    /// mapped     |........|================|...|     len + one huge page
    /// kept                |================|         len, at a multiple of a huge page
    /// unmapped   |........|                |...|     `before`, and one huge page less `before`
    /// ```
    pub(crate) fn of_huge_pages(len: usize) -> Result<Mapping, Errno> {
        if len < HUGE_PAGE {
            return Mapping::anonymous(len);
        }
        let len = len.next_multiple_of(HUGE_PAGE);
        let all = Mapping::anonymous(len + HUGE_PAGE)?.leak();
        let before = all.align_offset(HUGE_PAGE);
        // SAFETY: `before` is less than a huge page, so all three ranges lie within the new
        // mapping, to which there is no reference yet. `start` is not null: it lies within a
        // mapping.
        unsafe {
            let start = all.add(before);
            if before > 0 {
                let _ = system_call!(libc::SYS_munmap, all, before);
            }
            let _ = system_call!(libc::SYS_munmap, start.add(len), HUGE_PAGE - before);
            MAPPED.fetch_sub(HUGE_PAGE, Ordering::Relaxed);
            own_mappings::remove(all.addr() as u64);
            own_mappings::add(start.addr() as u64, len);
            let _ = system_call!(libc::SYS_madvise, start, len, libc::MADV_HUGEPAGE);
            Ok(Mapping { start: NonNull::new_unchecked(start), len })
        }
    }

    /// Returns a mapping of length 0, which needs no system call.
    pub(crate) const fn empty() -> Mapping {
        // SAFETY: the address is not null. It is aligned as a page is, as empty slices of any
        // `Plain` type need.
        let start = unsafe { NonNull::new_unchecked(std::ptr::without_provenance_mut(PAGE)) };
        Mapping { start, len: 0 }
    }

    /// Maps zeroed memory that copies of this process share with it.
    pub(crate) fn shared_with_copies(len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_SHARED | libc::MAP_ANONYMOUS, (-1, 0))
    }

    /// Maps `len` bytes of a file from `offset` on. Stores go to the kernel's copy of the file,
    /// which outlives the process.
    pub(crate) fn shared(file: &File, offset: u64, len: usize) -> Result<Mapping, Errno> {
        Mapping::new(len, libc::MAP_SHARED, (file.fd(), offset))
    }

    fn new(len: usize, flags: i32, (fd, offset): (i32, u64)) -> Result<Mapping, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without MAP_FIXED the kernel chooses an unused range of addresses, so no existing
        // memory changes.
        let start = unsafe { map(0, len, protection, flags, fd, offset) }?;
        MAPPED.fetch_add(len, Ordering::Relaxed);
        own_mappings::add(start as u64, len);
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut(start)).ok_or(Errno(libc::ENOMEM))?;
        Ok(Mapping { start, len })
    }

    /// Makes a forked child find zeros here; false if the kernel cannot (before 4.14).
    pub(crate) fn wipe_on_fork(&self) -> bool {
        // SAFETY: the range is this mapping, and the advice changes nothing in this process.
        unsafe {
            system_call!(libc::SYS_madvise, self.start.as_ptr(), self.len, libc::MADV_WIPEONFORK).is_ok()
        }
    }

    #[inline]
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; `self` is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is readable, writable and initialised: with zeros, or with the file's
        // bytes. `self` is borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Returns the mapping as an array of plain values; see [`slice_mut`](Mapping::slice_mut).
    #[inline]
    pub(crate) fn slice<T: Plain>(&self) -> &[T] {
        // SAFETY: as in `slice_mut`; `self` is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// Returns the mapping as a mutable array of plain values, without the bytes behind the last
    /// whole value.
    #[inline]
    pub(crate) fn slice_mut<T: Plain>(&mut self) -> &mut [T] {
        // SAFETY: pages are aligned for every `Plain` type, any bytes are a value of it, and the
        // length is rounded down. `self` is borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// Gives the memory back to the kernel, but keeps the addresses mapped. A thread that still
    /// reads there finds zeros.
    pub(crate) fn release_pages(self) {
        #[cfg(not(miri))]
        // SAFETY: the range is this mapping, private and anonymous: its pages become zeros and stay
        // readable. Other threads that still read there read whole words atomically, and zeros are
        // values that they expect.
        let _ =
            unsafe { system_call!(libc::SYS_madvise, self.start.as_ptr(), self.len, libc::MADV_DONTNEED) };
        #[cfg(miri)]
        for index in 0..self.len / 8 {
            // SAFETY: the word lies within this mapping and is aligned. Other threads that still
            // read there read whole words atomically.
            let word = unsafe {
                std::sync::atomic::AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(index))
            };
            word.store(0, Ordering::Relaxed);
        }
        MAPPED.fetch_sub(self.len, Ordering::Relaxed);
        std::mem::forget(self);
    }

    /// Keeps the memory mapped until the process ends, or until [`unmap_leaked`], and returns its
    /// beginning.
    pub(crate) fn leak(self) -> *mut u8 {
        std::mem::ManuallyDrop::new(self).start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        own_mappings::remove(self.start.as_ptr().addr() as u64);
        // SAFETY: the range is this mapping. All references into it have ended: they borrow `self`.
        let _ = unsafe { system_call!(libc::SYS_munmap, self.start.as_ptr(), self.len) };
        MAPPED.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// Maps memory, at an address that the kernel chooses if `start` is 0, and returns the address.
///
/// # Safety
/// As for `mmap`: with MAP_FIXED the memory in this range is replaced.
unsafe fn map(
    start: usize,
    len: usize,
    protection: i32,
    flags: i32,
    fd: i32,
    offset: u64,
) -> Result<usize, Errno> {
    #[cfg(target_pointer_width = "64")]
    // SAFETY: the caller's promise.
    unsafe {
        system_call!(libc::SYS_mmap, start, len, protection, flags, fd, offset)
    }
    // The system call of these processors counts the offset in pages. The C library's function
    // knows that.
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: the caller's promise.
    unsafe {
        let start = libc::mmap(
            std::ptr::with_exposed_provenance_mut(start),
            len,
            protection,
            flags,
            fd,
            offset as libc::off_t,
        );
        if start == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(start.expose_provenance()) }
    }
}

/// Unmaps memory that [`Mapping::leak`] has left mapped.
pub(crate) fn unmap_leaked(start: u64, len: usize) {
    own_mappings::remove(start);
    // SAFETY: the range must be a mapping without references. Callers know that it was leaked with
    // this length, and that no thread uses it any more.
    let _ = unsafe { system_call!(libc::SYS_munmap, start, len) };
    MAPPED.fetch_sub(len, Ordering::Relaxed);
}

/// Replaces a part of a leaked mapping, which nobody has touched, by zeroed memory of this process
/// alone.
pub(crate) fn replace_leaked(start: u64, len: usize) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: callers know that the range is a part of a mapping of this crate, that it consists of
    // whole pages, and that no thread has stored anything there. So nothing is lost.
    unsafe { map(start as usize, len, protection, flags, -1, 0) }.map(|_| ())
}

/// Takes a leaked mapping of a file out of the process's resident set. The file's bytes stay as
/// they are.
pub(crate) fn discard_resident(start: u64, len: usize) {
    // SAFETY: no byte may change. Callers know that the range is a shared mapping of a file: the
    // kernel forgets that the process has touched the pages, and keeps the file's own copy of them.
    let _ = unsafe { system_call!(libc::SYS_madvise, start, len, libc::MADV_DONTNEED) };
}

/// The size of a huge page on x86-64 and on most other processors.
const HUGE_PAGE: usize = 2 << 20;
const PAGE: usize = 4096;

/// A type for which any bytes are a valid value, with an alignment of at most a page.
///
/// # Safety
/// Only integers, and `repr(C)` structs of integers without padding, may implement it.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
