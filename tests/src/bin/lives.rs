//! Blocks with known lifetimes, on one thread and without reallocations.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    // The compiler may unroll a loop whose number of rounds it knows. Each round would have a stack
    // of its own.
    for _ in 0..black_box(100) {
        pair();
    }
    hold();
    shared();
    shared();
    alloc_tracker::mark("held");
}

/// Two blocks that die together: neither free follows its allocation at once.
#[inline(never)]
fn pair() {
    let first = black_box(Box::new([1u8; 64])); // first of a pair
    let second = black_box(Box::new([2u8; 32])); // second of a pair
    drop(first);
    drop(second);
}

/// Ten blocks, of which each lives for ten heap events.
#[inline(never)]
fn hold() {
    let mut held = [const { None }; 10];
    for place in held.iter_mut().take(black_box(10)) {
        *place = Some(black_box(Box::new([3u8; 1000]))); // one of ten
    }
    held.into_iter().for_each(drop);
}

/// A block that is freed at once, from two calls: two stacks of one site.
#[inline(never)]
fn shared() {
    drop(black_box(Box::new([4u8; 500]))); // from two calls
}
