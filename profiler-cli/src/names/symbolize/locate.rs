//! Finding the files of a module. In: path and build-id from the dump. Out: the program file and
//! its debug files.
//!
//! A file is used only if it is known to belong to the recorded build: by build-id and by its code
//! ([`CodeIdentity`](alloc_dump::code::CodeIdentity)), or, without a build-id, by the CRC that the
//! program file has for its debug file. Nothing here opens debug info.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::{self, CachedBuild};
use super::code::code_identity;
use super::demangle::NameInterner;
use super::kept::KeptNames;
use super::object_file::{ObjectFacts, file_crc, path_from_bytes};
use super::status::ModuleStatus;
use super::symbol_dirs::{SymbolDirs, debug_file_name};
use super::{ModuleSpec, SymbolizeOptions};

/// A module, the files that describe it, and the names that were kept of it.
pub(super) struct LocatedModule {
    pub(super) spec: ModuleSpec,
    /// The file's name without its folder, for frames without a symbol.
    pub(super) name: String,
    /// The error says why there are no files, or that kept names make them needless.
    pub(super) files: Result<ModuleFiles, ModuleStatus>,
    pub(super) kept: Arc<KeptNames>,
}

/// The files of a module that belong to the recorded build.
#[derive(Debug)]
pub(super) struct ModuleFiles {
    /// The recorded build-id, or the file's if none was recorded.
    pub(super) build_id: Vec<u8>,
    /// The file with the machine code, if it was found.
    pub(super) binary: Option<PathBuf>,
    /// Files with symbol tables, the most complete first.
    pub(super) symbols: Vec<PathBuf>,
    pub(super) debug: Option<DebugFiles>,
}

impl ModuleFiles {
    /// Returns the file to name in messages about the module.
    pub(super) fn main_path(&self) -> PathBuf {
        let debug = self.debug.iter().map(|debug| &debug.path);
        self.binary.iter().chain(debug).chain(&self.symbols).next().cloned().unwrap_or_default()
    }
}

/// Debug info and the files that it refers to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DebugFiles {
    pub(super) path: PathBuf,
    /// A file of parts that several debug files share (made by `dwz`).
    pub(super) shared: Option<PathBuf>,
    /// Split debug info packed into one file (`.dwp`).
    pub(super) package: Option<PathBuf>,
}

/// Searches the files of one module.
pub(super) fn locate(spec: &ModuleSpec, options: &SymbolizeOptions, dirs: &SymbolDirs) -> LocatedModule {
    let files = FileSearch { spec, options, dirs }.run();
    let kept = match (&files, &options.cache_dir) {
        (Err(_), Some(dir)) => Arc::new(cached_names(dir, spec)),
        _ => Arc::default(),
    };
    LocatedModule { spec: spec.clone(), name: file_name(spec), files, kept }
}

fn file_name(spec: &ModuleSpec) -> String {
    spec.path.file_name().unwrap_or(spec.path.as_os_str()).to_string_lossy().into_owned()
}

/// Returns a module whose names a dump has kept. Its files are searched only if the user names
/// files that may know more.
pub(super) fn locate_kept(
    spec: &ModuleSpec,
    kept: &Arc<KeptNames>,
    options: &SymbolizeOptions,
    dirs: &SymbolDirs,
) -> LocatedModule {
    let can_be_better = !dirs.is_empty() && kept.status(&spec.path) != ModuleStatus::KeptNames;
    let better = can_be_better.then(|| locate(spec, options, dirs));
    let has_debug_info =
        |located: &LocatedModule| matches!(&located.files, Ok(files) if files.debug.is_some());
    better.filter(has_debug_info).unwrap_or_else(|| LocatedModule {
        spec: spec.clone(),
        name: file_name(spec),
        files: Err(ModuleStatus::KeptNames),
        kept: Arc::clone(kept),
    })
}

/// Returns the names of a module that the cache has, although its files are gone.
fn cached_names(dir: &Path, spec: &ModuleSpec) -> KeptNames {
    let build = CachedBuild { build_id: &spec.build_id, code: spec.code };
    KeptNames::from_cache(cache::load(dir, build, None, &NameInterner::default()))
}

struct FileSearch<'a> {
    spec: &'a ModuleSpec,
    options: &'a SymbolizeOptions,
    dirs: &'a SymbolDirs,
}

