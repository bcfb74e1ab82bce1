//! Names for addresses.
//!
//! In: the modules of a dump, and addresses in their code. Out: functions, files, lines and inlined
//! calls. Everything is read from the files on disk after the recording; the profiled process takes
//! no part in it.
//!
//! ```text
//! Modules::open             locate, code, symbol_dirs: find the files of each module
//!   is_signal_trampoline    trampoline: which addresses are exact?
//!   symbolize               kept, cache, debug_info, instances, symbol_table, lookup
//!     Symbols::frames       the answers
//! ```
//!
//! A file that is not the recorded build gives no names at all, because they would be wrong. Then
//! the code has the names that the cache has kept, or else addresses.
//! Nothing that a file says is trusted: names and inline depth are bounded, and damage costs names
//! but must never panic in the caller. The result must not depend on the number of threads, nor on
//! whether it came from the cache.

mod address;
mod cache;
pub mod classify;
mod closures;
mod code;
mod debug_info;
mod demangle;
mod instances;
mod kept;
mod locate;
mod lookup;
mod object_file;
mod pass;
mod shortened;
mod status;
mod symbol_dirs;
mod symbol_table;
mod trampoline;
mod variables;
mod workers;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alloc_dump::code::CodeIdentity;

pub use address::CodeAddress;
pub use kept::KeptNames;
pub use status::ModuleStatus;
pub use variables::ModuleVariables;

use locate::{LocatedModule, locate, locate_kept};
use symbol_dirs::SymbolDirs;
use trampoline::Trampolines;

use crate::pattern::Pattern;

/// A module as the dump names it: a file with code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Path of the file when it ran.
    pub path: PathBuf,
    /// The build-id that was in memory; empty if the module had none.
    pub build_id: Vec<u8>,
    /// What tells the code that ran from other code; `None` if that is not known.
    pub code: Option<CodeIdentity>,
}

/// Where the symbolizer searches, and where it keeps its results.
#[derive(Clone, Debug)]
pub struct SymbolizeOptions {
    /// Copies of recorded programs, their debug files, and folders with such files (`--symbols`).
    /// Folders are searched by file name and, with all folders below them, by build-id.
    pub symbol_dirs: Vec<PathBuf>,
    /// The system's folders of debug files, in the layout that debuggers expect:
    /// `.build-id/xx/…`, and mirrors of the programs' folders.
    pub debug_roots: Vec<PathBuf>,
    /// Folder of the cache, by build-id; `None` caches nothing. It is created when needed, readable
    /// by the user alone.
    pub cache_dir: Option<PathBuf>,
    /// Whether the names of generic functions include their types, even where symbols omit them.
    pub name_instances: bool,
    /// Crates that are the user's own code, whatever the paths of their sources say (`--own`).
    pub own_crates: Vec<Pattern>,
    /// The most threads that symbolize; `None` means one for each processor.
    pub max_workers: Option<NonZeroUsize>,
}

impl Default for SymbolizeOptions {
    fn default() -> Self {
        Self {
            symbol_dirs: Vec::new(),
            debug_roots: vec![PathBuf::from("/usr/lib/debug")],
            cache_dir: None,
            name_instances: false,
            own_crates: Vec::new(),
            max_workers: None,
        }
    }
}

/// Why nothing at all could be symbolized. A problem of one module is its [`ModuleStatus`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolizeError {
    /// A folder or file that the user gave cannot be read.
    #[error("cannot read the symbols in {}", path.display())]
    SymbolDir {
        /// The folder or file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The number of address lists is not the number of modules.
    #[error("{lists} lists of addresses for {modules} modules")]
    WantedLists {
        /// How many modules were opened.
        modules: usize,
        /// How many lists of addresses were given.
        lists: usize,
    },
}

/// The modules of a dump, with the files that were found for them and proved to be the recorded
/// build.
pub struct Modules {
    located: Vec<LocatedModule>,
    trampolines: Vec<Trampolines>,
    options: SymbolizeOptions,
    dirs: SymbolDirs,
}

impl Modules {
    /// Finds the files of all modules. Reads only their headers, and no debug info.
    ///
    /// # Errors
    ///
    /// If one of the [symbol folders](SymbolizeOptions::symbol_dirs) cannot be read. A module
    /// without a file is no error: see [`Modules::problem`].
    pub fn open(specs: &[ModuleSpec], options: SymbolizeOptions) -> Result<Self, SymbolizeError> {
        Self::open_with_names(specs, &[], options)
    }

