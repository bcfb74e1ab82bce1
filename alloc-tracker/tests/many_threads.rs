//! Many threads. Ten thousand come and go: the dump has the events and the name of each, and the
//! tracker keeps no memory for them. A thousand live at the same time: each costs a few pages.

mod scenario;

use std::collections::HashMap;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use alloc_dump::sidecar::{RING_CAPACITY, RING_LEN, RINGS_START};
use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::replay::EventKind;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "ten_thousand", child: ten_thousand, check: check_ten_thousand },
        Scenario { name: "all_alive", child: all_alive, check: check_all_alive },
        Scenario { name: "after_the_first_lap", child: after_the_first_lap, check: check_first_lap },
    ])
}

const THREADS: usize = 10_000;
const EARLY: usize = 1_000;
/// How many threads run at once.
const BATCH: usize = 50;
const MARK: usize = 100_000;

fn ten_thousand() {
    report_at_exit();
    for first in (0..THREADS).step_by(BATCH) {
        let batch = (first..first + BATCH).map(|number| {
            let work = move || {
                let block = black_box(Vec::<u8>::with_capacity(MARK + number));
                // The main thread frees this block.
                Box::new((number, block.capacity(), [1u8; 100]))
            };
            std::thread::Builder::new().name(format!("worker {number}")).spawn(work).unwrap()
        });
        let batch: Vec<_> = batch.collect();
        for (number, thread) in (first..).zip(batch) {
            let result = thread.join().unwrap();
            assert_eq!((result.0, result.1), (number, MARK + number));
        }
        if first + BATCH == EARLY || first + BATCH == THREADS {
            // Wait until the next sample has been taken.
            std::thread::sleep(Duration::from_millis(15));
            println!("rss{}={}", first + BATCH, resident());
        }
    }
}

/// Returns the resident set in bytes, from a count of the pages. The number in `statm` may be some
/// hundred pages late.
fn resident() -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn check_ten_thousand(name: &'static str) {
    let outcome = Run::of(name).traced().limit(Duration::from_secs(120)).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));

    // There are the main thread and all others, each with its own start, name and end.
    assert_eq!(replay.threads.len(), 1 + THREADS);
    let ended: HashMap<&str, u32> = replay
        .threads
        .iter()
        .filter(|(_, thread)| thread.ended)
        .map(|(id, thread)| (thread.name.as_str(), *id))
        .collect();
    assert_eq!(ended.len(), THREADS);
    let range = MARK as u64..(MARK + THREADS) as u64;
    let marks: Vec<_> = replay
        .events
        .iter()
        .filter(|event| range.contains(&event.size) && event.kind == EventKind::Alloc)
        .map(|event| (event.size - range.start, event.thread))
        .collect();
    assert_eq!(marks.len(), THREADS);
    for (number, thread) in marks {
        assert_eq!(ended.get(format!("worker {number}").as_str()), Some(&thread), "worker {number}");
    }

    // A page for each thread that has ended would be 36 MB.
    let grown = outcome.number("rss10000").saturating_sub(outcome.number("rss1000"));
    assert!(grown < 4 << 20, "{grown}");
    // The tracker's own mappings may differ by those of the threads that run at once, but must not
    // grow with all threads that ever ran. Those of a thread are a ring of 196 KiB, 64 KiB for
    // nodes, and the walk.
    let of_a_thread = (196 << 10) + (64 << 10) + (96 << 10);
    let (early, late) = replay.samples.split_at(replay.samples.len() / 5);
    let most =
        |samples: &[alloc_dump::record::Sample]| samples.iter().map(|sample| sample.tracker_bytes).max();
    let (early, late) = (most(early).unwrap(), most(late).unwrap());
    assert!(late < early + BATCH as u64 * of_a_thread, "{early} {late}");
}

/// Threads that are alive before the resident set is read the first time, and how many more there
/// are the second time.
const BEFORE: usize = 100;
const ALIVE: usize = 1_000;
const BLOCKS: usize = 10;

fn all_alive() {
    report_at_exit();
    let mut resident_after = [BEFORE, ALIVE].map(|count| {
        start_and_wait(count);
        // The tracker drains the rings of the new threads.
        std::thread::sleep(Duration::from_millis(50));
        resident()
    });
    resident_after.reverse();
    let [late, early] = resident_after;
    println!("grown={}", late.saturating_sub(early));
    if let Ok(sidecar) = std::fs::metadata(scenario::folder().join("dump.alloc.tail")) {
        println!("sidecar={}", sidecar.blocks() * 512);
    }
    std::process::exit(0);
}

/// Starts threads that keep a few blocks and never end.
fn start_and_wait(count: usize) {
    static READY: AtomicUsize = AtomicUsize::new(0);
    let before = READY.load(Ordering::Acquire);
    for _ in 0..count {
        let work = || {
            for _ in 0..BLOCKS {
                std::mem::forget(black_box(vec![1u8; 100]));
            }
            READY.fetch_add(1, Ordering::Release);
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap();
    }
    while READY.load(Ordering::Acquire) < before + count {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn check_all_alive(name: &'static str) {
    let plain = Run::of(name).finish();
    plain.assert_quiet(0);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.threads.len()), (0, 1 + BEFORE + ALIVE));
    assert_eq!(replay.allocs(100).count(), (BEFORE + ALIVE) * BLOCKS);

    // A thread has two pages of a ring, two for its walks, at most one for its state, and the hook
    // touches at most two pages of the thread's stack that the thread itself does not.
    let grown = outcome.number("grown").saturating_sub(plain.number("grown"));
    assert!(grown < ALIVE as u64 * 7 * 4096, "{} B for each thread", grown / ALIVE as u64);
    // The sidecar has its fixed part, the whole ring of the first thread, and two pages for each
    // other thread. The file system may need a little to find them.
    let expected = (RINGS_START + RING_LEN + (BEFORE + ALIVE) * 2 * 4096) as u64;
    let sidecar = outcome.number("sidecar");
    assert!(sidecar < expected + expected / 8, "{sidecar} B, {expected} B expected");
}

/// Each round has two events, so the second thread fills its ring five times.
const ROUNDS: usize = 5 * RING_CAPACITY / 2;

fn after_the_first_lap() {
    report_at_exit();
    let work = || {
        for round in 0..ROUNDS {
            drop(black_box(Vec::<u8>::with_capacity(MARK + round)));
        }
    };
    std::thread::spawn(work).join().unwrap();
}

/// A thread's ring grows in its first lap. No event is lost or recorded twice where it does.
fn check_first_lap(name: &'static str) {
    for drainer in ["thread", "caller"] {
        let outcome = Run::of(name).traced().env("ALLOC_TRACKER_DRAINER", drainer).finish();
        outcome.assert_quiet(0);
        let replay = outcome.whole_replay();
        assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
        let allocs = replay.events.iter().filter(|event| event.kind == EventKind::Alloc);
        let sizes: Vec<u64> = allocs.map(|event| event.size).filter(|size| *size >= MARK as u64).collect();
        let expected: Vec<u64> = (0..ROUNDS as u64).map(|round| MARK as u64 + round).collect();
        assert!(sizes == expected, "with {drainer} as drainer");
    }
}
