//! A program that can work on when its address space is full: it works before and after, and needs
//! no more memory for that than it has. Before each step it prints a line and waits for a byte of
//! its input.
//!
//! With the argument `fill` it takes all of the address space that its limit leaves. Without, it
//! takes nothing.

use std::hint::black_box;
use std::io::Read;
use std::process::exit;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

/// Size of the blocks of the work.
const BLOCK: usize = 1000;
/// How many of them are live between the steps.
const HELD: usize = 5;
/// How many of them a step allocates.
const ROUNDS: usize = 50_000;
/// Largest and smallest size that is tried to fill the address space.
const FILLING: (usize, usize) = (1 << 30, 1 << 12);

fn main() {
    let fills = std::env::args().nth(1).is_some_and(|argument| argument == "fill");
    let mut held = [const { None }; HELD];
    // Both have memory from here on.
    let mut filling = Vec::with_capacity(1 << 12);
    let mut input = std::io::stdin().lock();
    let mut wait_after = |line: &str| {
        println!("{line}");
        // The other end may be closed when the program need not wait any more.
        let _ = input.read(&mut [0]);
    };
    work(&mut held);
    wait_after("ready");
    if fills {
        fill(&mut filling);
    }
    wait_after("full");
    work(&mut held);
    println!("{} blocks of {BLOCK} bytes, {HELD} are live", 2 * ROUNDS);
    wait_after("worked");
    exit(7);
}

/// Exchanges the blocks one by one. There is room for a block where the last one was.
#[inline(never)]
fn work(held: &mut [Option<Box<[u8; BLOCK]>>; HELD]) {
    for round in 0..black_box(ROUNDS) {
        let place = &mut held[round % HELD];
        *place = None;
        *place = Some(black_box(Box::new([round as u8; BLOCK])));
    }
}

/// Allocates until the system gives no more.
fn fill(filling: &mut Vec<Vec<u8>>) {
    let (mut size, smallest) = FILLING;
    while size >= smallest && filling.len() < filling.capacity() {
        let mut block = Vec::new();
        match block.try_reserve_exact(size) {
            Ok(()) => filling.push(block),
            Err(_) => size /= 2,
        }
    }
}
