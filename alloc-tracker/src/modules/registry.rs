//! The modules that have been reported, and how changes are noticed. In: addresses of code, scans
//! of the mappings. Out: changes, to an observer that the recorder passes; unwind tables of the
//! module at an address.
//!
//! Has a lock of its own. Never takes a lock of the dynamic loader, because an event may come from
//! inside `dlopen`. Never allocates through the global allocator.

use std::sync::OnceLock;

use alloc_dump::code::CodeIdentity;
use alloc_dump::record::Module;

use super::elf::UnwindTables;
use super::known::{KnownModules, ModuleTables};
use crate::base::loader::{self, LoadIdentity};
use crate::base::sys::{self, FutexGuard, FutexLock};

/// Makes sure that the module of this address is known and reported, if the address has one.
///
/// Code that is in no file, such as a JIT's, must not cost a scan for each of its frames. So after
/// a scan that did not find the address, the next scan for such an address is made 100 ms later at
/// the earliest, or when the recording ends.
pub(crate) fn ensure_known(pc: u64) {
    lock_knowing(pc);
}

/// Returns the registry, locked, once the module of this address is known, if it can be. `None` if
/// the process that scans was killed: it may have had the lock.
fn lock_knowing(pc: u64) -> Option<FutexGuard<'static, Registry>> {
    let mut registry = lock()?;
    if !registry.must_scan_for(pc) {
        return Some(registry);
    }
    let observer = registry.observer;
    drop(registry);
    // Without the lock, which the scan needs.
    let scanned = observer.is_some_and(ModuleObserver::scan_elsewhere);
    registry = lock()?;
    if !scanned {
        registry.scan();
    }
    registry.delay_next_scan_unless_found(pc);
    Some(registry)
}

/// Takes the lock. `None` if the process that scans on behalf of this one was killed.
fn lock() -> Option<FutexGuard<'static, Registry>> {
    REGISTRY.lock_awake_for(0, || OBSERVER.get().is_some_and(|observer| observer.scanner_was_killed()))
}

/// Makes the lock free if a process that was killed has it. Called before a recording begins.
pub(crate) fn replace_if_abandoned() {
    if REGISTRY.try_lock_for(PATIENCE_NS).is_none() {
        // SAFETY: no thread works on the modules for so long, so a killed process had the lock.
        // Threads that waited for it have given up.
        unsafe { REGISTRY.reset(Registry::new()) };
    }
}

/// Reads the mappings and reports changes. For the process that scans on behalf of another. Gives
/// up once `is_hopeless` returns true: the other process may have ended while it had the lock.
pub(crate) fn scan_now(is_hopeless: impl Fn() -> bool) {
    if let Some(mut registry) = REGISTRY.lock_awake_for(0, is_hopeless) {
        registry.scan();
    }
}

/// Calls `f` with the unwind tables of the module that this address lies in, under the lock of the
/// modules. `None` if there are no such tables.
pub(crate) fn with_unwind_tables<R>(address: u64, f: impl FnOnce(UnwindTables) -> Option<R>) -> Option<R> {
    with_module_tables(address, |tables| f(tables?))
}

/// Calls `f` with the unwind tables of the module that this address lies in, or with `None` if that
/// module has none, under the lock of the modules. Returns `None` without a call if the address is
/// in no known module.
pub(crate) fn with_module_tables<R>(
    address: u64,
    f: impl FnOnce(Option<UnwindTables>) -> Option<R>,
) -> Option<R> {
    let mut registry = lock_knowing(address)?;
    match registry.modules.unwind_tables(address)? {
        ModuleTables::Mapped(tables) => f(Some(tables)),
        ModuleTables::None => f(None),
    }
}

/// Reports all modules to the observer of a recording that has just begun, and every change from
/// now on.
pub(crate) fn report_all(observer: &'static dyn ModuleObserver) {
    // All recordings have the same observer.
    let _ = OBSERVER.set(observer);
    let Some(mut registry) = lock() else { return };
    let modules = KnownModules::after(&registry.modules);
    *registry = Registry { modules, ..Registry::new() };
    registry.observer = Some(observer);
    observer.generation_begins();
    registry.scan();
}

