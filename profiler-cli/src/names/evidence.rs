//! Evidence of sites on disk, one file per build-id, beside the symbols of the build.
//!
//! In: evidence. Out: the same evidence on a later run. `run` takes the evidence at its end, when
//! the source is most likely still the one that was compiled. Later the source changes, and only
//! the kept evidence tells how a site looked when the program was built.
//!
//! A file is used only if it is whole (version, CRC) and of the same build. Nothing in it is
//! trusted: its size and the number of its sites are bounded, and a damaged file counts as no file.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::build_file::{BuildFileKind, is_usable};

/// The file with the evidence of one build. The version is raised when the format changes, and when
/// the same source gives other evidence than before.
const EVIDENCE_FILE: BuildFileKind =
    BuildFileKind { magic: *b"ATEVIDEN", version: 1, extension: "evidence", max_bytes: 16 << 20 };
/// Bytes of all names that are kept of one build. The limit keeps the file of the build well below
/// the size that is still read.
const MAX_NAMES: usize = 8 << 20;
/// Number of sites that are kept of one build.
const MAX_SITES: usize = 1 << 16;

/// Position of a site in one build. It never changes, because a new build has another build-id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SiteInBuild {
    /// Canonical name of the function.
    pub function: String,
    /// Path of the source file in the debug info.
    pub file: String,
    /// Line in that file; the first line is 1.
    pub line: u32,
}

/// The facts that identify a site after its source was edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteEvidence {
    /// Lines from the first line of the function to the site. `None` if the function was not found
    /// in the source.
    pub relative_line: Option<u32>,
    /// Hash of the text of the site's line.
    pub text: LineHash,
}

/// Hash of the text of a source line without white space at both ends.
///
/// The hash is 64-bit FNV-1a of the UTF-8 bytes: start with 0xcbf29ce484222325; for each byte, XOR
/// the byte into the hash, then multiply by 0x100000001b3 modulo 2^64. It has no seed, so equal
/// lines have equal hashes in every process, on every machine and in every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LineHash(pub u64);

impl LineHash {
    /// Hashes a line. Indentation does not count: it changes when code moves into a block.
    pub fn of(line: &str) -> LineHash {
        let bytes = line.trim().bytes();
        LineHash(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }
}

/// The evidence of several builds.
#[derive(Debug, Default)]
pub struct KeptEvidence {
    builds: BTreeMap<Vec<u8>, BuildEvidence>,
    /// Builds with evidence that is not in their files yet.
    changed: BTreeSet<Vec<u8>>,
}

impl KeptEvidence {
    /// Reads the evidence of these builds. A build without a usable file has none.
    pub fn load<'a>(dir: &Path, build_ids: impl IntoIterator<Item = &'a [u8]>) -> KeptEvidence {
        let read = |build_id: &[u8]| Some((build_id.to_vec(), BuildEvidence::read(dir, build_id)?));
        KeptEvidence { builds: build_ids.into_iter().filter_map(read).collect(), ..KeptEvidence::default() }
    }

    /// Returns the evidence of a site.
    pub fn get(&self, build_id: &[u8], site: &SiteInBuild) -> Option<SiteEvidence> {
        self.builds.get(build_id)?.sites.get(site).copied()
    }

    /// Whether more evidence of the build can be kept: its build-id is usable, and neither the
    /// number of its sites nor the bytes of their names have reached the limit.
    pub fn has_room(&self, build_id: &[u8]) -> bool {
        is_usable(build_id) && self.builds.get(build_id).is_none_or(BuildEvidence::has_room)
    }

    /// Adds the evidence of a site, unless it is known or there is no room. Known evidence stays,
    /// because it was taken closer to the time of the build.
    pub fn insert(&mut self, build_id: &[u8], site: SiteInBuild, evidence: SiteEvidence) {
        if !self.has_room(build_id) || self.get(build_id, &site).is_some() {
            return;
        }
        self.builds.entry(build_id.to_vec()).or_default().insert(site, evidence);
        self.changed.insert(build_id.to_vec());
    }

    /// Writes the file of each build to which evidence was added. Each file is written atomically,
    /// and is readable by the user alone.
    ///
    /// # Errors
    /// If the folder or a file in it cannot be written.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        for build_id in &self.changed {
            if let Some(build) = self.builds.get(build_id) {
                build.write(dir, build_id)?;
            }
        }
        Ok(())
    }
}

/// The evidence of one build.
#[derive(Debug, Default)]
struct BuildEvidence {
    sites: BTreeMap<SiteInBuild, SiteEvidence>,
    /// Bytes of the function names and the file names of all sites.
    name_bytes: usize,
}

impl BuildEvidence {
    fn has_room(&self) -> bool {
        self.sites.len() < MAX_SITES && self.name_bytes < MAX_NAMES
    }

    fn insert(&mut self, site: SiteInBuild, evidence: SiteEvidence) {
        self.name_bytes += site.function.len() + site.file.len();
        self.sites.insert(site, evidence);
    }

    fn read(dir: &Path, build_id: &[u8]) -> Option<BuildEvidence> {
        let stored: StoredEvidence = EVIDENCE_FILE.read(dir, build_id)?;
        if stored.build_id != build_id || stored.sites.len() > MAX_SITES {
            return None;
        }
        let mut build = BuildEvidence::default();
        stored.sites.into_iter().for_each(|(site, evidence)| build.insert(site, evidence));
        Some(build)
    }

