//! Names that an earlier look-up of a module has kept, in the dump itself or in the cache. They
//! need none of the module's files.
//!
//! In: the symbols of a dump, or cached frames. Out: frames by address, and where signal return
//! trampolines start. A dump is not trusted: its texts are bounded and printable in here.

use std::path::Path;
use std::sync::Arc;

use alloc_dump::symbols::{FunctionSymbol, Symbols};
use foldhash::{HashMap, HashSet};

use super::cache::{CachedFrames, FrameMap};
use super::classify::is_runtime;
use super::demangle::NameInterner;
use super::{CodeAddress, ModuleStatus, SymbolFrame};

/// The names of one module that were kept.
#[derive(Clone, Debug, Default)]
pub struct KeptNames {
    pub(super) frames: FrameMap,
    trampolines: HashSet<u64>,
}

impl KeptNames {
    /// Returns the names that a dump has, by the number of the module in the dump.
    #[must_use]
    pub fn of_dump(symbols: &[Symbols]) -> HashMap<u32, KeptNames> {
        let names = NameInterner::default();
        let mut kept: HashMap<u32, KeptNames> = HashMap::default();
        for frame in symbols {
            for module in frame.modules() {
                let of_module = kept.entry(module.id).or_default();
                of_module.trampolines.extend(&module.trampolines);
                let addresses = frame.addresses(module).filter(|(_, functions)| functions.len() > 0);
                of_module.frames.extend(addresses.map(|(address, functions)| {
                    (address, functions.map(|function| symbol_frame(&function, &names)).collect())
                }));
            }
        }
        kept
    }

    /// Adds the names that `other` has and this one lacks.
    pub(super) fn add_missing(&mut self, other: &KeptNames) {
        for (address, frames) in &other.frames {
            self.frames.entry(*address).or_insert_with(|| Arc::clone(frames));
        }
        self.trampolines.extend(&other.trampolines);
    }

    /// Whether all addresses have names.
    pub(super) fn has_all(&self, addresses: &[CodeAddress]) -> bool {
        addresses.iter().all(|address| self.frames.contains_key(&address.lookup()))
    }

    /// Returns where signal return trampolines start, in order.
    pub(super) fn trampolines(&self) -> Vec<u64> {
        let mut trampolines: Vec<u64> = self.trampolines.iter().copied().collect();
        trampolines.sort_unstable();
        trampolines
    }

    /// Returns how well the code of the module at this path is named.
    pub(super) fn status(&self, module: &Path) -> ModuleStatus {
        let frames: Vec<_> = self.frames.values().cloned().collect();
        status_of_kept(&frames, module)
    }

    /// Returns what the cache has about a module.
    pub(super) fn from_cache(cached: CachedFrames) -> KeptNames {
        KeptNames { frames: cached.frames, trampolines: cached.trampolines.into_iter().collect() }
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether a signal return trampoline starts at this address.
    pub(super) fn is_trampoline(&self, address: u64) -> bool {
        self.trampolines.contains(&address)
    }
}

fn symbol_frame(function: &FunctionSymbol<'_>, names: &NameInterner) -> SymbolFrame {
    SymbolFrame {
        function: names.intern(function.function),
        generics: function.generics.map(|generics| names.intern(generics)),
        file: function.file.map(|file| names.intern(file)),
        line: function.line,
        column: function.column,
        is_inlined: function.is_inlined,
        is_resolved: function.is_named,
    }
}

/// Returns how well these frames name the code of a module, whose path is `module`.
pub(super) fn status_of_kept(frames: &[Arc<[SymbolFrame]>], module: &Path) -> ModuleStatus {
    let mut all = frames.iter().flat_map(|frames| frames.iter()).peekable();
    if all.peek().is_some() && all.all(|frame| !frame.is_resolved) {
        return ModuleStatus::NoSymbols { path: module.to_owned() };
    }
    match only_runtime_has_lines(frames, &module.to_string_lossy()) {
        true => ModuleStatus::SymbolTableOnly { path: module.to_owned() },
        false => ModuleStatus::KeptNames,
    }
}

/// Whether the frames of the user's code have no lines. The standard library brings its own line
/// tables into every Rust program, even one built without any. So a module with debug info may
/// still have none about the user's code.
pub(super) fn only_runtime_has_lines(frames: &[Arc<[SymbolFrame]>], module: &str) -> bool {
    let of_user = |frame: &&SymbolFrame| {
        frame.is_resolved && !is_runtime(&frame.function, frame.file.as_deref(), module)
    };
    let mut of_user = frames.iter().flat_map(|frames| frames.iter()).filter(of_user).peekable();
    of_user.peek().is_some() && of_user.all(|frame| frame.line.is_none())
}