    /// Does the same as [`Modules::open`], for modules of which names were kept. `kept` has them in
    /// the order of the modules. The files of a module that has such names are not even opened,
    /// unless the [symbol folders](SymbolizeOptions::symbol_dirs) may have better ones.
    ///
    /// # Errors
    ///
    /// As for [`Modules::open`].
    pub fn open_with_names(
        specs: &[ModuleSpec],
        kept: &[Arc<KeptNames>],
        options: SymbolizeOptions,
    ) -> Result<Self, SymbolizeError> {
        for path in &options.symbol_dirs {
            let read = match path.is_file() {
                true => std::fs::File::open(path).map(drop),
                false => std::fs::read_dir(path).map(drop),
            };
            if let Err(source) = read {
                return Err(SymbolizeError::SymbolDir { path: path.clone(), source });
            }
        }
        let dirs = SymbolDirs::new(options.symbol_dirs.clone());
        let located = workers::run(specs.len(), options.max_workers, |index| match kept.get(index) {
            Some(kept) if !kept.is_empty() => locate_kept(&specs[index], kept, &options, &dirs),
            _ => locate(&specs[index], &options, &dirs),
        });
        let located = located.into_iter().zip(specs).map(|(located, spec)| {
            located.unwrap_or_else(|reason| LocatedModule {
                spec: spec.clone(),
                name: spec.path.to_string_lossy().into_owned(),
                files: Err(ModuleStatus::Missing { path: spec.path.clone(), reason }),
                kept: Arc::default(),
            })
        });
        let trampolines = specs.iter().map(|_| Trampolines::default()).collect();
        Ok(Self { located: located.collect(), trampolines, options, dirs })
    }

    /// Returns why a module's file cannot be used: it is [missing](ModuleStatus::Missing), or
    /// [of another build](ModuleStatus::is_other_build).
    #[must_use]
    pub fn problem(&self, module: usize) -> Option<&ModuleStatus> {
        self.located.get(module)?.files.as_ref().err().filter(|status| !status.is_trusted())
    }

    /// Whether the names of a module come from its files, and not from names that were kept.
    #[must_use]
    pub fn uses_files(&self, module: usize) -> bool {
        self.located.get(module).is_some_and(|located| located.files.is_ok())
    }

    /// Whether the names of a module come from the dump alone.
    #[must_use]
    pub fn uses_dump_alone(&self, module: usize) -> bool {
        let located = self.located.get(module);
        located.is_some_and(|located| matches!(located.files, Err(ModuleStatus::KeptNames)))
    }

    /// Returns where signal return trampolines were found in a module so far, in order.
    #[must_use]
    pub fn trampolines(&self, module: usize) -> Vec<u64> {
        match self.located.get(module) {
            Some(located) if located.files.is_ok() => self.trampolines[module].found(),
            Some(located) => located.kept.trampolines(),
            None => Vec::new(),
        }
    }

    /// Returns the file that a module's code comes from, if it was found.
    #[must_use]
    pub fn code_file(&self, module: usize) -> Option<&Path> {
        self.located.get(module)?.files.as_ref().ok()?.binary.as_deref()
    }

    /// Whether the kernel's signal return trampoline starts at `address` (unadjusted, `pc - bias`)
    /// of a module.
    ///
    /// If it does, two frames of the stack are [exact](CodeAddress::exact): the frame of the
    /// trampoline, and the next one towards the root, whose code the signal interrupted. False for
    /// a module whose file was not found, and of which no names were kept.
    #[must_use]
    pub fn is_signal_trampoline(&self, module: usize, address: u64) -> bool {
        let Some(located) = self.located.get(module) else { return false };
        match &located.files {
            Ok(files) => files
                .binary
                .as_ref()
                .is_some_and(|binary| self.trampolines[module].starts_at(binary, address)),
            Err(_) => located.kept.is_trampoline(address),
        }
    }

