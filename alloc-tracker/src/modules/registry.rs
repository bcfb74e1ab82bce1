//! The modules that have been reported, and how changes are noticed. In: addresses of code, scans
//! of the mappings. Out: changes, to an observer that the recorder passes; unwind tables of the
//! module at an address.
//!
//! Has a lock of its own. Never takes a lock of the dynamic loader, because an event may come from
//! inside `dlopen`. Never allocates through the global allocator.

use alloc_dump::record::Module;

use super::elf::{ElfHeaders, MAX_BUILD_ID, UnwindTables, read_elf};
use super::maps::{AddressRange, LoadedFile, MappedRegion, for_each_line};
use crate::base::loader::{self, LoadIdentity};
use crate::base::sys::{self, Errno, FutexGuard, FutexLock, Mapping, PathBuffer, Plain};

/// Makes sure that the module of this address is known and reported, if the address has one.
///
/// Code that is in no file, such as a JIT's, must not cost a scan for each of its frames. So after
/// a scan that did not find the address, the next scan is made 100 ms later at the earliest, or
/// when the recording ends.
pub(crate) fn ensure_known(pc: u64) {
    lock_knowing(pc);
}

/// Returns the registry, locked, once the module of this address is known, if it can be.
fn lock_knowing(pc: u64) -> FutexGuard<'static, Registry> {
    let mut registry = REGISTRY.lock();
    if registry.must_scan_for(pc) {
        let observer = registry.observer;
        drop(registry);
        // Without the lock, which whoever scans needs.
        let scanned = observer.is_some_and(ModuleObserver::scan_elsewhere);
        registry = REGISTRY.lock();
        if !scanned {
            registry.scan();
        }
        if !registry.modules.covers(pc) {
            registry.next_scan_ns = sys::clock_ns(libc::CLOCK_MONOTONIC) + SCAN_INTERVAL_NS;
        }
    }
    registry
}

/// Reads the mappings and reports changes. For the process that scans on behalf of another.
pub(crate) fn scan_now() {
    REGISTRY.lock().scan();
}

/// Calls `f` with the unwind tables of the module that this address lies in, under the lock of the
/// modules. `None` if there are no such tables.
pub(crate) fn with_unwind_tables<R>(address: u64, f: impl FnOnce(UnwindTables) -> Option<R>) -> Option<R> {
    let mut registry = lock_knowing(address);
    let tables = registry.modules.unwind_tables(address)?;
    f(tables)
}

/// Reports all modules to the observer of a recording that has just begun, and every change from
/// now on.
pub(crate) fn report_all(observer: &'static dyn ModuleObserver) {
    let mut registry = REGISTRY.lock();
    let next_id = registry.modules.next_id;
    *registry = Registry { modules: KnownModules { next_id, ..KnownModules::new() }, ..Registry::new() };
    registry.observer = Some(observer);
    observer.generation_begins();
    registry.scan();
}

/// Looks for modules that the loader has replaced. Called from time to time, without any other lock
/// held.
pub(crate) fn notice_replaced() {
    // If another thread has the lock, the next call looks instead.
    let Some(mut registry) = REGISTRY.try_lock() else { return };
    if registry.modules.any_replaced() {
        registry.scan();
    }
}

/// Scans once more if an address outside of all known modules was met since the last scan.
pub(crate) fn scan_if_due() {
    let mut registry = REGISTRY.lock();
    if registry.scan_due {
        registry.scan();
    }
}

/// Forgets all modules in a forked child.
///
/// # Safety
/// No other thread may use the modules.
pub(crate) unsafe fn reset_after_fork() {
    // SAFETY: the caller promises that no other thread uses the modules, so none has the lock or
    // waits for it.
    unsafe { REGISTRY.reset(Registry::new()) };
}

static REGISTRY: FutexLock<Registry> = FutexLock::new(Registry::new());

/// The state of this module, which all threads share.
struct Registry {
    modules: KnownModules,
    /// No scan is made before this time. Set after a scan that did not find the address.
    next_scan_ns: u64,
    /// Whether an address outside of all known modules was met since the last scan.
    scan_due: bool,
    /// The observer that changes are reported to; `None` before the first recording.
    observer: Option<&'static dyn ModuleObserver>,
}

impl Registry {
    const fn new() -> Registry {
        Registry { modules: KnownModules::new(), next_scan_ns: 0, scan_due: false, observer: None }
    }

    /// Whether the mappings must be read to know the module of this address.
    fn must_scan_for(&mut self, pc: u64) -> bool {
        if self.modules.covers(pc) {
            return false;
        }
        self.scan_due = sys::clock_ns(libc::CLOCK_MONOTONIC) < self.next_scan_ns;
        !self.scan_due
    }

