//! An allocator around the tracker's that notes every event twice, when it is begun and when it is done, in memory that
//! outlives the process: what a dump of a killed process must and may hold.

use std::alloc::{GlobalAlloc, Layout};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};

/// Notes what passes through it and leaves the work to `A`.
pub(crate) struct Noted<A>(pub(crate) A);

/// How often something happened.
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

/// What is shared with the parent; `word` is for the scenario's own use.
#[repr(C)]
pub(crate) struct Page {
    pub(crate) begun: Tally,
    pub(crate) done: Tally,
    pub(crate) word: AtomicU64,
}

static BEFORE: Page = Page { begun: Tally::new(), done: Tally::new(), word: AtomicU64::new(0) };
static PAGE: AtomicPtr<Page> = AtomicPtr::new((&raw const BEFORE).cast_mut());

/// The page that this process notes its events in.
pub(crate) fn page() -> &'static Page {
    // SAFETY: points to a static or to a mapping that is never unmapped.
    unsafe { &*PAGE.load(SeqCst) }
}

/// From now on notes are taken in this file. While it is called no other thread may allocate.
pub(crate) fn note_in(path: &Path) {
    let shared = open(path);
    // What opening cost is in the first page by now, and nothing below allocates.
    shared.begun.copy_from(&BEFORE.begun);
    shared.done.copy_from(&BEFORE.done);
    PAGE.store(std::ptr::from_ref(shared).cast_mut(), SeqCst);
}

/// Maps the notes of a process, which may be another or gone.
pub(crate) fn open(path: &Path) -> &'static Page {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(path).expect("the notes");
    file.set_len(size_of::<Page>() as u64).expect("room for the notes");
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe {
        libc::mmap(std::ptr::null_mut(), size_of::<Page>(), protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: page-aligned, large enough, never unmapped, and any bytes are valid atomics.
    unsafe { &*start.cast::<Page>() }
}

// SAFETY: every method forwards its own arguments to `A` and returns what that returned; the notes are atomics.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Noted<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let page = page();
        page.begun.allocations.fetch_add(1, SeqCst);
        // SAFETY: the caller's own promise.
        let block = unsafe { self.0.alloc(layout) };
        page.done.allocations.fetch_add(1, SeqCst);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let page = page();
        page.begun.allocations.fetch_add(1, SeqCst);
        // SAFETY: the caller's own promise.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        page.done.allocations.fetch_add(1, SeqCst);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let page = page();
        page.begun.deallocations.fetch_add(1, SeqCst);
        // SAFETY: the caller's own promise.
        unsafe { self.0.dealloc(block, layout) };
        page.done.deallocations.fetch_add(1, SeqCst);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let page = page();
        page.begun.reallocations.fetch_add(1, SeqCst);
        // SAFETY: the caller's own promise.
        let moved = unsafe { self.0.realloc(block, layout, new_size) };
        page.done.reallocations.fetch_add(1, SeqCst);
        moved
    }
}
