//! Budgets: bounds of what a part of a test may allocate. In: bounds, a closure's or a future's
//! time. Out: nothing, or a panic that names the lines of code. The macros `budget` expand to this.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Condvar, Mutex, PoisonError};

use super::budget_report::BudgetReport;
use super::harness;
use super::installation::require_complete;
use super::rerun::BudgetPlace;
use super::scope::{EnteredScope, Scope};
use crate::base::sys;
use crate::recorder;
use crate::scope::{self, Kept, ScopeFigures, ScopeId};

/// The bounds of a budget. `None` is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetBounds {
    /// Calls of `alloc` and `alloc_zeroed`.
    pub allocations: Option<u64>,
    /// Calls of `realloc`.
    pub reallocations: Option<u64>,
    /// Bytes of all allocations and the new sizes of all reallocations.
    pub allocated: Option<u64>,
    /// The most bytes that blocks born within the budget have at one time.
    pub peak: Option<u64>,
    /// Bytes of these blocks that are live at the end.
    pub leaked: Option<u64>,
    /// Whether all threads of the process count.
    pub all_threads: bool,
}

/// A budget that has begun.
#[derive(Debug)]
pub struct Budget {
    bounds: BudgetBounds,
    place: BudgetPlace,
    scope: Scope,
    /// If all threads count: the scope for which they have counted before.
    before: Option<Option<ScopeId>>,
    /// Events that were not followed before.
    missed: u64,
    is_checked: bool,
    _turn: Option<Turn>,
}

impl Budget {
    /// Begins a budget. The calling thread is not inside of it yet.
    ///
    /// # Panics
    /// If the tracker is not installed completely.
    #[track_caller]
    pub fn begin(bounds: BudgetBounds, place: BudgetPlace) -> Budget {
        require_complete();
        harness::ignore_printing();
        let turn = bounds.all_threads.then(Turn::wait).flatten();
        if turn.is_some() {
            let _outside = EnteredScope::outside();
            scope::follow_main_thread(!place.is_test_of_this_thread());
        }
        let scope = Scope::keeping(Kept::Sites);
        let before = bounds.all_threads.then(|| scope::follow_all_threads(Some(scope.id())));
        let missed = scope::missed_events();
        Budget { bounds, place, scope, before, missed, is_checked: false, _turn: turn }
    }

    /// Makes the calling thread count, until the guard is dropped.
    #[track_caller]
    pub fn enter(&self) -> EnteredScope {
        self.scope.enter()
    }

    /// Ends the budget. `is_failure`: the code has failed by itself, so nothing is checked.
    ///
    /// # Panics
    /// If a bound is exceeded.
    #[track_caller]
    pub fn end(mut self, is_failure: bool) {
        self.is_checked |= is_failure;
        self.check();
    }

    #[track_caller]
    fn check(&mut self) {
        if std::mem::replace(&mut self.is_checked, true) {
            return;
        }
        self.wait_for_frees();
        // The report must not count for any scope, nor be followed.
        let _outside = EnteredScope::outside();
        self.leave_all_threads();
        let (figures, live) = (scope::figures(self.scope.id()), self.scope.all_live());
        let missed = scope::missed_events().wrapping_sub(self.missed);
        let found = Found { figures, leaked: live.bytes, unfollowed: live.unfollowed, missed };
        if found.exceeds(&self.bounds) {
            panic!("{}", BudgetReport::of(&self.scope, &self.bounds, &found, &self.place));
        }
    }

    /// Waits a moment if too much is live: a thread that ends frees its last blocks a moment after
    /// another thread knows of its end.
    fn wait_for_frees(&self) {
        let Some(bound) = self.bounds.leaked else { return };
        for _ in 0..NAPS {
            if self.scope.all_live().bytes <= bound {
                return;
            }
            sys::nap(PATIENCE_NS / NAPS);
        }
    }

    fn leave_all_threads(&mut self) {
        if let Some(before) = self.before.take() {
            scope::follow_all_threads(before);
        }
    }
}

impl Drop for Budget {
    /// Checks code that was left by `return`, `?` or `break`. A panic is enough of a failure.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.check();
        }
        self.leave_all_threads();
    }
}

/// Runs a future whose polls count for the budget.
pub async fn within<T, F: Future<Output = T>>(budget: &Budget, future: F) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _entered = budget.enter();
        future.as_mut().poll(context)
    })
    .await
}

/// What was found at the end of a budget.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) figures: ScopeFigures,
    pub(super) leaked: u64,
    /// Blocks that could not be followed, because there was no memory for them.
    pub(super) unfollowed: u64,
    /// Events of signal handlers that were not followed.
    pub(super) missed: u64,
}

impl Found {
    fn exceeds(&self, bounds: &BudgetBounds) -> bool {
        let pairs = [
            (bounds.allocations, self.figures.allocations),
            (bounds.reallocations, self.figures.reallocations),
            (bounds.allocated, self.figures.allocated_bytes),
            (bounds.peak, self.figures.peak_bytes),
            (bounds.leaked, self.leaked),
        ];
        let is_followed = self.unfollowed == 0 || (bounds.peak.is_none() && bounds.leaked.is_none());
        !is_followed || pairs.iter().any(|(bound, found)| bound.is_some_and(|bound| *found > bound))
    }
}

/// The turn of a budget that all threads count for: there is one at a time.
#[derive(Debug)]
struct Turn;

impl Turn {
    /// Waits for the turn. `None` if the calling thread is within such a budget already, which then
    /// goes on when the new one has ended.
    fn wait() -> Option<Turn> {
        if recorder::with_scopes(scope::has_entered_scope_of_all).unwrap_or(true) {
            return None;
        }
        let mut is_taken = IS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_taken {
            is_taken = IS_OVER.wait(is_taken).unwrap_or_else(PoisonError::into_inner);
        }
        *is_taken = true;
        Some(Turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *IS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        IS_OVER.notify_one();
    }
}

/// A budget may end on another thread than it has begun on, so its turn is no guard of a mutex.
static IS_TAKEN: Mutex<bool> = Mutex::new(false);
static IS_OVER: Condvar = Condvar::new();
const PATIENCE_NS: u64 = 100_000_000;
const NAPS: u64 = 20;
