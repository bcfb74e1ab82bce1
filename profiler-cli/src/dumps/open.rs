//! Opens dumps for reading. In: a path. Out: a reader at the first frame, or an error with a text
//! of one line.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use alloc_dump::read::{ReadError, Reader, Records};
use alloc_dump::record::Record;

use super::sidecar::{SidecarRest, unread_sidecar};
use crate::io_error::plain;

/// Why a dump cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {}", plain(cause))]
    Open {
        /// Path of the file.
        path: PathBuf,
        /// The error that the system returned.
        cause: io::Error,
    },
    /// The dump has no record itself, and its sidecar, which has them all, cannot be read.
    #[error("{path}: all its records are in {}; make that file readable", unread_sidecar(path, cause))]
    Sidecar {
        /// Path of the dump.
        path: PathBuf,
        /// The error that the system returned.
        cause: io::Error,
    },
    /// The file is not a dump that this release can read.
    #[error("{path}: {cause}{}", advice(cause))]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The problem with the content of the file.
        cause: ReadError,
    },
}

impl DumpError {
    /// Returns a function that turns an error of the system into [`DumpError::Open`] for `path`.
    pub(crate) fn opening(path: &Path) -> impl Fn(io::Error) -> DumpError {
        move |cause| DumpError::Open { path: path.to_owned(), cause }
    }

    /// Returns a function that turns an error of the reader into [`DumpError::Read`] for `path`.
    pub(crate) fn reading(path: &Path) -> impl Fn(ReadError) -> DumpError {
        move |cause| DumpError::Read { path: path.to_owned(), cause }
    }
}

fn advice(error: &ReadError) -> &'static str {
    match error {
        ReadError::NewerVersion { .. } => "; use the profiler-cli of that release",
        ReadError::NotADump => "; give the file that `profiler-cli run -o FILE` has written",
        ReadError::Empty => "; the program was stopped before it could write anything",
        _ => "",
    }
}

/// Opens the file of a dump, and returns its length in bytes with it. Refuses folders.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64), DumpError> {
    let open_error = DumpError::opening(path);
    let file = File::open(path).map_err(&open_error)?;
    let metadata = file.metadata().map_err(&open_error)?;
    if metadata.is_dir() {
        return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    Ok((file, metadata.len()))
}

/// Opens a dump, reads its header, and returns the reader with the length of the file in bytes.
pub(crate) fn open_dump(path: &Path) -> Result<(Reader<File>, u64), DumpError> {
    let (file, size) = open_file(path)?;
    let reader = Reader::new(file).map_err(DumpError::reading(path))?;
    Ok((reader, size))
}

/// Checks that a file is a dump that this release can read.
///
/// # Errors
/// See [`DumpError`].
pub fn check_header(path: &Path) -> Result<(), DumpError> {
    open_dump(path).map(drop)
}

/// The process that writes, or wrote, a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpWriter {
    /// Process id of the writer.
    pub pid: u32,
    /// The token that `profiler-cli run` had put into the environment of the writer; empty if there
    /// was none.
    pub run_token: Vec<u8>,
    /// When the recording began: nanoseconds since 1970. The writer is older.
    pub begun_unix_ns: u64,
}

/// Returns the process that wrote a dump. Reads no more than the first frame. `None` if the dump
/// and its sidecar end before they name the process.
///
/// # Errors
/// See [`DumpError`].
pub fn writer_of(path: &Path) -> Result<Option<DumpWriter>, DumpError> {
    let (mut reader, _) = open_dump(path)?;
    let begun_unix_ns = reader.header().created_unix_ns;
    if let Ok(Some(records)) = reader.next_frame() {
        return Ok(writer_in(records, begun_unix_ns));
    }
    let rest = SidecarRest::read(path, reader.header(), reader.next_seq())
        .map_err(|cause| DumpError::Sidecar { path: path.to_owned(), cause })?;
    let mut rest = rest.as_ref().and_then(|rest| Reader::new(rest.dump.as_slice()).ok());
    let first = rest.as_mut().and_then(|rest| rest.next_frame().ok().flatten());
    Ok(first.and_then(|records| writer_in(records, begun_unix_ns)))
}

fn writer_in(mut records: Records<'_>, begun_unix_ns: u64) -> Option<DumpWriter> {
    records.find_map(|record| match record {
        Record::Process(process) => {
            Some(DumpWriter { pid: process.pid, run_token: process.run.to_vec(), begun_unix_ns })
        }
        _ => None,
    })
}