impl FileSearch<'_> {
    fn run(&self) -> Result<ModuleFiles, ModuleStatus> {
        let at_path = if self.spec.path.is_absolute() {
            ObjectFacts::read(&self.spec.path)
        } else {
            Err("it is no file".to_owned())
        };
        if let Ok(facts) = &at_path
            && self.is_recorded_build(&self.spec.path, facts)
        {
            return Ok(self.files_of(self.spec.path.clone(), facts));
        }
        if let Some((path, facts)) = self.find_elsewhere() {
            return Ok(self.files_of(path, &facts));
        }
        Err(match at_path {
            Ok(facts) if self.spec.build_id.is_empty() || facts.build_id == self.spec.build_id => {
                ModuleStatus::OtherCode { build_id: self.spec.build_id.clone(), path: self.spec.path.clone() }
            }
            Ok(facts) => ModuleStatus::WrongBuild {
                recorded_id: self.spec.build_id.clone(),
                found_id: facts.build_id,
                recorded_path: self.spec.path.clone(),
                found_path: self.spec.path.clone(),
            },
            Err(reason) => ModuleStatus::Missing { path: self.spec.path.clone(), reason },
        })
    }

    /// Whether a file has the recorded build-id, if there is one, and the recorded code, if that is
    /// known. A file of debug info has no code to compare.
    fn is_recorded_build(&self, path: &Path, facts: &ObjectFacts) -> bool {
        let same_id = self.spec.build_id.is_empty() || facts.build_id == self.spec.build_id;
        let recorded = self.spec.code.filter(|_| facts.has_code);
        same_id
            && recorded
                .is_none_or(|recorded| code_identity(path).is_ok_and(|found| recorded.is_same_code(&found)))
    }

    /// Searches for the recorded build at other paths than the recorded path. Returns the file with
    /// the code, or else a debug file.
    fn find_elsewhere(&self) -> Option<(PathBuf, ObjectFacts)> {
        let build_id = &self.spec.build_id;
        let by_name =
            self.spec.path.file_name().into_iter().flat_map(|name| self.dirs.by_name(Path::new(name)));
        let mut debug_only = None;
        // Without a build-id the code tells whether a file is the right one, whatever its name is.
        let by_code = if build_id.is_empty() && self.spec.code.is_some() {
            self.dirs.without_build_id()
        } else {
            Vec::new()
        };
        for path in by_name
            .chain(self.dirs.by_build_id(build_id))
            .chain(self.candidates_in_debug_roots(build_id))
            .chain(by_code)
        {
            let Ok(facts) = ObjectFacts::read(&path) else { continue };
            // With neither a build-id nor its code recorded, a file in the user's symbol folder is
            // taken on trust.
            if !self.is_recorded_build(&path, &facts) {
                continue;
            }
            if facts.has_code {
                return Some((path, facts));
            }
            debug_only.get_or_insert((path, facts));
        }
        debug_only
    }

    fn files_of(&self, path: PathBuf, facts: &ObjectFacts) -> ModuleFiles {
        let debug = self.find_debug_file(&path, facts);
        let mut symbols: Vec<PathBuf> = debug.iter().map(|(path, _)| path.clone()).collect();
        if facts.has_symbols && !symbols.contains(&path) {
            symbols.push(path.clone());
        }
        let debug = debug.and_then(|(debug_path, debug_facts)| {
            debug_facts.has_debug_info.then(|| DebugFiles {
                shared: self.find_shared_file(&debug_path, &debug_facts),
                package: self.find_package(&path, &debug_path),
                path: debug_path,
            })
        });
        ModuleFiles {
            build_id: facts.build_id.clone(),
            binary: facts.has_code.then_some(path),
            symbols,
            debug,
        }
    }

    /// Returns the file with the debug info of the file at `path`, if it is the same build.
    fn find_debug_file(&self, path: &Path, facts: &ObjectFacts) -> Option<(PathBuf, ObjectFacts)> {
        if facts.has_debug_info {
            return Some((path.to_owned(), ObjectFacts::read(path).ok()?));
        }
        let has_debug_info = |candidate: &PathBuf| {
            let found = ObjectFacts::read(candidate).ok()?;
            (found.has_debug_info && candidate != path).then_some(found)
        };
        let same_build = |candidate: PathBuf| {
            let found = has_debug_info(&candidate)?;
            (!facts.build_id.is_empty() && found.build_id == facts.build_id).then_some((candidate, found))
        };
        let linked = |candidate: PathBuf| {
            let (_, crc) = facts.debug_link.as_ref()?;
            let found = has_debug_info(&candidate)?;
            // PERF: equal build-ids prove as much as the CRC, without reading a hundred megabytes
            // on every run.
            let same = if facts.build_id.is_empty() || found.build_id.is_empty() {
                file_crc(&candidate) == Ok(*crc)
            } else {
                found.build_id == facts.build_id
            };
            same.then_some((candidate, found))
        };
        self.candidates_by_name(path)
            .into_iter()
            .find_map(same_build)
            .or_else(|| self.candidates_in_debug_roots(&facts.build_id).find_map(same_build))
            .or_else(|| self.link_targets(path, facts).into_iter().find_map(linked))
            .or_else(|| self.dirs.by_build_id(&facts.build_id).into_iter().find_map(same_build))
    }

    /// Returns `NAME` and `NAME.debug` in the symbol folders, for the name of the file and for the
    /// recorded name.
    fn candidates_by_name(&self, path: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for name in [self.spec.path.file_name(), path.file_name()].into_iter().flatten() {
            let mut with_debug = name.to_os_string();
            with_debug.push(".debug");
            paths.extend(self.dirs.by_name(Path::new(name)).chain(self.dirs.by_name(Path::new(&with_debug))));
        }
        paths
    }

    /// Returns where the system's debug folders would have the file of a build-id.
    fn candidates_in_debug_roots(&self, build_id: &[u8]) -> impl Iterator<Item = PathBuf> {
        let name = debug_file_name(build_id);
        name.into_iter().flat_map(|name| {
            self.options
                .debug_roots
                .iter()
                .map(move |root| root.join(".build-id").join(&name))
                .collect::<Vec<_>>()
        })
    }

    /// Returns where the file that `.gnu_debuglink` names may be, in the order in which debuggers
    /// search.
    fn link_targets(&self, path: &Path, facts: &ObjectFacts) -> Vec<PathBuf> {
        let Some((link, _)) = &facts.debug_link else { return Vec::new() };
        // Only the file name is used, so that the link cannot lead out of these folders.
        let Some(name) = path_from_bytes(link).and_then(Path::file_name).map(Path::new) else {
            return Vec::new();
        };
        let mut targets = Vec::new();
        if let Some(folder) = path.parent() {
            targets.extend([folder.join(name), folder.join(".debug").join(name)]);
            if let Ok(below_root) = folder.strip_prefix("/") {
                targets.extend(self.options.debug_roots.iter().map(|root| root.join(below_root).join(name)));
            }
        }
        targets.extend(self.dirs.by_name(name));
        targets
    }

    /// Returns the file that `.gnu_debugaltlink` names: relative to the debug file, or by its
    /// build-id.
    fn find_shared_file(&self, debug_path: &Path, facts: &ObjectFacts) -> Option<PathBuf> {
        let (name, build_id) = facts.alt_link.as_ref()?;
        let named = path_from_bytes(name).map(|name| debug_path.parent().unwrap_or(Path::new("")).join(name));
        let candidates = named
            .into_iter()
            .chain(self.candidates_in_debug_roots(build_id))
            .chain(self.dirs.by_build_id(build_id));
        candidates
            .into_iter()
            .find(|path| ObjectFacts::read(path).is_ok_and(|found| found.build_id == *build_id))
    }

    /// Returns `FILE.dwp` beside the program, beside its debug file, or in the symbol folders. A
    /// stale package does no harm: its units have ids, which the reader compares.
    fn find_package(&self, path: &Path, debug_path: &Path) -> Option<PathBuf> {
        let beside = [path, debug_path, &self.spec.path].map(package_name);
        let in_dirs = beside.iter().filter_map(|package| package.file_name()).map(Path::new);
        let in_dirs: Vec<PathBuf> = in_dirs.flat_map(|name| self.dirs.by_name(name)).collect();
        beside.iter().cloned().chain(in_dirs).find(|package| package.is_file())
    }
}

