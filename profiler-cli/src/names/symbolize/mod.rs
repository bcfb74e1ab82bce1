//! NameInterner for addresses: the modules of a dump and the addresses in their code in, functions, files, lines and inlined
//! calls out. All of it after the fact, from the files on disk; the profiled process took no part in it.
//!
//! ```text
//! Modules::open ──> is_signal_trampoline (which pcs are exact?) ──> symbolize ──> Symbols::frames
//!   locate, symbol_dirs        trampoline          cache, debug_info, instances, symbol_table, lookup
//! ```
//!
//! A file that is not the recorded build gives no names at all, for they would be wrong. Nothing that a file says is
//! trusted: names and inline depth are bounded, damage costs names and is never a panic of the caller. The result does not
//! depend on the number of threads, nor on whether it came from the cache.

mod address;
mod cache;
pub mod classify;
mod debug_info;
mod demangle;
mod instances;
mod locate;
mod lookup;
mod object_file;
mod pass;
mod status;
mod symbol_dirs;
mod symbol_table;
mod trampoline;
mod workers;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

pub use address::CodeAddress;
pub use status::ModuleStatus;

use locate::{LocatedModule, locate};
use symbol_dirs::SymbolDirs;
use trampoline::Trampolines;

/// A file with code, as the dump names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSpec {
    /// Where it was when it ran.
    pub path: PathBuf,
    /// The build-id that was in memory; empty if it had none.
    pub build_id: Vec<u8>,
}

/// Where to look, and where to remember.
#[derive(Clone, Debug)]
pub struct SymbolizeOptions {
    /// Folders with copies of recorded programs or with their debug files (`--symbols DIR`): searched by file name and,
    /// with all folders below them, by build-id.
    pub symbol_dirs: Vec<PathBuf>,
    /// The system's folders of debug files, laid out as debuggers expect it: `.build-id/xx/…`, and mirrors of the
    /// programs' folders.
    pub debug_roots: Vec<PathBuf>,
    /// Keeps what was found, by build-id; `None` keeps nothing. Made when needed, for the user alone.
    pub cache_dir: Option<PathBuf>,
    /// NameInterner of generic functions say what they were made for, also where symbols do not.
    pub name_instances: bool,
    /// At most this many threads; by default one per processor.
    pub max_workers: Option<NonZeroUsize>,
}

impl Default for SymbolizeOptions {
    fn default() -> Self {
        Self {
            symbol_dirs: Vec::new(),
            debug_roots: vec![PathBuf::from("/usr/lib/debug")],
            cache_dir: None,
            name_instances: false,
            max_workers: None,
        }
    }
}

/// Why nothing at all could be symbolized. What is wrong with one module is its [`ModuleStatus`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolizeError {
    /// A folder that the user named cannot be read.
    #[error("cannot read the symbol folder {}", path.display())]
    SymbolDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There have to be as many lists of addresses as there are modules.
    #[error("{lists} lists of addresses for {modules} modules")]
    WantedLists {
        /// How many modules were opened.
        modules: usize,
        /// How many lists of addresses were given.
        lists: usize,
    },
}

/// The modules of a dump, their files found and compared with what was recorded.
pub struct Modules {
    located: Vec<LocatedModule>,
    trampolines: Vec<Trampolines>,
    options: SymbolizeOptions,
}

