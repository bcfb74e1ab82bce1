//! Finds the dumps that a run of a program has written. In: the path that the run gave to its
//! recorders; each `%p` in the file's name stands for a process id, and folders are taken as they
//! are. Out: paths.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::open::{DumpError, writer_of};
use super::reserve::group_of_token;
use super::sidecar::sidecar_path;
use super::writing::wait_while_closing;
use crate::io_error::plain;

/// The dumps of a run.
#[derive(Debug, Default)]
pub struct FoundDumps {
    /// The dumps whose process was started by the run, sorted by path.
    pub of_run: Vec<PathBuf>,
    /// Errors of further dumps with a fitting name: their run is not known, because it is in a
    /// sidecar that cannot be read.
    pub unreadable: Vec<DumpError>,
}

/// Whether the file's name in the pattern contains `%p`, so that each process of a run writes a
/// file of its own. A `%p` in the name of a folder is nothing special.
///
/// ```
/// use profiler_cli::dumps::find::has_pid_placeholder;
/// assert!(has_pid_placeholder("/srv/a.%p.alloc".as_ref()));
/// assert!(!has_pid_placeholder("/srv/100%peak/a.alloc".as_ref()));
/// ```
pub fn has_pid_placeholder(pattern: &Path) -> bool {
    let pattern = pattern.as_os_str().as_bytes();
    let name = pattern.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.windows(2).any(|pair| pair == b"%p")
}

/// Returns the dumps whose name fits the pattern and whose process was started with this run token.
///
/// # Errors
/// If the folder cannot be listed.
pub fn dumps_of_run(pattern: &Path, token: &str) -> anyhow::Result<FoundDumps> {
    let mut found = FoundDumps::default();
    let mut files = files_that_fit(pattern)?;
    files.sort();
    for path in files {
        let writer = match writer_of(&path) {
            Ok(Some(writer)) => Ok(Some(writer)),
            // While a dump is being closed, its first record may be in neither file for a moment.
            Ok(None) | Err(_) => {
                wait_while_closing(&path);
                writer_of(&path)
            }
        };
        match writer {
            Ok(Some(writer)) if writer.run_token == token.as_bytes() => found.of_run.push(path),
            Err(error @ DumpError::Sidecar { .. }) => found.unreadable.push(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(found)
}

/// Returns the dumps that processes of this run are writing, but for those that are `known`.
pub(crate) fn recordings_of_run(pattern: &Path, token: &str, known: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let is_written = |path: &PathBuf| !known(path) && sidecar_path(path).exists();
    let is_of_run = |path: &PathBuf| {
        writer_of(path).ok().flatten().is_some_and(|writer| writer.run_token == token.as_bytes())
    };
    let files = files_that_fit(pattern).unwrap_or_default();
    files.into_iter().filter(is_written).filter(is_of_run).collect()
}

/// Returns the dumps of a folder, sorted by path: its files with the extension `alloc`.
///
/// # Errors
/// If the folder cannot be listed.
pub fn dumps_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        anyhow::anyhow!("cannot look for dumps in {}: {}", folder.display(), plain(&error))
    })?;
    let files = entries.flatten().map(|entry| entry.path());
    // A pipe of this name must not be read.
    let is_dump = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "alloc") && path.is_file();
    let mut dumps: Vec<PathBuf> = files.filter(is_dump).collect();
    dumps.sort();
    Ok(dumps)
}

/// Returns the dumps of a folder that the same run, or the same command of cargo, has written as
/// this dump: at least the dump itself. Dumps that cannot be read are left out.
///
/// # Errors
/// If the folder cannot be listed.
pub fn dumps_of_same_run(folder: &Path, dump: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let token = |path: &Path| writer_of(path).ok().flatten().map(|writer| writer.run_token);
    let wanted = token(dump).filter(|token| !token.is_empty());
    let Some(wanted) = wanted else { return Ok(vec![dump.to_owned()]) };
    let mut dumps = dumps_in(folder)?;
    dumps.retain(|path| token(path).is_some_and(|token| group_of_token(&token) == group_of_token(&wanted)));
    Ok(dumps)
}

/// Returns the files whose name fits the pattern, whatever process id it contains.
fn files_that_fit(pattern: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !has_pid_placeholder(pattern) {
        return Ok(if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() });
    }
    let folder = pattern.parent().unwrap_or(Path::new("/"));
    let name = pattern.file_name().unwrap_or_default().as_bytes();
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| {
        anyhow::anyhow!("cannot look for dumps in {}: {}", folder.display(), plain(&error))
    })?;
    for entry in entries.flatten() {
        if fits(name, entry.file_name().as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a file name is the pattern with digits for each `%p`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let Some(at) = pattern.windows(2).position(|pair| pair == b"%p") else { return pattern == name };
    let Some(rest) = name.strip_prefix(&pattern[..at]) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count().min(MAX_PID_DIGITS);
    // The part of the pattern after `%p` may itself begin with a digit: `x%p2` fits `x172`.
    (1..=digits).any(|digits| fits(&pattern[at + 2..], &rest[digits..]))
}

const MAX_PID_DIGITS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_with_digits_for_each_placeholder() {
        assert!(fits(b"a.%p.alloc", b"a.17.alloc") && fits(b"x", b"x") && fits(b"%p-%p", b"1-22"));
        assert!(fits(b"x%p2.alloc", b"x172.alloc") && fits(b"%p%p", b"1717"));
        assert!(
            !fits(b"a.%p.alloc", b"a..alloc")
                && !fits(b"a.%p.alloc", b"a.17.alloc.tail")
                && !fits(b"%p", b"x1")
        );
    }
}
