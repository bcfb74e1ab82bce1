//! Compresses a finished dump in its place: the same records in fewer bytes, and the names of its
//! code if there are any. In: a path and names. Out: a [`CompressOutcome`].
//!
//! The new file is written beside the dump, read back, and only then renamed over it. The dump
//! stays as it was until that rename, so no error and no interruption can lose a record.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_dump::compress::{CompressError, Fingerprint, LEVEL, compress_with_symbols};
use alloc_dump::read::ReadError;
use alloc_dump::symbols::EncodedSymbols;
use tempfile::NamedTempFile;

use super::OnProgress;
use super::open::DumpError;
use super::writing::wait_while_closing;
use crate::io_error::plain;

/// The result of compressing a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressOutcome {
    /// The dump is smaller now.
    Smaller {
        /// Length of the file before, in bytes.
        before: u64,
        /// Length of the file now, in bytes.
        after: u64,
    },
    /// The dump is larger now, because of the names.
    Larger {
        /// Length of the file before, in bytes.
        before: u64,
        /// Length of the file now, in bytes.
        after: u64,
    },
    /// The dump stays as it is: there are no names for it, and it was compressed before, or is so
    /// small that nothing is gained.
    Unchanged,
}

/// Why a dump was not compressed. The dump has not changed then.
#[derive(Debug, thiserror::Error)]
pub enum CompressDumpError {
    /// The dump cannot be read. The message names its path.
    #[error(transparent)]
    Dump(DumpError),
    /// A part of the dump is missing or damaged, or not yet written.
    #[error(
        "it is not complete, and a reader may still recover what it lacks; when its program has ended, \
         `profiler-cli summary` says more"
    )]
    Incomplete,
    /// A newer release wrote the dump.
    #[error("a newer release wrote it; use the profiler-cli of that release")]
    NewerVersion,
    /// Another process wrote to the dump while it was being compressed.
    #[error("it was changed meanwhile")]
    Changed,
    /// The compressed file does not read back as the same records.
    #[error("what was written reads differently; please report this")]
    Different,
    /// The stop flag was set.
    #[error("interrupted")]
    Stopped,
    /// Reading or writing failed.
    #[error("{}", plain(.0))]
    Io(io::Error),
}

/// Compresses the dump at `path` in its place, and puts `symbols` into it instead of those that it
/// has. Without `symbols` it keeps its own. If `stop` is set meanwhile, the dump stays as it is.
///
/// # Errors
/// See [`CompressDumpError`]. After an error the dump is unchanged.
pub fn compress_dump(
    path: &Path,
    symbols: Option<&[EncodedSymbols]>,
    stop: &AtomicBool,
    progress: OnProgress<'_>,
) -> Result<CompressOutcome, CompressDumpError> {
    let open_error = |cause| CompressDumpError::Dump(DumpError::opening(path)(cause));
    // A link stays a link: the file that it names is replaced.
    let target = path.canonicalize().map_err(open_error)?;
    wait_while_closing(&target);
    let before = std::fs::metadata(&target).map_err(open_error)?;
    match before.file_type() {
        kind if kind.is_file() => {}
        kind if kind.is_dir() => return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory))),
        // Reading a pipe would consume its content, which nobody could restore.
        _ => return Err(open_error(io::Error::other("not a regular file"))),
    }
    let file = File::open(&target).map_err(open_error)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let rewritten = create_beside(&target, folder).map_err(CompressDumpError::Io)?;
    let error_of = |error| match stop.load(Ordering::Relaxed) {
        true => CompressDumpError::Stopped,
        false => compress_dump_error(error, path),
    };
    let input = InterruptibleFile { file, done: 0, size: before.len(), progress: &mut *progress, stop };
    let output = BufWriter::new(rewritten.as_file());
    let done = compress_with_symbols(input, output, LEVEL, symbols).map_err(error_of)?;
    if symbols.is_none() && (done.frames == 0 || done.bytes >= before.len()) {
        return Ok(CompressOutcome::Unchanged);
    }
    let file = rewritten.reopen().map_err(CompressDumpError::Io)?;
    let written = InterruptibleFile { file, done: 0, size: done.bytes, progress, stop };
    let written = Fingerprint::of(written).map_err(|error| error_of(CompressError::Read(error)))?;
    if written != Some(done.fingerprint) {
        return Err(CompressDumpError::Different);
    }
    copy_owner_and_mode(&rewritten, &before).map_err(CompressDumpError::Io)?;
    // The dump that it replaces may be the only copy.
    rewritten.as_file().sync_data().map_err(CompressDumpError::Io)?;
    let now = std::fs::metadata(&target).map_err(CompressDumpError::Io)?;
    if version_of(&now) != version_of(&before) {
        return Err(CompressDumpError::Changed);
    }
    rewritten.persist(&target).map_err(|error| CompressDumpError::Io(error.error))?;
    let (before, after) = (before.len(), done.bytes);
    match after < before {
        true => Ok(CompressOutcome::Smaller { before, after }),
        false => Ok(CompressOutcome::Larger { before, after }),
    }
}

