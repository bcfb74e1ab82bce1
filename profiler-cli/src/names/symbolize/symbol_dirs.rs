//! The folders and files of `--symbols`. In: their paths. Out: files by name and by build-id.
//!
//! Look-ups by name come first, because they are cheap. If no name leads to a wanted build-id, all
//! files are read, at most once. This search must not follow a link to a folder, so that the search
//! ends.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::object_file::ObjectFacts;
use super::status::BuildId;

/// The most files and folders that a search visits, so that `--symbols /` does not read a whole
/// disk.
const MAX_FILES: usize = 100_000;
/// The deepest level of nested folders that a search enters.
const MAX_DEPTH: usize = 16;

pub(super) struct SymbolDirs {
    dirs: Vec<PathBuf>,
    /// Files that the user named one by one.
    files: Vec<PathBuf>,
    by_build_id: OnceLock<HashMap<Vec<u8>, Vec<PathBuf>>>,
}

impl SymbolDirs {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let (files, dirs) = paths.into_iter().partition(|path| path.is_file());
        Self { dirs, files, by_build_id: OnceLock::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.files.is_empty()
    }

    /// Returns where a file of this name would be. A file that the user named may have any name.
    pub(super) fn by_name(&self, name: &Path) -> impl Iterator<Item = PathBuf> {
        let in_dirs = self.dirs.iter().map(move |dir| dir.join(name));
        in_dirs.chain(self.files.iter().filter(move |file| file.file_name() == name.file_name()).cloned())
    }

    /// Returns the files that have this build-id: in the order of the folders, then of their paths.
    pub(super) fn by_build_id(&self, build_id: &[u8]) -> Vec<PathBuf> {
        if build_id.is_empty() || self.is_empty() {
            return Vec::new();
        }
        let direct: Vec<PathBuf> = debug_file_name(build_id)
            .into_iter()
            .flat_map(|name| {
                self.dirs.iter().flat_map(move |dir| [dir.join(".build-id").join(&name), dir.join(&name)])
            })
            .filter(|path| path.is_file())
            .collect();
        if !direct.is_empty() {
            return direct;
        }
        self.indexed(build_id)
    }

    /// Returns the files that have no build-id, in the same order.
    pub(super) fn without_build_id(&self) -> Vec<PathBuf> {
        if self.is_empty() { Vec::new() } else { self.indexed(&[]) }
    }

    fn indexed(&self, build_id: &[u8]) -> Vec<PathBuf> {
        self.by_build_id
            .get_or_init(|| index(&self.dirs, &self.files))
            .get(build_id)
            .cloned()
            .unwrap_or_default()
    }
}

/// Returns `ab/cdef….debug`, the name under which a `.build-id` folder keeps debug info.
pub(super) fn debug_file_name(build_id: &[u8]) -> Option<PathBuf> {
    let (first, rest) = build_id.split_first()?;
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    Some(PathBuf::from(BuildId(&[*first]).to_string()).join(format!("{}.debug", BuildId(rest))))
}

fn index(dirs: &[PathBuf], files: &[PathBuf]) -> HashMap<Vec<u8>, Vec<PathBuf>> {
    let mut found: HashMap<Vec<u8>, Vec<PathBuf>> = HashMap::new();
    let mut left = MAX_FILES;
    let mut add = |path: &Path| {
        if is_elf(path)
            && let Ok(facts) = ObjectFacts::read(path)
        {
            found.entry(facts.build_id).or_default().push(path.to_owned());
        }
    };
    files.iter().for_each(|file| add(file));
    for dir in dirs {
        visit_files(dir, 0, &mut left, &mut add);
    }
    found
}

/// Visits the files in a folder and in all folders below it, sorted by path. `left` is the number
/// of files and folders that may still be visited.
fn visit_files(dir: &Path, depth: usize, left: &mut usize, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            if depth < MAX_DEPTH {
                visit_files(&path, depth + 1, left, visit);
            }
        } else if path.is_file() {
            visit(&path);
        }
    }
}

/// Whether a file starts like an ELF file. PERF: most files in a build folder do not, and four
/// bytes are enough to skip them.
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_a_build_id_is_its_folder() {
        assert_eq!(debug_file_name(&[0xab, 0xcd, 0x0f]), Some(PathBuf::from("ab/cd0f.debug")));
        assert_eq!(debug_file_name(&[0xab]), None);
        assert_eq!(debug_file_name(&[]), None);
        assert_eq!(debug_file_name(&[1; 4096]), None);
    }

    #[test]
    fn a_file_in_any_folder_is_found_by_its_build_id() {
        let this = std::env::current_exe().expect("a test has a path");
        let facts = ObjectFacts::read(&this).expect("it is an object file");
        if facts.build_id.is_empty() {
            println!("skipped: the linker writes no build-id");
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary folder");
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).expect("folders");
        fs::write(dir.path().join("noise"), "text").expect("a file");
        fs::copy(&this, deep.join("renamed")).expect("a copy");
        let dirs = SymbolDirs::new(vec![dir.path().to_owned()]);
        assert_eq!(dirs.by_build_id(&facts.build_id), [deep.join("renamed")]);
        assert!(dirs.by_build_id(&[1, 2, 3]).is_empty());
        assert!(dirs.by_build_id(&[]).is_empty());
        let file = SymbolDirs::new(vec![deep.join("renamed")]);
        assert_eq!(file.by_build_id(&facts.build_id), [deep.join("renamed")]);
        assert_eq!(file.by_name(Path::new("renamed")).collect::<Vec<_>>(), [deep.join("renamed")]);
        assert_eq!(file.by_name(Path::new("noise")).count(), 0);
    }
}