    /// Finds the frames of all `wanted` addresses, given per module in any order.
    ///
    /// `progress` is called with the number of addresses that are done, and the number of all
    /// addresses. Several threads call it.
    ///
    /// # Errors
    ///
    /// If `wanted` does not have exactly one list for each module.
    pub fn symbolize(
        &self,
        wanted: &[Vec<CodeAddress>],
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Symbols, SymbolizeError> {
        if wanted.len() != self.located.len() {
            return Err(SymbolizeError::WantedLists { modules: self.located.len(), lists: wanted.len() });
        }
        // Names that were kept may be incomplete, because the dump was damaged.
        let completed = workers::run(wanted.len(), self.options.max_workers, |index| {
            let is_incomplete =
                self.uses_dump_alone(index) && !self.located[index].kept.has_all(&wanted[index]);
            is_incomplete.then(|| self.with_files(&self.located[index]))
        });
        let completed: Vec<Option<LocatedModule>> =
            completed.into_iter().map(|completed| completed.ok().flatten()).collect();
        let located: Vec<&LocatedModule> = self
            .located
            .iter()
            .zip(&completed)
            .map(|(located, completed)| completed.as_ref().unwrap_or(located))
            .collect();
        Ok(pass::run(&located, &self.trampolines, &self.options, wanted, progress))
    }

    /// Returns a module with its files, or the names in the cache, beside its kept names.
    fn with_files(&self, module: &LocatedModule) -> LocatedModule {
        let located = locate(&module.spec, &self.options, &self.dirs);
        let mut kept = KeptNames::clone(&module.kept);
        kept.add_missing(&located.kept);
        LocatedModule { kept: Arc::new(kept), ..located }
    }
}

/// One function at an address: the function that contains the address, or a function that was
/// inlined there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolFrame {
    /// The demangled name, without hash. It is the full path, with one exception: with line tables
    /// alone, an inlined function has only its short name (`push<u8>`). The body of an async
    /// function has the name of the function, and closures are `{closure}` without a number.
    pub function: Arc<str>,
    /// The types of an instance of a generic function (`<u8>`), if the debug info has them and
    /// `function` does not: legacy symbols name no types.
    pub generics: Option<Arc<str>>,
    /// The source file, as its path was given to the compiler.
    pub file: Option<Arc<str>>,
    /// Line of the source file, from 1.
    pub line: Option<u32>,
    /// Column in bytes, from 1.
    pub column: Option<u32>,
    /// Whether the function was inlined into the function of the next frame.
    pub is_inlined: bool,
    /// Whether anything is known about the address. If not, `function` consists of the module and
    /// the address (`libfoo.so+0x1234`).
    pub is_resolved: bool,
}

impl SymbolFrame {
    /// Returns the frame of an address about which nothing is known. `function` stands for its
    /// name.
    pub(super) fn unresolved(function: Arc<str>) -> Self {
        Self {
            function,
            generics: None,
            file: None,
            line: None,
            column: None,
            is_inlined: false,
            is_resolved: false,
        }
    }
}

/// The frames of all addresses that were asked for.
pub struct Symbols {
    modules: Vec<ModuleSymbols>,
    unknown_module: ModuleSymbols,
    warnings: Vec<String>,
}

impl Symbols {
    /// Returns the functions at an address, innermost first: the functions inlined there, then the
    /// function that contains the address. Never empty.
    ///
    /// An address that was not asked for gives one unresolved frame that names the module.
    #[must_use]
    pub fn frames(&self, module: usize, address: CodeAddress) -> &[SymbolFrame] {
        let symbols = self.modules.get(module).unwrap_or(&self.unknown_module);
        match symbols.addresses.binary_search(&address) {
            Ok(index) => &symbols.frames[index],
            Err(_) => std::slice::from_ref(&symbols.fallback),
        }
    }

    /// Returns how well the symbols of a module are known.
    #[must_use]
    pub fn status(&self, module: usize) -> &ModuleStatus {
        &self.modules.get(module).unwrap_or(&self.unknown_module).status
    }

    /// Returns one line for each failure that did not make the result worse, such as a cache that
    /// cannot be written.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The frames of one module. `addresses` is sorted, and `frames[i]` belongs to `addresses[i]`.
struct ModuleSymbols {
    addresses: Vec<CodeAddress>,
    frames: Vec<Arc<[SymbolFrame]>>,
    fallback: SymbolFrame,
    status: ModuleStatus,
}
