//! An allocator around the tracker's. It counts every event twice, when it begins and when it is
//! done, in memory that outlives the process. The dump of a killed process must have all events
//! that were done, and may have those that had begun.

use std::alloc::{GlobalAlloc, Layout};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};

/// Counts the calls and forwards them to `A`.
pub(crate) struct Noted<A>(pub(crate) A);

/// Counts of events, by kind.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Tally {
    pub(crate) allocations: AtomicU64,
    pub(crate) deallocations: AtomicU64,
    pub(crate) reallocations: AtomicU64,
}

impl Tally {
    const fn new() -> Tally {
        Tally {
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            reallocations: AtomicU64::new(0),
        }
    }

    pub(crate) fn read(&self) -> [u64; 3] {
        [&self.allocations, &self.deallocations, &self.reallocations].map(|count| count.load(SeqCst))
    }

    fn copy_from(&self, other: &Tally) {
        for (to, from) in
            [&self.allocations, &self.deallocations, &self.reallocations].iter().zip(other.read())
        {
            to.store(from, SeqCst);
        }
    }
}

/// The counts, which the parent shares. `word` is for the scenario's own use.
#[repr(C)]
pub(crate) struct Page {
    pub(crate) begun: Tally,
    pub(crate) done: Tally,
    pub(crate) word: AtomicU64,
}

static BEFORE: Page = Page { begun: Tally::new(), done: Tally::new(), word: AtomicU64::new(0) };
static PAGE: AtomicPtr<Page> = AtomicPtr::new((&raw const BEFORE).cast_mut());

/// Returns the page in which this process counts its events.
pub(crate) fn page() -> &'static Page {
    // SAFETY: the pointer is to a static, or to a mapping that is never unmapped.
    unsafe { &*PAGE.load(SeqCst) }
}

/// Counts in this file from now on. No other thread may allocate during the call.
pub(crate) fn note_in(path: &Path) {
    let shared = open(path);
    // The static page has the events of the opening by now, and nothing below allocates.
    shared.begun.copy_from(&BEFORE.begun);
    shared.done.copy_from(&BEFORE.done);
    PAGE.store(std::ptr::from_ref(shared).cast_mut(), SeqCst);
}

/// Maps the counts of a process, which may be another one or have ended.
pub(crate) fn open(path: &Path) -> &'static Page {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).expect("the notes");
    file.set_len(size_of::<Page>() as u64).expect("room for the notes");
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), size_of::<Page>(), protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: the mapping is page-aligned, large enough and never unmapped, and any bytes are valid
    // atomics.
    unsafe { &*start.cast::<Page>() }
}

// SAFETY: every method forwards its own arguments to `A` and returns the result of `A`. The counts
// are atomics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Noted<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let page = page();
        page.begun.allocations.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        let block = unsafe { self.0.alloc(layout) };
        page.done.allocations.fetch_add(1, SeqCst);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let page = page();
        page.begun.allocations.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        page.done.allocations.fetch_add(1, SeqCst);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let page = page();
        page.begun.deallocations.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        unsafe { self.0.dealloc(block, layout) };
        page.done.deallocations.fetch_add(1, SeqCst);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let page = page();
        page.begun.reallocations.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        let moved = unsafe { self.0.realloc(block, layout, new_size) };
        page.done.reallocations.fetch_add(1, SeqCst);
        moved
    }
}
