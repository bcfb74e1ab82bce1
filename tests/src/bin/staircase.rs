//! Climbs in steps of one mebibyte, touches what it has, and names every step; then goes down at once, with the
//! argument `rest` after half a second at the top.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const STEP: usize = 1 << 20;
/// Several samples of the process lie in it, if the machine is not too busy.
const REST: Duration = Duration::from_millis(40);
/// At the top, so that a sample lies in it whatever else the machine does.
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
