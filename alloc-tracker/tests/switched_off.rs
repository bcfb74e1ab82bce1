//! A program that links the tracker and is not profiled notices nothing: the tracker makes no file,
//! prints nothing, and takes no resources.

mod scenario;

use std::hint::black_box;
use std::process::ExitCode;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "off", child: work, check: check_off },
        Scenario { name: "unknown_value", child: work, check: check_unknown_value },
        Scenario { name: "count", child: count, check: check_count },
        Scenario { name: "default_name", child: work, check: check_default_name },
    ])
}

/// Works on two threads. Then prints the next free thread-specific key and descriptor, and how many
/// descriptors are open.
fn work() {
    let other = std::thread::spawn(|| (0..1000).map(|n| black_box(vec![n; 10]).len()).sum::<usize>());
    let own: usize = (0..1000).map(|n| black_box(vec![n; 10]).len()).sum();
    assert_eq!(other.join().unwrap() + own, 20_000);
    let mut key = 0;
    // SAFETY: `key` is valid to write to, there is no destructor, and the duplicate of stdin is
    // closed at once.
    let descriptor = unsafe {
        assert_eq!(libc::pthread_key_create(&raw mut key, None), 0);
        let descriptor = libc::dup(0);
        libc::close(descriptor);
        descriptor
    };
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    println!("key={key}\ndescriptor={descriptor}\nopen={open}");
}

fn check_off(name: &'static str) {
    let unset = Run::of(name).finish();
    for value in ["off", "", "0"] {
        let out = unset.folder().join("other.alloc");
        let outcome = Run::of(name).env("ALLOC_TRACKER", value).env("ALLOC_TRACKER_OUT", &out).finish();
        outcome.assert_code(0);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (unset.stdout.as_str(), ""));
        assert!(outcome.files().is_empty() && !out.exists(), "{:?}", outcome.files());
    }
    unset.assert_code(0);
    assert!(unset.stderr.is_empty() && unset.files().is_empty(), "{:?}", unset.files());
    // The figures do show a recording. It takes a key (the first one, which std then does without).
    // The drain process has the descriptors. Without it the program has five: those of the dump,
    // its sidecar and its folder, and two of /proc. None of them is one that the program would get
    // next.
    for (run, descriptors) in [(Run::of(name).traced(), 0), (Run::of(name).traced().drained_by_caller(), 5)] {
        let traced = run.finish();
        traced.assert_quiet(0);
        assert!(traced.number("key") > unset.number("key"));
        assert_eq!(traced.number("open"), unset.number("open") + descriptors);
        assert_eq!(traced.number("descriptor"), unset.number("descriptor"));
        traced.whole_replay();
    }
}

fn check_unknown_value(name: &'static str) {
    let outcome = Run::of(name).env("ALLOC_TRACKER", "tracé\n").finish();
    outcome.assert_one_line(0, &["ALLOC_TRACKER=", "trac", "trace, count and off"]);
    assert_eq!(outcome.stderr.lines().count(), 1);
    assert!(outcome.files().is_empty(), "{:?}", outcome.files());
}

fn count() {
    report_at_exit();
    work();
    // Nothing allocates between reading the two.
    let (ours, oracle) = (alloc_tracker::stats(), alloc_oracle::snapshot());
    assert!(ours.from_first_event);
    assert_eq!(ours.allocations, oracle.allocations);
    assert_eq!(ours.deallocations, oracle.deallocations);
    assert_eq!(ours.reallocations, oracle.reallocations);
    assert_eq!(ours.allocated_bytes, oracle.allocated_bytes);
    assert_eq!(ours.freed_bytes, oracle.freed_bytes);
    assert_eq!(ours.live_bytes as u64, oracle.live_bytes);
    assert_eq!(ours.live_blocks as u64, oracle.live_blocks);
    assert!(oracle.allocations > 2000);
}

fn check_count(name: &'static str) {
    let outcome = Run::of(name).env("ALLOC_TRACKER", "count").finish();
    outcome.assert_quiet(0);
    assert!(outcome.files().is_empty(), "{:?}", outcome.files());
}

/// Without a path the dump gets a name from the program and the process id, in the working
/// directory.
fn check_default_name(name: &'static str) {
    let outcome = Run::of(name).env("ALLOC_TRACKER", "trace").finish();
    outcome.assert_quiet(0);
    let program = std::env::current_exe().unwrap();
    let expected = format!("{}.{}.alloc", program.file_name().unwrap().to_str().unwrap(), outcome.pid);
    assert_eq!(outcome.files(), [expected.as_str()]);
    scenario::replay::Replay::of(&outcome.folder().join(expected)).assert_whole();
}
