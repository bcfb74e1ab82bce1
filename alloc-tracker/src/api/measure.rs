//! What a part of a program allocates: closures that are measured, and the claim that code
//! allocates nothing. In: a closure. Out: its result and a [`Change`], or a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::installation::require_complete;
use super::stats::{Change, Region};
use crate::recorder::{self, OuterPeak};

/// Calls `f` and returns its result, with what `f` and its callees have allocated and freed on this
/// thread, and their peak.
///
/// # Panics
/// If [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this
/// program, as [`stats`](crate::stats) does. So a test of a budget cannot pass because nothing was
/// counted.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let (sum, change) = alloc_tracker::measure(|| [1, 2, 3].iter().sum::<i32>());
/// assert_eq!((sum, change.allocations), (6, 0));
///
/// let (_, change) = alloc_tracker::measure(|| {
///     drop(vec![0u8; 1000]);
///     drop(vec![0u8; 200]);
/// });
/// assert_eq!((change.allocated_bytes, change.peak_bytes), (1200, Some(1000)));
/// ```
#[track_caller]
pub fn measure<T>(f: impl FnOnce() -> T) -> (T, Change) {
    let region = Region::new();
    let search = PeakSearch::begin();
    let result = f();
    let change = region.change();
    (result, Change { peak_bytes: search.end(), ..change })
}

/// Calls `f` and returns its result, with what all threads have allocated and freed meanwhile, and
/// the peak of the process.
///
/// Calls on several threads wait for each other. A call inside of another one on the same thread
/// would wait for ever.
///
/// # Panics
/// As [`measure`] does.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let (_, change) = alloc_tracker::measure_process(|| {
///     std::thread::scope(|scope| scope.spawn(|| drop(vec![0u8; 5000])).join().unwrap());
/// });
/// assert!(change.peak_bytes >= Some(5000));
/// ```
#[track_caller]
pub fn measure_process<T>(f: impl FnOnce() -> T) -> (T, Change) {
    require_complete();
    recorder::start_counting();
    let window = Window::begin();
    let begin = recorder::counts_of_all_threads();
    let result = f();
    let change = Change::between(&begin, &recorder::counts_of_all_threads());
    (result, Change { peak_bytes: Some(window.end()), ..change })
}

/// Evaluates its body and returns the value. Panics if this thread has allocated or reallocated
/// memory meanwhile. Freeing is allowed.
///
/// If the body leaves early, by `return` or `?`, nothing is checked.
///
/// # Panics
/// Also if [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this
/// program, as [`stats`](crate::stats) does.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let numbers = [3, 1, 2];
/// let largest = alloc_tracker::assert_no_alloc!(numbers.iter().max());
/// assert_eq!(largest, Some(&3));
/// ```
#[macro_export]
macro_rules! assert_no_alloc {
    ($($body:tt)*) => {{
        let region = $crate::Region::new();
        let value = { $($body)* };
        $crate::__private::require_no_allocations(&region);
        value
    }};
}

/// Panics if this thread has allocated or reallocated since the region began.
#[track_caller]
pub fn require_no_allocations(region: &Region) {
    let Change { allocations, reallocations, allocated_bytes, .. } = region.change();
    assert!(
        allocations + reallocations == 0,
        "code that must not allocate made {allocations} allocations and {reallocations} reallocations, {allocated_bytes} \
         bytes in all; `profiler-cli cargo` with the same test shows where"
    );
}

/// A search for this thread's peak. Searches on a thread are nested.
struct PeakSearch {
    /// `None` in a signal handler that has interrupted the hook, and once the search has ended.
    outer: Option<OuterPeak>,
}

impl PeakSearch {
    fn begin() -> PeakSearch {
        PeakSearch { outer: recorder::with_counters(|counters| counters.begin_peak()) }
    }

    fn end(mut self) -> Option<u64> {
        self.finish()
    }

    fn finish(&mut self) -> Option<u64> {
        let outer = self.outer.take()?;
        recorder::with_counters(|counters| counters.end_peak(outer))
    }
}

impl Drop for PeakSearch {
    /// If the closure panics, the peak that an outer search looks for must not be lost.
    fn drop(&mut self) {
        self.finish();
    }
}

/// A search for the peak of the process.
struct Window {
    live_at_begin: i64,
    _only: MutexGuard<'static, ()>,
}

/// Only one window is open at a time.
static WINDOW: Mutex<()> = Mutex::new(());

impl Window {
    fn begin() -> Window {
        let only = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
        Window { live_at_begin: recorder::begin_window(), _only: only }
    }

    fn end(self) -> u64 {
        recorder::end_window().wrapping_sub(self.live_at_begin).max(0) as u64
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        recorder::end_window();
    }
}
