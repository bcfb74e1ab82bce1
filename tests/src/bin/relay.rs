//! Eight threads that pass blocks on at full speed: one thread makes a block, the next one moves
//! it, and the one after that frees it. The sizes of a block tell which thread did this and when:
//! see `tests::relay`.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use tests::relay::{BATCH, BATCHES, THREADS, made_size, moved_size};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

type Blocks = (Sender<Vec<u8>>, Receiver<Vec<u8>>);

fn main() {
    report_at_exit();
    let (to_move, made): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| -> Blocks { channel() }).unzip();
    let (to_free, moved): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| -> Blocks { channel() }).unzip();
    let mut threads = Vec::new();
    for (thread, (made, moved)) in made.into_iter().zip(moved).enumerate() {
        let next = (thread + 1) % THREADS;
        let (to_move, to_free) = (to_move[next].clone(), to_free[next].clone());
        threads.push(thread::spawn(move || pass_on(thread, &made, &to_move, &moved, &to_free)));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn pass_on(
    thread: usize,
    made: &Receiver<Vec<u8>>,
    to_move: &Sender<Vec<u8>>,
    moved: &Receiver<Vec<u8>>,
    to_free: &Sender<Vec<u8>>,
) {
    for batch in 0..BATCHES {
        let steps = batch * BATCH..(batch + 1) * BATCH;
        for step in steps.clone() {
            let size = made_size(thread, step);
            let block = if step % 2 == 0 { Vec::with_capacity(size) } else { vec![0; size] };
            to_move.send(black_box(block)).unwrap();
        }
        for step in steps {
            let mut block = made.recv().unwrap();
            block.clear();
            block.reserve_exact(moved_size(thread, step));
            to_free.send(black_box(block)).unwrap();
        }
        (0..BATCH).for_each(|_| drop(moved.recv().unwrap()));
    }
}
