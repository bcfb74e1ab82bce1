//! Whether a process is the one that is meant. In: process ids, which people and recorders tell.
//! Out: the process's files in `/proc`, or the reason why they must not be used.
//!
//! A process id means nothing without its PID namespace. A recorder in a container tells the id
//! that it has inside of the container; here that may be any other process.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use alloc_dump::snapshot::MemoryRegion;

use super::SnapshotTrouble;
use super::exchange::Exchange;
use crate::dumps::sidecar::sidecar_path;
use crate::dumps::writing::{WriterState, is_running, wait_while_closing};

/// Checks that a process that a person has named is in the PID namespace of this one.
///
/// # Errors
/// It is not, or there is no such process.
pub(super) fn check_namespace(pid: u32) -> Result<(), SnapshotTrouble> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid"));
    let refused = |error| SnapshotTrouble::Refused { what: format!("/proc/{pid}/ns/pid"), error };
    match namespace(&pid.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_process(pid)),
        Err(error) => Err(refused(error)),
        Ok(its) if namespace("self").map_err(refused)? != its => Err(SnapshotTrouble::OtherNamespace { pid }),
        Ok(_) => Ok(()),
    }
}

/// Checks that the process whose id the recorder tells is the recorder: the process has the sidecar
/// mapped.
///
/// # Errors
/// It is another process or cannot be looked at, or it has ended.
pub(super) fn check_is_here(exchange: &Exchange) -> Result<(), SnapshotTrouble> {
    let (dump, pid) = (exchange.dump(), exchange.host());
    if has_mapped_sidecar(exchange) {
        return Ok(());
    }
    // A recorder holds a lock on its dump, wherever it runs.
    match (wait_while_closing(dump), is_running(pid)) {
        (WriterState::Done, false) => Err(SnapshotTrouble::Ended { pid }),
        // It executes another program.
        (WriterState::Done, true) => Err(SnapshotTrouble::NotRecording { dump: dump.to_owned() }),
        _ => Err(SnapshotTrouble::NotHere { dump: dump.to_owned(), pid }),
    }
}

/// Whether the process is seen to have the sidecar mapped.
fn has_mapped_sidecar(exchange: &Exchange) -> bool {
    // Where the kernel does not tell the mappings, it does not let anybody read the memory either.
    let Ok(mappings) = mappings_of(exchange.host()) else { return false };
    let path = fs::canonicalize(sidecar_path(exchange.dump())).unwrap_or_default();
    // On some file systems the inode of a mapping is not that of its file, on others its path.
    let is_sidecar = |region: &MemoryRegion| {
        region.shared
            && (exchange.sidecar_inode() == Some(region.inode) || region.name == path.as_os_str().as_bytes())
    };
    mappings.iter().any(is_sidecar)
}

/// Returns the mappings of a process.
///
/// # Errors
/// There is no such process, or the kernel does not tell.
pub(super) fn mappings_of(pid: u32) -> Result<Vec<MemoryRegion>, SnapshotTrouble> {
    let process = ProcessFolder::open(pid)?;
    match fs::read(process.path("maps")) {
        // A process that has ended has no mappings. Its parent has not asked for its status yet.
        Ok(maps) if maps.is_empty() && !is_running(pid) => Err(SnapshotTrouble::Ended { pid }),
        Ok(maps) => Ok(mappings_in(&maps).collect()),
        Err(error) => Err(process.refused("maps", error)),
    }
}

/// Returns the mappings in the text of `/proc/PID/maps`.
pub(super) fn mappings_in(maps: &[u8]) -> impl Iterator<Item = MemoryRegion> {
    maps.split(|byte| *byte == b'\n').filter_map(MemoryRegion::parse)
}

/// The folder `/proc/PID` of a process. It stays that of the process when the process has ended and
/// another one has its id.
#[derive(Debug)]
pub(super) struct ProcessFolder {
    pid: u32,
    folder: File,
}

impl ProcessFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn open(pid: u32) -> Result<ProcessFolder, SnapshotTrouble> {
        match File::open(format!("/proc/{pid}")) {
            Ok(folder) => Ok(ProcessFolder { pid, folder }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_process(pid)),
            Err(error) => Err(SnapshotTrouble::Refused { what: format!("/proc/{pid}"), error }),
        }
    }

    /// Returns a path of one of its files.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    /// Opens one of its files to read it.
    ///
    /// # Errors
    /// The kernel refuses that.
    pub(super) fn open_file(&self, name: &str) -> Result<File, SnapshotTrouble> {
        File::open(self.path(name)).map_err(|error| self.refused(name, error))
    }

    /// Returns the error that one of its files cannot be used.
    pub(super) fn refused(&self, name: &str, error: io::Error) -> SnapshotTrouble {
        SnapshotTrouble::Refused { what: format!("/proc/{}/{name}", self.pid), error }
    }
}

fn no_process(pid: u32) -> SnapshotTrouble {
    SnapshotTrouble::NoProcess { pid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumps::snapshot::fake_recorder::FakeRecorder;

    #[test]
    fn a_process_is_the_recorder_only_if_it_has_the_sidecar_mapped() {
        // The recorder tells the id of this process, as one in a container may do.
        let recorder = FakeRecorder::new();
        let trouble = check_is_here(&recorder.exchange()).unwrap_err();
        assert!(
            matches!(trouble, SnapshotTrouble::NotHere { pid, .. } if pid == std::process::id()),
            "{trouble}"
        );
        recorder.end();
        let trouble = check_is_here(&recorder.exchange()).unwrap_err();
        assert!(matches!(trouble, SnapshotTrouble::NotRecording { .. }), "{trouble}");
    }

    #[test]
    fn a_process_that_does_not_exist_is_named() {
        // No kernel gives such an id.
        let said = check_namespace(1_999_999_999).unwrap_err().to_string();
        assert_eq!(said, "there is no process 1999999999");
        check_namespace(std::process::id()).unwrap();
    }
}
