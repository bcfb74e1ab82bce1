//! Writes the counts at the end of the process, as one line of JSON, to the file that
//! `ALLOC_ORACLE_OUT` names.
//!
//! The report runs inside `exit`: after the destructors of the main thread's locals, and before
//! `.fini_array`, where alloc-tracker finishes its dump. It must not allocate, because that would
//! falsify the counts, so it uses only the stack and libc.

use std::ffi::CStr;
use std::fmt::{self, Write};

use crate::{Counts, snapshot};

/// Makes the process write its counts when it calls `exit` or returns from `main`.
///
/// Call it at the beginning of `main`. The path is read from `ALLOC_ORACLE_OUT` when the process
/// exits; without that variable nothing is written. If the file cannot be written, one line on
/// stderr says so, and the exit status stays the same.
///
/// ```
/// alloc_oracle::report_at_exit();
/// // Started with ALLOC_ORACLE_OUT=counts.json, this process leaves a counts.json behind.
/// ```
pub fn report_at_exit() {
    // SAFETY: `write_report` is a plain function that stays mapped as long as the executable, and
    // it cannot unwind.
    let refused = unsafe { libc::atexit(write_report) };
    if refused != 0 {
        print_error("alloc-oracle: no room for another exit handler; the counts will not be written\n");
    }
}

extern "C" fn write_report() {
    // SAFETY: the name is a C string; the process is exiting, so nobody changes the environment
    // now.
    let path = unsafe { libc::getenv(c"ALLOC_ORACLE_OUT".as_ptr()) };
    if path.is_null() {
        return;
    }
    // SAFETY: getenv returned a C string, which is valid until somebody changes the environment.
    let path = unsafe { CStr::from_ptr(path) };
    let line = Line::of(&snapshot());
    if !write_file(path, line.as_bytes()) {
        print_error("alloc-oracle: cannot write the file that ALLOC_ORACLE_OUT names\n");
    }
}

fn write_file(path: &CStr, contents: &[u8]) -> bool {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
    let mode: libc::c_uint = 0o644;
    // SAFETY: `path` is a C string, and `open` gets the third argument that O_CREAT requires.
    let file = unsafe { libc::open(path.as_ptr(), flags, mode) };
    if file < 0 {
        return false;
    }
    let written = write_all(file, contents);
    // SAFETY: `file` was opened above and is closed once.
    let closed = unsafe { libc::close(file) } == 0;
    written && closed
}

fn write_all(file: libc::c_int, mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        // SAFETY: `rest` is readable for its whole length.
        let written = unsafe { libc::write(file, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(0) => return false,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

fn print_error(message: &str) {
    write_all(libc::STDERR_FILENO, message.as_bytes());
}

/// A line of text on the stack.
struct Line {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Line {
    fn of(counts: &Counts) -> Self {
        let Counts {
            allocations,
            deallocations,
            reallocations,
            allocated_bytes,
            freed_bytes,
            live_bytes,
            live_blocks,
            peak_bytes,
        } = counts;
        let mut line = Line { bytes: [0; CAPACITY], len: 0 };
        // Cannot fail: the longest line fits, see the test `the_longest_line_fits`.
        let _ = writeln!(
            line,
            "{{\"allocations\":{allocations},\"deallocations\":{deallocations},\
             \"reallocations\":{reallocations},\"allocated_bytes\":{allocated_bytes},\
             \"freed_bytes\":{freed_bytes},\"live_bytes\":{live_bytes},\
             \"live_blocks\":{live_blocks},\"peak_bytes\":{peak_bytes}}}"
        );
        line
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Eight names, eight numbers of at most 20 digits, and punctuation.
const CAPACITY: usize = 384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_json_object_with_every_count() {
        let counts = Counts {
            allocations: 1,
            deallocations: 2,
            reallocations: 3,
            allocated_bytes: 4,
            freed_bytes: 5,
            live_bytes: 6,
            live_blocks: 7,
            peak_bytes: 8,
        };
        assert_eq!(
            std::str::from_utf8(Line::of(&counts).as_bytes()).unwrap(),
            "{\"allocations\":1,\"deallocations\":2,\"reallocations\":3,\"allocated_bytes\":4,\"freed_bytes\":5,\
             \"live_bytes\":6,\"live_blocks\":7,\"peak_bytes\":8}\n"
        );
    }

    #[test]
    fn the_longest_line_fits() {
        let most = u64::MAX;
        let counts = Counts {
            allocations: most,
            deallocations: most,
            reallocations: most,
            allocated_bytes: most,
            freed_bytes: most,
            live_bytes: most,
            live_blocks: most,
            peak_bytes: most,
        };
        assert!(Line::of(&counts).as_bytes().ends_with(b"}\n"));
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_reported_not_fatal() {
        assert!(!write_file(c"/no/such/folder/counts.json", b"{}\n"));
    }
}
