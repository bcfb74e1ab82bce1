//! An allocator that may be called anywhere, even in a signal handler that has interrupted the
//! allocator itself. The C library's allocator would hang there.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands out the memory of an arena from one end to the other, and takes none back.
#[derive(Clone, Copy)]
pub(crate) struct Bump;

const ROOM: usize = 1 << 30;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; ROOM]>);

// SAFETY: every byte is handed out once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ROOM]));
static USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: blocks do not overlap, are aligned, and live as long as the process.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The arena is aligned to a page. No block needs a larger alignment.
        if layout.align() > 4096 {
            return std::ptr::null_mut();
        }
        let take = |used: usize| {
            let start = used.next_multiple_of(layout.align());
            start.checked_add(layout.size()).filter(|end| *end <= ROOM)
        };
        match USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            // SAFETY: `take` has checked that the block is inside the arena.
            Ok(used) => unsafe { ARENA.0.get().cast::<u8>().add(used.next_multiple_of(layout.align())) },
            Err(_) => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
