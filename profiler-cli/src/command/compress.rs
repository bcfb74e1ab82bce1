//! `compress`, and what `run` does with a dump that is finished: the same records in fewer bytes. The new file is written
//! beside the dump, read back, and only then put in its place; whatever goes wrong, the dump stays as it was.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_dump::compress::{CompressError, Fingerprint, LEVEL, compress as compress_into};
use alloc_dump::read::ReadError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::NamedTempFile;

use super::progress::Progress;
use super::{Failure, say};
use crate::cli::CompressArgs;
use crate::load::{LoadError, plain};
use crate::units::{Safe, bytes};

/// What became of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is smaller now: its bytes before and after.
    Smaller(u64, u64),
    /// It was compressed before, or is so small that nothing is gained.
    AsItWas,
}

/// Why a dump stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error(transparent)]
    Load(LoadError),
    /// Something of it is missing or damaged, or still to come.
    #[error(
        "it is not complete, and a reader may still recover what it lacks; when its program has ended, \
         `profiler-cli summary` says more"
    )]
    Incomplete,
    /// A newer release wrote it.
    #[error("a newer release wrote it; use the profiler-cli of that release")]
    NewerVersion,
    /// Somebody wrote to it meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// What was written reads differently.
    #[error("what was written reads differently; please report this")]
    Different,
    /// Somebody is tired of waiting.
    #[error("interrupted")]
    Stopped,
    /// Reading or writing failed.
    #[error("{}", plain(.0))]
    Io(io::Error),
}

/// `profiler-cli compress`.
///
/// # Errors
/// See [`Failure`].
pub fn compress(args: &CompressArgs) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    let stop = on_signals();
    let mut told = Ok(());
    for dump in &args.dumps {
        let name = dump.to_string_lossy();
        let said = match compress_dump(dump, &stop) {
            Ok(outcome) => {
                // Nobody who listens is no reason to leave the others as they are.
                told = told.and(write_outcome(&name, outcome));
                continue;
            }
            Err(Refusal::Stopped) => return Ok(ExitCode::from(STOPPED)),
            Err(Refusal::Load(error)) => error.to_string(),
            Err(refusal) => format!("{name}: {refusal}"),
        };
        say(Safe(&said));
        status = ExitCode::from(2);
    }
    match told {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(status),
    }
}

fn write_outcome(name: &str, outcome: Outcome) -> io::Result<()> {
    let mut out = anstream::stdout();
    match outcome {
        Outcome::Smaller(before, after) => {
            writeln!(out, "{}: {} -> {}", Safe(name), bytes(before), bytes(after))
        }
        Outcome::AsItWas => writeln!(out, "{}: nothing to gain", Safe(name)),
    }
}

/// Set by the signals that ask a program to end, which from here on do nothing else: a file that is half written must go.
pub fn on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Without it the signal does what it did before.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// Compresses a dump in its place, unless told to stop.
///
/// # Errors
/// See [`Refusal`]; the dump is then as it was.
pub fn compress_dump(path: &Path, stop: &AtomicBool) -> Result<Outcome, Refusal> {
    let open_error = |cause| Refusal::Load(LoadError::Open { path: path.to_owned(), cause });
    // A link stays one: what it leads to is replaced.
    let place = path.canonicalize().map_err(open_error)?;
    let before = std::fs::metadata(&place).map_err(open_error)?;
    match before.file_type() {
        kind if kind.is_file() => {}
        kind if kind.is_dir() => return Err(open_error(io::Error::from(io::ErrorKind::IsADirectory))),
        // Reading a pipe would take from it what nobody can put back.
        _ => return Err(open_error(io::Error::other("not a regular file"))),
    }
    let file = File::open(&place).map_err(open_error)?;
    let folder = place.parent().unwrap_or(Path::new("/"));
    let smaller = beside(&place, folder).map_err(Refusal::Io)?;
    let progress = Progress::of_bytes("compressing");
    let refused = |error| match stop.load(Ordering::Relaxed) {
        true => Refusal::Stopped,
        false => refusal(error, path),
    };
    let input = Told { file, done: 0, size: before.len(), progress: &progress, stop };
    let done = compress_into(input, BufWriter::new(smaller.as_file()), LEVEL).map_err(refused)?;
    if done.frames == 0 || done.bytes >= before.len() {
        return Ok(Outcome::AsItWas);
    }
    let file = smaller.reopen().map_err(Refusal::Io)?;
    let written = Told { file, done: 0, size: done.bytes, progress: &progress, stop };
    let written = Fingerprint::of(written).map_err(|error| refused(CompressError::Read(error)))?;
    if written != Some(done.fingerprint) {
        return Err(Refusal::Different);
    }
    take_over(&smaller, &before).map_err(Refusal::Io)?;
    let now = std::fs::metadata(&place).map_err(Refusal::Io)?;
    if identity(&now) != identity(&before) {
        return Err(Refusal::Changed);
    }
    smaller.persist(&place).map_err(|error| Refusal::Io(error.error))?;
    Ok(Outcome::Smaller(before.len(), done.bytes))
}

/// A new file in the same folder, which only its owner can read. It goes when it is dropped.
fn beside(place: &Path, folder: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(place.file_name().unwrap_or_default());
    prefix.push(".");
    tempfile::Builder::new().prefix(&prefix).suffix(".tmp").tempfile_in(folder)
}

/// Gives the new file the owner and the permissions of the old one.
fn take_over(new: &NamedTempFile, old: &Metadata) -> io::Result<()> {
    let own = new.as_file().metadata()?;
    if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
        fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    new.as_file().set_permissions(old.permissions())
}

/// What differs when a file was written to, or is another one.
fn identity(metadata: &Metadata) -> (u64, u64, u64, i64, i64) {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

fn refusal(error: CompressError, path: &Path) -> Refusal {
    match error {
        CompressError::Read(ReadError::Io(error)) | CompressError::Write(error) => Refusal::Io(error),
        CompressError::Read(cause) => Refusal::Load(LoadError::Read { path: path.to_owned(), cause }),
        CompressError::Incomplete => Refusal::Incomplete,
        CompressError::NewerVersion => Refusal::NewerVersion,
        other => Refusal::Io(io::Error::other(other)),
    }
}

/// What a shell gives for a program that SIGINT has ended.
const STOPPED: u8 = 130;

/// A dump that tells how much of it was read, and ends when asked to.
struct Told<'a> {
    file: File,
    done: u64,
    size: u64,
    progress: &'a Progress,
    stop: &'a AtomicBool,
}

impl Read for Told<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        let got = self.file.read(into)?;
        self.done += got as u64;
        self.progress.tell(self.done, self.size);
        Ok(got)
    }
}
