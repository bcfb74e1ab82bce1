//! A process with busy threads forks a child, and the child forks a grandchild. Each of the two
//! allocates `BLOCKS` blocks of `SIZE` bytes in two threads, and frees a block that its parent
//! allocated. Each writes what it counted since its fork into a file, whose name ends with its
//! depth.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use alloc_oracle::snapshot;

const BLOCKS: usize = 1000;
const SIZE: usize = 777;

static STOP: AtomicBool = AtomicBool::new(false);

pub(crate) fn stunt(path: &str) {
    let busy: Vec<_> = (0..3).map(|_| std::thread::spawn(work)).collect();
    // These events put the thread rings, the call tree and all other parts of the recorder in use
    // before the fork.
    (0..20_000).for_each(|n| drop(black_box(vec![0u8; 1 + n % 100])));
    let inherited = [black_box(vec![1u8; SIZE]), black_box(vec![1u8; SIZE])];
    descend(path, 1, inherited.into());
    STOP.store(true, Relaxed);
    busy.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Allocates and frees until the process is about to end.
fn work() {
    while !STOP.load(Relaxed) {
        drop(black_box(vec![0u8; 50]));
    }
}

/// Forks a child at this depth, and waits for it. The child works; a child at depth 1 also forks.
fn descend(path: &str, depth: usize, mut inherited: Vec<Vec<u8>>) {
    // SAFETY: the parts of std that the child uses take no lock that another thread may hold at the
    // fork, except the locks of the allocator, which the C library renews in the child.
    match unsafe { libc::fork() } {
        0 => {
            let before = snapshot();
            drop(inherited.pop());
            let other = std::thread::spawn(allocate_blocks);
            allocate_blocks();
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
            // SAFETY: `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}

/// Allocates and frees half of the blocks.
fn allocate_blocks() {
    let blocks: Vec<Vec<u8>> = (0..BLOCKS / 2).map(|_| vec![1u8; SIZE]).collect();
    drop(black_box(blocks));
}
