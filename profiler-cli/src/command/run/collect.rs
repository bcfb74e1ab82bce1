//! The dumps of one run. In: the pattern of their names and the run's token. Out: their paths,
//! after each dump was closed. Dumps of other runs must not be touched.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use alloc_dump::trailer::EndReason;

use crate::command::print_message;
use crate::dumps::close::{Closed, close};
use crate::dumps::place::has_pid;
use crate::load::{plain, writer_of};

/// Closes the dumps of this run and returns their paths, sorted. `pid` and `status` are those of
/// the program itself; the end of its forked children is not known.
///
/// # Errors
/// If the folder of the dumps cannot be read.
pub(super) fn close_dumps(
    pattern: &Path,
    token: &str,
    pid: u32,
    status: ExitStatus,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut dumps = files_that_match(pattern)?;
    dumps.retain(|path| matches!(writer_of(path), Ok(Some((_, found))) if found == token.as_bytes()));
    dumps.sort();
    let end = |writer: u32| match (status.code(), status.signal()) {
        _ if writer != pid => EndReason::Vanished,
        (Some(code), _) => EndReason::Exited(code as u8),
        (None, signal) => EndReason::Signalled(signal.unwrap_or(0) as u8),
    };
    for dump in &dumps {
        match close(dump, pid, end) {
            Ok(Closed::InUse) => print_message(format_args!(
                "{}: its process is still running; the report covers what is in the dump so far",
                dump.display()
            )),
            Ok(_) => {}
            Err(error) => {
                print_message(format_args!("cannot close {}: {}", dump.display(), plain(&error)));
            }
        }
    }
    Ok(dumps)
}

/// Returns the files whose name matches the pattern, with any process id for `%p`.
fn files_that_match(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !has_pid(pattern) {
        return Ok(if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() });
    }
    let folder = pattern.parent().unwrap_or(Path::new("/"));
    let name = pattern.file_name().unwrap_or_default().as_bytes();
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| {
        anyhow::anyhow!("cannot look for dumps in {}: {}", folder.display(), plain(&error))
    })?;
    for entry in entries.flatten() {
        if matches_pattern(name, entry.file_name().as_bytes()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Whether a file name is the pattern with digits in place of each `%p`.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let Some(at) = pattern.windows(2).position(|pair| pair == b"%p") else { return pattern == name };
    let Some(rest) = name.strip_prefix(&pattern[..at]) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count().min(MAX_PID_DIGITS);
    // Every number of digits is tried, because the pattern may go on with a digit itself.
    (1..=digits).any(|digits| matches_pattern(&pattern[at + 2..], &rest[digits..]))
}

const MAX_PID_DIGITS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_found_by_their_pattern() {
        let fits = matches_pattern;
        assert!(fits(b"a.%p.alloc", b"a.17.alloc") && fits(b"x", b"x") && fits(b"%p-%p", b"1-22"));
        assert!(fits(b"x%p2.alloc", b"x172.alloc") && fits(b"%p%p", b"1717"));
        assert!(
            !fits(b"a.%p.alloc", b"a..alloc")
                && !fits(b"a.%p.alloc", b"a.17.alloc.tail")
                && !fits(b"%p", b"x1")
        );
    }
}
