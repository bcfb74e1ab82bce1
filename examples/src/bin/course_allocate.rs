//! The function that every course on memory profiling begins with: two big buffers, one after the
//! other.
//!
//! What a profile must show, line by line, for `allocate`:
//!
//! - the line marked `PLANTED: x`: increment 77.5 MiB, `BUFFER_BYTES` = 81,264,640 bytes exactly;
//! - the line marked `PLANTED: y`: increment 77.5 MiB again, memory usage now 155 MiB above that
//!   before the call;
//! - the line marked `PLANTED: sum`: increment 0;
//! - the closing brace, marked `PLANTED: freed`: increment -155 MiB, because both buffers are freed
//!   there.
//!
//! With `rounds` as first argument, the function is called `rounds` times, and every line occurs as
//! often.
#![forbid(unsafe_code)]

use std::hint::black_box;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

/// 77.5 MiB.
const BUFFER_BYTES: usize = 79_360 << 10;

fn main() {
    examples::begin();
    let rounds = examples::rounds();

    let total: usize = (0..rounds).map(|_| allocate()).sum();
    println!("{rounds} calls of allocate() held {total} bytes");
}

#[inline(never)]
fn allocate() -> usize {
    let x = black_box(vec![1u8; BUFFER_BYTES]); // PLANTED: x
    let y = black_box(vec![2u8; BUFFER_BYTES]); // PLANTED: y
    x.len() + y.len() // PLANTED: sum
} // PLANTED: freed
