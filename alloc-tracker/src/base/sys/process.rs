//! Questions about the process and the calling thread, files of /proc, links, and messages on
//! stderr.
//!
//! In: names and paths as C strings. Out: numbers and bytes. Never allocates.

use std::ffi::CStr;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::system_call::system_call;
use super::{Errno, File, PathBuffer, Text, clock_ns, file, futex_wait};

pub(crate) fn pid() -> u32 {
    // SAFETY: the call touches no memory.
    unsafe { system_call!(libc::SYS_getpid) }.unwrap_or(0) as u32
}

pub(crate) fn tid() -> u32 {
    // SAFETY: the call touches no memory.
    unsafe { system_call!(libc::SYS_gettid) }.unwrap_or(0) as u32
}

/// Lets another thread run on this processor.
pub(crate) fn yield_now() {
    // SAFETY: the call touches no memory.
    let _ = unsafe { system_call!(libc::SYS_sched_yield) };
}

/// Makes the kernel execute a fence in other threads, as the command says; false if it refuses.
pub(crate) fn membarrier(command: i32) -> bool {
    // SAFETY: the call takes numbers and touches no memory.
    unsafe { system_call!(libc::SYS_membarrier, command, 0, 0) }.is_ok()
}

/// Sleeps for about this long.
pub(crate) fn nap(ns: u64) {
    static NOBODY_WAKES: AtomicU32 = AtomicU32::new(0);
    // PERF: `futex` and not a call for sleeping: programs that forbid themselves system calls
    // mostly need `futex` themselves.
    futex_wait(&NOBODY_WAKES, 0, ns);
}

/// Returns the size of a page in bytes. The first call, which happens when a recording begins, asks
/// the C library.
pub(crate) fn page_size() -> u64 {
    static SIZE: AtomicU64 = AtomicU64::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: no preconditions.
            let size = unsafe { libc::getauxval(libc::AT_PAGESZ) };
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Returns the name of the calling thread: at most 15 bytes, then zeros.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, and the buffer has 16.
    let _ = unsafe { system_call!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Fills `bytes` with random bytes, or with the time and the process id if the kernel has none to
/// give.
pub(crate) fn fill_random(bytes: &mut [u8; 16]) {
    // NOTE: GRND_NONBLOCK, because early in the system's boot the call would block.
    // SAFETY: the buffer is valid for writes of its length.
    let got =
        unsafe { system_call!(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), libc::GRND_NONBLOCK) };
    if got != Ok(bytes.len()) {
        let seed = clock_ns(libc::CLOCK_REALTIME) ^ (u64::from(pid()) << 40);
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..].copy_from_slice(&clock_ns(libc::CLOCK_MONOTONIC).to_le_bytes());
    }
}

/// Whether the program has more rights than the user who started it (set-user-ID and the like).
pub(crate) fn is_privileged() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns the value of an environment variable. This is safe only while no other code changes the
/// environment. So each variable is read once, at the first event.
pub(crate) fn env_var(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: `name` is a C string. A result that is not null is a C string as well, and stays
    // valid until the environment is changed; callers copy it at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes())
    }
}

/// Reads a file of /proc from its beginning until it ends or `buffer` is full. Returns the part of
/// `buffer` that was filled.
pub(crate) fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let file = File::open(path, libc::O_RDONLY, 0)?;
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(&buffer[..len])
}

/// Removes a file, if it is there.
pub(crate) fn remove_file(path: &CStr) {
    // SAFETY: `path` is a C string.
    let _ = unsafe { system_call!(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_ptr(), 0) };
}

/// Makes a symbolic link at `path` that leads to `target`; false if that fails.
pub(crate) fn make_symlink(target: &CStr, path: &CStr) -> bool {
    // SAFETY: `target` and `path` are C strings.
    unsafe { system_call!(libc::SYS_symlinkat, target.as_ptr(), libc::AT_FDCWD, path.as_ptr()).is_ok() }
}

/// Appends the target of a symbolic link to `into`. Appends nothing if `path` is no link.
pub(crate) fn read_link(path: &CStr, into: &mut PathBuffer) {
    let mut buffer = [0u8; 4096];
    // SAFETY: `path` is a C string, and the buffer is valid for writes of its length.
    let len = unsafe {
        let (path, into) = (path.as_ptr(), buffer.as_mut_ptr());
        system_call!(libc::SYS_readlinkat, libc::AT_FDCWD, path, into, buffer.len())
    };
    into.push(len.ok().and_then(|len| buffer.get(..len)).unwrap_or_default());
}

/// Writes one line to stderr: `alloc-tracker: ` and the message.
pub(crate) fn print_to_stderr(message: std::fmt::Arguments<'_>) {
    let mut line = Text::<1024>::new();
    // The only error is that a message was too long and was cut.
    let _ = line.write_fmt(format_args!("alloc-tracker: {message}"));
    line.end_line();
    file::write_to_stderr(line.as_bytes());
}

/// Appends the working directory, if there is one.
pub(crate) fn working_directory(into: &mut PathBuffer) {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is valid for writes of its length.
    let len = unsafe { system_call!(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    // The kernel counts the zero at the end. A directory that cannot be reached from the root is
    // given as `(unreachable)`, which is no path.
    let path = len.ok().and_then(|len| buffer.get(..len.checked_sub(1)?)).unwrap_or_default();
    into.push(if path.starts_with(b"/") { path } else { b"" });
}