    fn scan(&mut self) {
        let (mut any_gone, observer) = (false, self.observer);
        let scanned = self.modules.scan(&mut |change| {
            let Some(observer) = observer else { return };
            if matches!(change, ModuleChange::Vanished { .. }) && !std::mem::replace(&mut any_gone, true) {
                observer.generation_begins();
            }
            observer.module_changed(&change);
        });
        self.scan_due = false;
        if scanned.is_err() {
            // If /proc cannot be read, frames stay unresolved, and the reader counts them.
            self.next_scan_ns = sys::clock_ns(libc::CLOCK_MONOTONIC) + SCAN_INTERVAL_NS;
        }
    }
}

const SCAN_INTERVAL_NS: u64 = 100_000_000;

/// The modules that have been reported, by address.
#[derive(Debug)]
struct KnownModules {
    /// An array of [`KnownModule`]s; `None` before the first scan.
    table: Option<Mapping>,
    len: usize,
    next_id: u32,
    /// The number of the scan that is under way or was the last one.
    scan: u32,
    last_hit: (AddressRange, LoadIdentity),
}

/// An observer of changes of the modules. Called under the lock of the modules, so it must not call
/// functions of `modules`.
pub(crate) trait ModuleObserver: Sync {
    /// Called when the same address may mean other code from now on, before the changes that are
    /// the reason.
    fn generation_begins(&self);

    /// Has another process scan, by [`scan_now`], and waits for that. False if there is none.
    /// Called without the lock of the modules.
    fn scan_elsewhere(&self) -> bool;

    /// Called when a module has appeared or vanished.
    fn module_changed(&self, change: &ModuleChange<'_>);
}

/// A difference between two scans.
pub(crate) enum ModuleChange<'a> {
    /// The module was mapped since the last scan.
    Appeared(Module<'a>),
    /// The module is no longer mapped, or was mapped again.
    Vanished { id: u32 },
}

impl KnownModules {
    const fn new() -> KnownModules {
        KnownModules {
            table: None,
            len: 0,
            next_id: 0,
            scan: 0,
            last_hit: (AddressRange::EMPTY, LoadIdentity::NONE),
        }
    }

    /// Whether this address lies in a module that has been reported, and that the loader still has
    /// there. If the loader cannot be asked, the module counts as still there.
    #[inline]
    fn covers(&mut self, pc: u64) -> bool {
        let now = loader::load_at(pc);
        let (range, loaded) = self.last_hit;
        if range.contains(pc) {
            return now.is_none_or(|now| now == loaded);
        }
        let Some(known) = self.all().iter().find(|module| module.range.contains(pc)) else { return false };
        let (range, loaded) = (known.range, known.loaded);
        self.last_hit = (range, loaded);
        now.is_none_or(|now| now == loaded)
    }

    /// Returns the unwind tables of the module that this address lies in. `None` if the loader does
    /// not confirm that the module is still there: its tables may then be anything, or not mapped.
    fn unwind_tables(&mut self, pc: u64) -> Option<UnwindTables> {
        let now = loader::load_at(pc)?;
        let module =
            self.all().iter_mut().find(|module| module.range.contains(pc) && module.loaded == now)?;
        if module.tables.segment_len == 0
            && let Some(elf) = read_elf(module.range.start, &mut [0; MAX_BUILD_ID])
        {
            // The scan may have met the module while another thread was loading it.
            module.tables = elf.tables;
        }
        (module.tables.segment_len > 0).then_some(module.tables)
    }

    /// Whether the loader has replaced any module. PERF: costs nanoseconds for each module.
    fn any_replaced(&mut self) -> bool {
        let replaced = |module: &KnownModule| {
            loader::load_at(module.range.start).is_some_and(|now| now != module.loaded)
        };
        self.all().iter().any(replaced)
    }

