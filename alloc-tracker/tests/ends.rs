//! However a process ends, its dump has the events that it has completed.

mod scenario;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::noted::{self, Noted};
use scenario::{Lcg, Outcome, Run, Scenario};

#[global_allocator]
static ALLOC: Noted<Counting<AllocTracker>> = Noted(Counting::new(AllocTracker::system()));

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "return_from_main", child: return_from_main, check: check_clean::<0> },
        Scenario { name: "exit", child: exit, check: check_clean::<7> },
        Scenario { name: "exit_of_a_thread", child: exit_of_a_thread, check: check_clean::<8> },
        Scenario { name: "panic", child: panic, check: check_clean::<101> },
        Scenario {
            name: "exit_beside_threads",
            child: exit_beside_threads,
            check: check_exit_beside_threads,
        },
        Scenario { name: "under_exit", child: under_exit, check: check_under_exit },
        Scenario { name: "abort", child: abort, check: check_abort },
        Scenario { name: "kill", child: work_for_ever, check: check_signal::<{ libc::SIGKILL }> },
        Scenario { name: "terminate", child: work_for_ever, check: check_signal::<{ libc::SIGTERM }> },
        Scenario { name: "kill_early", child: work_for_ever, check: check_kill_early },
    ])
}

fn begin() {
    report_at_exit();
    noted::note_in(&scenario::folder().join("notes"));
}

fn work(seed: u64, rounds: usize) {
    let mut lcg = Lcg(seed);
    let mut lists: Vec<Vec<u8>> = (0..50).map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        let at = lcg.below(50) as usize;
        match lcg.below(3) {
            0 => lists[at] = Vec::with_capacity(lcg.size()),
            1 => lists[at].reserve_exact(lcg.size()),
            _ => lists[at].shrink_to(lcg.size() / 4),
        }
    }
    std::mem::forget(black_box(lists));
}

fn return_from_main() {
    begin();
    work(1, 50_000);
}

fn exit() {
    begin();
    work(1, 50_000);
    std::process::exit(7);
}

fn exit_of_a_thread() {
    begin();
    work(1, 20_000);
    std::thread::spawn(|| {
        work(2, 20_000);
        std::process::exit(8);
    });
    loop {
        std::thread::park();
    }
}

fn panic() {
    begin();
    work(1, 20_000);
    panic!("on purpose");
}

/// After any kind of `exit` the dump is whole, and its counts are the oracle's.
fn check_clean<const CODE: i32>(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(CODE);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert!(replay.counts.events() > 20_000);
}

fn start_threads() {
    for seed in 0..3 {
        std::thread::spawn(move || work(seed, usize::MAX));
    }
}

fn exit_beside_threads() {
    begin();
    start_threads();
    work(9, 20_000);
    std::process::exit(9);
}

/// The dump ends at some moment between the oracle's report and the end of the process.
fn check_exit_beside_threads(name: &'static str) {
    for _ in 0..3 {
        let outcome = Run::of(name).traced().finish();
        outcome.assert_quiet(9);
        let replay = outcome.whole_replay();
        let oracle = outcome.oracle();
        let at_exit = [oracle.allocations, oracle.deallocations, oracle.reallocations];
        let begun = noted::open(&outcome.folder().join("notes")).begun.read();
        for (kind, recorded) in recorded(&replay).into_iter().enumerate() {
            // The oracle counts a free before the tracker records it. So each of the other three
            // threads may be one ahead.
            assert!(
                recorded + 3 >= at_exit[kind] && recorded <= begun[kind],
                "{recorded} {at_exit:?} {begun:?}"
            );
        }
        assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    }
}

fn under_exit() {
    begin();
    start_threads();
    work(1, 20_000);
    // SAFETY: the call ends the process at once.
    unsafe { libc::_exit(5) };
}

fn check_under_exit(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(5);
    check_cut_short(&outcome);
}

fn abort() {
    begin();
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid; a core file would be of no use.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    start_threads();
    work(1, 20_000);
    std::process::abort();
}

fn check_abort(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_signal(libc::SIGABRT);
    check_cut_short(&outcome);
}

fn work_for_ever() {
    begin();
    start_threads();
    work(9, usize::MAX);
}

fn check_signal<const SIGNAL: i32>(name: &'static str) {
    // The kill comes during the first frame, and during later ones.
    for events in [10_000, 100_000, 250_000] {
        let mut running = Run::of(name).traced().start();
        let notes = noted::open(&running.folder().join("notes"));
        running.until(|| notes.done.read().iter().sum::<u64>() > events);
        running.signal(SIGNAL);
        let outcome = running.wait();
        outcome.assert_signal(SIGNAL);
        check_cut_short(&outcome);
    }
}

/// Kills the process after a few milliseconds, when the dump has hardly begun.
fn check_kill_early(name: &'static str) {
    for round in 0..20 {
        let mut running = Run::of(name).traced().start();
        let notes = noted::open(&running.folder().join("notes"));
        running.until(|| notes.done.allocations.load(Ordering::SeqCst) > 10 * round);
        running.signal(libc::SIGKILL);
        let outcome = running.wait();
        outcome.assert_signal(libc::SIGKILL);
        check_cut_short(&outcome);
    }
}

/// Asserts that dump and sidecar together have every event that was done, and none that had not
/// begun.
#[track_caller]
fn check_cut_short(outcome: &Outcome) {
    assert!(outcome.our_lines().is_empty(), "{}", outcome.stderr);
    let replay = outcome.replay();
    replay.assert_sound();
    assert!(!replay.complete && replay.trailer.is_none() && replay.from_sidecar);
    assert_eq!((replay.lost, replay.foreign_frees, replay.stopped_errno), (0, 0, 0));
    let notes = noted::open(&outcome.folder().join("notes"));
    let (begun, done) = (notes.begun.read(), notes.done.read());
    for (kind, recorded) in recorded(&replay).into_iter().enumerate() {
        assert!(
            (done[kind]..=begun[kind]).contains(&recorded),
            "{done:?} {recorded} of kind {kind} {begun:?}"
        );
        // Each of the four threads was in at most one event.
        assert!(begun[kind] - done[kind] <= 4);
    }
}

fn recorded(replay: &scenario::replay::Replay) -> [u64; 3] {
    [replay.counts.allocations, replay.counts.deallocations, replay.counts.reallocations]
}
