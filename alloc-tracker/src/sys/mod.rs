//! What the rest of the crate needs from the operating system, without allocating. In: plain numbers and byte
//! strings. Out: plain numbers and [`Errno`]. Nothing here panics, allocates, or leaves `errno` changed for the host
//! when called under an [`ErrnoGuard`].

#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod bare_thread;
mod file;
mod futex;
mod helper;
mod mapping;
mod text;

pub(crate) use file::{File, Identity};
pub(crate) use futex::{FutexLock, wait, wake};
pub(crate) use helper::Helper;
pub(crate) use mapping::{Mapping, Plain, let_go, mapped_bytes, unmap};
pub(crate) use text::{PathBuffer, Text};

use std::ffi::CStr;
use std::fmt::Write;

/// An error number of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) fn last() -> Errno {
        // SAFETY: the C library returns a valid pointer to this thread's errno.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.0)
    }
}

/// Puts back, when dropped, the `errno` that the host had: a program that reads it after an allocation must not
/// find ours.
pub(crate) struct ErrnoGuard(i32);

impl ErrnoGuard {
    pub(crate) fn new() -> ErrnoGuard {
        ErrnoGuard(Errno::last().0)
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: as in `Errno::last`.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// An address on the calling thread's stack.
#[inline(never)]
pub(crate) fn here() -> u64 {
    let local = 0u8;
    std::hint::black_box(&raw const local).addr() as u64
}

/// Nanoseconds of the given clock.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

pub(crate) fn pid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() as u32 }
}

pub(crate) fn tid() -> u32 {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Lets another thread have the processor.
pub(crate) fn yield_now() {
    // SAFETY: no preconditions.
    unsafe { libc::sched_yield() };
}

pub(crate) fn page_size() -> u64 {
    // SAFETY: no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The name of the calling thread, as the kernel keeps it; at most 15 bytes.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to the given place.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr(), 0, 0, 0) };
    name
}

/// Fills `bytes` with randomness, or with the clock and the pid where the kernel has none to give.
pub(crate) fn random(bytes: &mut [u8; 16]) {
    // SAFETY: the buffer is valid for its length; GRND_NONBLOCK keeps an early boot from blocking us.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if got != bytes.len() as isize {
        let seed = clock_ns(libc::CLOCK_REALTIME) ^ (u64::from(pid()) << 40);
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&clock_ns(libc::CLOCK_MONOTONIC).to_le_bytes());
    }
}

/// Whether the program has more rights than whoever started it.
pub(crate) fn is_privileged() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The value of an environment variable. Safe only before or beside code that does not change the environment,
/// which is why it is read once, at the first event.
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: `name` ends in zero; a non-null result is a zero-ended string that lives as long as the environment is
    // not changed, and callers copy it at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

/// Reads a whole file of /proc from its beginning; the part of `buffer` that was filled.
pub(crate) fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = File::open(path, libc::O_RDONLY, 0)?;
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            got => len += got,
        }
    }
    Ok(&buffer[..len])
}

/// Removes a file; that it is not there is fine.
pub(crate) fn remove(path: &CStr) {
    // SAFETY: `path` ends in zero.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// Writes one line of ours to stderr: `alloc-tracker: ` and the message.
pub(crate) fn complain(message: std::fmt::Arguments<'_>) {
    let mut line = Text::<1024>::new();
    // A message that is too long is cut, which is the only error there is.
    let _ = line.write_fmt(format_args!("alloc-tracker: {message}"));
    line.end_line();
    file::write_to_stderr(line.as_bytes());
}

/// Words for an error number, such as "No space left on device". Not the C library's: it may look for a translation, with
/// its locks and its allocator, and the thread that asks may be unknown to it.
pub(crate) fn describe(errno: Errno) -> Text<128> {
    let mut text = Text::new();
    let known = match errno.0 {
        libc::EPERM => "Operation not permitted",
        libc::ENOENT => "No such file or directory",
        libc::EINTR => "Interrupted system call",
        libc::EIO => "Input/output error",
        libc::ENXIO => "No such device or address",
        libc::EBADF => "Bad file descriptor",
        libc::EAGAIN => "Resource temporarily unavailable",
        libc::ENOMEM => "Cannot allocate memory",
        libc::EACCES => "Permission denied",
        libc::EBUSY => "Device or resource busy",
        libc::EEXIST => "File exists",
        libc::ENODEV => "No such device",
        libc::ENOTDIR => "Not a directory",
        libc::EISDIR => "Is a directory",
        libc::EINVAL => "Invalid argument",
        libc::ENFILE => "Too many open files in system",
        libc::EMFILE => "Too many open files",
        libc::ETXTBSY => "Text file busy",
        libc::EFBIG => "File too large",
        libc::ENOSPC => "No space left on device",
        libc::ESPIPE => "Illegal seek",
        libc::EROFS => "Read-only file system",
        libc::EPIPE => "Broken pipe",
        libc::ENAMETOOLONG => "File name too long",
        libc::ENOSYS => "Function not implemented",
        libc::ELOOP => "Too many levels of symbolic links",
        libc::EOVERFLOW => "Value too large for defined data type",
        libc::EOPNOTSUPP => "Operation not supported",
        libc::ESTALE => "Stale file handle",
        libc::EDQUOT => "Disk quota exceeded",
        other => {
            let _ = write!(text, "error {other}");
            return text;
        }
    };
    text.push(known.as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words are those that a person finds everywhere else.
    #[test]
    fn errors_have_the_systems_words() {
        let mut known = 0;
        for number in 1..150 {
            let text = describe(Errno(number));
            let text = std::str::from_utf8(text.as_bytes()).unwrap();
            if text == format!("error {number}") {
                continue;
            }
            known += 1;
            let system = std::io::Error::from_raw_os_error(number).to_string();
            assert_eq!(format!("{text} (os error {number})"), system);
        }
        assert!(known >= 30, "{known}");
    }
}
