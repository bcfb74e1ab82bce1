//! Cases in which Python's `memory_profiler` shows wrong rows. It subtracts the largest resident
//! size that it has seen after the line traced before, in whatever function that line is.
#![forbid(unsafe_code)]
#![deny(clippy::pedantic)]

use std::hint::black_box;

use alloc_tracker::{AllocTracker, profile};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

const MIB: usize = 1 << 20;

fn main() {
    loop_after_release();
    caller();
    recursion(3);
    several_lines();
    heads_of_loops();
}

fn block(mebibytes: usize) -> Vec<u8> {
    black_box(vec![1; mebibytes * MIB])
}

/// `memory_profiler`: rows of -90 MiB and more, once for each round, because memory was higher
/// before.
#[profile]
fn loop_after_release() {
    let high = block(90);
    drop(high);
    for _ in 0..10 {
        let low = block(1);
        black_box(&low);
    }
}

/// `memory_profiler`: the line of the call shows what the callee's lines showed already, and more.
#[profile]
fn caller() {
    let first = block(10);
    let second = callee();
    drop((first, second));
}

#[profile]
fn callee() -> Vec<u8> {
    let scratch = block(13);
    let result = block(30);
    drop(scratch);
    result
}

/// `memory_profiler`: what one activation allocates is in the row of another one.
#[profile]
fn recursion(depth: usize) {
    let own = block(depth);
    if depth > 1 {
        recursion(depth - 1);
    }
    drop(own);
}

/// `memory_profiler`: each line of a statement is a row, and the first row has the last line's
/// memory.
#[profile]
#[rustfmt::skip]
fn several_lines() {
    let total = [
        block(1),
        block(2),
        block(4),
    ];
    drop(total);
}

/// `memory_profiler`: the head of a loop counts one or two more than its body, by Python's version.
#[profile]
fn heads_of_loops() {
    let mut rounds = 0;
    while rounds < 7 {
        rounds += 1;
    }
    for round in 0..5 {
        black_box(round);
    }
}