/// Returns the name of a file's package: `app.dwp` for `app`, `libapp.so.dwp` for `libapp.so`.
pub(super) fn package_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".dwp");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSegment as _};

    use super::*;

    fn locate_one(path: &Path, build_id: &[u8], dirs: &[&Path]) -> LocatedModule {
        let options = SymbolizeOptions { debug_roots: Vec::new(), ..SymbolizeOptions::default() };
        let dirs = SymbolDirs::new(dirs.iter().map(|&dir| dir.to_owned()).collect());
        let spec = ModuleSpec { path: path.to_owned(), build_id: build_id.to_vec(), code: None };
        locate(&spec, &options, &dirs)
    }

    /// A file of the same name and without a build-id is compared by its code, and the right file
    /// is found in the folders whatever its name is.
    #[test]
    fn other_code_is_refused_and_the_recorded_code_is_found() {
        let this = std::env::current_exe().expect("a test has a path");
        let build_id = ObjectFacts::read(&this).expect("an object file").build_id;
        let code = code_identity(&this).expect("a test has code");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (program, kept) = (folder.path().join("program"), folder.path().join("kept"));
        let mut changed = std::fs::read(&this).expect("this test");
        // The first bytes of the code, wherever that is in the file.
        let start = {
            let file = object::File::parse(&*changed).expect("an object file");
            let mut code = file.segments().filter(|segment| segment.permissions().executable());
            code.next().expect("code").file_range().0 as usize
        };
        changed[start] ^= 1;
        std::fs::write(&program, changed).expect("a file");
        std::fs::create_dir(&kept).expect("a folder");
        let options = SymbolizeOptions { debug_roots: Vec::new(), ..SymbolizeOptions::default() };
        let dirs = SymbolDirs::new(vec![kept.clone()]);
        let spec = ModuleSpec { path: program.clone(), build_id: build_id.clone(), code: Some(code) };
        let refused = locate(&spec, &options, &dirs).files;
        let expected = ModuleStatus::OtherCode { build_id: build_id.clone(), path: program };
        assert_eq!(refused.err(), Some(expected));

        std::fs::copy(&this, kept.join("program")).expect("a copy");
        let dirs = SymbolDirs::new(vec![kept.clone()]);
        let found = locate(&spec, &options, &dirs).files.expect("the recorded code");
        assert_eq!(found.binary, Some(kept.join("program")));
    }

    #[test]
    fn a_missing_file_has_a_reason() {
        let located = locate_one(Path::new("/nowhere/libgone.so.1"), &[1, 2], &[]);
        assert_eq!(located.name, "libgone.so.1");
        assert!(
            matches!(located.files, Err(ModuleStatus::Missing { reason, .. }) if reason.contains("No such file"))
        );
    }

    #[test]
    fn another_build_is_refused_and_the_recorded_one_is_taken_from_the_symbol_folders() {
        let this = std::env::current_exe().expect("a test has a path");
        let build_id = ObjectFacts::read(&this).expect("an object file").build_id;
        if build_id.is_empty() {
            println!("skipped: the linker writes no build-id");
            return;
        }
        let refused = locate_one(&this, &[7; 20], &[]);
        assert!(matches!(&refused.files, Err(ModuleStatus::WrongBuild { recorded_id, found_id, .. })
            if *recorded_id == [7; 20] && *found_id == build_id));

        let dir = tempfile::tempdir().expect("a temporary folder");
        let (program, kept) = (dir.path().join("program"), dir.path().join("symbols"));
        std::fs::write(&program, "rebuilt").expect("a file");
        std::fs::create_dir(&kept).expect("a folder");
        std::fs::copy(&this, kept.join("as-it-was")).expect("a copy");
        let found = locate_one(&program, &build_id, &[&kept]).files.expect("the recorded build");
        assert_eq!(found.binary, Some(kept.join("as-it-was")));
        assert_eq!(found.build_id, build_id);
    }

    #[test]
    fn a_package_is_named_after_the_whole_file_name() {
        assert_eq!(package_name(Path::new("/a/app")), Path::new("/a/app.dwp"));
        assert_eq!(package_name(Path::new("/a/libapp.so")), Path::new("/a/libapp.so.dwp"));
    }
}