    fn write(&self, dir: &Path, build_id: &[u8]) -> io::Result<()> {
        let sites = self.sites.iter().map(|(site, evidence)| (site.clone(), *evidence)).collect();
        let stored = StoredEvidence { build_id: build_id.to_vec(), sites };
        EVIDENCE_FILE.write(dir, build_id, &stored)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredEvidence {
    build_id: Vec<u8>,
    sites: Vec<(SiteInBuild, SiteEvidence)>,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::names::build_file::{HEADER_LEN, MAX_BUILD_ID};

    const BUILD: &[u8] = &[1, 0xab];

    fn site(line: u32) -> SiteInBuild {
        SiteInBuild { function: "app::work".to_owned(), file: "/app/src/main.rs".to_owned(), line }
    }

    fn evidence(text: &str) -> SiteEvidence {
        SiteEvidence { relative_line: Some(2), text: LineHash::of(text) }
    }

    /// Stores the evidence of two sites in a new folder below a temporary folder. Returns both
    /// folders.
    fn stored() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let dir = parent.path().join("cache");
        let mut kept = KeptEvidence::default();
        kept.insert(BUILD, site(7), evidence("push(1)"));
        kept.insert(BUILD, site(9), SiteEvidence { relative_line: None, ..evidence("push(2)") });
        kept.store(&dir).expect("a writable folder");
        (parent, dir)
    }

    fn load(dir: &Path) -> KeptEvidence {
        KeptEvidence::load(dir, [BUILD])
    }

    #[test]
    fn the_hash_is_fnv_1a_of_the_trimmed_text() {
        // Test vectors of the algorithm's authors.
        assert_eq!(LineHash::of(""), LineHash(0xcbf2_9ce4_8422_2325));
        assert_eq!(LineHash::of("a"), LineHash(0xaf63_dc4c_8601_ec8c));
        assert_eq!(LineHash::of("\t  foobar \r"), LineHash(0x8594_4171_f739_67e8));
    }

    #[test]
    fn stored_evidence_comes_back_for_its_build_alone() {
        let (_parent, dir) = stored();
        let kept = load(&dir);
        assert_eq!(kept.get(BUILD, &site(7)), Some(evidence("push(1)")));
        assert_eq!(kept.get(BUILD, &site(9)).map(|evidence| evidence.relative_line), Some(None));
        assert_eq!(kept.get(BUILD, &site(8)), None);
        assert!(KeptEvidence::load(&dir, [&[2_u8][..]]).builds.is_empty());
        fs::rename(dir.join("01ab.evidence"), dir.join("02.evidence")).expect("a file");
        assert!(KeptEvidence::load(&dir, [&[2_u8][..]]).builds.is_empty(), "the file names another build");
    }

    #[test]
    fn known_evidence_stays_and_is_not_written_again() {
        let (_parent, dir) = stored();
        let mut kept = load(&dir);
        kept.insert(BUILD, site(7), evidence("something else"));
        assert_eq!(kept.get(BUILD, &site(7)), Some(evidence("push(1)")));
        assert!(kept.changed.is_empty());
        kept.insert(BUILD, site(11), evidence("push(3)"));
        kept.store(&dir).expect("a writable folder");
        assert_eq!(load(&dir).builds[BUILD].sites.len(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_can_read_the_file_and_the_folder() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_parent, dir) = stored();
        let mode = |path: &Path| fs::metadata(path).expect("it was stored").permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("01ab.evidence"))), (0o700, 0o600));
    }

    #[test]
    fn every_damaged_byte_and_every_cut_makes_the_file_void() {
        let (_parent, dir) = stored();
        let path = dir.join("01ab.evidence");
        let whole = fs::read(&path).expect("it was stored");
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 0x41;
            fs::write(&path, &damaged).expect("a file");
            assert!(load(&dir).builds.is_empty(), "byte {index}");
            fs::write(&path, &whole[..index]).expect("a file");
            assert!(load(&dir).builds.is_empty(), "cut at {index}");
        }
    }

    #[test]
    fn a_lying_body_with_a_right_crc_is_no_panic() {
        let (_parent, dir) = stored();
        let path = dir.join("01ab.evidence");
        let whole = fs::read(&path).expect("it was stored");
        for index in HEADER_LEN..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut body = whole[HEADER_LEN..].to_vec();
                body[index - HEADER_LEN] = value;
                fs::write(&path, [&EVIDENCE_FILE.header_of(&body)[..], &body].concat()).expect("a file");
                assert!(load(&dir).builds.values().all(|build| build.sites.len() <= MAX_SITES));
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_build_is_bounded() {
        let mut kept = KeptEvidence::default();
        for line in 0..MAX_SITES as u32 + 5 {
            kept.insert(BUILD, site(line), evidence(""));
        }
        assert!(kept.builds[BUILD].sites.len() == MAX_SITES && !kept.has_room(BUILD));
        let mut long = KeptEvidence::default();
        for line in 0..5 {
            let function = "f".repeat(MAX_NAMES / 2);
            long.insert(BUILD, SiteInBuild { function, ..site(line) }, evidence(""));
        }
        assert_eq!(long.builds[BUILD].sites.len(), 2);
        let (_parent, dir) = stored();
        long.store(&dir).expect("a writable folder");
        assert_eq!(load(&dir).builds[BUILD].sites.len(), 2, "what was kept is small enough to be read");
    }

    #[test]
    fn an_unusable_build_id_is_never_a_file_name() {
        let mut kept = KeptEvidence::default();
        for build_id in [&[][..], &[0; MAX_BUILD_ID + 1]] {
            kept.insert(build_id, site(1), evidence(""));
            assert_eq!(EVIDENCE_FILE.path(Path::new("c"), build_id), None);
        }
        assert!(kept.builds.is_empty());
    }
}
