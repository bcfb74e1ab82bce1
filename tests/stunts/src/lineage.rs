//! A process beside whose threads a child is forked, that forks one itself. Each of the two allocates `BLOCKS` blocks of
//! `SIZE` bytes, in two threads, and frees one that its parent had allocated; it writes into a file, with its depth behind
//! the name, what it has counted since the fork.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use alloc_oracle::snapshot;

const BLOCKS: usize = 1000;
const SIZE: usize = 777;

static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) fn stunt(path: &str) {
    let busy: Vec<_> = (0..3).map(|_| std::thread::spawn(work)).collect();
    // So that the lanes, the tree and everything else are in use when the fork comes.
    (0..20_000).for_each(|n| drop(black_box(vec![0u8; 1 + n % 100])));
    let inherited = [black_box(vec![1u8; SIZE]), black_box(vec![1u8; SIZE])];
    descend(path, 1, inherited.into());
    STOP.store(true, Relaxed);
    busy.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

fn work() {
    while !STOP.load(Relaxed) {
        drop(black_box(vec![0u8; 50]));
    }
}

fn descend(path: &str, depth: usize, mut inherited: Vec<Vec<u8>>) {
    // SAFETY: the child goes on with what it has; what it uses of std takes no lock that another thread may hold, but for
    // those of the allocator, which the C library renews.
    match unsafe { libc::fork() } {
        0 => {
            let before = snapshot();
            drop(inherited.pop());
            let other = std::thread::spawn(blocks);
            blocks();
            other.join().expect("no panic");
            if depth < 2 {
                descend(path, depth + 1, inherited);
            }
            let after = snapshot();
            let line = format!(
                "{} {}",
                after.allocations - before.allocations,
                after.deallocations - before.deallocations
            );
            std::fs::write(format!("{path}{depth}"), line).expect("a file");
            std::process::exit(0);
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is a valid place.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}

fn blocks() {
    let blocks: Vec<Vec<u8>> = (0..BLOCKS / 2).map(|_| vec![1u8; SIZE]).collect();
    drop(black_box(blocks));
}
