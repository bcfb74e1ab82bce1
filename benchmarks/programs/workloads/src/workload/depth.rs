//! Allocates and frees blocks at a given depth of calls, from stacks that differ in their innermost
//! two frames.

use std::hint::black_box;

use crate::numbers::Numbers;

const BLOCKS: usize = 10_000;
/// Blocks that are live at a time.
const HELD: usize = 64;

pub(super) fn run<const DEPTH: usize>(rounds: usize) -> u64 {
    let mut numbers = Numbers::new(4);
    (0..rounds).map(|_| down(DEPTH, &mut numbers)).sum()
}

/// Calls itself down to the given depth. The `black_box` after the call keeps it from being a jump.
#[inline(never)]
fn down(depth: usize, numbers: &mut Numbers) -> u64 {
    let below = if depth > 1 { down(black_box(depth - 1), numbers) } else { bottom(numbers) };
    black_box(below)
}

#[inline(never)]
fn bottom(numbers: &mut Numbers) -> u64 {
    let mut held: [Vec<u8>; HELD] = [const { Vec::new() }; HELD];
    let mut bytes = 0;
    for _ in 0..BLOCKS {
        let size = 16 + numbers.below(200);
        let block = match numbers.below(3) {
            0 => left(size),
            1 => middle(size),
            _ => right(size),
        };
        bytes += block.capacity() as u64;
        held[numbers.below(HELD)] = block;
    }
    bytes
}

#[inline(never)]
fn left(size: usize) -> Vec<u8> {
    black_box(if size.is_multiple_of(2) { even(size) } else { odd(size) })
}

#[inline(never)]
fn middle(size: usize) -> Vec<u8> {
    black_box(odd(black_box(size)))
}

#[inline(never)]
fn right(size: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(black_box(size)))
}

#[inline(never)]
fn even(size: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(size))
}

#[inline(never)]
fn odd(size: usize) -> Vec<u8> {
    black_box(Vec::with_capacity(size | 1))
}
