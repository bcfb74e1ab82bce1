//! `profiler-cli compress`, and the compression of a finished dump by `run`: the same records in
//! fewer bytes.
//!
//! In: dumps. Out: the same files, smaller. The new file is written beside the dump, read back and
//! compared, and only then renamed over the dump. Whatever fails, the dump must stay as it was.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_dump::compress::{CompressError, Contents, LEVEL, compress as compress_into};
use alloc_dump::read::ReadError;
use clap::{Args, ValueHint};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::NamedTempFile;

use super::progress::ProgressLine;
use super::{Failure, print_message};
use crate::load::{LoadError, plain};
use crate::units::{Safe, bytes};

const EXAMPLES: &str = "\
Examples:
  profiler-cli compress server.4711.alloc
  profiler-cli compress *.alloc
";

const NOTES: &str = "\
`run` and `cargo` compress their dumps already; this command is for dumps of programs that were
started without them. A dump that is not complete stays as it is.";

/// Options of `compress`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub struct CompressArgs {
    /// Dumps to compress in place.
    #[arg(required = true, value_name = "DUMP", value_hint = ValueHint::FilePath)]
    pub dumps: Vec<PathBuf>,
}

/// Runs `profiler-cli compress`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CompressArgs) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    let stop = stop_on_signals();
    let mut printed = Ok(());
    for dump in &args.dumps {
        let name = dump.to_string_lossy();
        let message = match compress_dump(dump, &stop) {
            Ok(outcome) => {
                // If stdout is closed, the remaining dumps are still compressed.
                printed = printed.and(print_outcome(&name, outcome));
                continue;
            }
            Err(CompressDumpError::Interrupted) => return Ok(ExitCode::from(INTERRUPTED_STATUS)),
            Err(CompressDumpError::Load(error)) => error.to_string(),
            Err(error) => format!("{name}: {error}"),
        };
        print_message(Safe(&message));
        status = ExitCode::from(2);
    }
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(status),
    }
}

fn print_outcome(name: &str, outcome: Outcome) -> io::Result<()> {
    let mut out = anstream::stdout();
    match outcome {
        Outcome::Smaller { before, after } => {
            writeln!(out, "{}: {} -> {}", Safe(name), bytes(before), bytes(after))
        }
        Outcome::Unchanged => writeln!(out, "{}: nothing to gain", Safe(name)),
    }
}

/// The exit status that a shell gives a program that SIGINT has killed.
const INTERRUPTED_STATUS: u8 = 130;

/// What became of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The dump is smaller now.
    Smaller {
        /// Bytes of the file before.
        before: u64,
        /// Bytes of the file now.
        after: u64,
    },
    /// The dump was compressed before, or is so small that nothing is gained.
    Unchanged,
}

/// Why a dump was not compressed. The dump is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompressDumpError {
    /// The dump cannot be read.
    #[error(transparent)]
    Load(LoadError),
    /// Records are missing or damaged, or the program is still writing them.
    #[error(
        "it is not complete, and a reader may still recover what is missing; when its program has ended, \
         `profiler-cli summary` says more"
    )]
    Incomplete,
    /// A newer release wrote the dump.
    #[error("a newer release wrote it; use the profiler-cli of that release")]
    NewerVersion,
    /// Another process wrote to the dump meanwhile.
    #[error("it was changed meanwhile, so it stays as it is")]
    Changed,
    /// The compressed file does not have the same records as the dump.
    #[error("the compressed file has other records, so the dump stays as it is; please report this")]
    Different,
    /// The user asked this program to end.
    #[error("interrupted")]
    Interrupted,
    /// Reading or writing failed.
    #[error("{}", plain(.0))]
    Io(io::Error),
}

/// Returns a flag that is set by SIGINT, SIGTERM and SIGHUP. From then on these signals do nothing
/// else, so that a file that is half written can be removed.
pub fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // If this fails, the signal keeps its previous effect.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// Compresses a dump in place, unless `stop` is set meanwhile.
///
/// # Errors
/// See [`CompressDumpError`]; the dump is then as it was.
pub fn compress_dump(path: &Path, stop: &AtomicBool) -> Result<Outcome, CompressDumpError> {
    use CompressDumpError as E;
    let open_error = |cause| E::Load(LoadError::Open { path: path.to_owned(), cause });
    // A symbolic link stays one: its target is replaced.
    let target = path.canonicalize().map_err(open_error)?;
    let before = std::fs::metadata(&target).map_err(open_error)?;
    match before.file_type() {
        kind if kind.is_file() => {}
        kind if kind.is_dir() => return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory))),
        // What is read from a pipe is gone, and cannot be put back.
        _ => return Err(open_error(io::Error::other("not a regular file"))),
    }
    let file = File::open(&target).map_err(open_error)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let smaller = private_file_beside(&target, folder).map_err(E::Io)?;
    let progress = ProgressLine::of_bytes("compressing");
    let stopped_or = |error| match stop.load(Ordering::Relaxed) {
        true => E::Interrupted,
        false => error_of(error, path),
    };
    let input = WatchedFile { file, done: 0, size: before.len(), progress: &progress, stop };
    let done = compress_into(input, BufWriter::new(smaller.as_file()), LEVEL).map_err(stopped_or)?;
    if done.frames == 0 || done.bytes >= before.len() {
        return Ok(Outcome::Unchanged);
    }
    let file = smaller.reopen().map_err(E::Io)?;
    let written = WatchedFile { file, done: 0, size: done.bytes, progress: &progress, stop };
    let written = Contents::of(written).map_err(|error| stopped_or(CompressError::Read(error)))?;
    if written != Some(done.contents) {
        return Err(E::Different);
    }
    copy_owner_and_permissions(&before, &smaller).map_err(E::Io)?;
    let now = std::fs::metadata(&target).map_err(E::Io)?;
    if file_state(&now) != file_state(&before) {
        return Err(E::Changed);
    }
    smaller.persist(&target).map_err(|error| E::Io(error.error))?;
    Ok(Outcome::Smaller { before: before.len(), after: done.bytes })
}

/// Creates a file in the same folder that only its owner can read. It is removed when it is
/// dropped.
fn private_file_beside(dump: &Path, folder: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(dump.file_name().unwrap_or_default());
    prefix.push(".");
    tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(folder)
}

fn copy_owner_and_permissions(old: &Metadata, new: &NamedTempFile) -> io::Result<()> {
    let own = new.as_file().metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file().set_permissions(old.permissions())
}

/// Returns values of which at least one differs after a write, or for another file.
fn file_state(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn error_of(error: CompressError, path: &Path) -> CompressDumpError {
    use CompressDumpError as E;
    match error {
        CompressError::Read(ReadError::Io(error)) | CompressError::Write(error) => E::Io(error),
        CompressError::Read(cause) => E::Load(LoadError::Read { path: path.to_owned(), cause }),
        CompressError::Incomplete => E::Incomplete,
        CompressError::NewerVersion => E::NewerVersion,
        other => E::Io(io::Error::other(other)),
    }
}

/// A file that reports how much of it was read, and fails as soon as `stop` is set.
struct WatchedFile<'a> {
    file: File,
    done: u64,
    size: u64,
    progress: &'a ProgressLine,
    stop: &'a AtomicBool,
}

impl Read for WatchedFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let got = self.file.read(into)?;
        self.done += got as u64;
        self.progress.update(self.done, self.size);
        Ok(got)
    }
}
