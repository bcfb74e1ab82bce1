//! A library without the tracker. It gives blocks of its own away and takes those of others.

use std::alloc::{Layout, alloc, dealloc};

/// Allocates a block of this many bytes for the caller to free.
#[unsafe(no_mangle)]
pub extern "C" fn plug_gives(size: usize) -> *mut u8 {
    // SAFETY: the callers ask for more than no bytes.
    unsafe { alloc(Layout::array::<u8>(size).unwrap()) }
}

/// Frees a block of the caller.
///
/// # Safety
/// The caller has allocated `block` with this size, and does not use it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plug_takes(block: *mut u8, size: usize) {
    // SAFETY: as the caller promises; both sides have the system's allocator.
    unsafe { dealloc(block, Layout::array::<u8>(size).unwrap()) }
}