    /// Reads the process's mappings and reports what has changed since the last scan.
    fn scan(&mut self, report: &mut dyn FnMut(ModuleChange<'_>)) -> Result<(), Errno> {
        if self.table.is_none() {
            self.table = Some(Mapping::anonymous(MAX_MODULES * size_of::<KnownModule>())?);
        }
        self.scan += 1;
        self.last_hit = (AddressRange::EMPTY, LoadIdentity::NONE);
        let mut file = LoadedFile::default();
        let mut path = PathBuffer::new();
        for_each_line(|line| {
            let Some(region) = MappedRegion::parse(line) else { return };
            if file.continues_with(&region) {
                file.extend(&region);
                return;
            }
            self.add_if_new(&file, &path, report);
            file = LoadedFile::starting_with(&region);
            path.clear();
            path.push(region.path.strip_suffix(b" (deleted)").unwrap_or(region.path));
        })?;
        self.add_if_new(&file, &path, report);
        self.remove_stale(report);
        Ok(())
    }

    fn all(&mut self) -> &mut [KnownModule] {
        let len = self.len;
        self.table
            .as_mut()
            .and_then(|table| table.slice_mut::<KnownModule>().get_mut(..len))
            .unwrap_or_default()
    }

    /// Notes that this scan has met the load, and reports the load if it is new.
    fn add_if_new(&mut self, file: &LoadedFile, path: &PathBuffer, report: &mut dyn FnMut(ModuleChange<'_>)) {
        if !file.executable || path.is_empty() {
            return;
        }
        let scan = self.scan;
        let same = |module: &&mut KnownModule| module.range == file.range && module.inode == file.inode;
        let loaded = loader::load_at(file.range.start).unwrap_or(LoadIdentity::NONE);
        if let Some(module) = self.all().iter_mut().find(same) {
            // One file at the same addresses is the same code, even if it was unmapped in between.
            // But if an earlier scan met the module while another thread was loading it, the
            // headers may not have been readable yet.
            module.scan = scan;
            if module.loaded != loaded
                && let Some(elf) = file.head.and_then(|head| read_elf(head, &mut [0; MAX_BUILD_ID]))
                && file.is_still_there(loaded)
            {
                (module.tables, module.loaded) = (elf.tables, loaded);
            }
            return;
        }
        // Vanished modules are reported before the new one.
        self.remove_overlapping(file.range, report);
        if self.len == MAX_MODULES {
            return;
        }
        let mut build_id = [0u8; MAX_BUILD_ID];
        // The kernel may forbid to read the headers. Then `head` serves as the load bias, below, so
        // that addresses in position-independent files can still be resolved.
        let Some(head) = file.head else { return };
        let elf = read_elf(head, &mut build_id);
        if elf.is_none() && loaded == LoadIdentity::NONE {
            // Another thread is loading the file at this moment; a later scan will meet the file
            // again.
            return;
        }
        // PERF: not checked in the first scan, which finds many modules. At that time there is
        // mostly no other thread that could unload a module.
        if scan > 1 && !file.is_still_there(loaded) {
            // A later scan will meet the file again, or the one that has replaced it.
            return;
        }
        let elf = elf.unwrap_or(ElfHeaders { bias: head, build_id_len: 0, tables: UnwindTables::default() });
        let id = self.next_id;
        self.next_id += 1;
        self.len += 1;
        if let Some(slot) = self.all().last_mut() {
            let tables = elf.tables;
            *slot = KnownModule { range: file.range, inode: file.inode, id, scan, tables, loaded };
        }
        report(ModuleChange::Appeared(Module {
            id,
            start: file.range.start,
            end: file.range.end,
            bias: elf.bias,
            build_id: build_id.get(..elf.build_id_len).unwrap_or_default(),
            path: path.as_bytes(),
        }));
    }

    /// Removes all modules that overlap this range, because they are no longer mapped.
    fn remove_overlapping(&mut self, range: AddressRange, report: &mut dyn FnMut(ModuleChange<'_>)) {
        self.keep(|module| module.range.end <= range.start || range.end <= module.range.start, report);
    }

    /// Removes all modules that this scan has not met.
    fn remove_stale(&mut self, report: &mut dyn FnMut(ModuleChange<'_>)) {
        let scan = self.scan;
        self.keep(|module| module.scan == scan, report);
    }

    /// Removes all modules for which `wanted` returns false, and reports each as vanished.
    fn keep(&mut self, wanted: impl Fn(&KnownModule) -> bool, report: &mut dyn FnMut(ModuleChange<'_>)) {
        let known = self.all();
        let mut kept = 0;
        for index in 0..known.len() {
            let module = known[index];
            if wanted(&module) {
                known[kept] = module;
                kept += 1;
            } else {
                report(ModuleChange::Vanished { id: module.id });
            }
        }
        self.len = kept;
    }
}

/// More modules than this are not reported; their frames stay unresolved.
const MAX_MODULES: usize = 4096;

/// A module that has been reported.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct KnownModule {
    range: AddressRange,
    inode: u64,
    id: u32,
    /// The number of the last scan that has met the module.
    scan: u32,
    tables: UnwindTables,
    loaded: LoadIdentity,
}

// SAFETY: integers without padding.
unsafe impl Plain for KnownModule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_finds_the_running_program_with_its_own_code() {
        let mut modules = KnownModules::new();
        let exe = std::env::current_exe().unwrap();
        let mut own = None;
        modules
            .scan(&mut |change| {
                if let ModuleChange::Appeared(module) = change
                    && module.path == exe.to_str().unwrap().as_bytes()
                {
                    own = Some((module.start, module.end, module.build_id.len()));
                }
            })
            .unwrap();
        let here = ensure_known as fn(u64) as usize as u64;
        let (start, end, build_id_len) = own.expect("the test program is among the modules");
        assert!((start..end).contains(&here) && modules.covers(here) && build_id_len >= 8);
        // Nothing has changed since.
        modules.scan(&mut |_| panic!("a second scan reports nothing")).unwrap();
    }
}
