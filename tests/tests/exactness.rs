//! Every total of the summary equals, to the byte, the total of an independent counting allocator
//! in the same process.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, has_tool, number, output_within, program};

const TOTALS: [&str; 6] =
    ["allocations", "deallocations", "reallocations", "allocated_bytes", "freed_bytes", "live_bytes"];

/// Records a program, requires that every total of its dump equals the total that the oracle
/// counted, and returns the summary.
///
/// The peak is compared for programs with one thread only. With several threads the recorder and
/// the oracle may order simultaneous events differently, and so see different peaks.
fn checked_summary(name: &str, single_threaded: bool) -> Value {
    let run = Run::traced(name, &[]);
    assert!(run.output.status.success(), "{name}: {}", String::from_utf8_lossy(&run.output.stderr));
    assert_eq!(String::from_utf8_lossy(&run.output.stderr), "", "the tracker writes nothing to stderr");
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    for total in TOTALS {
        assert_eq!(summary[total], oracle[total], "{total} of {name}");
    }
    assert_eq!(summary["live_blocks"], oracle["live_blocks"], "live_blocks of {name}");
    if single_threaded {
        assert_eq!(summary["peak_bytes"], oracle["peak_bytes"], "peak of {name}");
    }
    for counter in ["lost_events", "truncated_stacks", "unresolved_frames", "foreign_frees", "dropped_frames"]
    {
        assert_eq!(number(&summary, counter), 0, "{counter} of {name}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(number(&summary, "allocations") > 5, "{name} has too few allocations to prove anything");
    summary
}

#[test]
fn totals_of_leaking_cache_are_exact() {
    checked_summary("leaking_cache", true);
}

#[test]
fn totals_of_growing_queue_are_exact_and_its_threads_have_names() {
    let summary = checked_summary("growing_queue", false);
    let names: Vec<&str> =
        summary["thread_list"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(names.contains(&"producer") && names.contains(&"consumer"), "{names:?}");
}

#[test]
fn totals_of_parser_temporaries_are_exact() {
    checked_summary("parser_temporaries", true);
}

#[test]
fn totals_of_touch_barely_are_exact_and_untouched_pages_stay_untouched() {
    let summary = checked_summary("touch_barely", true);
    // The program allocates 256 MiB and writes to 64 pages of it. If the tracker touched the block,
    // the resident set would grow by 256 MiB. How much a run without a recorder has resident
    // depends on the system's page size, so the limit is measured: that resident set and 16 MiB.
    let plain = output_within(&mut Command::new(program("touch_barely")), Duration::from_secs(60));
    let stdout = String::from_utf8(plain.stdout).unwrap();
    let resident = stdout.lines().find_map(|line| line.strip_prefix("VmRSS ")).unwrap();
    let resident: i64 = resident.split(' ').nth(2).unwrap().parse::<i64>().unwrap() << 10;
    let process = &summary["process"];
    assert!(number(process, "vsz") > 256 << 20, "{process}");
    assert!(number(process, "rss") < resident + (16 << 20), "{resident} {process}");
}

#[test]
fn totals_of_course_allocate_are_exact() {
    checked_summary("course_allocate", true);
}

#[test]
fn totals_of_page_walk_are_exact() {
    checked_summary("page_walk", true);
}

#[test]
fn totals_of_real_syn_are_exact() {
    checked_summary("real_syn", true);
}

#[test]
fn totals_of_real_serde_json_are_exact() {
    checked_summary("real_serde_json", true);
}

#[test]
fn totals_of_real_regex_are_exact() {
    checked_summary("real_regex", false);
}

/// Valgrind's DHAT counts every block of `malloc`, including the blocks of C code, which the
/// tracker cannot see. The stack of each of DHAT's program points tells whether Rust's allocator
/// was called. The sums over the points of Rust's allocator equal the tracker's totals.
#[test]
fn dhat_counts_the_same_blocks_and_bytes_of_rusts_allocator() {
    if !has_tool("valgrind") {
        return;
    }
    for name in ["leaking_cache", "course_allocate"] {
        let run = Run::traced(name, &[]);
        let summary = run.json("summary", &[]);
        assert_eq!(
            number(&summary, "reallocations"),
            0,
            "{name} must have no reallocations, so that the way DHAT counts them does not matter"
        );
        let dhat = dhat_profile(&run, name);
        let (mut bytes, mut blocks, mut end_bytes, mut peak_bytes) = (0, 0, 0, 0);
        for point in dhat["pps"].as_array().unwrap() {
            let frames: Vec<&str> = point["fs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|index| dhat["ftbl"][index.as_u64().unwrap() as usize].as_str().unwrap())
                .collect();
            if frames.iter().any(|frame| frame.contains("(allocator.rs:") || frame.contains("__rust")) {
                bytes += number(point, "tb");
                blocks += number(point, "tbk");
                peak_bytes += number(point, "gb");
                end_bytes += number(point, "eb");
            } else {
                println!(
                    "{name}: not Rust's allocator: {} B in {} by {:?}",
                    point["tb"],
                    point["tbk"],
                    &frames[..3]
                );
            }
        }
        assert_eq!(blocks, number(&summary, "allocations"), "allocations of {name}");
        assert_eq!(bytes, number(&summary, "allocated_bytes"), "allocated bytes of {name}");
        assert_eq!(peak_bytes, number(&summary, "peak_bytes"), "peak of {name}");
        assert_eq!(end_bytes, number(&summary, "live_bytes"), "live bytes of {name}");
    }
}

/// Runs a program under DHAT and returns DHAT's profile.
fn dhat_profile(run: &Run, name: &str) -> Value {
    let file = run.folder.path().join("dhat.json");
    let output = std::process::Command::new("valgrind")
        .arg("--tool=dhat")
        .arg(format!("--dhat-out-file={}", file.display()))
        .arg(program(name))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}
