//! Climbs in steps of one mebibyte, touches what it has, and names every step; then goes down at once.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const STEP: usize = 1 << 20;
/// Several samples of the process lie in it.
const REST: Duration = Duration::from_millis(40);

fn main() {
    let mut steps = Vec::with_capacity(5);
    alloc_tracker::mark("ground");
    for name in ["one", "two", "three", "four", "five"] {
        steps.push(climb());
        alloc_tracker::mark(name);
    }
    drop(black_box(steps));
    alloc_tracker::mark("down");
}

#[alloc_tracker::profile]
fn climb() -> Vec<u8> {
    let step = vec![1; STEP];
    thread::sleep(REST);
    step
}
