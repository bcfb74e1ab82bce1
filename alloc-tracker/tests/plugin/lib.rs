//! A library with a tracker of its own, to be loaded at run time.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

/// Allocates this many blocks of this size, on a thread of its own and on the caller's, and frees all but the last.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_work(blocks: usize, size: usize) {
    let work = move || (0..blocks).for_each(|_| drop(black_box(Vec::<u8>::with_capacity(size))));
    std::thread::spawn(work).join().expect("it does not panic");
    work();
    std::mem::forget(black_box(Vec::<u8>::with_capacity(size)));
}

/// Calls back: its frames are between the caller's and those of `function`.
#[unsafe(no_mangle)]
pub extern "C" fn plugin_calls(function: extern "C" fn()) {
    function();
    black_box(0);
}
