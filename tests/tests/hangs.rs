//! Nothing waits for the recorder for ever: programs that hang without end are killed after two minutes, and fail the test.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{RELEASE, libraries};
use tests::{Run, number};

const LIMIT: Duration = Duration::from_secs(120);
/// A hook with a table of the same family hung in two of three such processes.
const CROWDS: usize = 100;

#[test]
fn a_hundred_crowds_on_parking_tables() {
    for round in 0..CROWDS {
        let run = Run::traced_within(LIMIT, "crowd", &[]);
        check(&run, &format!("crowd {round}"));
    }
}

/// Children of a process whose other threads hold whatever they hold: they allocate, start threads, and end by `exit`,
/// by `_exit` or as another program. The parent's dump has nothing of them, and all of its own.
#[test]
fn a_thousand_forks_beside_threads() {
    let run = Run::of(Command::new(RELEASE.program()).arg("forks"), LIMIT);
    check(&run, "forks");
    let summary = run.json("summary", &[]);
    assert_eq!(number(&summary, "threads"), 5, "those of the parent, and of no child");
}

/// The helper thread must not keep a process alive whose own threads have all ended.
#[test]
fn a_process_ends_with_its_last_thread() {
    let run = Run::of(Command::new(RELEASE.program()).arg("leader"), LIMIT);
    assert!(run.output.status.success(), "{:?}", run.output.status);
    // Nobody was left to write the end: what there is comes from the sidecar.
    let summary = run.json("summary", &[]);
    assert!(number(&summary, "allocations") >= 10 && number(&summary, "lost_events") == 0, "{summary}");
}

/// What uses the loader's tables: three thousand libraries that come and go, threads that allocate, one that unwinds.
#[test]
fn libraries_come_and_go_beside_threads() {
    let (program, libraries) = (RELEASE.program(), libraries());
    for checked in ["0", "1"] {
        let mut command = Command::new(&program);
        command.arg("loads").args(&libraries).env("ALLOC_TRACKER_CHECK", checked);
        let run = Run::of(&mut command, LIMIT);
        check(&run, "loads");
        let summary = run.json("summary", &[]);
        assert_eq!(number(&summary, "different_stacks"), 0, "of {} stacks", summary["checked_stacks"]);
        assert_eq!(number(&summary, "checked_stacks") > 10_000, checked == "1");
        // Each is known under its own name, whichever takes the place of which, and whenever.
        let warnings = summary["warnings"].to_string();
        assert!(!warnings.contains("rebuilt"), "{warnings}");
        assert_eq!(number(&summary, "unresolved_frames"), 0, "{warnings}");
    }
}

/// It ended by itself, and its dump is what a counter in the process has counted.
fn check(run: &Run, what: &str) {
    let said = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success() && said.is_empty(), "{what}: {:?}: {said}", run.output.status);
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    for total in [
        "allocations",
        "deallocations",
        "reallocations",
        "allocated_bytes",
        "freed_bytes",
        "live_bytes",
        "live_blocks",
    ] {
        assert_eq!(summary[total], oracle[total], "{what}: {total}: recorded, and counted");
    }
    for nothing in ["lost_events", "foreign_frees", "dropped_frames", "truncated_stacks"] {
        assert_eq!(number(&summary, nothing), 0, "{what}: {nothing}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)), "{what}");
}
