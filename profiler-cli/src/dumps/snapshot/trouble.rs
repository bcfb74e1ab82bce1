//! Why a snapshot was not taken, in one line each.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::io_error::plain;

/// Why a snapshot was not taken. The recorded program goes on.
#[derive(Debug, Error)]
pub enum SnapshotTrouble {
    /// Nobody is writing the dump, or its recorder takes no snapshots.
    #[error("{}: no process is recording into this dump with a sidecar; give the dump of a program that runs", dump.display())]
    NotRecording {
        /// The dump.
        dump: PathBuf,
    },
    /// No dump belongs to the process.
    #[error(
        "process {pid} does not record: start it with `profiler-cli run`, or give the dump's path instead of the process id"
    )]
    NoDump {
        /// Its id.
        pid: u32,
    },
    /// There is no process with this id.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The id.
        pid: u32,
    },
    /// Process ids are of another namespace there, so those that the recorder tells mean nothing.
    #[error(
        "process {pid} is in another PID namespace, as in a container: run `profiler-cli snapshot` inside of it"
    )]
    OtherNamespace {
        /// Its id here.
        pid: u32,
    },
    /// The process with the id that the recorder tells is another one, or cannot be looked at.
    #[error(
        "{}: its recorder says that it is process {pid}, but that is another process here, or one that \
         cannot be looked at; if the program is in a container, run `profiler-cli` inside of it", dump.display()
    )]
    NotHere {
        /// The dump.
        dump: PathBuf,
        /// The id that the recorder tells.
        pid: u32,
    },
    /// The process has ended.
    #[error("process {pid} has ended, so there is no memory to look at")]
    Ended {
        /// Its id.
        pid: u32,
    },
    /// The recorder does not answer.
    #[error("process {pid} does not answer; is it stopped, or recorded by an older alloc-tracker?")]
    NoAnswer {
        /// Its id.
        pid: u32,
    },
    /// Somebody else is taking a snapshot.
    #[error("another snapshot of the process is being taken; try again later")]
    Busy,
    /// There is little memory left.
    #[error(
        "the process has {resident} of memory and only {available} are free; a copy may need as much again \
         if the program writes to all of it (`profiler-cli snapshot --force` makes one nevertheless)"
    )]
    NoHeadroom {
        /// Resident bytes of the process, as text.
        resident: String,
        /// Available bytes, as text.
        available: String,
    },
    /// The kernel makes no copy.
    #[error("the process cannot be copied: {}", plain(error))]
    NoCopy {
        /// The kernel's error.
        error: io::Error,
    },
    /// The copy's report has another form.
    #[error(
        "the copy of the process cannot be read: its alloc-tracker is of another version than this profiler-cli"
    )]
    Unknown,
    /// The kernel refuses something.
    #[error("cannot use {what}: {}", plain(error))]
    Refused {
        /// A path.
        what: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {}", path.display(), plain(error))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}
