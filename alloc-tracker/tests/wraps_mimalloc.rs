//! The tracker is as exact around another allocator as it is around the system's.

mod scenario;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::mpsc;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use mimalloc::MiMalloc;
use scenario::{Lcg, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker<MiMalloc>> = Counting::new(AllocTracker::new(MiMalloc));

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "single_thread", child: single_thread, check: check_single_thread },
        Scenario { name: "several_threads", child: several_threads, check: check_several_threads },
    ])
}

/// Allocates, grows and shrinks blocks. Returns those that are left.
fn work(seed: u64, rounds: usize) -> Vec<Vec<u8>> {
    let mut lcg = Lcg(seed);
    let mut lists: Vec<Vec<u8>> = (0..50).map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        let at = lcg.below(50) as usize;
        match lcg.below(4) {
            0 => lists[at] = Vec::with_capacity(lcg.size()),
            1 => lists[at] = vec![0; lcg.size()],
            2 => lists[at].reserve_exact(lcg.size()),
            _ => lists[at].shrink_to(lcg.size() / 4),
        }
    }
    lists
}

fn single_thread() {
    report_at_exit();
    std::mem::forget(black_box(work(1, 60_000)));
}

fn check_single_thread(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts, outcome.oracle());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert!(replay.counts.events() > 50_000);
}

/// The blocks that are left are freed by another thread than the one that allocated them.
fn several_threads() {
    report_at_exit();
    let (send, receive) = mpsc::channel();
    let thread = |seed: u64| {
        let send = send.clone();
        std::thread::spawn(move || (0..200).for_each(|round: u64| send.send(work(seed + round, 60)).unwrap()))
    };
    let threads: Vec<_> = (0..4u64).map(|number| thread(1000 * number)).collect();
    drop(send);
    assert_eq!(receive.iter().map(|lists| lists.len()).sum::<usize>(), 4 * 200 * 50);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn check_several_threads(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees, replay.threads.len()), (0, 0, 5));
}
