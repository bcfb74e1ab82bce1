//! Files, and writing to them without raising a signal in the host.
//!
//! In: paths, bytes. Out: [`Errno`]. Never allocates; an interrupted call is made again.
//!
//! NOTE: the C library's functions for files are cancellation points: a thread that was cancelled
//! with `pthread_cancel` ends there. That would unwind through the hook with locks held. A system
//! call of our own is no cancellation point.

use std::ffi::CStr;

use super::Errno;
use super::signals::BlockedSignals;
use super::system_call::{retry_interrupted, system_call};

/// An open file; closed when dropped.
#[derive(Debug)]
pub(crate) struct File(i32);

impl File {
    /// Opens a file with these flags and O_CLOEXEC; `mode` has the permissions of a file that is
    /// created.
    pub(crate) fn open(path: &CStr, flags: i32, mode: u32) -> Result<File, Errno> {
        // SAFETY: `path` is a C string.
        let open = || unsafe {
            let flags = flags | libc::O_CLOEXEC;
            system_call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode)
        };
        retry_interrupted(open).map(|fd| File(fd as i32))
    }

    /// Opens a process of this machine, so that its end can be waited for.
    pub(crate) fn of_process(pid: u32) -> Result<File, Errno> {
        // SAFETY: `pidfd_open` takes two numbers and touches no memory.
        unsafe { system_call!(libc::SYS_pidfd_open, pid, 0) }.map(|fd| File(fd as i32))
    }

    /// Returns the file's descriptor.
    pub(crate) fn fd(&self) -> i32 {
        self.0
    }

    /// Moves the file to a high descriptor, if the process may have so many. Files that stay open
    /// have one, because programs rely on getting low descriptors, in order, for files of their
    /// own.
    pub(crate) fn move_to_high_fd(self) -> File {
        for least in [HIGH_FD, HIGH_FD / 4] {
            // SAFETY: F_DUPFD_CLOEXEC takes two numbers and touches no memory.
            let fd = unsafe { system_call!(libc::SYS_fcntl, self.0, libc::F_DUPFD_CLOEXEC, least) };
            if let Ok(fd) = fd {
                return File(fd as i32);
            }
        }
        self
    }

    /// Returns the descriptor, which nobody closes from now on.
    pub(crate) fn into_fd(self) -> i32 {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Reads from the file's beginning, as much as one call gives. Returns the number of bytes.
    pub(crate) fn read_from_start(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        read_at(self.0, buffer, 0)
    }

    /// Reads from the file's position, as much as one call gives. Returns the number of bytes, 0 at
    /// the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the buffer is valid for writes of its length.
        let read = || unsafe { system_call!(libc::SYS_read, self.0, buffer.as_mut_ptr(), buffer.len()) };
        retry_interrupted(read)
    }

    /// Writes all of `bytes`. A limit on file sizes and a closed pipe raise no signal in the host:
    /// the call returns an error.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<(), Errno> {
        let signals = BlockedSignals::of_failing_writes();
        while !bytes.is_empty() {
            // SAFETY: the buffer is valid for reads of its length.
            match unsafe { system_call!(libc::SYS_write, self.0, bytes.as_ptr(), bytes.len()) } {
                Ok(0) => return Err(Errno(libc::ENOSPC)),
                Ok(put) => bytes = bytes.get(put..).unwrap_or_default(),
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    signals.take_pending(errno);
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Removes the entry with this name from the folder that this file is.
    pub(crate) fn remove_entry(&self, name: &CStr) {
        // SAFETY: `name` is a C string.
        let _ = unsafe { system_call!(libc::SYS_unlinkat, self.0, name.as_ptr(), 0) };
    }

    /// Sets the length of the file.
    pub(crate) fn truncate(&self, len: u64) -> Result<(), Errno> {
        #[cfg(target_pointer_width = "64")]
        // SAFETY: `ftruncate` takes two numbers and touches no memory.
        return unsafe { system_call!(libc::SYS_ftruncate, self.0, len) }.map(|_| ());
        #[cfg(not(target_pointer_width = "64"))]
        // SAFETY: `ftruncate` takes two numbers and touches no memory.
        match unsafe { libc::ftruncate(self.0, len as libc::off_t) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }

    /// Writes `len` zeros from `offset` on, so that the file system has room for them. A store into
    /// a mapping of this range cannot meet a full disk then.
    ///
    /// PERF: the zeros are written, not reserved by `fallocate`. The file system reserves the room,
    /// but need not choose the disk blocks yet. A file that is removed before that choice costs the
    /// disk nothing. With `fallocate` it costs 5 ms at the end of a program where the file system
    /// tells the device of every disk block that becomes free.
    pub(crate) fn write_zeros(&self, mut offset: u64, len: u64) -> Result<(), Errno> {
        static ZEROS: [u8; 4096] = [0; 4096];
        let signals = BlockedSignals::of_failing_writes();
        let end = offset + len;
        while offset < end {
            let count = ZEROS.len().min((end - offset) as usize);
            // SAFETY: the buffer is valid for reads of `count` bytes, which is at most its length.
            #[cfg(target_pointer_width = "64")]
            let put = unsafe { system_call!(libc::SYS_pwrite64, self.0, ZEROS.as_ptr(), count, offset) };
            // On these processors the system call takes the offset as two words, in an order that
            // depends on the processor. The C library's function knows the order.
            #[cfg(not(target_pointer_width = "64"))]
            // SAFETY: the buffer is valid for reads of `count` bytes, which is at most its length.
            let put = unsafe {
                match libc::pwrite(self.0, ZEROS.as_ptr().cast(), count, offset as libc::off_t) {
                    -1 => Err(Errno::last()),
                    put => Ok(put as usize),
                }
            };
            match put {
                Ok(0) => return Err(Errno(libc::ENOSPC)),
                Ok(put) => offset += put as u64,
                Err(Errno(libc::EINTR)) => {}
                Err(errno) => {
                    signals.take_pending(errno);
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    /// Sets the file's permissions.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        // SAFETY: `fchmod` takes two numbers and touches no memory.
        unsafe { system_call!(libc::SYS_fchmod, self.0, mode) }.map(|_| ())
    }

    /// Takes the advisory lock that marks a dump as being written; false if another process has it.
    /// On a file system without such locks the result is true.
    pub(crate) fn try_lock(&self) -> bool {
        // SAFETY: `flock` takes two numbers and touches no memory.
        let locked = unsafe { system_call!(libc::SYS_flock, self.0, libc::LOCK_EX | libc::LOCK_NB) };
        locked != Err(Errno(libc::EWOULDBLOCK))
    }

    /// Gives the advisory lock back.
    pub(crate) fn unlock(&self) {
        // SAFETY: `flock` takes two numbers and touches no memory.
        let _ = unsafe { system_call!(libc::SYS_flock, self.0, libc::LOCK_UN) };
    }

    /// Whether the file system is copy-on-write: it writes changed data to another part of the
    /// disk. Even a store into a mapping of existing data needs new room there, and raises SIGBUS
    /// if the disk is full.
    pub(crate) fn is_on_copy_on_write_fs(&self) -> bool {
        // SAFETY: `statfs` is a struct of integers, so all zeros are a valid value, and the pointer
        // is valid for the write of one.
        let kind = unsafe {
            let mut system: libc::statfs = std::mem::zeroed();
            match system_call!(libc::SYS_fstatfs, self.0, &raw mut system) {
                Ok(_) => system.f_type as u64,
                Err(_) => 0,
            }
        };
        // The field is wider than the number on some processors.
        COPY_ON_WRITE.contains(&(kind & 0xFFFF_FFFF))
    }

    /// Returns the identity of the open file, with some of its properties.
    pub(crate) fn identity(&self) -> Result<FileIdentity, Errno> {
        // SAFETY: `stat` is a struct of integers, so all zeros are a valid value, and the pointer
        // is valid for the write of one.
        let stat = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            file_status(self.0, &raw mut stat)?;
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

/// Reads from this offset of an open file, as much as one call gives. Returns the number of bytes,
/// 0 at the end.
pub(crate) fn read_at(fd: i32, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    // SAFETY: the buffer is valid for writes of its length.
    #[cfg(target_pointer_width = "64")]
    let read = || unsafe { system_call!(libc::SYS_pread64, fd, buffer.as_mut_ptr(), buffer.len(), offset) };
    // A function of the C library here, for the reason that `write_zeros` gives.
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: the buffer is valid for writes of its length.
    let read = || unsafe {
        let got = libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), offset as libc::off_t);
        if got < 0 { Err(Errno::last()) } else { Ok(got as usize) }
    };
    retry_interrupted(read)
}

/// Closes a descriptor of the calling process, whose number another process goes on to use.
pub(crate) fn close_descriptor(fd: i32) {
    drop(File(fd));
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned by this value, which is gone afterwards.
        let _ = unsafe { system_call!(libc::SYS_close, self.0) };
    }
}

/// The numbers that statfs(2) has for btrfs, bcachefs, ZFS, F2FS and NILFS.
const COPY_ON_WRITE: [u64; 5] = [0x9123_683E, 0xCA45_1A4E, 0x2FC1_2FC1, 0xF2F5_2010, 0x3434];

/// Below the limit on open files that systems set (1024), above the descriptors that programs use.
const HIGH_FD: i32 = 800;

/// A file that is read again and again, and stays open in between. Opening the file each time would
/// take, for a moment, the low descriptor that the host's next file should get.
pub(crate) struct RereadFile {
    path: &'static CStr,
    open: Option<(File, FileIdentity)>,
}

impl RereadFile {
    pub(crate) const fn new(path: &'static CStr) -> RereadFile {
        RereadFile { path, open: None }
    }

    /// Opens the file, unless it is open already.
    pub(crate) fn open(&mut self) {
        if self.open.is_none()
            && let Ok(file) = File::open(self.path, libc::O_RDONLY, 0)
        {
            let file = file.move_to_high_fd();
            self.open = file.identity().ok().map(|identity| (file, identity));
        }
    }

    /// Closes the file until it is opened or read again.
    pub(crate) fn close(&mut self) {
        *self = RereadFile::new(self.path);
    }

    /// Returns the descriptor, if the file is open.
    pub(crate) fn fd(&self) -> Option<i32> {
        self.open.as_ref().map(|(file, _)| file.fd())
    }

    /// Reads the file as it is now. Returns the part of `buffer` that was filled, which is empty if
    /// reading fails.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> &'a [u8] {
        // The host may have closed our descriptor, and have opened a file of its own under the same
        // number. That file must stay open.
        if let Some((file, _)) =
            self.open.take_if(|(file, identity)| !file.identity().is_ok_and(|now| now.is_same_file(identity)))
        {
            std::mem::forget(file);
        }
        self.open();
        let len = self.open.as_ref().and_then(|(file, _)| file.read_from_start(buffer).ok()).unwrap_or(0);
        buffer.get(..len).unwrap_or_default()
    }
}

impl Drop for RereadFile {
    /// Closes the file, unless its descriptor belongs to a file of the host by now, as in
    /// [`read`](RereadFile::read).
    fn drop(&mut self) {
        if let Some((file, identity)) = self.open.take()
            && !file.identity().is_ok_and(|now| now.is_same_file(&identity))
        {
            std::mem::forget(file);
        }
    }
}

/// The identity of a file, which is its device and inode, and some of its properties at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: libc::dev_t,
    inode: libc::ino_t,
    links: libc::nlink_t,
    /// Whether it is an ordinary file, not a pipe or a device.
    pub(crate) is_regular: bool,
    /// Whether its length was 0.
    pub(crate) is_empty: bool,
}

impl FileIdentity {
    /// Whether both are the same file, whatever has happened to it in between.
    pub(crate) fn is_same_file(&self, other: &FileIdentity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Writes to standard error. A failure is ignored.
pub(super) fn write_to_stderr(bytes: &[u8]) {
    let stderr = std::mem::ManuallyDrop::new(File(2));
    // If stderr is closed, the failure cannot be reported anywhere.
    let _ = stderr.write_all(bytes);
}

/// Reads the properties of an open file.
///
/// # Safety
/// `stat` must be valid for writes.
unsafe fn file_status(fd: i32, stat: *mut libc::stat) -> Result<(), Errno> {
    // The structs of the kernel and of the C library are the same on these processors.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: the caller's promise.
    unsafe {
        system_call!(libc::SYS_fstat, fd, stat).map(|_| ())
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: the caller's promise.
    match unsafe { libc::fstat(fd, stat) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}
