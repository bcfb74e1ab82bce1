//! Exact counts without a dump: per thread, summed when somebody asks. In: events. Out: [`Stats`] and [`Change`].
//! Counting never locks; asking never locks either.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use alloc_dump::thread_ring::HeapEventKind;

use crate::base::mode::{self, COUNT};
use crate::recorder::Event;
use crate::thread;

/// What the process has allocated and freed through [`AllocTracker`](crate::AllocTracker) since counting began.
/// Bytes are those that were asked for.
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
    /// Bytes allocated and not freed. Below zero if blocks were freed that are older than the count.
    pub live_bytes: i64,
    /// Blocks allocated and not freed. Below zero as above.
    pub live_blocks: i64,
    /// The most that `live_bytes` has ever been.
    pub peak_bytes: i64,
    /// Whether counting began with the first heap event of the process.
    pub from_first_event: bool,
}

/// Counts so far, of all threads. Switches counting on if nothing has yet.
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
pub fn stats() -> Stats {
    start_counting();
    let mut sum = REENTRANT.snapshot();
    for thread in thread::all() {
        sum.add(&thread.counters.snapshot());
    }
    Stats {
        allocations: sum.allocations,
        deallocations: sum.deallocations,
        reallocations: sum.reallocations,
        allocated_bytes: sum.allocated_bytes,
        freed_bytes: sum.freed_bytes,
        live_bytes: LIVE_BYTES.load(Ordering::Relaxed),
        live_blocks: sum.allocations.wrapping_sub(sum.deallocations) as i64,
        peak_bytes: PEAK_BYTES.load(Ordering::Relaxed),
        from_first_event: FROM_FIRST_EVENT.load(Ordering::Relaxed),
    }
}

/// What one thread allocated and freed between two moments. Bytes are those that were asked for.
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
}

impl Change {
    /// Allocated minus freed bytes: by how much this thread changed the heap.
    pub fn net_bytes(&self) -> i64 {
        self.allocated_bytes.wrapping_sub(self.freed_bytes) as i64
    }

    /// Allocations minus deallocations: by how many blocks this thread changed the heap.
    pub fn net_blocks(&self) -> i64 {
        self.allocations.wrapping_sub(self.deallocations) as i64
    }

    fn add(&mut self, other: &Change) {
        *self = self.zip(other, u64::wrapping_add);
    }

    fn zip(&self, other: &Change, f: fn(u64, u64) -> u64) -> Change {
        Change {
            allocations: f(self.allocations, other.allocations),
            deallocations: f(self.deallocations, other.deallocations),
            reallocations: f(self.reallocations, other.reallocations),
            allocated_bytes: f(self.allocated_bytes, other.allocated_bytes),
            freed_bytes: f(self.freed_bytes, other.freed_bytes),
        }
    }
}

/// A stretch of one thread's time, from [`Region::new`] on. Works with and without a recording. Cheap to begin and
/// to read; it belongs to its thread, so it cannot be sent to another.
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
    begin: Change,
    _this_thread: PhantomData<*const ()>,
}

impl Region {
    /// Begins here. Switches counting on if nothing has yet.
    #[allow(clippy::new_without_default, reason = "where a region begins is not a default")]
    pub fn new() -> Region {
        start_counting();
        Region { begin: this_thread().unwrap_or_default(), _this_thread: PhantomData }
    }

    /// What this thread has allocated and freed since. Nothing, if it is asked by a signal handler that interrupted the
    /// allocator.
    pub fn change(&self) -> Change {
        this_thread().map_or_else(Change::default, |now| now.zip(&self.begin, u64::wrapping_sub))
    }
}

/// Calls `f` and tells what it allocated and freed on this thread, callees included.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
/// let (sum, change) = alloc_tracker::measure(|| [1, 2, 3].iter().sum::<i32>());
/// assert_eq!((sum, change.allocations), (6, 0));
/// ```
pub fn measure<T>(f: impl FnOnce() -> T) -> (T, Change) {
    let region = Region::new();
    let result = f();
    (result, region.change())
}

/// Counts of one thread, written by that thread alone and read by any.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    allocations: AtomicU64,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

/// Events of signal handlers that interrupted the hook: their thread's own counters may be half-way through an update.
pub(crate) static REENTRANT: Counters = Counters::new();

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static PEAK_BYTES: AtomicI64 = AtomicI64::new(0);
static FROM_FIRST_EVENT: AtomicBool = AtomicBool::new(false);

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters {
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }

    /// Adds an event of the thread that these counters belong to. PERF: a plain load and store, no locked instruction.
    #[inline]
    pub(crate) fn count(&self, event: &Event) {
        self.apply(event, |counter, by| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        });
    }

    /// Adds an event of any thread.
    pub(crate) fn count_shared(&self, event: &Event) {
        self.apply(event, |counter, by| {
            counter.fetch_add(by, Ordering::Relaxed);
        });
    }

    #[inline]
    fn apply(&self, event: &Event, add: impl Fn(&AtomicU64, u64)) {
        let Event { kind, size, begun, .. } = *event;
        let (calls, allocated, freed) = match kind {
            HeapEventKind::Alloc | HeapEventKind::AllocZeroed => (&self.allocations, size, 0),
            HeapEventKind::Dealloc => (&self.deallocations, 0, size),
            HeapEventKind::ReallocEnd => (&self.reallocations, size, begun.old_size),
        };
        add(calls, 1);
        add(&self.allocated_bytes, allocated);
        add(&self.freed_bytes, freed);
        let change = allocated.wrapping_sub(freed) as i64;
        let live = LIVE_BYTES.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        if live > PEAK_BYTES.load(Ordering::Relaxed) {
            PEAK_BYTES.fetch_max(live, Ordering::Relaxed);
        }
    }

    fn snapshot(&self) -> Change {
        Change {
            allocations: self.allocations.load(Ordering::Relaxed),
            deallocations: self.deallocations.load(Ordering::Relaxed),
            reallocations: self.reallocations.load(Ordering::Relaxed),
            allocated_bytes: self.allocated_bytes.load(Ordering::Relaxed),
            freed_bytes: self.freed_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Tells [`stats`] that the first event of the process is about to be counted.
pub(crate) fn counting_from_first_event() {
    FROM_FIRST_EVENT.store(true, Ordering::Relaxed);
}

fn start_counting() {
    if mode::undecided() {
        mode::decide(false, false);
    }
    mode::switch_on(COUNT);
}

/// Counts of this thread; `None` in a signal handler that interrupted the hook.
fn this_thread() -> Option<Change> {
    thread::with(|busy| busy.counters().snapshot())
}
