//! An independent counting allocator: what alloc-tracker's figures are compared with.
//!
//! Heap events go in, eight totals come out, kept in plain global atomics. There are no stacks, no
//! addresses, and no files until the process ends: the counting is simple enough to be believed.
//! Nothing here allocates, locks or panics.
//!
//! | count | what it counts |
//! | --- | --- |
//! | allocations | `alloc` and `alloc_zeroed` |
//! | deallocations | `dealloc` |
//! | reallocations | `realloc`, which is neither of the two above |
//! | allocated bytes | the size of an allocation, the new size of a reallocation |
//! | freed bytes | the size of a deallocation, the old size of a reallocation |
//! | live bytes and blocks | what is live now; a reallocation changes the bytes by new - old in one step |
//! | peak bytes | the maximum of the live bytes, taken after each event |
//!
//! A call that fails (the inner allocator returned null) changes nothing.
//!
//! For processes that are killed there is a [`Ledger`] instead, which keeps its figures in a file.

mod ledger;
mod report;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use ledger::{Ledger, Tally, ThreadNotes, read_ledger};
pub use report::report_at_exit;

/// Counts the calls of an allocator and leaves the work to `A`.
///
/// The counts belong to the process, not to the instance: a process has one global allocator, and
/// [`snapshot`] must be callable without access to it.
///
/// ```standalone_crate
/// use std::alloc::System;
///
/// use alloc_oracle::{Counting, snapshot};
///
/// #[global_allocator]
/// static ALLOC: Counting<System> = Counting::new(System);
///
/// let before = snapshot();
/// let block = std::hint::black_box(vec![1u8; 4096]);
/// let after = snapshot();
///
/// assert_eq!(after.allocations - before.allocations, 1);
/// assert_eq!(after.live_bytes - before.live_bytes, 4096);
/// drop(block);
/// ```
#[derive(Debug)]
pub struct Counting<A> {
    inner: A,
}

impl<A: GlobalAlloc> Counting<A> {
    /// Wraps `inner`, which does the allocating.
    ///
    /// ```
    /// use std::alloc::{GlobalAlloc, Layout, System};
    ///
    /// static ALLOC: alloc_oracle::Counting<System> = alloc_oracle::Counting::new(System);
    /// ```
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }
}

