//! Finding and reading snapshots. In: the path of a dump. Out: the snapshots beside it, and their
//! contents.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use alloc_dump::header::Header;
use alloc_dump::layout::HEADER_LEN;
use alloc_dump::snapshot::{SnapshotContents, SnapshotError, visit_words};
use thiserror::Error;

use super::SNAPSHOT_SUFFIX;

/// A snapshot in a file.
#[derive(Debug)]
pub struct SnapshotFile {
    /// The file.
    pub path: PathBuf,
    /// All of it but its words.
    pub contents: SnapshotContents,
}

/// Why a snapshot cannot be read.
#[derive(Debug, Error)]
#[error("{}: {error}", path.display())]
pub struct UnreadSnapshot {
    /// The file.
    path: PathBuf,
    /// What is wrong with it.
    error: SnapshotError,
}

/// Returns the snapshots beside a dump by number, with their paths. Their contents are not looked
/// at.
pub fn find_snapshots(dump: &Path) -> Vec<(u32, PathBuf)> {
    let Some(name) = dump.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let folder = dump.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name();
            let id = file.to_str()?.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(SNAPSHOT_SUFFIX)?;
            Some((id.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort();
    found
}

impl SnapshotFile {
    /// Reads a snapshot, without keeping its words.
    ///
    /// # Errors
    /// If the file cannot be read, or is no snapshot.
    pub fn read(path: &Path) -> Result<SnapshotFile, UnreadSnapshot> {
        let contents = SnapshotContents::read(open(path)?)
            .map_err(|error| UnreadSnapshot { path: path.to_owned(), error })?;
        Ok(SnapshotFile { path: path.to_owned(), contents })
    }

    /// Whether the snapshot belongs to the recording in this dump.
    pub fn is_of(&self, dump: &Path) -> bool {
        let mut bytes = [0; HEADER_LEN];
        let read = File::open(dump).and_then(|mut file| file.read_exact(&mut bytes));
        let header = read.ok().and_then(|()| Header::decode(&bytes).ok());
        header.is_some_and(|header| header.session == self.contents.header.session)
    }

    /// Calls `found` with place and value of each word of an image. Returns whether all of the
    /// image was read.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn visit_words(&self, image: usize, found: impl FnMut(u64, u64)) -> Result<bool, UnreadSnapshot> {
        visit_words(open(&self.path)?, image, found)
            .map_err(|error| UnreadSnapshot { path: self.path.clone(), error })
    }
}

fn open(path: &Path) -> Result<BufReader<File>, UnreadSnapshot> {
    // A pipe or a device could wait for ever.
    let is_file = fs::metadata(path).map(|metadata| metadata.is_file());
    let file = match is_file {
        Ok(true) => File::open(path),
        Ok(false) => Err(std::io::ErrorKind::InvalidInput.into()),
        Err(error) => Err(error),
    };
    let file =
        file.map_err(|error| UnreadSnapshot { path: path.to_owned(), error: SnapshotError::Read(error) })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dumps::snapshot::snapshot_path;

    #[test]
    fn snapshots_are_found_by_number() {
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("a.alloc");
        for id in [10, 2, 1] {
            fs::write(snapshot_path(&dump, id), "").unwrap();
        }
        for other in ["a.alloc.x.snapshot", "b.alloc.3.snapshot", "a.alloc.4.snapshot.part", "a.alloc.tail"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        let found: Vec<u32> = find_snapshots(&dump).into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, [1, 2, 10]);
        assert_eq!(find_snapshots(&dump)[0].1, snapshot_path(&dump, 1));
        assert!(SnapshotFile::read(&snapshot_path(&dump, 1)).is_err());
        assert!(SnapshotFile::read(folder.path()).is_err());
    }
}
