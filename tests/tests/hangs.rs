//! No program waits for the recorder for ever. A program that hangs is killed after two minutes,
//! and its test fails.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{RELEASE, libraries};
use tests::{Run, number};

const LIMIT: Duration = Duration::from_secs(120);
/// Runs of `crowd`. With a hook that used a table of the same family, two of three such runs hung.
const CROWDS: usize = 100;

#[test]
fn programs_that_contend_for_parking_tables_end() {
    for round in 0..CROWDS {
        let run = Run::traced_within(LIMIT, "crowd", &[]);
        check_exact(&run, &format!("crowd {round}"));
    }
}

/// The parent forks while its other threads may hold any lock. The children allocate, start
/// threads, and end by `exit`, by `_exit` or as another program. The parent's dump has none of the
/// children's events and all events of the parent.
#[test]
fn a_thousand_forks_beside_threads_end_and_stay_out_of_the_parents_dump() {
    let run = Run::of(Command::new(RELEASE.program()).arg("forks"), LIMIT);
    check_exact(&run, "forks");
    let summary = run.json("summary", &[]);
    assert_eq!(number(&summary, "threads"), 5, "the five threads of the parent, and no thread of a child");
}

/// The drain process must not keep a program alive whose own threads have all ended.
#[test]
fn a_process_ends_with_its_last_thread() {
    let run = Run::of(Command::new(RELEASE.program()).arg("leader"), LIMIT);
    assert!(run.output.status.success(), "{:?}", run.output.status);
    // No thread was left to write the end of the dump: the events come from the sidecar.
    let summary = run.json("summary", &[]);
    assert!(number(&summary, "allocations") >= 10 && number(&summary, "lost_events") == 0, "{summary}");
}

/// Three kinds of work use the loader's tables at once: three thousand loads and unloads of
/// libraries, threads that allocate, and a thread that unwinds.
#[test]
fn loading_and_unloading_libraries_beside_threads_keeps_stacks_and_names_right() {
    let (program, libraries) = (RELEASE.program(), libraries());
    for checked in ["0", "1"] {
        let mut command = Command::new(&program);
        command.arg("loads").args(&libraries).env("ALLOC_TRACKER_CHECK", checked);
        let run = Run::of(&mut command, LIMIT);
        check_exact(&run, "loads");
        let summary = run.json("summary", &[]);
        assert_eq!(
            number(&summary, "different_stacks"),
            0,
            "of {} compared stacks",
            summary["checked_stacks"]
        );
        assert_eq!(number(&summary, "checked_stacks") > 10_000, checked == "1");
        // A library may be mapped where the other one was before. Its return addresses must still
        // resolve in its own file: a mix-up would look like a file that was rebuilt, or leave
        // addresses without names.
        let warnings = summary["warnings"].to_string();
        assert!(!warnings.contains("rebuilt"), "{warnings}");
        assert_eq!(number(&summary, "unresolved_frames"), 0, "{warnings}");
    }
}

/// Requires that the program ended by itself and that its dump equals what the oracle counted.
fn check_exact(run: &Run, what: &str) {
    let stderr = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success() && stderr.is_empty(), "{what}: {:?}: {stderr}", run.output.status);
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
        assert_eq!(summary[total], oracle[total], "{what}: {total} as recorded, and as counted");
    }
    for counter in ["lost_events", "foreign_frees", "dropped_frames", "truncated_stacks"] {
        assert_eq!(number(&summary, counter), 0, "{what}: {counter}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)), "{what}");
}
