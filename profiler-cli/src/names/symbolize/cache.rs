//! The symbol cache: one file for each build-id. In: frames. Out: the same frames on a later run.
//!
//! A file is used only if it is whole (version, CRC) and belongs to the same build: the build-id
//! and, if both are known, the code are those of the recording. While the build's own files are
//! there, the frames must also come from them in their present state. Any other file counts as no
//! file. A damaged cache must never cause an error, a wrong name or a panic.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use alloc_dump::code::CodeIdentity;
use serde::{Deserialize, Serialize};

use super::SymbolFrame;
use super::demangle::NameInterner;
use super::locate::ModuleFiles;
use crate::names::build_file::BuildFileKind;

/// The file with the frames of one build. The version is raised when the format changes, and when
/// the same debug info gives other frames than before.
const SYMBOL_FILE: BuildFileKind =
    BuildFileKind { magic: *b"ATSYMBOL", version: 5, extension: "symbols", max_bytes: 1 << 30 };

/// The frames of a module, by address.
pub(super) type FrameMap = BTreeMap<u64, Arc<[SymbolFrame]>>;

/// The state of a file when frames were made from it. The frames are valid as long as the file has
/// the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileVersion {
    #[serde(with = "path_as_bytes")]
    path: PathBuf,
    /// Length in bytes, and time of the last change in nanoseconds of the Unix epoch; `None` if the
    /// file does not exist (yet).
    state: Option<(u64, i128)>,
}

/// Paths as bytes: a path need not be text, and serde writes only paths that are.
mod path_as_bytes {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    use super::super::object_file::path_from_bytes;

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(path.as_os_str().as_encoded_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        let path = path_from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("no path"))?;
        Ok(path.to_owned())
    }
}

impl FileVersion {
    fn read(path: &Path) -> Self {
        let state = fs::metadata(path).ok().map(|metadata| {
            let modified = metadata.modified().ok();
            let nanos = modified.map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
                Ok(after) => after.as_nanos().cast_signed(),
                Err(before) => -before.duration().as_nanos().cast_signed(),
            });
            (metadata.len(), nanos)
        });
        Self { path: path.to_owned(), state }
    }
}

/// Returns the state of the files that decide whether cached frames are still valid.
pub(super) fn file_versions(files: &ModuleFiles) -> Vec<FileVersion> {
    let debug = files.debug.iter();
    let debug =
        debug.flat_map(|debug| [Some(&debug.path), debug.shared.as_ref(), debug.package.as_ref()]).flatten();
    let mut paths: Vec<&PathBuf> = debug.chain(&files.symbols).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|path| FileVersion::read(path)).collect()
}

/// Returns the state of files that were found only by reading the debug info.
pub(super) fn split_file_versions(paths: &[PathBuf]) -> Vec<FileVersion> {
    paths.iter().map(|path| FileVersion::read(path)).collect()
}

/// The contents of a cache file.
#[derive(Debug, Default)]
pub(super) struct CachedFrames {
    pub(super) frames: FrameMap,
    /// Where signal return trampolines start.
    pub(super) trampolines: Vec<u64>,
    /// The files of split debug info from which frames were made.
    pub(super) split: Vec<FileVersion>,
}

/// The build whose frames are cached.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedBuild<'a> {
    pub(super) build_id: &'a [u8],
    /// The code of the build, if it is known.
    pub(super) code: Option<CodeIdentity>,
}

/// Returns the cached frames of a build; empty if there are no valid ones. `versions` is the state
/// of the build's files, or `None` if the build has no files any more. Then the frames are the
/// best that is left.
pub(super) fn load(
    dir: &Path,
    build: CachedBuild<'_>,
    versions: Option<&[FileVersion]>,
    names: &NameInterner,
) -> CachedFrames {
    read(dir, build, versions, names).unwrap_or_default()
}

fn read(
    dir: &Path,
    build: CachedBuild<'_>,
    versions: Option<&[FileVersion]>,
    names: &NameInterner,
) -> Option<CachedFrames> {
    let stored: StoredModule = SYMBOL_FILE.read(dir, build.build_id)?;
    let are_as_they_were = |versions: &[FileVersion]| {
        stored.versions == versions
            && stored.split.iter().all(|version| FileVersion::read(&version.path) == *version)
    };
    let is_same_code = match (build.code.map(code_numbers), stored.code) {
        (Some(recorded), Some(cached)) => recorded == cached,
        _ => true,
    };
    if stored.build_id != build.build_id || !is_same_code || !versions.is_none_or(are_as_they_were) {
        return None;
    }
    let strings: Vec<Arc<str>> = stored.strings.iter().map(|text| names.intern(text)).collect();
    let mut frames = FrameMap::new();
    for StoredAddress { address, frames: stored } in stored.addresses {
        let decoded: Option<Arc<[SymbolFrame]>> = stored.iter().map(|frame| frame.decode(&strings)).collect();
        frames.insert(address, decoded.filter(|frames| !frames.is_empty())?);
    }
    Some(CachedFrames { frames, trampolines: stored.trampolines, split: stored.split })
}

