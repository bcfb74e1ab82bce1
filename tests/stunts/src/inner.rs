//! The system's allocator, and on request one that a signal handler may call while it has interrupted it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Forwards to the system until [`bump_from_now_on`]; then hands out memory from one end to the other and takes none back.
#[derive(Clone, Copy)]
pub(crate) struct SystemOrBump;

pub(crate) fn bump_from_now_on() {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let arena = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, protection, flags, -1, 0) };
    assert_ne!(arena, libc::MAP_FAILED);
    NEXT.store(arena as usize, Relaxed);
    END.store(arena as usize + ROOM, Relaxed);
}

const ROOM: usize = 4 << 30;

/// The rest of the arena; both 0 while there is none.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the arena's blocks do not overlap, are aligned, and live as long as the process; all others are the system's.
unsafe impl GlobalAlloc for SystemOrBump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = END.load(Relaxed);
        if end == 0 {
            // SAFETY: the caller's own promise.
            return unsafe { System.alloc(layout) };
        }
        let after = |next: usize| next.next_multiple_of(layout.align()).checked_add(layout.size());
        match NEXT.fetch_update(Relaxed, Relaxed, |next| after(next).filter(|after| *after <= end)) {
            Ok(next) => std::ptr::with_exposed_provenance_mut(next.next_multiple_of(layout.align())),
            Err(_) => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // A block of the system's that is freed late is not worth an interrupted `free`.
        if END.load(Relaxed) == 0 {
            // SAFETY: the caller's own promise, and there is no arena that it could be from.
            unsafe { System.dealloc(block, layout) };
        }
    }
}
