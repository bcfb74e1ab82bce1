//! A program that links the tracker and has forgotten `#[global_allocator]`: no count is zero in
//! silence, and no recording begins.

mod scenario;

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Barrier;

use alloc_tracker::{
    AllocTracker, Installation, LeakCheck, Profiler, Region, Scope, StartError, assert_no_leaks,
    installation, is_installed, measure, stats,
};
use scenario::{Run, Scenario};

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "questions", child: questions, check },
        Scenario { name: "counts", child: counts, check },
        Scenario { name: "recording", child: recording, check },
        Scenario { name: "threads", child: threads, check },
        Scenario { name: "collections", child: collections, check: check_quiet },
        Scenario { name: "panics", child: panics, check: check_panics },
    ])
}

/// Runs the child, which makes the assertions, off and as if under `profiler-cli run`. It leaves no
/// dump.
fn check(name: &'static str) {
    for run in [Run::of(name), Run::of(name).env("ALLOC_TRACKER", "count"), Run::of(name).traced()] {
        let outcome = run.finish();
        outcome.assert_quiet(0);
        assert!(outcome.files().is_empty(), "{:?}", outcome.files());
    }
}

fn check_quiet(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
}

fn questions() {
    for _ in 0..3 {
        assert_eq!(installation(), Installation::Missing);
        assert!(!is_installed());
    }
}

/// Calls `f`, which must panic, and returns the message.
fn message_of<T>(f: impl FnOnce() -> T) -> String {
    std::panic::set_hook(Box::new(|_| {}));
    let panic = catch_unwind(AssertUnwindSafe(f)).err().expect("a panic");
    _ = std::panic::take_hook();
    *panic.downcast::<String>().expect("a message")
}

fn counts() {
    let first = message_of(stats);
    let messages = [
        message_of(|| measure(|| vec![1u8; 100])),
        message_of(Region::new),
        message_of(Scope::new),
        message_of(|| assert_no_leaks(|| ())),
        message_of(|| LeakCheck::new().warm_up(1).run(|| ())),
        message_of(|| within_budget(&mut 0)),
        message_of(|| alloc_tracker::block::budget! { allocations = 9, threads = "all"; () }),
        first,
    ];
    for message in messages {
        assert!(!message.contains('\n'), "{message}");
        for part in ["sees no allocation", "#[global_allocator]", "prefer-dynamic"] {
            assert!(message.contains(part), "{message}");
        }
    }
    // The function to be measured has not run.
    let mut calls = 0;
    message_of(|| measure(|| calls += 1));
    message_of(|| assert_no_leaks(|| calls += 1));
    message_of(|| LeakCheck::new().warm_up(1).run(|| calls += 1));
    message_of(|| within_budget(&mut calls));
    assert_eq!(calls, 0);
}

#[alloc_tracker::budget(allocations = 9)]
fn within_budget(calls: &mut i32) {
    *calls += 1;
}

fn recording() {
    let path = scenario::folder().join("dump.alloc");
    for _ in 0..2 {
        let refused = Profiler::builder().output(&path).start();
        let Err(error @ StartError::NotInstalled) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("#[global_allocator]"), "{error}");
    }
    // Without a recording these do nothing.
    alloc_tracker::mark("here");
    annotated(3);
}

#[alloc_tracker::profile]
fn annotated(size: usize) -> usize {
    let list = black_box(vec![1u8; size]);
    list.len()
}

/// More threads than may make a trial at the same time ask first.
fn threads() {
    const THREADS: usize = 40;
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            installation()
        };
        let asking: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        for thread in asking {
            assert_eq!(thread.join().unwrap(), Installation::Missing);
        }
    });
}

/// A tracker may serve single collections. From its first block on its counts say something.
fn collections() {
    static ALLOC: AllocTracker = AllocTracker::system().counting();
    assert!(!is_installed());
    let layout = Layout::array::<u8>(1000).unwrap();
    // SAFETY: the layout is not empty, and the block is freed with the layout it was allocated
    // with.
    let change = unsafe {
        let first = ALLOC.alloc(layout);
        let (second, change) = measure(|| ALLOC.alloc(layout));
        ALLOC.dealloc(first, layout);
        ALLOC.dealloc(second, layout);
        change
    };
    assert_eq!((change.allocations, change.allocated_bytes), (1, 1000));
    assert_eq!((stats().allocations, stats().deallocations, stats().live_bytes), (2, 2, 0));
}

fn panics() {
    measure(|| ());
}

/// The panic names the line of the user's call.
fn check_panics(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_code(101);
    assert!(outcome.stderr.contains("not_installed.rs:"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("alloc-tracker sees no allocation"), "{}", outcome.stderr);
}
