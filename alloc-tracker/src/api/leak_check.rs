//! The claim that code leaves no block behind. In: a closure. Out: nothing, or a panic that names
//! the lines whose blocks are live.

use super::leak_report::LeakReport;
use super::scope::Scope;
use crate::scope::LiveInScope;
use crate::{base::sys, scope};

/// Calls `f`, drops its result, and panics if a block that was allocated meanwhile is still live:
/// one that was allocated on this thread, or on a thread that was inside of the closure's
/// [scope](crate::ScopeHandle::current). It does not matter which thread has freed the blocks.
///
/// *Live* is not *lost*: a cache that the closure fills is live, and is reported. If that happens
/// only the first time, as with a lazy static, run the closure once before:
/// [`LeakCheck::warm_up`].
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// alloc_tracker::assert_no_leaks(|| {
///     let list = vec![3, 1, 2];
///     list.iter().max().copied()
/// });
/// ```
///
/// ```should_panic
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// alloc_tracker::assert_no_leaks(|| {
///     std::mem::forget(vec![0u8; 100]);
/// });
/// ```
///
/// # Panics
/// With the number of blocks and bytes, and the ten lines of code that hold most, if a block is
/// live. If a block could not be followed because there was no memory for it. If
/// [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this program,
/// as [`stats`](crate::stats) does: then the closure is not called.
///
/// If the closure itself panics, nothing is checked.
///
/// # What is not followed
/// See [`Scope`](crate::Scope#what-belongs-to-a-scope): above all, threads that did not enter. A
/// block that is older than the call and grows inside is no leak. The output that the test harness
/// captures is no leak either.
///
/// A thread that ends frees its last blocks a moment after its closure has returned, and
/// `std::thread::scope` does not wait for that. So if blocks are live at the end, the check waits
/// for up to 100 ms before it fails.
#[track_caller]
pub fn assert_no_leaks<T>(f: impl FnOnce() -> T) {
    check(f);
}

/// A check for blocks that a closure leaves behind, with settings. [`assert_no_leaks`] is the same
/// check without.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// use std::sync::OnceLock;
///
/// static TABLE: OnceLock<Vec<u32>> = OnceLock::new();
///
/// alloc_tracker::LeakCheck::new().warm_up(1).run(|| {
///     let table = TABLE.get_or_init(|| (0..100).collect());
///     table.iter().sum::<u32>()
/// });
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "nothing is checked before `run`"]
pub struct LeakCheck {
    warm_ups: u32,
}

impl LeakCheck {
    /// Returns a check without warm-up.
    pub const fn new() -> LeakCheck {
        LeakCheck { warm_ups: 0 }
    }

    /// Runs the closure `times` times before the run that is checked. What it allocates then and
    /// keeps for ever, as for a lazy static, is older than the checked run.
    pub const fn warm_up(self, times: u32) -> LeakCheck {
        LeakCheck { warm_ups: times }
    }

    /// Runs the closure, and panics if it leaves blocks behind.
    ///
    /// # Panics
    /// As [`assert_no_leaks`] does.
    #[track_caller]
    pub fn run<T>(self, mut f: impl FnMut() -> T) {
        super::installation::require_complete();
        for _ in 0..self.warm_ups {
            drop(f());
        }
        check(f);
    }
}

#[track_caller]
fn check<T>(f: impl FnOnce() -> T) {
    let scope = Scope::new();
    let missed = scope::missed_events();
    {
        let _entered = scope.enter();
        drop(f());
    }
    if !waits_until_nothing_is_live(&scope) {
        panic_if_blocks_are_left(&scope, missed);
    }
}

/// Returns true as soon as nothing is live of the scope; false if that does not happen in time. A
/// thread that ends frees its last blocks a moment after another thread knows of its end.
fn waits_until_nothing_is_live(scope: &Scope) -> bool {
    for nap in 0..=NAPS {
        if scope.all_live() == LiveInScope::default() {
            return true;
        }
        if nap < NAPS {
            sys::nap(PATIENCE_NS / NAPS);
        }
    }
    false
}

#[cold]
#[track_caller]
fn panic_if_blocks_are_left(scope: &Scope, missed_before: u64) {
    let missed = scope::missed_events().wrapping_sub(missed_before);
    let report = LeakReport::of(scope, missed);
    if report.is_leak() {
        panic!("{report}");
    }
}

const PATIENCE_NS: u64 = 100_000_000;
const NAPS: u64 = 20;
