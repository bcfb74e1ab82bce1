//! System calls that look at files and at this process's own memory, and change nothing.
//!
//! In: paths, open files, addresses. Out: numbers and bytes. A call that the process may not make
//! is an error like any other. Never allocates.

use std::ffi::CStr;

use super::system_call::system_call;
use super::{Errno, File, page_size, pid, read_at};

/// What the kernel says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStatus {
    /// Number of the file within its file system.
    pub(crate) inode: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// Whether it is an ordinary file, not a pipe or a device.
    pub(crate) is_regular: bool,
}

impl FileStatus {
    /// Returns the status of the file that this path leads to; `None` if there is none.
    pub(crate) fn of_path(path: &CStr) -> Option<FileStatus> {
        FileStatus::ask(libc::AT_FDCWD, path, 0)
    }

    /// Returns the status of an open file.
    pub(crate) fn of_file(file: &File) -> Option<FileStatus> {
        FileStatus::ask(file.fd(), c"", libc::AT_EMPTY_PATH)
    }

    fn ask(folder: i32, path: &CStr, flags: i32) -> Option<FileStatus> {
        // SAFETY: `stat` is a struct of integers, so all zeros are a valid value. `path` is a C
        // string, and the pointer is valid for the write of a `stat`. On these processors the
        // kernel's structure is that of the C library.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        let (stat, failed) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let call = libc::SYS_newfstatat;
            let failed = system_call!(call, folder, path.as_ptr(), &raw mut stat, flags).is_err();
            (stat, failed)
        };
        // SAFETY: as above. Elsewhere the C library knows which structure the kernel fills.
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let (stat, failed) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            let failed = libc::fstatat(folder, path.as_ptr(), &raw mut stat, flags) != 0;
            (stat, failed)
        };
        let is_regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let (inode, len) = (stat.st_ino, stat.st_size as u64);
        (!failed).then_some(FileStatus { inode, len, is_regular })
    }
}

impl File {
    /// Fills `into` with the file's bytes from `offset` on.
    ///
    /// # Errors
    /// The file ends before, or cannot be read there.
    pub(crate) fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.wrapping_add(done as u64);
            match read_at(self.fd(), rest, at)? {
                0 => return Err(Errno(libc::EIO)),
                got => done += got,
            }
        }
        Ok(())
    }
}

/// Copies memory of this process through the kernel, and returns how many bytes were readable.
///
/// # Errors
/// EFAULT if no byte is readable; any other error means that the process may not make this call.
pub(crate) fn copy_own_memory(at: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(at as usize), iov_len: into.len() };
    // SAFETY: the kernel checks the remote range, and the local one is ours.
    unsafe {
        let call = libc::SYS_process_vm_readv;
        system_call!(call, pid(), &raw const local, 1, &raw const remote, 1, 0)
    }
}

/// Returns how many bytes between two page-aligned addresses are in physical memory. Memory that is
/// not mapped counts as not resident. `answers` has room for the kernel's answers, a byte for each
/// page that is asked for at once.
pub(crate) fn resident_bytes(start: u64, end: u64, answers: &mut [u8]) -> u64 {
    let page = page_size();
    let (mut at, mut resident) = (start, 0);
    while at < end && !answers.is_empty() {
        let pages = ((end - at) / page).clamp(1, answers.len() as u64);
        // SAFETY: the kernel writes a byte for each page, and the slice has that many at least.
        let asked = unsafe { system_call!(libc::SYS_mincore, at, pages * page, answers.as_mut_ptr()) };
        if asked.is_ok() {
            let answered = answers.iter().take(pages as usize);
            resident += page * answered.filter(|answer| **answer & 1 != 0).count() as u64;
        }
        at += pages * page;
    }
    resident
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::base::sys::Mapping;

    #[test]
    fn memory_is_copied_as_long_as_it_is_mapped() {
        let memory = Mapping::anonymous(4096).unwrap();
        let at = memory.start() as u64;
        let mut bytes = [1; 8];
        assert_eq!(copy_own_memory(at, &mut bytes), Ok(8));
        assert_eq!(bytes, [0; 8]);
        drop(memory);
        assert_eq!(copy_own_memory(at, &mut bytes), Err(Errno(libc::EFAULT)));
    }

    #[test]
    fn pages_that_were_touched_are_resident() {
        let page = page_size();
        let mut memory = Mapping::anonymous(100 * page as usize).unwrap();
        for touched in [3, 4, 70] {
            memory.bytes_mut()[touched * page as usize] = 1;
        }
        let start = memory.start().addr() as u64;
        // Few answers at once, so that the kernel is asked several times.
        assert_eq!(resident_bytes(start, start + 100 * page, &mut [0; 7]), 3 * page);
        assert_eq!(resident_bytes(start + 4 * page, start + 70 * page, &mut [0; 7]), page);
    }

    #[test]
    fn a_path_and_its_open_file_have_one_status() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("five");
        std::fs::write(&path, "12345").unwrap();
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        let file = File::open(&path, libc::O_RDONLY, 0).unwrap();
        let status = FileStatus::of_path(&path).unwrap();
        assert_eq!(FileStatus::of_file(&file), Some(status));
        assert_eq!((status.len, status.is_regular), (5, true));
        assert!(FileStatus::of_path(c"/nowhere").is_none());
        assert!(FileStatus::of_path(c"/dev/null").is_some_and(|status| !status.is_regular));
        let mut bytes = [0; 3];
        assert_eq!((file.read_exact_at(2, &mut bytes), &bytes), (Ok(()), b"345"));
        assert_eq!(file.read_exact_at(3, &mut bytes), Err(Errno(libc::EIO)));
    }
}
