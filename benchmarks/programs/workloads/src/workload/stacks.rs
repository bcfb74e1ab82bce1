//! Allocates blocks from very many stacks: the leaves of a call tree of `LEVELS` levels with two
//! branches at each level, one of which has one call more. The whole tree has 1.5 times 2 to the
//! power of `LEVELS + 1` nodes.

use std::hint::black_box;
use std::thread;

use crate::cpu;

/// Stacks in each round. Each of them allocates a block and frees it.
const STACKS: usize = 1 << 15;

/// Uses every stack once before any stack again, in an order that looks random. The threads share
/// the rounds.
pub(super) fn run<const LEVELS: u32, const THREADS: usize>(rounds: usize) -> u64 {
    let share = |thread: usize| {
        let indices = (0..rounds * STACKS).skip(thread).step_by(THREADS);
        // Multiplying by an odd factor permutes all paths.
        let paths = indices.map(|index| index.wrapping_mul(0x9E37_79B1) as u64 & ((1 << LEVELS) - 1));
        paths.map(|path| left(path, LEVELS)).sum::<u64>()
    };
    if THREADS == 1 {
        return share(0);
    }
    thread::scope(|scope| {
        let worker = |thread| {
            let result = share(thread);
            cpu::add_worker();
            result
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || worker(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker ends")).sum()
    })
}

/// Takes one of two branches, by the lowest bit of the path.
#[inline(never)]
fn left(path: u64, levels: u32) -> u64 {
    if levels == 0 {
        return black_box(vec![1u8; 40]).len() as u64;
    }
    let (next, below) = (path >> 1, levels - 1);
    let bytes = if path & 1 == 0 { left(next, below) } else { right(next, below) };
    // Keeps the calls from being jumps.
    black_box(bytes)
}

#[inline(never)]
fn right(path: u64, levels: u32) -> u64 {
    black_box(left(black_box(path), levels))
}
