//! One pass over all modules. In: wanted addresses. Out: their frames, from the cache or from the
//! files.
//!
//! There are three steps. The first two run in parallel:
//! 1. For each module, take the names that were kept, read the cache, and prepare the look-up of the
//!    missing addresses.
//! 2. For each slice of a module's missing addresses, look them up.
//! 3. For each module, put the frames together, and write the new ones into the cache.
//!
//! Debug info is opened only for a module with missing addresses.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::{self, CachedBuild, CachedFrames, FileVersion, FrameMap};
use super::demangle::NameInterner;
use super::instances::Instances;
use super::kept::{only_runtime_has_lines, status_of_kept};
use super::locate::{DebugFiles, LocatedModule, ModuleFiles};
use super::lookup::AddressLookup;
use super::symbol_table::SymbolTable;
use super::trampoline::Trampolines;
use super::{
    CodeAddress, ModuleStatus, ModuleSymbols, SymbolFrame, SymbolizeOptions, Symbols, debug_info, workers,
};

/// The fewest addresses in a slice, unless the module has fewer left. PERF: each slice opens the
/// debug info for itself, which takes tens of milliseconds for a large program, so a slice must be
/// worth that.
const MIN_SLICE: usize = 2048;

/// Addresses between two reports of progress.
const PROGRESS_STEP: usize = 256;

pub(super) fn run(
    located: &[&LocatedModule],
    trampolines: &[Trampolines],
    options: &SymbolizeOptions,
    wanted: &[Vec<CodeAddress>],
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Symbols {
    let names = NameInterner::default();
    let wanted: Vec<Vec<CodeAddress>> = wanted.iter().map(|addresses| sorted(addresses)).collect();
    let progress = ProgressCounter {
        done: AtomicUsize::new(0),
        total: wanted.iter().map(Vec::len).sum(),
        report: progress,
    };
    progress.advance(0);
    let cache_dir = options.cache_dir.as_deref();

    let prepared = workers::run(located.len(), options.max_workers, |module| {
        let prepared = PreparedModule::new(located[module], &wanted[module], cache_dir, &names);
        progress.advance(wanted[module].len() - prepared.missing.len());
        prepared
    });
    let prepared: Vec<PreparedModule> = prepared
        .into_iter()
        .zip(&wanted)
        .map(|(prepared, wanted)| prepared.unwrap_or_else(|reason| PreparedModule::damaged(wanted, reason)))
        .collect();

    let slices = slices(&prepared, options.max_workers);
    let found = workers::run(slices.len(), options.max_workers, |index| {
        let AddressSlice { module, range } = &slices[index];
        look_up_slice(located[*module], &prepared[*module], range.clone(), &names, &progress)
    });
    let found: Vec<SliceFrames> =
        found.into_iter().map(|found| found.unwrap_or_else(SliceFrames::failed)).collect();

    let mut by_module: Vec<Vec<SliceFrames>> = prepared.iter().map(|_| Vec::new()).collect();
    for (slice, found) in slices.iter().zip(found) {
        by_module[slice.module].push(found);
    }
    let jobs: Vec<_> = prepared.into_iter().zip(by_module).zip(wanted).collect();
    let finished: Vec<(ModuleSymbols, Option<String>)> = jobs
        .into_iter()
        .zip(located.iter().copied().zip(trampolines))
        .map(|(((mut prepared, found), wanted), (located, trampolines))| {
            prepared.add_trampolines(trampolines);
            finish(located, prepared, found, wanted, cache_dir, &names)
        })
        .collect();
    let (modules, warnings): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
    let mut warnings: Vec<String> = warnings.into_iter().flatten().collect();
    warnings.dedup();
    Symbols { modules, unknown_module: unknown_module(&names), warnings }
}

fn sorted(addresses: &[CodeAddress]) -> Vec<CodeAddress> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Counts the addresses that are done. Several threads share it.
struct ProgressCounter<'a> {
    done: AtomicUsize,
    total: usize,
    report: &'a (dyn Fn(usize, usize) + Sync),
}

