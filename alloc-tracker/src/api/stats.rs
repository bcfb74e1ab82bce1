//! Exact counts without a dump, for tests and services. In: the counters of all threads. Out:
//! [`Stats`] and [`Change`]. Reading the counts never allocates through the global allocator and
//! never waits for another thread. Only the first use of the process may do more: it finds out
//! whether the tracker is installed, and reads the environment, which may ask for a recording.

use std::marker::PhantomData;

use super::installation::require_complete;
use crate::recorder::{self, Counts};

/// Counts of the allocations and frees of the process through [`AllocTracker`](crate::AllocTracker)
/// since counting began. All bytes are sizes that the program asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of `alloc` and `alloc_zeroed` that succeeded.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Calls of `realloc` that succeeded.
    pub reallocations: u64,
    /// Bytes of all allocations and the new sizes of all reallocations.
    pub allocated_bytes: u64,
    /// Bytes of all deallocations and the old sizes of all reallocations.
    pub freed_bytes: u64,
    /// Bytes allocated and not freed. Below zero if blocks were freed that are older than the
    /// count.
    pub live_bytes: i64,
    /// Blocks allocated and not freed. Below zero if blocks were freed that are older than the
    /// count.
    pub live_blocks: i64,
    /// The maximum of `live_bytes` since counting began.
    pub peak_bytes: i64,
    /// Whether counting began with the first heap event of the process.
    pub from_first_event: bool,
}

/// Returns the counts of all threads so far. Switches counting on if it is off.
///
/// # Panics
/// If [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this program
/// (see [`installation`](crate::installation)): the counts would be zero, or too low.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let before = alloc_tracker::stats();
/// let kept = vec![0u8; 1000];
/// let after = alloc_tracker::stats();
/// assert_eq!(after.live_bytes - before.live_bytes, 1000);
/// # drop(kept);
/// ```
#[track_caller]
pub fn stats() -> Stats {
    require_complete();
    recorder::start_counting();
    let sum = recorder::counts_of_all_threads();
    Stats {
        allocations: sum.allocations,
        deallocations: sum.deallocations,
        reallocations: sum.reallocations,
        allocated_bytes: sum.allocated_bytes,
        freed_bytes: sum.freed_bytes,
        live_bytes: recorder::live_bytes(),
        live_blocks: sum.allocations.wrapping_sub(sum.deallocations) as i64,
        peak_bytes: recorder::peak_bytes(),
        from_first_event: recorder::is_counted_from_first_event(),
    }
}

/// Counts of the allocations and frees of one thread, or of the process, between two moments. All
/// bytes are sizes that the program asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Calls of `alloc` and `alloc_zeroed` that succeeded.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Calls of `realloc` that succeeded.
    pub reallocations: u64,
    /// Bytes of all allocations and the new sizes of all reallocations.
    pub allocated_bytes: u64,
    /// Bytes of all deallocations and the old sizes of all reallocations.
    pub freed_bytes: u64,
    /// The most bytes by which the heap was larger than at the beginning, at any moment in between.
    /// `None` from [`Region::change`], which does not look for it.
    pub peak_bytes: Option<u64>,
}

impl Change {
    /// Returns allocated minus freed bytes: by how much the heap has changed.
    pub fn net_bytes(&self) -> i64 {
        self.allocated_bytes.wrapping_sub(self.freed_bytes) as i64
    }

    /// Returns allocations minus deallocations: by how many blocks the heap has changed.
    pub fn net_blocks(&self) -> i64 {
        self.allocations.wrapping_sub(self.deallocations) as i64
    }

    pub(super) fn between(begin: &Counts, end: &Counts) -> Change {
        let Counts { allocations, deallocations, reallocations, allocated_bytes, freed_bytes } =
            end.zip(begin, u64::wrapping_sub);
        let peak_bytes = None;
        Change { allocations, deallocations, reallocations, allocated_bytes, freed_bytes, peak_bytes }
    }
}

/// A stretch of one thread's time, from [`Region::new`] on. It works with and without a recording,
/// and is cheap to begin and to read. A region belongs to its thread, so it cannot be sent to
/// another.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let region = alloc_tracker::Region::new();
/// let mut list = Vec::<u32>::with_capacity(4);
/// list.push(1);
/// let change = region.change();
/// assert_eq!((change.allocations, change.net_bytes()), (1, 16));
/// # drop(list);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Region {
    begin: Counts,
    _this_thread: PhantomData<*const ()>,
}

impl Region {
    /// Begins a region here. Switches counting on if it is off.
    ///
    /// A signal handler may call this once the program has allocated, or has begun a region.
    ///
    /// # Panics
    /// If [`AllocTracker`](crate::AllocTracker) is not the global allocator of all code in this
    /// program, as [`stats`] does.
    #[allow(clippy::new_without_default, reason = "where a region begins is not a default")]
    #[track_caller]
    pub fn new() -> Region {
        require_complete();
        recorder::start_counting();
        let begin = recorder::counts_of_this_thread().unwrap_or_default();
        Region { begin, _this_thread: PhantomData }
    }

    /// Returns what this thread has allocated and freed since the region began. A signal handler
    /// that has interrupted the allocator gets zeros.
    pub fn change(&self) -> Change {
        recorder::counts_of_this_thread()
            .map_or_else(Change::default, |now| Change::between(&self.begin, &now))
    }
}
