//! Taking snapshots. In: the path of a dump that is being written. Out: a file `DUMP.ID.snapshot`
//! beside it, readable by this user alone.
//!
//! The recorder makes a copy of its process (`exchange`), this process reads the copy's memory
//! (`memory`) and writes where it points to (`write`), but no other contents. A second copy some
//! time later tells blocks that are lost from those whose only pointer was in a register at the
//! moment of the first. For `profiler-cli run`, `server` takes the snapshots that a program itself
//! asks for. Before anything of a process is used, `identity` checks that it is the right one.

mod exchange;
#[cfg(test)]
mod fake_recorder;
mod find;
mod headroom;
mod heart;
mod identity;
mod memory;
mod server;
mod stopped;
mod threads;
mod trouble;
mod write;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloc_dump::layout::SIDECAR_SUFFIX;

use self::exchange::Exchange;
pub use self::find::{SnapshotFile, UnreadSnapshot, find_snapshots};
use self::headroom::check_headroom;
use self::identity::{check_is_here, check_namespace, mappings_of};
pub use self::server::{ServerOptions, serve_until};
use self::threads::ThreadPositions;
pub use self::trouble::SnapshotTrouble;
use self::write::{Asker, write};

/// How a snapshot is taken.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions {
    /// Its name.
    pub name: Vec<u8>,
    /// Take it even if memory is short.
    pub force: bool,
    /// Make one copy only, so that nothing can be called lost.
    pub once: bool,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many copies of the process it has: one or two.
    pub images: u32,
    /// How long reading them has taken.
    pub took: Duration,
}

impl TakenSnapshot {
    /// Returns a sentence about it.
    pub fn described(&self) -> String {
        let (path, images) = (self.path.display(), self.images);
        let copies = if images == 1 { "one copy" } else { "two copies" };
        let (mib, ms) = (self.bytes as f64 / (1u64 << 20) as f64, self.took.as_millis());
        format!("snapshot: {path} ({mib:.1} MiB, {copies} of the process, {ms} ms)")
    }
}

/// Returns the path of the snapshot with this number of the dump at `dump`.
pub fn snapshot_path(dump: &Path, id: u32) -> PathBuf {
    let mut name = dump.as_os_str().to_owned();
    name.push(format!(".{id}{SNAPSHOT_SUFFIX}"));
    PathBuf::from(name)
}

/// Ending of the names of snapshots.
pub const SNAPSHOT_SUFFIX: &str = ".snapshot";

/// Returns the dump that a process is writing: its sidecar is mapped into the process.
///
/// # Errors
/// There is no such process, it cannot be looked at from here, or it does not record into a file
/// that can be found.
pub fn dump_of_process(pid: u32) -> Result<PathBuf, SnapshotTrouble> {
    check_namespace(pid)?;
    let mappings = mappings_of(pid)?;
    // The files are seen from inside the process, which may have a root of its own.
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let dump = mappings.iter().find_map(|region| {
        let name = region.name.strip_suffix(SIDECAR_SUFFIX.as_bytes()).filter(|_| region.shared)?;
        let plain = Path::new(std::ffi::OsStr::from_bytes(name));
        let seen = root.join(plain.strip_prefix("/").unwrap_or(plain));
        // Another recording may have a file of the same path outside of that root.
        let is_its = |dump: &PathBuf| Exchange::open(dump).is_ok_and(|exchange| exchange.host() == pid);
        [plain.to_owned(), seen].into_iter().find(is_its)
    });
    dump.ok_or(SnapshotTrouble::NoDump { pid })
}

/// Takes a snapshot of the process that is writing the dump at `dump`.
///
/// # Errors
/// See [`SnapshotTrouble`]. The program goes on in every case.
pub fn take(dump: &Path, options: &SnapshotOptions) -> Result<TakenSnapshot, SnapshotTrouble> {
    take_by(&Exchange::open(dump)?, options)
}

fn take_by(exchange: &Exchange, options: &SnapshotOptions) -> Result<TakenSnapshot, SnapshotTrouble> {
    check_is_here(exchange)?;
    if !options.force {
        check_headroom(exchange.host())?;
    }
    let before = ThreadPositions::look(exchange.host());
    let copy = exchange.ask(&options.name)?;
    write(exchange, copy, &before, options, Asker::Reader)
}
