//! Vectors without an initial capacity grow by push, several side by side, so that not all of them
//! can grow in place.

use std::hint::black_box;

use crate::numbers::Numbers;

const VECTORS: usize = 200;
const PUSHES: usize = 20_000;

pub(super) fn run(rounds: usize) -> u64 {
    let mut numbers = Numbers::new(5);
    (0..rounds).map(|_| round(&mut numbers)).sum()
}

fn round(numbers: &mut Numbers) -> u64 {
    let mut vectors = vec![Vec::new(); VECTORS];
    for push in 0..PUSHES {
        vectors[numbers.below(VECTORS)].push(black_box(push as u32));
    }
    vectors.iter().map(|vector| vector.capacity() as u64).sum()
}
