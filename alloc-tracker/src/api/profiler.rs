//! Recording a part of a program, from code. In: the path of the dump. Out: a guard that ends the
//! recording. Not part of the hook: may lock, wait and allocate.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::installation::{self, Installation, installation};
use crate::base::epoch::RecordingId;
use crate::base::mode::{self, WHOLE};
use crate::base::settings::Settings;
use crate::recorder;

/// A recording that was begun by code. When this guard is dropped the recording ends and its dump
/// is closed.
///
/// ```
/// use alloc_tracker::{AllocTracker, Profiler};
///
/// #[global_allocator]
/// static ALLOC: AllocTracker = AllocTracker::system();
///
/// fn main() -> std::io::Result<()> {
///     let dump = std::env::temp_dir().join(format!("profiler-doc-{}.alloc", std::process::id()));
///     let profiler = Profiler::builder().output(&dump).start().map_err(std::io::Error::other)?;
///     let squares: Vec<u64> = (0..100).map(|n| n * n).collect();
///     profiler.finish()?;
///     assert!(std::fs::metadata(&dump)?.len() > 0 && squares.len() == 100);
///     std::fs::remove_file(&dump)
/// }
/// ```
#[derive(Debug)]
#[must_use = "the recording ends when the guard is dropped"]
pub struct Profiler {
    /// The recording that this guard has begun and not ended.
    recording: Option<RecordingId>,
}

impl Profiler {
    /// Returns the settings of a recording, to be changed and started.
    pub fn builder() -> ProfilerBuilder {
        ProfilerBuilder { output: None }
    }

    /// Ends the recording and closes the dump.
    ///
    /// # Errors
    /// The dump could not be written, at its end or before. What was recorded until then stays
    /// readable.
    pub fn finish(mut self) -> io::Result<()> {
        self.end()
    }

    /// Whether this guard's dump is being written. False if the whole process is being recorded
    /// already, by `profiler-cli run` or by `ALLOC_TRACKER=trace`: the guard then does nothing and
    /// that recording goes on.
    pub fn owns_recording(&self) -> bool {
        self.recording.is_some()
    }

    fn end(&mut self) -> io::Result<()> {
        self.recording.take().map_or(Ok(()), |recording| recorder::finish(recording).map_err(io::Error::from))
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // Any error has been reported on stderr.
        let _ = self.end();
    }
}

/// Settings of a recording that is begun by code; made by [`Profiler::builder`].
#[derive(Clone, Debug, Default)]
#[must_use = "nothing is recorded before `start`"]
pub struct ProfilerBuilder {
    output: Option<PathBuf>,
}

impl ProfilerBuilder {
    /// Sets the path of the dump; `%p` in the file's name becomes the process id, and folders are
    /// taken as they are. An existing dump is replaced, any other file is left alone. The default
    /// is `PROGRAM.PID.alloc` in the working directory.
    pub fn output(mut self, path: impl AsRef<Path>) -> ProfilerBuilder {
        self.output = Some(path.as_ref().to_path_buf());
        self
    }

    /// Begins to record. The recording does not know the blocks that exist already; their frees are
    /// counted separately. If the whole process is being recorded already, the guard does nothing
    /// (see [`Profiler::owns_recording`]).
    ///
    /// If [`AllocTracker`](crate::AllocTracker) is the global allocator of a part of the program's
    /// code only (see [`Installation::Partial`]), the recording begins all the same. Its dump then
    /// says that it is not exact.
    ///
    /// # Errors
    /// [`StartError`] if [`AllocTracker`](crate::AllocTracker) is not the global allocator, if the
    /// dump cannot be created, or if another guard's recording is still running.
    pub fn start(self) -> Result<Profiler, StartError> {
        if installation() == Installation::Missing {
            return Err(StartError::NotInstalled);
        }
        if mode::is_undecided() {
            recorder::decide(false, false);
        }
        if mode::current() & WHOLE != 0 && !recorder::is_left_behind_by_fork() {
            return Ok(Profiler { recording: None });
        }
        let settings = match &self.output {
            Some(path) => Settings::for_pattern(path.as_os_str().as_bytes()),
            None => Settings::for_program(),
        };
        match recorder::start(&settings, false) {
            Ok(recording) => Ok(Profiler { recording: Some(recording) }),
            Err(errno) if errno.0 == libc::EALREADY => Err(StartError::AlreadyRecording),
            Err(errno) if errno.0 == libc::ECHILD => Err(StartError::Forked),
            Err(errno) => Err(StartError::Create { path: settings.path.to_string(), source: errno.into() }),
        }
    }
}

/// Why a recording did not begin.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The program has no [`AllocTracker`](crate::AllocTracker) as its global allocator, so there
    /// is nothing to record.
    NotInstalled,
    /// Another [`Profiler`] of this process is still recording.
    AlreadyRecording,
    /// This process is a fork of one that has recorded; only a new program can record again.
    Forked,
    /// The dump cannot be created.
    Create {
        /// Absolute path of the dump.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NotInstalled => f.write_str(installation::MISSING),
            StartError::AlreadyRecording => {
                f.write_str("another Profiler of this process is still recording")
            }
            StartError::Forked => f.write_str("this process is a fork of one that has recorded"),
            StartError::Create { path, .. } => write!(f, "cannot create the dump {path}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::NotInstalled | StartError::AlreadyRecording | StartError::Forked => None,
            StartError::Create { source, .. } => Some(source),
        }
    }
}