// SAFETY: every method forwards its own arguments to `A`, which is a GlobalAlloc, and returns what
// `A` returned. The counting around that call touches only atomics, so it neither unwinds nor
// allocates.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the one of `A::alloc`, with the same layout.
        let block = unsafe { self.inner.alloc(layout) };
        if !block.is_null() {
            count_allocation(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the one of `A::alloc_zeroed`, with the same layout.
        let block = unsafe { self.inner.alloc_zeroed(layout) };
        if !block.is_null() {
            count_allocation(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Before the inner call: once that returns, another thread may get the same memory and
        // count it before this thread has counted the deallocation, which would raise the peak.
        count_deallocation(layout.size());
        // SAFETY: the caller got `block` from this allocator with this layout, so `A` handed it out
        // with it.
        unsafe { self.inner.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller got `block` from this allocator with this layout, so `A` handed it out
        // with it. The caller's contract for `new_size` is the one of `A::realloc`.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count_reallocation(layout.size(), new_size);
        }
        moved
    }
}

/// Totals since the process began, in calls, blocks and bytes.
///
/// ```
/// assert_eq!(alloc_oracle::Counts::default().peak_bytes, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Successful calls of `alloc` and `alloc_zeroed`.
    pub allocations: u64,
    /// Calls of `dealloc`.
    pub deallocations: u64,
    /// Successful calls of `realloc`.
    pub reallocations: u64,
    /// Bytes requested by allocations, plus the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes freed by deallocations, plus the old sizes of reallocations.
    pub freed_bytes: u64,
    /// Bytes of the blocks that are live now.
    pub live_bytes: u64,
    /// Blocks that are live now.
    pub live_blocks: u64,
    /// Maximum of `live_bytes` over the moments after each event.
    pub peak_bytes: u64,
}

/// Reads the totals. Does not allocate, so it may be called anywhere.
///
/// Each figure is exact by itself. While other threads allocate, the figures may be a few events
/// apart.
///
/// ```
/// let counts = alloc_oracle::snapshot();
/// assert!(counts.live_bytes <= counts.peak_bytes);
/// ```
pub fn snapshot() -> Counts {
    Counts {
        allocations: ALLOCATIONS.load(Relaxed),
        deallocations: DEALLOCATIONS.load(Relaxed),
        reallocations: REALLOCATIONS.load(Relaxed),
        allocated_bytes: ALLOCATED_BYTES.load(Relaxed),
        freed_bytes: FREED_BYTES.load(Relaxed),
        live_bytes: LIVE_BYTES.load(Relaxed),
        live_blocks: LIVE_BLOCKS.load(Relaxed),
        peak_bytes: PEAK_BYTES.load(Relaxed),
    }
}

fn count_allocation(size: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    ALLOCATED_BYTES.fetch_add(size as u64, Relaxed);
    LIVE_BLOCKS.fetch_add(1, Relaxed);
    change_live_bytes(0, size);
}

fn count_deallocation(size: usize) {
    DEALLOCATIONS.fetch_add(1, Relaxed);
    FREED_BYTES.fetch_add(size as u64, Relaxed);
    LIVE_BLOCKS.fetch_sub(1, Relaxed);
    change_live_bytes(size, 0);
}

fn count_reallocation(old: usize, new: usize) {
    REALLOCATIONS.fetch_add(1, Relaxed);
    ALLOCATED_BYTES.fetch_add(new as u64, Relaxed);
    FREED_BYTES.fetch_add(old as u64, Relaxed);
    change_live_bytes(old, new);
}

/// Changes the live bytes from the old size to the new one in one step: a block that shrinks or
/// grows never adds both of its sizes to the peak.
fn change_live_bytes(old: usize, new: usize) {
    // A negative difference wraps to a large positive one, and the sum wraps back.
    let difference = (new as u64).wrapping_sub(old as u64);
    let live = LIVE_BYTES.fetch_add(difference, Relaxed).wrapping_add(difference);
    // All threads see the values of one atomic in one order, so this is the maximum over that
    // order.
    PEAK_BYTES.fetch_max(live, Relaxed);
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static DEALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static REALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);
static FREED_BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE_BLOCKS: AtomicU64 = AtomicU64::new(0);
static PEAK_BYTES: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use std::alloc::System;
    use std::ptr::null_mut;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    // Not the global allocator: only the calls in these tests change the counts.
    static ORACLE: Counting<System> = Counting::new(System);

    #[test]
    fn an_allocation_is_live_until_it_is_freed() {
        let _alone = reset();
        let layout = Layout::from_size_align(100, 8).unwrap();

        // SAFETY: the layout is not empty, and the block is freed once with the layout of its
        // allocation.
        unsafe {
            let block = ORACLE.alloc(layout);
            let allocated = Counts {
                allocations: 1,
                allocated_bytes: 100,
                live_bytes: 100,
                live_blocks: 1,
                peak_bytes: 100,
                ..Counts::default()
            };
            assert_eq!(snapshot(), allocated);
            ORACLE.dealloc(block, layout);
            let freed =
                Counts { deallocations: 1, freed_bytes: 100, live_bytes: 0, live_blocks: 0, ..allocated };
            assert_eq!(snapshot(), freed);
        }
    }

    #[test]
    fn a_zeroed_allocation_counts_as_an_allocation_and_is_zero() {
        let _alone = reset();
        let layout = Layout::from_size_align(4096, 1).unwrap();

        // SAFETY: the layout is not empty; all 4096 bytes are initialised, by the definition of
        // alloc_zeroed.
        unsafe {
            let block = ORACLE.alloc_zeroed(layout);
            assert!(std::slice::from_raw_parts(block, 4096).iter().all(|byte| *byte == 0));
            ORACLE.dealloc(block, layout);
        }
        let counts = snapshot();
        assert_eq!((counts.allocations, counts.deallocations, counts.peak_bytes), (1, 1, 4096));
    }

    #[test]
    fn a_reallocation_changes_live_bytes_in_one_step() {
        let _alone = reset();
        let small = Layout::from_size_align(1000, 8).unwrap();
        let large = Layout::from_size_align(1500, 8).unwrap();

        // SAFETY: each call gives the layout that the block has at that time.
        unsafe {
            let block = ORACLE.alloc(small);
            let block = ORACLE.realloc(block, small, 1500);
            let block = ORACLE.realloc(block, large, 1000);
            assert_eq!(
                snapshot(),
                Counts {
                    allocations: 1,
                    deallocations: 0,
                    reallocations: 2,
                    allocated_bytes: 1000 + 1500 + 1000,
                    freed_bytes: 1000 + 1500,
                    live_bytes: 1000,
                    live_blocks: 1,
                    // Not 2500: the old and the new size are never held together.
                    peak_bytes: 1500,
                }
            );
            ORACLE.dealloc(block, small);
        }
        assert_eq!(snapshot().live_bytes, 0);
    }

    #[test]
    fn failed_calls_change_nothing() {
        let _alone = reset();
        let full = Counting::new(Full);
        let layout = Layout::from_size_align(64, 8).unwrap();

        // SAFETY: the layout is not empty; `Full` uses neither the pointer nor the layout.
        unsafe {
            assert!(full.alloc(layout).is_null());
            assert!(full.alloc_zeroed(layout).is_null());
            assert!(full.realloc(std::ptr::dangling_mut(), layout, 128).is_null());
        }
        assert_eq!(snapshot(), Counts::default());
    }

    #[test]
    fn counts_are_sums_over_all_threads() {
        const THREADS: u64 = 4;
        const BLOCKS: u64 = 1000;
        let _alone = reset();
        let layout = Layout::from_size_align(32, 8).unwrap();

        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..BLOCKS {
                        // SAFETY: the layout is not empty, and the block is freed once with its own
                        // layout.
                        unsafe {
                            let block = ORACLE.alloc(layout);
                            ORACLE.dealloc(block, layout);
                        }
                    }
                });
            }
        });

        let counts = snapshot();
        assert_eq!(counts.allocations, THREADS * BLOCKS);
        assert_eq!(counts.deallocations, THREADS * BLOCKS);
        assert_eq!(counts.allocated_bytes, THREADS * BLOCKS * 32);
        assert_eq!((counts.live_bytes, counts.live_blocks), (0, 0));
        assert!((32..=THREADS * 32).contains(&counts.peak_bytes));
    }

    /// An allocator without any memory.
    struct Full;

    // SAFETY: it hands out no memory, and null is what an allocator returns then.
    unsafe impl GlobalAlloc for Full {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            null_mut()
        }

        unsafe fn alloc_zeroed(&self, _: Layout) -> *mut u8 {
            null_mut()
        }

        unsafe fn realloc(&self, _: *mut u8, _: Layout, _: usize) -> *mut u8 {
            null_mut()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    /// Sets all counts to zero. Only the test that holds the guard may change them.
    fn reset() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        for count in [
            &ALLOCATIONS,
            &DEALLOCATIONS,
            &REALLOCATIONS,
            &ALLOCATED_BYTES,
            &FREED_BYTES,
            &LIVE_BYTES,
            &LIVE_BLOCKS,
            &PEAK_BYTES,
        ] {
            count.store(0, Relaxed);
        }
        alone
    }
}
