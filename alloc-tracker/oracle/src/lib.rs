//! An independent counting allocator: what alloc-tracker's figures are compared with.
//!
//! Heap events go in, eight totals come out, kept in plain global atomics. No stacks, no addresses, no files until the
//! process ends: simple enough to be believed. Nothing here allocates, locks or panics.
//!
//! | count | what adds to it |
//! | --- | --- |
//! | allocations | `alloc` and `alloc_zeroed` |
//! | deallocations | `dealloc` |
//! | reallocations | `realloc`, which is neither of the two above |
//! | allocated bytes | the size of an allocation, the new size of a reallocation |
//! | freed bytes | the size of a deallocation, the old size of a reallocation |
//! | live bytes and blocks | what is held now; a reallocation changes the bytes by new - old in one step |
//! | peak bytes | the maximum of the live bytes, taken after each event |
//!
//! A call that fails (the inner allocator returned null) changes nothing.
//!
//! For processes that are killed there is a [`Ledger`] instead, which keeps its figures outside of the process.

mod ledger;
mod report;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use ledger::{Ledger, Tally, ThreadNotes, read_ledger};
pub use report::report_at_exit;

/// Counts what passes through it and leaves the work to `A`.
///
/// The counts are global to the process, not to the instance: a process has one global allocator, and [`snapshot`]
/// must be callable without it in hand.
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

// SAFETY: every method forwards its own arguments to `A`, which is a GlobalAlloc, and returns what `A` returned; the
// counting in between touches atomics only, so it neither unwinds nor allocates.
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
        // Before the inner call: once it returns, another thread may hold the same memory and have counted it.
        count_deallocation(layout.size());
        // SAFETY: the caller got `block` from this allocator with this layout, so `A` handed it out with it.
        unsafe { self.inner.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller got `block` from this allocator with this layout, so `A` handed it out with it, and
        // `new_size` meets the same contract.
        let moved = unsafe { self.inner.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count_reallocation(layout.size(), new_size);
        }
        moved
    }
}

/// The totals since the process began, in calls, blocks and bytes.
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
    /// Bytes asked for by allocations, and the new sizes of reallocations.
    pub allocated_bytes: u64,
    /// Bytes given back by deallocations, and the old sizes of reallocations.
    pub freed_bytes: u64,
    /// Bytes held now.
    pub live_bytes: u64,
    /// Blocks held now.
    pub live_blocks: u64,
    /// The most bytes that were ever held after an event.
    pub peak_bytes: u64,
}

/// Reads the totals. Allocates nothing, so it may be called anywhere, between any two events.
///
/// Each figure is exact by itself. While other threads are allocating, the figures may be some events apart.
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

/// One step from old to new, so that a shrinking or growing block never shows both of its sizes in the peak.
fn change_live_bytes(old: usize, new: usize) {
    // Modulo 2^64 a negative difference is a large positive one, and the sum comes out right.
    let difference = (new as u64).wrapping_sub(old as u64);
    let live = LIVE_BYTES.fetch_add(difference, Relaxed).wrapping_add(difference);
    // The values of one atomic have one order in all threads, so this is the true maximum of that order.
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

    // The allocator under test is called by hand and is not the global one, so only these tests change the counts.
    static ORACLE: Counting<System> = Counting::new(System);

    #[test]
    fn counts_an_allocation_until_it_is_freed() {
        let _alone = reset();
        let layout = Layout::from_size_align(100, 8).unwrap();

        // SAFETY: the layout is not empty, and the block is freed once with the layout it was asked for with.
        unsafe {
            let block = ORACLE.alloc(layout);
            let held = Counts {
                allocations: 1,
                allocated_bytes: 100,
                live_bytes: 100,
                live_blocks: 1,
                peak_bytes: 100,
                ..Counts::default()
            };
            assert_eq!(snapshot(), held);
            ORACLE.dealloc(block, layout);
            let freed = Counts { deallocations: 1, freed_bytes: 100, live_bytes: 0, live_blocks: 0, ..held };
            assert_eq!(snapshot(), freed);
        }
    }

    #[test]
    fn counts_a_zeroed_allocation_as_an_allocation_and_it_is_zero() {
        let _alone = reset();
        let layout = Layout::from_size_align(4096, 1).unwrap();

        // SAFETY: the layout is not empty; all 4096 bytes are initialised, by the definition of alloc_zeroed.
        unsafe {
            let block = ORACLE.alloc_zeroed(layout);
            assert!(std::slice::from_raw_parts(block, 4096).iter().all(|byte| *byte == 0));
            ORACLE.dealloc(block, layout);
        }
        let counts = snapshot();
        assert_eq!((counts.allocations, counts.deallocations, counts.peak_bytes), (1, 1, 4096));
    }

    #[test]
    fn a_reallocation_moves_live_in_one_step() {
        let _alone = reset();
        let small = Layout::from_size_align(1000, 8).unwrap();
        let large = Layout::from_size_align(1500, 8).unwrap();

        // SAFETY: each call names the block by the layout that it has at that time.
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

        // SAFETY: the layout is not empty; `Full` reads neither the pointer nor the layout that it is given.
        unsafe {
            assert!(full.alloc(layout).is_null());
            assert!(full.alloc_zeroed(layout).is_null());
            assert!(full.realloc(std::ptr::dangling_mut(), layout, 128).is_null());
        }
        assert_eq!(snapshot(), Counts::default());
    }

    #[test]
    fn threads_add_up() {
        const THREADS: u64 = 4;
        const BLOCKS: u64 = 1000;
        let _alone = reset();
        let layout = Layout::from_size_align(32, 8).unwrap();

        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..BLOCKS {
                        // SAFETY: the layout is not empty, and the block is freed once with its own layout.
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

    /// An allocator that has no memory to give.
    struct Full;

    // SAFETY: it hands out nothing, and null is how an allocator says so.
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

    /// All counts to zero, and the right to be the only test that changes them.
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
