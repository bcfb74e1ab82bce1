//! The function that every course on memory profiling begins with, twice: annotated, and as stacks
//! show it. docs/LINES.md shows lines of this file by their numbers.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

/// 77.5 MiB.
const BUFFER_BYTES: usize = 79_360 << 10;

fn main() {
    black_box(annotated());
    black_box(recorded());
}

#[inline(never)]
#[alloc_tracker::profile]
fn annotated() -> usize {
    let x = black_box(vec![1u8; BUFFER_BYTES]);
    let y = black_box(vec![2u8; BUFFER_BYTES]);
    x.len() + y.len()
}

#[inline(never)]
fn recorded() -> usize {
    let x = black_box(vec![1u8; BUFFER_BYTES]);
    let y = black_box(vec![2u8; BUFFER_BYTES]);
    x.len() + y.len()
}