impl ProgressCounter<'_> {
    fn advance(&self, by: usize) {
        let done = self.done.fetch_add(by, Ordering::Relaxed) + by;
        (self.report)(done, self.total);
    }
}

/// A module that is ready for the look-up of its missing addresses.
#[derive(Default)]
struct PreparedModule {
    cached: CachedFrames,
    /// The files that decide whether cached frames are still valid.
    versions: Vec<FileVersion>,
    missing: Vec<u64>,
    symbols: SymbolTable,
    instances: Instances,
    /// Why the debug info must not be opened; `None` if it may be opened.
    damage: Option<String>,
}

impl PreparedModule {
    fn new(
        located: &LocatedModule,
        wanted: &[CodeAddress],
        cache_dir: Option<&Path>,
        names: &NameInterner,
    ) -> Self {
        let mut prepared = Self::default();
        if let (Ok(files), Some(dir)) = (&located.files, cache_dir) {
            prepared.versions = cache::file_versions(files);
            prepared.cached = cache::load(dir, build_of(located, files), Some(&prepared.versions), names);
        }
        let wanted = wanted.iter().map(|address| address.lookup());
        let is_known = |address: &u64| {
            prepared.cached.frames.contains_key(address) || located.kept.frames.contains_key(address)
        };
        prepared.missing = wanted.filter(|address| !is_known(address)).collect();
        let Ok(files) = &located.files else { return prepared };
        if prepared.missing.is_empty() {
            return prepared;
        }
        prepared.symbols = SymbolTable::read(&files.symbols);
        if let Some(debug) = &files.debug {
            match debug_info::inspect(debug) {
                Ok(inspected) => {
                    prepared.cached.split = cache::split_file_versions(&inspected.split_files);
                    prepared.instances = inspected.instances;
                }
                Err(reason) => prepared.damage = Some(reason),
            }
        }
        prepared
    }

    /// Returns a module whose file cannot be read for this reason.
    fn damaged(wanted: &[CodeAddress], reason: String) -> Self {
        let missing = wanted.iter().map(|address| address.lookup()).collect();
        Self { damage: Some(reason), missing, ..Self::default() }
    }

    /// Adds the trampolines that were found in the module's file to those in the cache.
    fn add_trampolines(&mut self, found: &Trampolines) {
        let known = &mut self.cached.trampolines;
        known.extend(found.found());
        known.sort_unstable();
        known.dedup();
    }

    fn debug_files<'a>(&self, located: &'a LocatedModule) -> Option<&'a DebugFiles> {
        if self.damage.is_some() {
            return None;
        }
        located.files.as_ref().ok()?.debug.as_ref()
    }
}

/// A range of a module's missing addresses.
struct AddressSlice {
    module: usize,
    range: Range<usize>,
}

fn slices(prepared: &[PreparedModule], max_workers: Option<NonZeroUsize>) -> Vec<AddressSlice> {
    let workers = workers::worker_count(usize::MAX, max_workers);
    let mut slices = Vec::new();
    for (module, prepared) in prepared.iter().enumerate() {
        let total = prepared.missing.len();
        let length = total.div_ceil(workers).max(MIN_SLICE);
        slices.extend(
            (0..total)
                .step_by(length)
                .map(|start| AddressSlice { module, range: start..total.min(start + length) }),
        );
    }
    slices
}

/// The frames of one slice, by address.
struct SliceFrames {
    frames: Vec<(u64, Arc<[SymbolFrame]>)>,
    damage: Option<String>,
}

impl SliceFrames {
    fn failed(reason: String) -> Self {
        Self { frames: Vec::new(), damage: Some(reason) }
    }
}

