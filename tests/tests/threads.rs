//! When a thread ends, the tracker frees its memory for the thread or passes it on to the next
//! thread. So a process whose threads come and go does not grow, just as it does not grow without a
//! recorder.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, number, output_within, program};

const MIB: u64 = 1 << 20;
/// Tolerance for growth that is not the tracker's. A state of 300 bytes left behind by each of
/// 1,500 threads would exceed it.
const MARGIN: u64 = MIB / 4;

/// After a wave of five hundred threads the next waves of the same size need no more memory.
#[test]
fn later_waves_of_threads_need_no_more_memory_than_the_first() {
    let run = recorded_run("waves", 1 + 4 * 500);
    let sizes = sizes(&run.output.stdout);
    let [first, second, last] = ["wave1", "wave2", "wave4"].map(|wave| sizes[wave]);
    for (what, first, later) in [
        ("virtual size", first.vsz, second.vsz),
        ("virtual size of the fourth wave", first.vsz, last.vsz),
        ("resident set", first.rss, second.rss),
        ("resident set of the fourth wave", first.rss, last.rss),
    ] {
        assert!(later < first + MARGIN, "{what} after a wave: {first} B, then {later} B");
    }
}

/// After five hundred threads have ended, the recorder has its own memory (up to 2 MiB), and for
/// each ended thread at most one page that the next thread takes over. The ended threads' buffers
/// are freed.
#[test]
fn an_ended_thread_holds_at_most_a_page() {
    let output = output_within(&mut waves("waves"), LIMIT);
    let plain = sizes(&output.stdout)["wave1"];
    let recorded = sizes(&recorded_run("waves", 1 + 4 * 500).output.stdout)["wave1"];
    assert!(plain.rss > 0 && recorded.rss > 0);
    assert!(
        recorded.rss < plain.rss + 2 * MIB + 500 * 4096,
        "resident after 500 threads have ended: {} B, and {} B when recorded",
        plain.rss,
        recorded.rss
    );
}

#[test]
fn ten_thousand_short_threads_leave_no_memory_behind() {
    let run = recorded_run("short", 1 + 20 + 10_000);
    let sizes = sizes(&run.output.stdout);
    let (early, late) = (sizes["short1"], sizes["short4"]);
    assert!(late.rss < early.rss + MARGIN, "resident set: {} B, then {} B", early.rss, late.rss);
    assert!(late.vsz < early.vsz + MARGIN, "virtual size: {} B, then {} B", early.vsz, late.vsz);
}

const LIMIT: Duration = Duration::from_secs(120);

/// Returns the command that runs `waves`.
fn waves(kind: &str) -> Command {
    let mut command = Command::new(program("waves"));
    // With several arenas, glibc reserves 64 MiB whenever two threads happen to meet in one arena.
    command.arg(kind).env("MALLOC_ARENA_MAX", "1");
    command
}

/// Records `waves` and requires that the dump has every thread and every event.
fn recorded_run(kind: &str, threads: i64) -> Run {
    let run = Run::of(&mut waves(kind), LIMIT);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    assert_eq!(number(&summary, "threads"), threads);
    let rows = summary["thread_list"].as_array().unwrap();
    let ended = rows.iter().filter(|row| !row["end_ns"].is_null()).count() as i64;
    assert_eq!(ended, threads - 1, "threads that have ended");
    for total in ["allocations", "deallocations", "reallocations", "allocated_bytes", "freed_bytes"] {
        assert_eq!(summary[total], oracle[total], "{total} as recorded, and as counted");
    }
    assert_eq!(summary["exact"], Value::Bool(true), "{}", summary["warnings"]);
    run
}

#[derive(Clone, Copy)]
struct Size {
    vsz: u64,
    rss: u64,
}

/// Parses the program's output. Each line has a name, the virtual size and the resident set, both
/// in KiB.
fn sizes(stdout: &[u8]) -> BTreeMap<String, Size> {
    let text = String::from_utf8_lossy(stdout).into_owned();
    println!("{text}");
    let size = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_owned();
        let mut bytes = || words.next().unwrap().parse::<u64>().unwrap() * 1024;
        (name, Size { vsz: bytes(), rss: bytes() })
    };
    text.lines().map(size).collect()
}
