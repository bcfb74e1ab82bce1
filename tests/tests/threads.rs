//! What the tracker has for a thread is given back, or on to the next thread, when it ends: a process whose threads come
//! and go stays as large as it was, as it does without being recorded.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, number, output_within, program};

const MIB: u64 = 1 << 20;
/// For what is not the tracker's. A state of 300 bytes for each of 1,500 threads would be more.
const MARGIN: u64 = MIB / 4;

/// After a wave of five hundred threads the next ones need nothing more.
#[test]
fn the_second_wave_adds_nothing() {
    let run = check("waves", 1 + 4 * 500);
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

/// Five hundred threads that are gone leave behind what the recorder has for itself, and at most a page each for the
/// next thread: their buffers are given back.
#[test]
fn threads_that_have_ended_hold_nothing() {
    let output = output_within(&mut waves("waves"), LIMIT);
    let plain = sizes(&output.stdout)["wave1"];
    let recorded = sizes(&check("waves", 1 + 4 * 500).output.stdout)["wave1"];
    assert!(plain.rss > 0 && recorded.rss > 0);
    assert!(
        recorded.rss < plain.rss + 2 * MIB + 500 * 4096,
        "resident after 500 threads have ended: {} B, and {} B when recorded",
        plain.rss,
        recorded.rss
    );
}

#[test]
fn ten_thousand_short_threads_leave_nothing() {
    let run = check("short", 1 + 20 + 10_000);
    let sizes = sizes(&run.output.stdout);
    let (early, late) = (sizes["short1"], sizes["short4"]);
    assert!(late.rss < early.rss + MARGIN, "resident set: {} B, then {} B", early.rss, late.rss);
    assert!(late.vsz < early.vsz + MARGIN, "virtual size: {} B, then {} B", early.vsz, late.vsz);
}

const LIMIT: Duration = Duration::from_secs(120);

fn waves(kind: &str) -> Command {
    let mut command = Command::new(program("waves"));
    // glibc reserves 64 MiB whenever two threads happen to meet in an arena of its own heap.
    command.arg(kind).env("MALLOC_ARENA_MAX", "1");
    command
}

/// Runs it recorded: every thread is in its dump, and every event.
fn check(kind: &str, threads: i64) -> Run {
    let run = Run::of(&mut waves(kind), LIMIT);
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    assert_eq!(number(&summary, "threads"), threads);
    let rows = summary["thread_list"].as_array().unwrap();
    let ended = rows.iter().filter(|row| !row["end_ns"].is_null()).count() as i64;
    assert_eq!(ended, threads - 1, "threads that have ended");
    for total in ["allocations", "deallocations", "reallocations", "allocated_bytes", "freed_bytes"] {
        assert_eq!(summary[total], oracle[total], "{total}: recorded, and counted");
    }
    assert_eq!(summary["exact"], Value::Bool(true), "{}", summary["warnings"]);
    run
}

#[derive(Clone, Copy)]
struct Size {
    vsz: u64,
    rss: u64,
}

/// What the program has said of itself: a name, and two numbers of kilobytes.
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
