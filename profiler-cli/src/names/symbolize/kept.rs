//! Names that an earlier look-up of a module has kept, in the dump itself or in the cache. They
//! need none of the module's files.
//!
//! In: the symbols of a dump, or cached frames. Out: frames by address, and where signal return
//! trampolines start. A dump is not trusted: its texts are bounded and printable in here.

use std::collections::HashSet;
use std::sync::Arc;

use super::cache::{CachedFrames, FrameMap};
use super::{ModuleStatus, SymbolFrame, classify::is_runtime};

/// The names of one module that were kept.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptNames {
    pub(super) frames: FrameMap,
    trampolines: HashSet<u64>,
}

impl KeptNames {
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

/// Returns how well these frames name the code of a module, whose path is `module`.
pub(super) fn status_of_kept(frames: &[Arc<[SymbolFrame]>], module: &std::path::Path) -> ModuleStatus {
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
