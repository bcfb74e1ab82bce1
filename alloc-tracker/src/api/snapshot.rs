//! Snapshots that the program itself asks for. In: a name. Out: a copy of the process's memory,
//! which `profiler-cli run` reads and writes into a file. Not part of the hook: may lock and wait.

use std::fmt;
use std::io;

use crate::recorder::{self, SnapshotFailure};

/// Takes a snapshot of the memory at this moment, from which `profiler-cli leaks` finds out what
/// holds a block, and `profiler-cli retained` what a block holds.
///
/// The process must be recorded by `profiler-cli run` or `profiler-cli cargo`, which writes the
/// file `DUMP.ID.snapshot` beside the dump. It holds addresses and no other contents of the memory.
/// For a process that was started in another way use `profiler-cli snapshot PID`.
///
/// The call returns when the kernel has made a copy-on-write copy of the process: that takes about
/// 30 ms for each GiB of resident memory, and memory is in use twice where the program writes to it
/// until the copy was read. The other threads go on. Names are cut to 256 bytes.
///
/// # Errors
/// [`SnapshotError`] if nobody records, if the kernel gives no copy, or if memory is too short for
/// one. The program and the recording go on.
///
/// ```
/// // Without a recording there is nothing to judge.
/// let outcome = alloc_tracker::snapshot("after the warm-up");
/// assert!(matches!(outcome, Err(alloc_tracker::SnapshotError::NotRecording)));
/// ```
pub fn snapshot(name: &str) -> Result<(), SnapshotError> {
    match recorder::take_snapshot(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(SnapshotFailure::NoRecording) => Err(SnapshotError::NotRecording),
        Err(SnapshotFailure::NoReader) => Err(SnapshotError::NoReader),
        Err(SnapshotFailure::Copy(errno)) => Err(SnapshotError::Refused(errno.into())),
    }
}

/// Why there is no snapshot.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The process is not recorded, or its recording has no drain process or no sidecar.
    NotRecording,
    /// No `profiler-cli run` is there to write the snapshot.
    NoReader,
    /// The kernel gives no copy of the process, memory is short, or another snapshot is being read.
    Refused(io::Error),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NotRecording => f.write_str("no snapshot: the process is not being recorded"),
            SnapshotError::NoReader => f.write_str(
                "no snapshot: `profiler-cli run` has not started this process; use `profiler-cli snapshot PID`",
            ),
            SnapshotError::Refused(_) => f.write_str("no snapshot: the process cannot be copied"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SnapshotError::NotRecording | SnapshotError::NoReader => None,
            SnapshotError::Refused(error) => Some(error),
        }
    }
}
