//! Threads replace vectors of 16 to 500 bytes at random. Each thread has its own vectors; the
//! threads share the work.

use std::thread;

use crate::cpu;
use crate::numbers::Numbers;

const REPLACEMENTS: usize = 10_000;
/// Vectors that each part of the work holds at a time.
const HELD: usize = 1000;
/// Parts of the work, for any number of threads.
const PARTS: usize = 2;

/// Spawns a thread even for one: with one thread and with two, the work is equally far from the
/// main thread's heap.
pub(super) fn run<const THREADS: usize>(rounds: usize) -> u64 {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|worker| {
                scope.spawn(move || {
                    let parts = (worker..PARTS).step_by(THREADS);
                    let result = parts.map(|seed| part(seed, rounds)).sum::<u64>();
                    cpu::add_worker();
                    result
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum()
    })
}

fn part(seed: usize, rounds: usize) -> u64 {
    let mut numbers = Numbers::new(seed as u64);
    let mut held = vec![Vec::new(); HELD];
    for _ in 0..rounds * REPLACEMENTS {
        let fill = numbers.below(256) as u8;
        held[numbers.below(HELD)] = vec![fill; 16 + numbers.below(485)];
    }
    held.iter().flatten().map(|byte| u64::from(*byte)).sum()
}
