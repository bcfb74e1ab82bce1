//! What the system says of the process and the calling thread, and what it can be told.

use std::ffi::CStr;
use std::fmt::Write;

use super::{Errno, File, PathBuffer, Text, file};

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
pub(crate) fn fill_random(bytes: &mut [u8; 16]) {
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
pub(crate) fn env_var(name: &CStr) -> Option<&'static [u8]> {
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
pub(crate) fn remove_file(path: &CStr) {
    // SAFETY: `path` ends in zero.
    unsafe { libc::unlink(path.as_ptr()) };
}

/// Makes a link at `path` that leads to `target`; false if that cannot be.
pub(crate) fn make_symlink(target: &CStr, path: &CStr) -> bool {
    // SAFETY: both end in zero.
    unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) == 0 }
}

/// Where a link leads to; empty if it is none.
pub(crate) fn read_link(path: &CStr, into: &mut PathBuffer) {
    let mut buffer = [0u8; 4096];
    // SAFETY: `path` ends in zero and the buffer is valid for its length.
    let len = unsafe { libc::readlink(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    into.push(usize::try_from(len).ok().and_then(|len| buffer.get(..len)).unwrap_or_default());
}

/// Writes one line of ours to stderr: `alloc-tracker: ` and the message.
pub(crate) fn print_to_stderr(message: std::fmt::Arguments<'_>) {
    let mut line = Text::<1024>::new();
    // A message that is too long is cut, which is the only error there is.
    let _ = line.write_fmt(format_args!("alloc-tracker: {message}"));
    line.end_line();
    file::write_to_stderr(line.as_bytes());
}