/// Returns the numbers that tell code from other code. The length of the file is none of them.
fn code_numbers(code: CodeIdentity) -> (u64, u32) {
    (code.code_bytes, code.crc)
}

/// Writes the frames of a build atomically, readable by the user alone.
pub(super) fn store(
    dir: &Path,
    build: CachedBuild<'_>,
    versions: Vec<FileVersion>,
    cached: CachedFrames,
) -> Result<(), std::io::Error> {
    let mut strings = StringTable::default();
    let addresses = cached.frames.iter().map(|(&address, frames)| StoredAddress {
        address,
        frames: frames.iter().map(|frame| StoredFrame::encode(frame, &mut strings)).collect(),
    });
    let addresses = addresses.collect();
    let stored = StoredModule {
        build_id: build.build_id.to_vec(),
        code: build.code.map(code_numbers),
        versions,
        split: cached.split,
        trampolines: cached.trampolines,
        strings: strings.list,
        addresses,
    };
    SYMBOL_FILE.write(dir, build.build_id, &stored)
}

#[derive(Serialize, Deserialize)]
struct StoredModule {
    build_id: Vec<u8>,
    code: Option<(u64, u32)>,
    versions: Vec<FileVersion>,
    split: Vec<FileVersion>,
    trampolines: Vec<u64>,
    strings: Vec<String>,
    addresses: Vec<StoredAddress>,
}

#[derive(Serialize, Deserialize)]
struct StoredAddress {
    address: u64,
    frames: Vec<StoredFrame>,
}

#[derive(Serialize, Deserialize)]
struct StoredFrame {
    function: u32,
    generics: Option<u32>,
    file: Option<u32>,
    line: Option<u32>,
    column: Option<u32>,
    is_inlined: bool,
    is_resolved: bool,
}

impl StoredFrame {
    fn encode(frame: &SymbolFrame, strings: &mut StringTable) -> Self {
        Self {
            function: strings.index(&frame.function),
            generics: frame.generics.as_ref().map(|generics| strings.index(generics)),
            file: frame.file.as_ref().map(|file| strings.index(file)),
            line: frame.line,
            column: frame.column,
            is_inlined: frame.is_inlined,
            is_resolved: frame.is_resolved,
        }
    }

    fn decode(&self, strings: &[Arc<str>]) -> Option<SymbolFrame> {
        let string = |index: u32| strings.get(usize::try_from(index).ok()?).cloned();
        let optional = |index: Option<u32>| match index {
            Some(index) => string(index).map(Some),
            None => Some(None),
        };
        Some(SymbolFrame {
            function: string(self.function)?,
            generics: optional(self.generics)?,
            file: optional(self.file)?,
            line: self.line,
            column: self.column,
            is_inlined: self.is_inlined,
            is_resolved: self.is_resolved,
        })
    }
}

#[derive(Default)]
struct StringTable {
    list: Vec<String>,
    indices: HashMap<Arc<str>, u32>,
}