fn look_up_slice(
    located: &LocatedModule,
    prepared: &PreparedModule,
    range: Range<usize>,
    names: &NameInterner,
    progress: &ProgressCounter<'_>,
) -> SliceFrames {
    let (loader, damage) = match prepared.debug_files(located).map(debug_info::open) {
        Some(Ok(loader)) => (Some(loader), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    let PreparedModule { symbols, instances, .. } = prepared;
    let lookup =
        AddressLookup { module_name: &located.name, debug_info: loader.as_ref(), symbols, instances, names };
    let mut frames = Vec::with_capacity(range.len());
    for addresses in prepared.missing[range].chunks(PROGRESS_STEP) {
        frames.extend(addresses.iter().map(|&address| (address, lookup.frames(address))));
        progress.advance(addresses.len());
    }
    SliceFrames { frames, damage }
}

fn finish(
    located: &LocatedModule,
    mut prepared: PreparedModule,
    found: Vec<SliceFrames>,
    wanted: Vec<CodeAddress>,
    cache_dir: Option<&Path>,
    names: &NameInterner,
) -> (ModuleSymbols, Option<String>) {
    let known = |frames: &FrameMap, address: u64| frames.get(&address).cloned();
    let mut damage = prepared.damage.take();
    let mut fresh: FrameMap = BTreeMap::new();
    for slice in found {
        fresh.extend(slice.frames);
        damage = damage.or(slice.damage);
    }
    let (nameless, none) = (SymbolTable::default(), Instances::default());
    let without_symbols = AddressLookup {
        module_name: &located.name,
        debug_info: None,
        symbols: &nameless,
        instances: &none,
        names,
    };
    let frames: Vec<Arc<[SymbolFrame]>> = wanted
        .iter()
        .map(|address| address.lookup())
        .map(|address| {
            known(&located.kept.frames, address)
                .or_else(|| known(&prepared.cached.frames, address))
                .or_else(|| known(&fresh, address))
                .unwrap_or_else(|| without_symbols.frames(address))
        })
        .collect();

    let mut warning = None;
    if let (Some(dir), Ok(files), None) = (cache_dir, &located.files, &damage)
        && !fresh.is_empty()
    {
        prepared.cached.frames.append(&mut fresh);
        if let Err(error) = cache::store(dir, build_of(located, files), prepared.versions, prepared.cached) {
            warning = Some(format!("cannot keep symbols in {}: {error}", dir.display()));
        }
    }
    let status = match &located.files {
        Ok(files) => status(files, damage, &frames, located),
        Err(_) if is_all_kept(located, &wanted) => status_of_kept(&frames, &located.spec.path),
        Err(problem) => problem.clone(),
    };
    let fallback = SymbolFrame::unresolved(names.intern(&located.name));
    (ModuleSymbols { addresses: wanted, frames, fallback, status }, warning)
}

/// Returns what the cache knows the frames of a module by.
fn build_of<'a>(located: &LocatedModule, files: &'a ModuleFiles) -> CachedBuild<'a> {
    CachedBuild { build_id: &files.build_id, code: located.spec.code }
}

/// Whether all addresses of a module have kept names.
fn is_all_kept(located: &LocatedModule, wanted: &[CodeAddress]) -> bool {
    !located.kept.is_empty() && located.kept.has_all(wanted)
}

fn status(
    files: &ModuleFiles,
    damage: Option<String>,
    frames: &[Arc<[SymbolFrame]>],
    located: &LocatedModule,
) -> ModuleStatus {
    match (&files.debug, damage) {
        (Some(debug), Some(reason)) => {
            ModuleStatus::DamagedDebugInfo { debug_file: debug.path.clone(), reason }
        }
        (Some(debug), None) if !only_runtime_has_lines(frames, &located.spec.path.to_string_lossy()) => {
            ModuleStatus::LineTables { debug_file: debug.path.clone() }
        }
        _ if files.symbols.is_empty() => ModuleStatus::NoSymbols { path: files.main_path() },
        _ => ModuleStatus::SymbolTableOnly { path: files.main_path() },
    }
}

fn unknown_module(names: &NameInterner) -> ModuleSymbols {
    ModuleSymbols {
        addresses: Vec::new(),
        frames: Vec::new(),
        fallback: SymbolFrame::unresolved(names.intern("[unknown]")),
        status: ModuleStatus::Missing {
            path: "[unknown]".into(),
            reason: "no such module in the dump".to_owned(),
        },
    }
}