/// Reports every change from now on to the observer, unless a recording has an observer already.
/// Looks for modules that the loader has replaced. For walks without a recording.
pub(crate) fn observe(observer: &'static dyn ModuleObserver) {
    let _ = OBSERVER.set(observer);
    if let Some(mut registry) = lock() {
        registry.observer.get_or_insert(observer);
        if registry.modules.any_replaced() {
            registry.scan();
        }
    }
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
/// Gives up as [`scan_now`] does.
pub(crate) fn scan_if_due(is_hopeless: impl Fn() -> bool) {
    if let Some(mut registry) = REGISTRY.lock_awake_for(0, is_hopeless)
        && registry.scan_due
    {
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

/// The observer, for threads that wait for the lock.
static OBSERVER: OnceLock<&'static dyn ModuleObserver> = OnceLock::new();
static REGISTRY: FutexLock<Registry> = FutexLock::new(Registry::new());

/// The state of this module, which all threads share.
struct Registry {
    modules: KnownModules,
    /// No scan is made before these times, for addresses that the loader has no module at, and for
    /// addresses that it has one at. Set after a scan that did not find such an address.
    ///
    /// NOTE: two times, because a walk may take any number for a return address. It does so where
    /// a library has taken the place of another one and the walk uses the other one's tables. That
    /// must not delay the scan that finds the library.
    next_scan_ns: [u64; 2],
    /// Whether an address outside of all known modules was met since the last scan.
    scan_due: bool,
    /// The observer that changes are reported to; `None` before the first recording.
    observer: Option<&'static dyn ModuleObserver>,
}

impl Registry {
    const fn new() -> Registry {
        Registry { modules: KnownModules::new(), next_scan_ns: [0; 2], scan_due: false, observer: None }
    }

    /// Whether the mappings must be read to know the module of this address.
    fn must_scan_for(&mut self, pc: u64) -> bool {
        if self.modules.covers(pc) {
            return false;
        }
        self.scan_due = sys::clock_ns(libc::CLOCK_MONOTONIC) < *self.next_scan_for(pc);
        !self.scan_due
    }

    /// Delays the next scan for addresses like this one if the last scan did not find it.
    fn delay_next_scan_unless_found(&mut self, pc: u64) {
        if !self.modules.covers(pc) {
            *self.next_scan_for(pc) = sys::clock_ns(libc::CLOCK_MONOTONIC) + SCAN_INTERVAL_NS;
        }
    }

    /// The time before which no scan is made for addresses like this one.
    fn next_scan_for(&mut self, pc: u64) -> &mut u64 {
        let is_loaded = loader::load_at(pc).is_some_and(|loaded| loaded != LoadIdentity::NONE);
        &mut self.next_scan_ns[usize::from(is_loaded)]
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
            self.next_scan_ns = [sys::clock_ns(libc::CLOCK_MONOTONIC) + SCAN_INTERVAL_NS; 2];
        }
    }
}

const SCAN_INTERVAL_NS: u64 = 100_000_000;
const PATIENCE_NS: u64 = 2_000_000_000;

/// An observer of changes of the modules. Called under the lock of the modules, so it must not call
/// functions of `modules`.
pub(crate) trait ModuleObserver: Sync {
    /// Called when the same address may mean other code from now on, before the changes that are
    /// the reason.
    fn generation_begins(&self);

    /// Has another process scan, by [`scan_now`], and waits for that. False if there is none.
    /// Called without the lock of the modules.
    fn scan_elsewhere(&self) -> bool;

    /// Whether the other process was killed: it may have had the lock of the modules.
    fn scanner_was_killed(&self) -> bool;

    /// Called when a module has appeared or vanished.
    fn module_changed(&self, change: &ModuleChange<'_>);
}

/// A difference between two scans.
pub(crate) enum ModuleChange<'a> {
    /// The module was mapped since the last scan.
    Appeared {
        module: Module<'a>,
        /// The identity of its code; `None` if the code cannot be read.
        code: Option<CodeIdentity>,
        /// Whether stacks end at its code, because it has no unwind tables.
        lacks_unwind_tables: bool,
    },
    /// The module is no longer mapped, or was mapped again.
    Vanished { id: u32 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_no_module_does_not_delay_the_scan_for_a_library() {
        loader::prepare();
        let mut registry = Registry::new();
        registry.scan();
        let nowhere = 1;
        assert!(registry.must_scan_for(nowhere));
        registry.delay_next_scan_unless_found(nowhere);
        assert!(!registry.must_scan_for(nowhere));
        // SAFETY: the name is a C string, and this library of glibc has no initialisers.
        let library = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        // SAFETY: the library is open, and the name is a C string.
        let function = unsafe { libc::dlsym(library, c"ns_sprintrr".as_ptr()) } as u64;
        assert!(function != 0 && registry.must_scan_for(function));
        registry.scan();
        registry.delay_next_scan_unless_found(function);
        assert!(registry.modules.covers(function));
    }
}
