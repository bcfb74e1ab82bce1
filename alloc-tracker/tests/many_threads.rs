//! Ten thousand threads come and go. The dump has the events and the name of each, and the tracker
//! keeps no memory for them.

mod scenario;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::replay::EventKind;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[Scenario { name: "ten_thousand", child: ten_thousand, check: check_ten_thousand }])
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
