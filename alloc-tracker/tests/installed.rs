//! The first use of an API finds out that the tracker is installed, and changes no figure.

mod scenario;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use alloc_oracle::{Counting, report_at_exit, snapshot};
use alloc_tracker::{
    AllocTracker, Installation, Profiler, Region, installation, is_installed, measure, stats,
};
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "no_trial", child: no_trial, check: check_everywhere },
        Scenario { name: "before_any_event", child: before_any_event, check: check_before_any_event },
        Scenario { name: "threads", child: threads, check: check_everywhere },
        Scenario { name: "nothing_recorded", child: nothing_recorded, check: check_nothing_recorded },
    ])
}

/// Runs the child, which makes the assertions, off, counting and recording.
fn check_everywhere(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
    Run::of(name).env("ALLOC_TRACKER", "count").finish().assert_quiet(0);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.installation, Some(Installation::Complete));
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
}

/// The events before `main` prove everything, so there is nothing to see for an allocator that is
/// wrapped around the tracker.
fn no_trial() {
    report_at_exit();
    let before = snapshot();
    assert!(is_installed());
    let ((), change) = measure(|| ());
    let region = Region::new();
    let _ = stats();
    assert_eq!((change.allocations, change.deallocations, change.reallocations), (0, 0, 0));
    assert_eq!((change.peak_bytes, region.change()), (Some(0), Default::default()));
    assert_eq!(snapshot(), before);
}

/// What was found before the first event of the process, in the order of [`FOUND_BEFORE_MAIN`].
static IS_COMPLETE: AtomicBool = AtomicBool::new(false);
/// What the oracle had counted before the question and after it.
static COUNTED: [AtomicU64; 2] = [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)];

/// Asks before anything was allocated, in the processes of one scenario.
extern "C" fn ask_before_main() {
    // SAFETY: the name is a C string, and no other thread exists yet.
    let is_asked = unsafe {
        let scenario = libc::getenv(c"SCENARIO".as_ptr());
        !scenario.is_null() && libc::strcmp(scenario, c"before_any_event".as_ptr()) == 0
    };
    if is_asked {
        COUNTED[0].store(snapshot().allocations, SeqCst);
        IS_COMPLETE.store(installation() == Installation::Complete, SeqCst);
        COUNTED[1].store(snapshot().allocations, SeqCst);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static ASK_BEFORE_MAIN: extern "C" fn() = ask_before_main;

/// Then a trial was needed. The oracle saw it, and the tracker did not count it.
fn before_any_event() {
    report_at_exit();
    assert!(IS_COMPLETE.load(SeqCst));
    assert_eq!(COUNTED.each_ref().map(|count| count.load(SeqCst)), [0, 1]);
    let ((), change) = measure(|| drop(black_box(vec![1u8; 100])));
    assert_eq!((change.allocations, change.deallocations, change.allocated_bytes), (1, 1, 100));
}

fn check_before_any_event(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let (replay, oracle) = (outcome.whole_replay(), outcome.oracle());
    assert_eq!(replay.installation, Some(Installation::Complete));
    // The trial is a block of eight bytes, allocated and freed.
    let trial = [1, 1, 0, 8, 8];
    let counts = |of: scenario::Counts| {
        [of.allocations, of.deallocations, of.reallocations, of.allocated_bytes, of.freed_bytes]
    };
    let all = counts(replay.counts);
    assert_eq!(std::array::from_fn::<u64, 5, _>(|at| all[at] + trial[at]), counts(oracle));
    assert_eq!(replay.counts.live_bytes, oracle.live_bytes);
}

/// Many threads use counts for the first time at once, each within its work.
fn threads() {
    const THREADS: usize = 40;
    report_at_exit();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for size in 1..=THREADS {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..100 {
                    let ((), change) = measure(|| drop(black_box(Vec::<u8>::with_capacity(size))));
                    assert_eq!((change.allocations, change.allocated_bytes), (1, size as u64));
                    assert_eq!((change.deallocations, change.freed_bytes), (1, size as u64));
                }
            });
        }
    });
    assert_eq!(installation(), Installation::Complete);
}

/// Nothing is allocated while the recording runs, and the dump says that it would have been seen.
fn nothing_recorded() {
    let profiler = Profiler::builder().output(scenario::folder().join("dump.alloc")).start().unwrap();
    profiler.finish().unwrap();
}

fn check_nothing_recorded(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    // The paths that were given to `output` are freed.
    assert_eq!((replay.counts.allocations, replay.counts.reallocations), (0, 0));
    assert_eq!(replay.installation, Some(Installation::Complete));
}
