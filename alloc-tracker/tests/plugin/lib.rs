//! A library with a tracker of its own, which tests load at run time.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

/// Allocates this many blocks of this size on a thread of its own, and as many on the caller's.
/// Frees them, and leaks one more.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_work(blocks: usize, size: usize) {
    let work = move || (0..blocks).for_each(|_| drop(black_box(Vec::<u8>::with_capacity(size))));
    std::thread::spawn(work).join().expect("it does not panic");
    work();
    std::mem::forget(black_box(Vec::<u8>::with_capacity(size)));
}

/// Calls `function`, so that a frame of this library stands between it and the caller.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_calls(function: extern "C" fn()) {
    function();
    black_box(0);
}
