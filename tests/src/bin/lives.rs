//! Blocks with known lifetimes, on one thread and without reallocations.

use std::hint::black_box;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() {
    (0..100).for_each(|_| pair());
    hold();
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
    for place in &mut held {
        *place = Some(black_box(Box::new([3u8; 1000]))); // one of ten
    }
    held.into_iter().for_each(drop);
}
