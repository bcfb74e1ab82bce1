//! A buffer that is older than an interval and grows in it, beside a block that is born in it.

use std::hint::black_box;
use std::time::Duration;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    let mut log: Vec<u8> = black_box(Vec::with_capacity(100));
    std::thread::sleep(Duration::from_millis(2));
    alloc_tracker::mark("before");
    log.reserve_exact(1000); // grows from 100 to 1,000 bytes
    let kept = black_box(Box::new([1u8; 50])); // born in the interval
    alloc_tracker::mark("after");
    std::mem::forget((black_box(log), kept));
}
