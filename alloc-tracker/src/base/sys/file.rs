//! Files, and writing to them without a signal reaching the host.
//!
//! NOTE: the C library's functions for these are points at which a thread that was cancelled ends, which would unwind through the
//! hook with locks held. A bare system call is none.

use std::ffi::CStr;

use super::Errno;
use super::signals::BlockedSignals;

/// An open file; closed when dropped.
#[derive(Debug)]
pub(crate) struct File(i32);

impl File {
    pub(crate) fn open(path: &CStr, flags: i32, mode: u32) -> Result<File, Errno> {
        loop {
            // SAFETY: `path` ends in zero.
            let fd = unsafe {
                libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, mode)
            };
            if fd >= 0 {
                return Ok(File(fd as i32));
            }
            if Errno::last().0 != libc::EINTR {
                return Err(Errno::last());
            }
        }
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0
    }

    /// The same file under a high number. What stays open has one: programs count on getting low numbers, in order, when they open
    /// files of their own. If there are not so many it keeps the one that it has.
    pub(crate) fn move_to_high_fd(self) -> File {
        for least in [HIGH, HIGH / 4] {
            // SAFETY: no preconditions.
            let fd = unsafe { libc::syscall(libc::SYS_fcntl, self.0, libc::F_DUPFD_CLOEXEC, least) };
            if fd >= 0 {
                return File(fd as i32);
            }
        }
        self
    }

    /// Reads from the file's beginning, as much as one call gives.
    pub(crate) fn read_from_start(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            // SAFETY: the buffer is valid for its length.
            #[cfg(target_pointer_width = "64")]
            let got =
                unsafe { libc::syscall(libc::SYS_pread64, self.0, buffer.as_mut_ptr(), buffer.len(), 0u64) };
            // As in `write_zeros`.
            #[cfg(not(target_pointer_width = "64"))]
            // SAFETY: the same.
            let got = unsafe { libc::pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if got >= 0 {
                return Ok(got as usize);
            }
            if Errno::last().0 != libc::EINTR {
                return Err(Errno::last());
            }
        }
    }

    /// Reads once; 0 at the end of the file.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            // SAFETY: the buffer is valid for its length.
            let got = unsafe { libc::syscall(libc::SYS_read, self.0, buffer.as_mut_ptr(), buffer.len()) };
            if got >= 0 {
                return Ok(got as usize);
            }
            if Errno::last().0 != libc::EINTR {
                return Err(Errno::last());
            }
        }
    }

    /// Writes all of `bytes`. Neither a limit on the size of files nor a closed pipe raises its signal in the host.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        let signals = BlockedSignals::of_failing_writes();
        while !bytes.is_empty() {
            // SAFETY: the buffer is valid for its length.
            let put = unsafe { libc::syscall(libc::SYS_write, self.0, bytes.as_ptr(), bytes.len()) };
            if put > 0 {
                bytes = bytes.get(put as usize..).unwrap_or_default();
            } else if put == 0 {
                return Err(Errno(libc::ENOSPC));
            } else {
                let errno = Errno::last();
                if errno.0 != libc::EINTR {
                    signals.swallow(errno);
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn truncate(&self, len: u64) -> Result<(), Errno> {
        // SAFETY: no preconditions.
        check(unsafe { libc::ftruncate(self.0, len as libc::off_t) })
    }

    /// Gives the file `len` zeros from `offset` on that are really there: a store to a mapping of them cannot meet a full disk.
    ///
    /// PERF: written, not reserved by `fallocate`: the file system keeps the room, but need not yet decide where it is. A file that is
    /// removed before it does then costs the disk nothing (5 ms at the end of a program, where it tells the device of every
    /// block that becomes free).
    pub(crate) fn write_zeros(&self, mut offset: u64, len: u64) -> Result<(), Errno> {
        static ZEROS: [u8; 4096] = [0; 4096];
        let signals = BlockedSignals::of_failing_writes();
        let end = offset + len;
        while offset < end {
            let count = ZEROS.len().min((end - offset) as usize);
            // SAFETY: the buffer is valid for its length.
            #[cfg(target_pointer_width = "64")]
            let put = unsafe { libc::syscall(libc::SYS_pwrite64, self.0, ZEROS.as_ptr(), count, offset) };
            // The offset is two words there, in an order of the processor's own.
            #[cfg(not(target_pointer_width = "64"))]
            // SAFETY: the same.
            let put = unsafe { libc::pwrite(self.0, ZEROS.as_ptr().cast(), count, offset as libc::off_t) };
            match put {
                0 => return Err(Errno(libc::ENOSPC)),
                1.. => offset += put as u64,
                _ => {
                    let errno = Errno::last();
                    if errno.0 != libc::EINTR {
                        signals.swallow(errno);
                        return Err(errno);
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        // SAFETY: no preconditions.
        check(unsafe { libc::fchmod(self.0, mode) })
    }

    /// Takes the advisory lock that marks a dump as being written; false if another process has it.
    pub(crate) fn try_lock(&self) -> bool {
        // SAFETY: no preconditions.
        unsafe {
            libc::flock(self.0, libc::LOCK_EX | libc::LOCK_NB) == 0 || Errno::last().0 != libc::EWOULDBLOCK
        }
    }

    pub(crate) fn unlock(&self) {
        // SAFETY: no preconditions.
        unsafe { libc::flock(self.0, libc::LOCK_UN) };
    }

    /// Whether the file system writes what is changed somewhere else. A store into a mapping of the file then needs room, and raises
    /// SIGBUS where the disk is full.
    pub(crate) fn is_on_copy_on_write_fs(&self) -> bool {
        // SAFETY: all-zero is a valid `statfs`, and the call writes one to the given place.
        let kind = unsafe {
            let mut system: libc::statfs = std::mem::zeroed();
            if libc::fstatfs(self.0, &raw mut system) == 0 { system.f_type as u64 } else { 0 }
        };
        // The field has another width on some processors.
        COPYING.contains(&(kind & 0xFFFF_FFFF))
    }

    pub(crate) fn identity(&self) -> Result<FileIdentity, Errno> {
        // SAFETY: all-zero is a valid `stat`, and the call writes one to the given place.
        let stat = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            check(libc::fstat(self.0, &raw mut stat))?;
            stat
        };
        let is_regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let is_empty = stat.st_size == 0;
        Ok(FileIdentity {
            device: stat.st_dev,
            inode: stat.st_ino,
            is_regular,
            links: stat.st_nlink,
            is_empty,
        })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: we opened it and nobody else closes it.
        unsafe { libc::syscall(libc::SYS_close, self.0) };
    }
}

/// What statfs(2) calls btrfs, bcachefs, ZFS, F2FS and NILFS.
const COPYING: [u64; 5] = [0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1, 0xF2F5_2010, 0x3434];

/// Below the limit on open files that systems set (1024), above what programs use.
const HIGH: i32 = 800;

/// A file that is read again and again, and stays open: opening one takes a number that the program may be about to get.
pub(crate) struct RereadFile {
    path: &'static CStr,
    open: Option<(File, FileIdentity)>,
}

impl RereadFile {
    pub(crate) const fn new(path: &'static CStr) -> RereadFile {
        RereadFile { path, open: None }
    }

    /// What it says now; nothing if it cannot be read.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        // The host may have closed the descriptor, and opened a file of its own under the same number.
        if let Some((file, _)) =
            self.open.take_if(|(file, identity)| !file.identity().is_ok_and(|now| now.is_same_file(identity)))
        {
            std::mem::forget(file);
        }
        if self.open.is_none()
            && let Ok(file) = File::open(self.path, libc::O_RDONLY, 0)
        {
            let file = file.move_to_high_fd();
            self.open = file.identity().ok().map(|identity| (file, identity));
        }
        let len = self.open.as_ref().and_then(|(file, _)| file.read_from_start(buffer).ok()).unwrap_or(0);
        buffer.get(..len).unwrap_or_default()
    }
}

impl Drop for RereadFile {
    fn drop(&mut self) {
        if let Some((file, identity)) = self.open.take()
            && !file.identity().is_ok_and(|now| now.is_same_file(&identity))
        {
            std::mem::forget(file);
        }
    }
}

/// What tells one file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: libc::dev_t,
    inode: libc::ino_t,
    links: libc::nlink_t,
    pub(crate) is_regular: bool,
    /// Whether there was nothing in it then.
    pub(crate) is_empty: bool,
}

impl FileIdentity {
    pub(crate) fn is_same_file(&self, other: &FileIdentity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Writes to standard error, whatever comes of it.
pub(super) fn write_to_stderr(bytes: &[u8]) {
    let stderr = std::mem::ManuallyDrop::new(File(2));
    // Where stderr is closed there is nobody left to tell.
    let _ = stderr.write_all(bytes);
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(Errno::last()) }
}
