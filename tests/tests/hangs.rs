//! Nothing waits for the recorder for ever: programs that hang without end are killed after a minute, and fail the test.

use std::time::Duration;

use serde_json::Value;
use tests::{Run, number};

const LIMIT: Duration = Duration::from_secs(60);
/// A hook with a table of the same family hung in two of three such processes.
const CROWDS: usize = 100;

#[test]
fn a_hundred_crowds_on_parking_tables() {
    for round in 0..CROWDS {
        let run = Run::traced_within(LIMIT, "crowd", &[]);
        check(&run, &format!("crowd {round}"));
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
