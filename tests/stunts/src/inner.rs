//! The system's allocator and, on request, an allocator that a signal handler may call even while
//! it interrupts that allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Forwards to the system until [`bump_from_now_on`] is called. Then it hands out an arena from its
/// start to its end, and frees nothing.
#[derive(Clone, Copy)]
pub(crate) struct SystemOrBump;

/// Maps the arena and makes all later allocations come from it.
pub(crate) fn bump_from_now_on() {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping at an address that the kernel chooses replaces no other
    // mapping.
    let arena = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, protection, flags, -1, 0) };
    assert_ne!(arena, libc::MAP_FAILED);
    NEXT.store(arena as usize, Relaxed);
    END.store(arena as usize + ROOM, Relaxed);
}

/// Bytes of the arena. Only pages that are written to take memory.
const ROOM: usize = 4 << 30;

/// Address of the arena's first free byte; 0 while there is no arena.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Address behind the arena's last byte; 0 while there is no arena.
static END: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the arena's blocks do not overlap, are aligned, and live as long as the process. All
// other blocks are the system's.
unsafe impl GlobalAlloc for SystemOrBump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let end = END.load(Relaxed);
        if end == 0 {
            // SAFETY: the caller's contract is that of `System.alloc`, with the same layout.
            return unsafe { System.alloc(layout) };
        }
        let after = |next: usize| next.next_multiple_of(layout.align()).checked_add(layout.size());
        match NEXT.fetch_update(Relaxed, Relaxed, |next| after(next).filter(|after| *after <= end)) {
            Ok(next) => std::ptr::with_exposed_provenance_mut(next.next_multiple_of(layout.align())),
            Err(_) => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // With an arena nothing is freed, not even blocks of the system: a signal handler could
        // have interrupted `free`.
        if END.load(Relaxed) == 0 {
            // SAFETY: the caller's contract is that of `System.dealloc`. There is no arena, so the
            // block is the system's.
            unsafe { System.dealloc(block, layout) };
        }
    }
}
