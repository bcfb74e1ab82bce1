//! The headers of an object file: its build-id, which kinds of symbols it has, where its debug info
//! may be.
//!
//! In: paths. Out: [`ObjectFacts`], sections, checksums. [`ObjectFacts::read`] reads headers and
//! small sections only, never the whole file. A malformed file gives an error text, and must never
//! cause a panic.

use std::borrow::Cow;
use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{BufReader, Read as _};
use std::path::Path;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, ReadCache, SectionKind};

/// The facts about an object file that decide how it is used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectFacts {
    /// The build-id; empty if the file has none.
    pub(super) build_id: Vec<u8>,
    /// Whether the file has machine code. A separate debug file has only the addresses of the code.
    pub(super) has_code: bool,
    pub(super) has_debug_info: bool,
    pub(super) has_symbols: bool,
    /// Name and CRC-32 of the file that holds the debug info (`.gnu_debuglink`).
    pub(super) debug_link: Option<(Vec<u8>, u32)>,
    /// Name and build-id of a file with parts that several debug files share (`.gnu_debugaltlink`).
    pub(super) alt_link: Option<(Vec<u8>, Vec<u8>)>,
}

impl ObjectFacts {
    /// Reads the headers of the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let cache = ReadCache::new(open_regular(path)?);
        let file = object::File::parse(&cache).map_err(|error| error.to_string())?;
        let has_content = |name: &str| {
            file.section_by_name(name)
                .is_some_and(|section| section.size() > 0 && section.kind() != SectionKind::UninitializedData)
        };
        let build_id = match file.build_id() {
            Ok(Some(id)) => id.to_vec(),
            _ => file.mach_uuid().ok().flatten().map(Vec::from).unwrap_or_default(),
        };
        Ok(Self {
            build_id,
            has_code: file.sections().any(|section| section.kind() == SectionKind::Text),
            has_debug_info: has_content(".debug_info"),
            has_symbols: file.symbols().chain(file.dynamic_symbols()).any(|symbol| symbol.is_definition()),
            debug_link: file.gnu_debuglink().ok().flatten().map(|(name, crc)| (name.to_vec(), crc)),
            alt_link: file.gnu_debugaltlink().ok().flatten().map(|(name, id)| (name.to_vec(), id.to_vec())),
        })
    }
}

/// Opens a regular file. A FIFO named in a dump would block for ever, and a device might never end.
pub(super) fn open_regular(path: &Path) -> Result<File, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    File::open(path).map_err(|error| error.to_string())
}

/// Returns the CRC-32 of a whole file, as `.gnu_debuglink` records it.
pub(super) fn file_crc(path: &Path) -> Result<u32, String> {
    let mut reader = BufReader::new(open_regular(path)?);
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(read) => hasher.write(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Returns the bytes of a section, uncompressed; empty if there is no such section.
pub(super) fn section_bytes<'data, R: object::ReadRef<'data>>(
    file: &object::File<'data, R>,
    name: &str,
) -> Result<Cow<'data, [u8]>, String> {
    match file.section_by_name(name) {
        Some(section) => section.uncompressed_data().map_err(|error| format!("{name}: {error}")),
        None => Ok(Cow::Borrowed(&[])),
    }
}

/// Converts a file name in an object file, which is a string of bytes, into a path. On Unix any
/// bytes are a path.
#[cfg(unix)]
pub(super) fn path_from_bytes(bytes: &[u8]) -> Option<&Path> {
    use std::os::unix::ffi::OsStrExt as _;
    Some(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

/// Converts a file name in an object file, which is a string of bytes, into a path. On other
/// systems only text is a path.
#[cfg(not(unix))]
pub(super) fn path_from_bytes(bytes: &[u8]) -> Option<&Path> {
    std::str::from_utf8(bytes).ok().map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_file_with_code_and_symbols() {
        let facts = ObjectFacts::read(&std::env::current_exe().expect("a test has a path"))
            .expect("it is an object file");
        assert!(facts.has_code && facts.has_symbols);
    }

    #[test]
    fn a_file_that_is_no_object_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(ObjectFacts::read(folder.path()), Err("not a regular file".to_owned()));
        assert!(ObjectFacts::read(&folder.path().join("none")).is_err());
        let text = folder.path().join("text");
        fs::write(&text, "no object file").expect("a file");
        assert!(ObjectFacts::read(&text).is_err());
        assert_eq!(file_crc(&text), Ok(crc32fast::hash(b"no object file")));
    }
}