/// Creates a temporary file in the folder of the dump, readable by its owner only. Dropping the
/// value removes the file.
fn create_beside(target: &Path, folder: &Path) -> io::Result<NamedTempFile> {
    let prefix = temporary_prefix(target, std::process::id());
    tempfile::Builder::new().prefix(&prefix).suffix(TEMPORARY_SUFFIX).tempfile_in(folder)
}

/// Removes the temporary files that a process has left beside a dump because it was killed.
pub fn remove_temporary_files(dump: &Path, process: u32) {
    let Ok(target) = dump.canonicalize() else { return };
    let prefix = temporary_prefix(&target, process);
    for entry in target.parent().and_then(|folder| folder.read_dir().ok()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(TEMPORARY_SUFFIX.as_bytes()) {
            // If that fails, the file stays. It is no dump, so no command takes it for one.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Returns the first part of the name of a temporary file: `.DUMP.PROCESS.`.
fn temporary_prefix(target: &Path, process: u32) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(format!(".{process}."));
    prefix
}

const TEMPORARY_SUFFIX: &str = ".tmp";

/// Gives the new file the owner and the permissions of the old one.
fn copy_owner_and_mode(new: &NamedTempFile, old: &Metadata) -> io::Result<()> {
    let own = new.as_file().metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file().set_permissions(old.permissions())
}

/// Returns a value that changes when the file is written to, or when another file takes its path.
fn version_of(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn compress_dump_error(error: CompressError, path: &Path) -> CompressDumpError {
    match error {
        CompressError::Read(ReadError::Io(error)) | CompressError::Write(error) => {
            CompressDumpError::Io(error)
        }
        CompressError::Read(cause) => CompressDumpError::Dump(DumpError::reading(path)(cause)),
        CompressError::Incomplete => CompressDumpError::Incomplete,
        CompressError::NewerVersion => CompressDumpError::NewerVersion,
        other => CompressDumpError::Io(io::Error::other(other)),
    }
}

/// A file that reports how much of it was read. Reading fails as soon as the stop flag is set.
struct InterruptibleFile<'a> {
    file: File,
    done: u64,
    size: u64,
    progress: OnProgress<'a>,
    stop: &'a AtomicBool,
}

impl Read for InterruptibleFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let got = self.file.read(into)?;
        self.done += got as u64;
        (self.progress)(self.done, self.size);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_that_process_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("x.alloc");
        let names =
            ["x.alloc", ".x.alloc.12.a.tmp", ".x.alloc.123.a.tmp", ".y.alloc.12.a.tmp", ".x.alloc.12.b"];
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        remove_temporary_files(&dump, 12);
        let left = |name: &&&str| folder.path().join(name).exists();
        assert_eq!(names.iter().filter(left).count(), 4);
        assert!(!folder.path().join(names[1]).exists());
        let made = create_beside(&dump, folder.path()).unwrap();
        let path = made.into_temp_path().keep().unwrap();
        remove_temporary_files(&dump, std::process::id());
        assert!(!path.exists());
    }
}