impl StringTable {
    fn index(&mut self, text: &Arc<str>) -> u32 {
        *self.indices.entry(Arc::clone(text)).or_insert_with(|| {
            self.list.push(text.as_ref().to_owned());
            u32::try_from(self.list.len() - 1).expect("a module has less than four billion names")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::build_file::HEADER_LEN;

    const CODE: CodeIdentity = CodeIdentity { code_bytes: 3, crc: 5, file_bytes: 70 };
    const BUILD: CachedBuild<'_> = CachedBuild { build_id: &[1, 2], code: Some(CODE) };

    fn frame(function: &str, file: Option<&str>, is_inlined: bool) -> SymbolFrame {
        SymbolFrame {
            function: function.into(),
            generics: is_inlined.then(|| "<u8>".into()),
            file: file.map(Arc::from),
            line: file.map(|_| 7),
            column: None,
            is_inlined,
            is_resolved: true,
        }
    }

    fn frames() -> FrameMap {
        let nested: Arc<[SymbolFrame]> =
            [frame("push", Some("/src/vec.rs"), true), frame("app::main", Some("main.rs"), false)].into();
        FrameMap::from([(0x10, nested), (0x20, [frame("malloc", None, false)].into())])
    }

    struct Fixture {
        dir: tempfile::TempDir,
        source: PathBuf,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let source = dir.path().join("app.debug");
            fs::write(&source, "debug info").expect("a file");
            Self { dir, source }
        }

        fn cache(&self) -> PathBuf {
            self.dir.path().join("cache/symbols")
        }

        fn versions(&self) -> Vec<FileVersion> {
            vec![FileVersion::read(&self.source)]
        }

        fn store(&self, split: &[PathBuf]) {
            let cached =
                CachedFrames { frames: frames(), trampolines: vec![9], split: split_file_versions(split) };
            store(&self.cache(), BUILD, self.versions(), cached).expect("a writable folder");
        }

        fn load(&self) -> FrameMap {
            self.load_of(BUILD, Some(&self.versions())).frames
        }

        fn load_of(&self, build: CachedBuild<'_>, versions: Option<&[FileVersion]>) -> CachedFrames {
            load(&self.cache(), build, versions, &NameInterner::default())
        }

        fn file(&self) -> PathBuf {
            self.cache().join("0102.symbols")
        }
    }

    #[test]
    fn stored_frames_are_loaded_again() {
        let fixture = Fixture::new();
        assert!(fixture.load().is_empty());
        fixture.store(&[]);
        assert_eq!(fixture.load(), frames());
        let other = CachedBuild { build_id: &[3], code: None };
        assert!(fixture.load_of(other, Some(&fixture.versions())).frames.is_empty());
    }

    #[test]
    fn frames_of_a_build_without_files_are_used_if_the_code_is_the_same() {
        let fixture = Fixture::new();
        fixture.store(&[]);
        fs::remove_file(&fixture.source).expect("a file");
        assert!(fixture.load().is_empty(), "the state of its files has changed");
        let kept = fixture.load_of(BUILD, None);
        assert_eq!((kept.frames, kept.trampolines), (frames(), vec![9]));
        let unknown = CachedBuild { code: None, ..BUILD };
        assert_eq!(fixture.load_of(unknown, None).frames, frames());
        let longer_file = CachedBuild { code: Some(CodeIdentity { file_bytes: 1, ..CODE }), ..BUILD };
        assert_eq!(fixture.load_of(longer_file, None).frames, frames());
        for code in [CodeIdentity { crc: 6, ..CODE }, CodeIdentity { code_bytes: 4, ..CODE }] {
            let other = CachedBuild { code: Some(code), ..BUILD };
            assert!(fixture.load_of(other, None).frames.is_empty());
            assert!(fixture.load_of(other, Some(&fixture.versions())).frames.is_empty());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_no_text_is_kept_as_it_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let mut fixture = Fixture::new();
        fixture.source = fixture.dir.path().join(std::ffi::OsStr::from_bytes(b"no\xfftext"));
        fs::write(&fixture.source, "debug info").expect("a file");
        fixture.store(&[]);
        assert_eq!(fixture.load(), frames());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_can_read_the_cache() {
        use std::os::unix::fs::PermissionsExt as _;
        let fixture = Fixture::new();
        fixture.store(&[]);
        let mode = |path: &Path| fs::metadata(path).expect("it was stored").permissions().mode() & 0o777;
        assert_eq!((mode(&fixture.cache()), mode(&fixture.file())), (0o700, 0o600));
    }

    #[test]
    fn changed_debug_info_makes_the_cache_invalid() {
        let fixture = Fixture::new();
        fixture.store(&[]);
        fs::write(&fixture.source, "more debug info").expect("a file");
        assert!(fixture.load().is_empty());

        let split = fixture.dir.path().join("app.dwo");
        fixture.store(std::slice::from_ref(&split));
        assert_eq!(fixture.load(), frames());
        fs::write(&split, "split debug info that was not there before").expect("a file");
        assert!(fixture.load().is_empty());
    }

    #[test]
    fn every_damaged_byte_and_every_truncation_is_detected() {
        let fixture = Fixture::new();
        fixture.store(&[]);
        let whole = fs::read(fixture.file()).expect("it was stored");
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x41;
            fs::write(fixture.file(), &damaged).expect("a file");
            assert!(fixture.load().is_empty(), "byte {index}");
            fs::write(fixture.file(), &whole[..index]).expect("a file");
            assert!(fixture.load().is_empty(), "cut at {index}");
        }
    }

    #[test]
    fn a_wrong_body_with_a_valid_crc_does_not_panic() {
        let fixture = Fixture::new();
        fixture.store(&[]);
        let whole = fs::read(fixture.file()).expect("it was stored");
        for index in HEADER_LEN..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut body = whole[HEADER_LEN..].to_vec();
                body[index - HEADER_LEN] = value;
                let bytes = [&SYMBOL_FILE.header_of(&body)[..], &body].concat();
                fs::write(fixture.file(), bytes).expect("a file");
                assert!(fixture.load().values().all(|frames| !frames.is_empty()));
            }
        }
    }
}