impl Modules {
    /// Finds the files of all modules. Reads their headers, not their debug info.
    ///
    /// # Errors
    ///
    /// If one of the [symbol folders](SymbolizeOptions::symbol_dirs) cannot be read. A module that cannot be found is no error
    /// here: see [`Modules::problem`].
    pub fn open(specs: &[ModuleSpec], options: SymbolizeOptions) -> Result<Self, SymbolizeError> {
        for path in &options.symbol_dirs {
            if let Err(source) = std::fs::read_dir(path) {
                return Err(SymbolizeError::SymbolDir { path: path.clone(), source });
            }
        }
        let dirs = SymbolDirs::new(options.symbol_dirs.clone());
        let located =
            workers::run(specs.len(), options.max_workers, |index| locate(&specs[index], &options, &dirs));
        let located = located.into_iter().zip(specs).map(|(located, spec)| {
            located.unwrap_or_else(|reason| LocatedModule {
                spec: spec.clone(),
                name: spec.path.to_string_lossy().into_owned(),
                files: Err(ModuleStatus::Missing { path: spec.path.clone(), reason }),
            })
        });
        let trampolines = specs.iter().map(|_| Trampolines::default()).collect();
        Ok(Self { located: located.collect(), trampolines, options })
    }

    /// Why a module's file cannot be used: it is [missing](ModuleStatus::Missing), or
    /// [of another build](ModuleStatus::WrongBuild). Known without symbolizing, so that the caller can refuse early.
    #[must_use]
    pub fn problem(&self, module: usize) -> Option<&ModuleStatus> {
        self.located.get(module)?.files.as_ref().err()
    }

    /// Whether the kernel's signal return trampoline starts at `address` (unadjusted, `pc - bias`) of a module.
    ///
    /// If it does, then two frames of the stack are [exact](CodeAddress::exact): the trampoline's own, and the one above
    /// it towards the root, whose code the signal interrupted. False for a module whose file was not found.
    #[must_use]
    pub fn is_signal_trampoline(&self, module: usize, address: u64) -> bool {
        let binary =
            self.located.get(module).and_then(|located| located.files.as_ref().ok()?.binary.as_ref());
        binary.is_some_and(|binary| self.trampolines[module].starts_at(binary, address))
    }

    /// Finds the frames of all `wanted` addresses, given per module in any order.
    ///
    /// `progress` is told how many addresses are done, of how many; it is called from several threads.
    ///
    /// # Errors
    ///
    /// If `wanted` has not one list per module.
    pub fn symbolize(
        &self,
        wanted: &[Vec<CodeAddress>],
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Symbols, SymbolizeError> {
        if wanted.len() != self.located.len() {
            return Err(SymbolizeError::WantedLists { modules: self.located.len(), lists: wanted.len() });
        }
        Ok(pass::run(&self.located, &self.options, wanted, progress))
    }
}

/// One function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolFrame {
    /// Demangled, without hash. The full path, except that a function inlined into another one has only its short name
    /// where there are line tables and no more (`push<u8>`).
    pub function: Arc<str>,
    /// What a generic function was made for (`<u8>`), if the debug info says so and `function` does not: legacy symbols name no
    /// types.
    pub generics: Option<Arc<str>>,
    /// The source file, as the compiler was told of it.
    pub file: Option<Arc<str>>,
    /// From 1.
    pub line: Option<u32>,
    /// From 1, in bytes.
    pub column: Option<u32>,
    /// Whether the function's code is part of the next frame's function.
    pub inlined: bool,
    /// `false` if nothing is known of the address, and `function` is made up of module and address (`libfoo.so+0x1234`).
    pub resolved: bool,
}

/// What the wanted addresses mean.
pub struct Symbols {
    modules: Vec<ModuleSymbols>,
    unknown_module: ModuleSymbols,
    warnings: Vec<String>,
}

impl Symbols {
    /// The functions at an address, innermost first: the inlined ones, then the one whose code it is. Never empty.
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

    /// How well the module is known.
    #[must_use]
    pub fn status(&self, module: usize) -> &ModuleStatus {
        &self.modules.get(module).unwrap_or(&self.unknown_module).status
    }

    /// What went wrong without making the result any worse, one line each: a cache that cannot be written.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// The frames of one module; `addresses` is sorted, `frames` goes with it.
struct ModuleSymbols {
    addresses: Vec<CodeAddress>,
    frames: Vec<Arc<[SymbolFrame]>>,
    fallback: SymbolFrame,
    status: ModuleStatus,
}
