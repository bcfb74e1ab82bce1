//! A program that works until it is killed. It keeps a ledger of every heap event of every thread
//! in a file. The first argument says what it does on four threads, for ever. A second and a third
//! argument make it end itself: in which way, and after how many microseconds.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use alloc_oracle::Ledger;
use alloc_tracker::AllocTracker;
use tests::Lcg;

#[global_allocator]
static ALLOC: Ledger<AllocTracker> = Ledger::new(AllocTracker::system());

const THREADS: u64 = 4;

fn main() {
    let mut args = std::env::args().skip(1);
    let work = args.next().unwrap_or_default();
    if let Some(end) = args.next() {
        let after = Duration::from_micros(args.next().and_then(|after| after.parse().ok()).unwrap_or(0));
        thread::spawn(move || end_by(&end, after));
    }
    match work.as_str() {
        "tables" => on_all_threads(|seed| tables(Lcg(seed))),
        "stacks" => on_all_threads(|seed| stacks(Lcg(seed))),
        "relay" => relay(),
        "short threads" => short_threads(),
        other => panic!("unknown work {other:?}"),
    }
}

fn on_all_threads(work: fn(u64)) {
    (1..THREADS).for_each(|seed| _ = thread::spawn(move || work(seed)));
    work(THREADS);
}

fn end_by(end: &str, after: Duration) {
    thread::sleep(after);
    match end {
        "abort" => std::process::abort(),
        "overflow" => _ = black_box(overflow(&Link { size: 1, outer: None })),
        // Until the system kills it.
        "hoard" => {
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(black_box(vec![held.len() as u8 | 1; 1 << 20]));
            }
        }
        other => panic!("unknown end {other:?}"),
    }
}

/// Makes events of every kind, with blocks that live for some time.
fn tables(mut lcg: Lcg) {
    let mut lists: Vec<Vec<u8>> = (0..50).map(|_| Vec::new()).collect();
    loop {
        let index = lcg.below(50) as usize;
        match lcg.below(4) {
            0 => lists[index] = Vec::with_capacity(lcg.size()),
            1 => lists[index] = vec![0; lcg.size()],
            2 => lists[index].reserve_exact(lcg.size()),
            _ => lists[index].shrink_to(lcg.size() / 4),
        }
    }
}

/// Allocates from stacks of all depths. For a long time most of them are new.
fn stacks(mut lcg: Lcg) {
    loop {
        let path = lcg.next();
        left_or_right(path, 5 + lcg.below(26) as u32);
    }
}

fn left_or_right(path: u64, depth: u32) -> usize {
    let block = black_box(vec![1u8; 1 + (path % 40) as usize]);
    if depth == 0 {
        return block.len();
    }
    let next = path >> 1;
    let below = if path & 1 == 0 { left_or_right(next, depth - 1) } else { right(next, depth - 1) };
    black_box(below) + block.len()
}

#[inline(never)]
fn right(path: u64, depth: u32) -> usize {
    black_box(left_or_right(path, depth)) + 1
}

/// Passes blocks on: one thread makes a block, the next one moves it, and the one after that frees
/// it.
fn relay() {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| sync_channel(100)).unzip();
    for (number, receiver) in (1..).zip(receivers) {
        let next = senders[number % senders.len()].clone();
        thread::spawn(move || pass_on(number as u64, &receiver, &next));
    }
    loop {
        thread::park();
    }
}

fn pass_on(seed: u64, from: &Receiver<(u32, Vec<u8>)>, to: &SyncSender<(u32, Vec<u8>)>) {
    let mut lcg = Lcg(seed);
    loop {
        // A full channel must not stop the ring of threads: a block that does not fit is dropped
        // here.
        drop(to.try_send((0, Vec::with_capacity(lcg.size()))));
        while let Ok((hops, mut block)) = from.try_recv() {
            block.reserve_exact(lcg.size());
            if hops == 0 {
                drop(to.try_send((1, block)));
            }
        }
    }
}

/// Starts four threads at a time, each with a few events.
fn short_threads() {
    for seed in 0.. {
        let few = move || (0..50).map(|_| black_box(vec![1u8; 1 + Lcg(seed).size()]).len()).sum::<usize>();
        let batch: Vec<_> = (0..THREADS).map(|_| thread::spawn(few)).collect();
        batch.into_iter().for_each(|short| _ = black_box(short.join()));
    }
}

struct Link<'a> {
    size: usize,
    outer: Option<&'a Link<'a>>,
}

/// Allocates at every depth until the stack overflows.
#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(outer: &Link) -> usize {
    let block = black_box(vec![1u8; outer.size % 100 + 1]);
    let link = Link { size: outer.size + 1, outer: Some(outer) };
    overflow(&link) + block.len() + link.outer.map_or(0, |outer| outer.size)
}
