//! Allocates in steps of one mebibyte, touches the memory, and sets a mark at every step; then
//! frees all at once. With the argument `rest`, it sleeps for half a second before it frees.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const STEP: usize = 1 << 20;
/// Sleep at each step: long enough for several samples, if the machine is not too busy.
const REST: Duration = Duration::from_millis(40);
/// Sleep at the top: long enough for a sample whatever else the machine does.
const LONG_REST: Duration = Duration::from_millis(500);

fn main() {
    let rests = std::env::args().nth(1).is_some_and(|argument| argument == "rest");
    let mut steps = Vec::with_capacity(5);
    alloc_tracker::mark("ground");
    for name in ["one", "two", "three", "four", "five"] {
        steps.push(climb());
        if name == "five" && rests {
            thread::sleep(LONG_REST);
        }
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
