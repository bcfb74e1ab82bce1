//! A versioned file for each build-id in the cache folder. In: any value that serde can write, and
//! a build-id. Out: the same value on a later run.
//!
//! A file is written atomically, and readable by the user alone. It is used only if it is whole:
//! the kind, the version and the CRC are right, and it is not too large. Any other file counts as
//! no file. Nothing in it is trusted, so the caller checks the value.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the longest build-id that is used as a file name. Most have 20 or 16 bytes, but the
/// linker accepts any number.
pub(super) const MAX_BUILD_ID: usize = 64;

/// Bytes of the header: magic, version, CRC-32 of the rest.
pub(super) const HEADER_LEN: usize = 16;

/// A kind of file, of which the cache folder has at most one for each build-id.
pub(super) struct BuildFileKind {
    /// The first bytes of each such file.
    pub(super) magic: [u8; 8],
    /// Version of the format. A file of another version is not used.
    pub(super) version: u32,
    /// The file's name is the build-id in hexadecimal digits, a dot, and this text.
    pub(super) extension: &'static str,
    /// Bytes of the largest file that is read.
    pub(super) max_bytes: u64,
}

impl BuildFileKind {
    /// Reads the value that was written for this build-id. `None` if there is no usable file.
    pub(super) fn read<T: DeserializeOwned>(&self, dir: &Path, build_id: &[u8]) -> Option<T> {
        let path = self.path(dir, build_id)?;
        // Opening a pipe would wait for a writer.
        fs::metadata(&path).ok().filter(|file| file.is_file() && file.len() <= self.max_bytes)?;
        let mut bytes = Vec::new();
        fs::File::open(path).ok()?.take(self.max_bytes + 1).read_to_end(&mut bytes).ok()?;
        let (header, body) = bytes.split_at_checked(HEADER_LEN)?;
        if header != self.header_of(body) {
            return None;
        }
        postcard::from_bytes(body).ok()
    }

    /// Writes a value for this build-id. Does nothing if the build-id is not usable as a file name.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub(super) fn write(&self, dir: &Path, build_id: &[u8], value: &impl Serialize) -> io::Result<()> {
        let Some(path) = self.path(dir, build_id) else { return Ok(()) };
        let body = postcard::to_stdvec(value).map_err(io::Error::other)?;
        make_private_dir(dir)?;
        // A temporary file is readable by the user alone, and the rename is atomic.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&self.header_of(&body))?;
        file.write_all(&body)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Returns the path of the file; `None` if the build-id is not usable as a file name.
    pub(super) fn path(&self, dir: &Path, build_id: &[u8]) -> Option<PathBuf> {
        let mut name = String::new();
        build_id.iter().for_each(|byte| write!(name, "{byte:02x}").expect("a string takes all text"));
        is_usable(build_id).then(|| dir.join(format!("{name}.{}", self.extension)))
    }

    /// Returns the header of a file with this body.
    pub(super) fn header_of(&self, body: &[u8]) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(&self.magic);
        header[8..12].copy_from_slice(&self.version.to_le_bytes());
        header[12..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        header
    }
}

/// Whether a build-id can be a file name: it is not empty, and not too long.
pub(super) fn is_usable(build_id: &[u8]) -> bool {
    !build_id.is_empty() && build_id.len() <= MAX_BUILD_ID
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: BuildFileKind =
        BuildFileKind { magic: *b"ATSAMPLE", version: 3, extension: "sample", max_bytes: 64 };

    #[test]
    fn a_value_comes_back_from_a_file_that_only_the_user_can_read() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let dir = parent.path().join("cache/files");
        assert_eq!(KIND.read::<String>(&dir, &[1, 0xab]), None);
        KIND.write(&dir, &[1, 0xab], &"value").expect("a writable folder");
        assert_eq!(KIND.read::<String>(&dir, &[1, 0xab]).as_deref(), Some("value"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
            assert_eq!((mode(&dir), mode(&dir.join("01ab.sample"))), (0o700, 0o600));
        }
    }

    #[test]
    fn a_file_of_another_version_or_above_the_limit_is_not_used() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        KIND.write(dir.path(), &[1], &"value").expect("a writable folder");
        let newer = BuildFileKind { version: 4, ..KIND };
        assert_eq!(newer.read::<String>(dir.path(), &[1]), None);
        KIND.write(dir.path(), &[1], &"x".repeat(64)).expect("a writable folder");
        assert_eq!(KIND.read::<String>(dir.path(), &[1]), None);
    }

    #[test]
    fn an_unusable_build_id_is_never_a_file_name() {
        assert_eq!(KIND.path(Path::new("c"), &[]), None);
        assert_eq!(KIND.path(Path::new("c"), &[0; MAX_BUILD_ID + 1]), None);
        assert_eq!(KIND.path(Path::new("c"), &[0xab]), Some(PathBuf::from("c/ab.sample")));
    }
}
