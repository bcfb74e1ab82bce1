//! Source files on disk, for the analyses. No other module reads source files.
//!
//! In: paths from debug info. Out: [`SourceText`]. A path comes out of a binary and is not trusted:
//! only regular files with an extension of source code are opened, and at most `MAX_SOURCE` bytes
//! of a file are read. A file that cannot be read is [missing](SourceText::missing), never an
//! error.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foldhash::HashMap;
use parking_lot::Mutex;

use crate::profile::Profile;
use crate::source::{SourceCandidate, SourceSearch, SourceText, Sources};

/// Source files on disk. Each is read when an analysis first asks for it.
#[derive(Debug, Default)]
pub struct SourceFiles {
    files: Mutex<HashMap<String, Arc<SourceText>>>,
    /// The latest time at which the program can have been built.
    built: Option<SystemTime>,
    search: SourceSearch,
}

impl SourceFiles {
    /// Returns the source files of the recorded program.
    ///
    /// The program was built before its file was last written, and before the recording began.
    pub fn of(profile: &Profile, search: SourceSearch) -> SourceFiles {
        let modified = std::fs::metadata(&profile.process.exe).and_then(|metadata| metadata.modified()).ok();
        let written = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let written_ns = written.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(u64::MAX);
        let built_ns = written_ns.min(profile.process.started_unix_ns);
        let built = Some(UNIX_EPOCH + Duration::from_nanos(built_ns));
        SourceFiles { built, search, ..SourceFiles::default() }
    }

    /// Reads the first readable candidate for a path.
    fn find(&self, path: &str) -> SourceText {
        let mut candidates = self.search.candidates(Path::new(path)).into_iter();
        candidates.find_map(|candidate| self.read(&candidate)).unwrap_or_else(SourceText::missing)
    }

    fn read(&self, SourceCandidate { path, is_guess }: &SourceCandidate) -> Option<SourceText> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !SOURCE_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
            return None;
        }
        // Opening a pipe or a device could wait for ever.
        let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file())?;
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_SOURCE).read_to_end(&mut text).ok()?;
        let is_newer =
            matches!((metadata.modified(), self.built), (Ok(modified), Some(built)) if modified > built);
        let parsed = SourceText::parse(&String::from_utf8_lossy(&text));
        Some(parsed.with_guess(*is_guess).with_newer_than_program(is_newer))
    }
}

impl Sources for SourceFiles {
    fn file(&self, path: &str) -> Arc<SourceText> {
        let mut files = self.files.lock();
        Arc::clone(files.entry(path.to_owned()).or_insert_with(|| Arc::new(self.find(path))))
    }
}

const SOURCE_EXTENSIONS: [&str; 14] =
    ["rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "inc", "in", "s", "asm", "go", "zig"];

/// Bytes of a file that are read; the rest of a larger file is left out.
const MAX_SOURCE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::PathMap;

    fn searching(search: SourceSearch) -> SourceFiles {
        SourceFiles { search, ..SourceFiles::default() }
    }

    #[test]
    fn sources_are_found_where_the_search_says() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("app/src");
        std::fs::create_dir_all(&here).unwrap();
        std::fs::write(here.join("main.rs"), "fn main() {}\n").unwrap();
        std::fs::write(folder.path().join("main.rs"), "fn main() {}\n").unwrap();
        let is_found = |roots: &[&Path], maps: &[String], path: &str| {
            let roots = roots.iter().map(|root| root.to_path_buf()).collect();
            let maps = maps.iter().map(|map| map.parse().unwrap()).collect();
            !searching(SourceSearch { roots, maps }).file(path).is_missing()
        };
        let (root, app) = (folder.path(), folder.path().join("app"));
        assert!(is_found(&[root], &[], "app/src/main.rs"));
        assert!(is_found(&[&app], &[], "/build/7/app/src/main.rs"));
        assert!(!is_found(&[root], &[], "/build/7/src/main.rs"), "a name alone says too little");
        assert!(!is_found(&[&app], &[], "/c/registry/src/index-1/app-1.0.0/src/main.rs"), "another package");
        assert!(!is_found(&[&app], &[], "/rustc/0123/library/core/src/main.rs"));
        assert!(!is_found(&[], &[], "/build/7/app/src/main.rs"));
        assert!(!is_found(&[root], &[], "/build/src/main.rs"));
        assert!(!is_found(&[&app], &[], "/build/../src/main.rs"), "a path that climbs");
        let map = format!("/build/7={}", root.display());
        let maps = [map];
        assert!(is_found(&[], &maps, "/build/7/app/src/main.rs"));
        assert!(!is_found(&[], &maps, "/build/77/app/src/main.rs"), "only whole parts of a path count");
        assert!("nothing".parse::<PathMap>().is_err() && "=x".parse::<PathMap>().is_err());
    }

    #[test]
    fn a_file_below_a_root_is_a_guess_and_one_at_its_own_path_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/main.rs"), "fn main() {\n    run();\n}\n").unwrap();
        let roots = vec![folder.path().to_owned()];
        let guess = searching(SourceSearch { roots, maps: Vec::new() }).file("/build/src/main.rs");
        assert!(!guess.is_another_file("main", 2, 2) && guess.is_another_file("run", 2, 2));
        let path = folder.path().join("src/main.rs");
        let own = SourceFiles::default().file(path.to_str().unwrap());
        assert!(!own.is_missing() && !own.is_another_file("run", 2, 2));
    }

    #[test]
    fn a_file_written_after_the_program_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main.rs");
        std::fs::write(&path, "fn main() {}\n").unwrap();
        let written = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).unwrap();
        let is_newer = |built| {
            let files = SourceFiles { built: Some(built), ..SourceFiles::default() };
            files.file(path.to_str().unwrap()).is_newer_than_program()
        };
        assert!(is_newer(written - Duration::from_secs(1)) && !is_newer(written));
    }

    #[test]
    fn only_regular_files_that_look_like_source_are_opened() {
        let files = SourceFiles::default();
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("secrets.txt");
        std::fs::write(&text, "fn main() {}\n").unwrap();
        let named_like_source = folder.path().join("folder.rs");
        std::fs::create_dir(&named_like_source).unwrap();
        for path in [text.as_path(), &named_like_source, Path::new("/nonexistent/x.rs")] {
            assert!(files.file(path.to_str().unwrap()).is_missing(), "{}", path.display());
        }
    }
}
