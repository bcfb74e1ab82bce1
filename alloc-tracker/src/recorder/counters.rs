//! Exact counts without a dump: one set of counters for each thread, added up by the reader. In:
//! events. Out: [`Counts`]. Neither counting nor reading locks or allocates.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use alloc_dump::thread_ring::HeapEventKind;

/// The values of a set of counters at one moment. All bytes are sizes that the program asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Calls of `alloc` and `alloc_zeroed` that succeeded.
    pub(crate) allocations: u64,
    /// Calls of `dealloc`.
    pub(crate) deallocations: u64,
    /// Calls of `realloc` that succeeded.
    pub(crate) reallocations: u64,
    /// Bytes of all allocations and the new sizes of all reallocations.
    pub(crate) allocated_bytes: u64,
    /// Bytes of all deallocations and the old sizes of all reallocations.
    pub(crate) freed_bytes: u64,
}

impl Counts {
    /// Applies `f` to each pair of values.
    pub(crate) fn zip(&self, other: &Counts, f: fn(u64, u64) -> u64) -> Counts {
        Counts {
            allocations: f(self.allocations, other.allocations),
            deallocations: f(self.deallocations, other.deallocations),
            reallocations: f(self.reallocations, other.reallocations),
            allocated_bytes: f(self.allocated_bytes, other.allocated_bytes),
            freed_bytes: f(self.freed_bytes, other.freed_bytes),
        }
    }
}

/// The counters of one thread. Only that thread writes them, any thread may read them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    allocations: AtomicU64,
    deallocations: AtomicU64,
    reallocations: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
    /// The highest value of allocated minus freed bytes since [`Counters::begin_peak`]. Not kept in
    /// counters that several threads share.
    highest: AtomicI64,
}

/// Counts the events of signal handlers that have interrupted the hook. The counters of the
/// interrupted thread may be in the middle of an update then, so the handler must not touch them.
pub(crate) static REENTRANT: Counters = Counters::new();

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters {
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
            highest: AtomicI64::new(0),
        }
    }

    /// Adds an event of the thread that owns these counters. `old_size` is the size before a
    /// realloc.
    ///
    /// PERF: the thread's own counters need no locked instruction: each is loaded and stored. The
    /// live bytes belong to all threads; they cost one locked addition an event, and another locked
    /// instruction when they reach a new peak.
    #[inline]
    pub(crate) fn count(&self, kind: HeapEventKind, size: u64, old_size: u64) {
        self.add_event(kind, size, old_size, |counter, by| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        });
        let net = self.net_bytes();
        if net > self.highest.load(Ordering::Relaxed) {
            self.highest.store(net, Ordering::Relaxed);
        }
    }

    /// Begins to look for the highest value of allocated minus freed bytes. Called by the thread
    /// that owns these counters.
    pub(crate) fn begin_peak(&self) -> OuterPeak {
        let base = self.net_bytes();
        let highest = self.highest.load(Ordering::Relaxed);
        self.highest.store(base, Ordering::Relaxed);
        OuterPeak { base, highest }
    }

    /// Ends what `begin_peak` has begun. Returns by how much allocated minus freed bytes were
    /// higher than at the beginning, at most.
    pub(crate) fn end_peak(&self, outer: OuterPeak) -> u64 {
        let highest = self.highest.load(Ordering::Relaxed);
        self.highest.store(highest.max(outer.highest), Ordering::Relaxed);
        highest.wrapping_sub(outer.base).max(0) as u64
    }

    fn net_bytes(&self) -> i64 {
        let allocated = self.allocated_bytes.load(Ordering::Relaxed);
        allocated.wrapping_sub(self.freed_bytes.load(Ordering::Relaxed)) as i64
    }

    /// Adds an event of any thread.
    pub(crate) fn count_shared(&self, kind: HeapEventKind, size: u64, old_size: u64) {
        self.add_event(kind, size, old_size, |counter, by| {
            counter.fetch_add(by, Ordering::Relaxed);
        });
    }

    #[inline]
    fn add_event(&self, kind: HeapEventKind, size: u64, old_size: u64, add: impl Fn(&AtomicU64, u64)) {
        let (calls, allocated, freed) = match kind {
            HeapEventKind::Alloc | HeapEventKind::AllocZeroed => (&self.allocations, size, 0),
            HeapEventKind::Dealloc => (&self.deallocations, 0, size),
            HeapEventKind::ReallocEnd => (&self.reallocations, size, old_size),
        };
        add(calls, 1);
        add(&self.allocated_bytes, allocated);
        add(&self.freed_bytes, freed);
        let change = allocated.wrapping_sub(freed) as i64;
        let live = LIVE_BYTES.fetch_add(change, Ordering::Relaxed).wrapping_add(change);
        if live > PEAK_BYTES.load(Ordering::Relaxed) {
            PEAK_BYTES.fetch_max(live, Ordering::Relaxed);
        }
        if IN_WINDOW.load(Ordering::Relaxed) {
            WINDOW_PEAK.fetch_max(live, Ordering::Relaxed);
        }
    }

    /// Returns the values now.
    pub(crate) fn snapshot(&self) -> Counts {
        Counts {
            allocations: self.allocations.load(Ordering::Relaxed),
            deallocations: self.deallocations.load(Ordering::Relaxed),
            reallocations: self.reallocations.load(Ordering::Relaxed),
            allocated_bytes: self.allocated_bytes.load(Ordering::Relaxed),
            freed_bytes: self.freed_bytes.load(Ordering::Relaxed),
        }
    }
}

/// What a search for a peak that encloses another one has found until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OuterPeak {
    /// Allocated minus freed bytes at the beginning of the inner search.
    base: i64,
    /// The highest value before it.
    highest: i64,
}

/// Begins to look for the highest live bytes of the process. Only one search may be under way.
/// Returns the live bytes now.
pub(crate) fn begin_window() -> i64 {
    WINDOW_PEAK.store(i64::MIN, Ordering::SeqCst);
    IN_WINDOW.store(true, Ordering::SeqCst);
    let live = live_bytes();
    WINDOW_PEAK.fetch_max(live, Ordering::SeqCst);
    live
}

/// Ends the search that [`begin_window`] has begun. Returns the highest live bytes since then.
pub(crate) fn end_window() -> i64 {
    IN_WINDOW.store(false, Ordering::SeqCst);
    WINDOW_PEAK.load(Ordering::SeqCst)
}

/// Returns the bytes that are allocated and not freed. Below zero if blocks were freed that are
/// older than the count.
pub(crate) fn live_bytes() -> i64 {
    LIVE_BYTES.load(Ordering::Relaxed)
}

/// Returns the most that [`live_bytes`] has ever been.
pub(crate) fn peak_bytes() -> i64 {
    PEAK_BYTES.load(Ordering::Relaxed)
}

/// Notes that the first event of the process is about to be counted.
pub(crate) fn set_counted_from_first_event() {
    FROM_FIRST_EVENT.store(true, Ordering::Relaxed);
}

/// Whether the counts include the first event of the process.
pub(crate) fn is_counted_from_first_event() -> bool {
    FROM_FIRST_EVENT.load(Ordering::Relaxed)
}

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static PEAK_BYTES: AtomicI64 = AtomicI64::new(0);
/// Whether a search for the highest live bytes of a part of the program's time is under way.
static IN_WINDOW: AtomicBool = AtomicBool::new(false);
static WINDOW_PEAK: AtomicI64 = AtomicI64::new(0);
static FROM_FIRST_EVENT: AtomicBool = AtomicBool::new(false);
