//! Blocks from stacks of which there are very many: a call tree of `LEVELS` levels with two ways at each of them, one of which
//! has a call more. All of it has 1.5 times 2 to the power of `LEVELS + 1` nodes.

use std::hint::black_box;
use std::thread;

use crate::cpu;

/// Stacks of a round, each of which allocates a block and frees it.
const STACKS: usize = 1 << 15;

/// Every stack comes once before any comes again, in an order that looks random. The threads share the rounds.
pub(super) fn run<const LEVELS: u32, const THREADS: usize>(rounds: usize) -> u64 {
    let share = |thread: usize| {
        let ways = (0..rounds * STACKS).skip(thread).step_by(THREADS);
        // An odd factor: a permutation of all ways.
        ways.map(|way| left(way.wrapping_mul(0x9E37_79B1) as u64 & ((1 << LEVELS) - 1), LEVELS)).sum::<u64>()
    };
    if THREADS == 1 {
        return share(0);
    }
    thread::scope(|scope| {
        let worker = |thread| {
            let result = share(thread);
            cpu::worker_done();
            result
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || worker(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker ends")).sum()
    })
}

/// Goes one of two ways from here, as the lowest bit says.
#[inline(never)]
fn left(way: u64, levels: u32) -> u64 {
    if levels == 0 {
        return black_box(vec![1u8; 40]).len() as u64;
    }
    let (next, below) = (way >> 1, levels - 1);
    let bytes = if way & 1 == 0 { left(next, below) } else { right(next, below) };
    // What follows the calls keeps them from being jumps.
    black_box(bytes)
}

#[inline(never)]
fn right(way: u64, levels: u32) -> u64 {
    black_box(left(black_box(way), levels))
}
