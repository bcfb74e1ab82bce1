//! Every total of the summary equals that of an independent counting allocator in the same process, to the byte.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, has_tool, number, output_within, program};

const TOTALS: [&str; 6] =
    ["allocations", "deallocations", "reallocations", "allocated_bytes", "freed_bytes", "live_bytes"];

fn check(name: &str, single_threaded: bool) -> Value {
    let run = Run::traced(name, &[]);
    assert!(run.output.status.success(), "{name}: {}", String::from_utf8_lossy(&run.output.stderr));
    assert_eq!(String::from_utf8_lossy(&run.output.stderr), "", "the tracker has nothing to say");
    let (summary, oracle) = (run.json("summary", &[]), run.oracle());
    for total in TOTALS {
        assert_eq!(summary[total], oracle[total], "{total} of {name}");
    }
    assert_eq!(summary["live_blocks"], oracle["live_blocks"], "live_blocks of {name}");
    if single_threaded {
        assert_eq!(summary["peak_bytes"], oracle["peak_bytes"], "peak of {name}");
    }
    for nothing in ["lost_events", "truncated_stacks", "unresolved_frames", "foreign_frees", "dropped_frames"]
    {
        assert_eq!(number(&summary, nothing), 0, "{nothing} of {name}");
    }
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    assert!(number(&summary, "allocations") > 5, "{name} does something");
    summary
}

#[test]
fn leaking_cache() {
    check("leaking_cache", true);
}

#[test]
fn growing_queue() {
    let summary = check("growing_queue", false);
    let names: Vec<&str> =
        summary["thread_list"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    assert!(names.contains(&"producer") && names.contains(&"consumer"), "{names:?}");
}

#[test]
fn parser_temporaries() {
    check("parser_temporaries", true);
}

#[test]
fn touch_barely() {
    let summary = check("touch_barely", true);
    // Allocated is not touched: the tracker must not change that. How much is, is up to the size of the system's pages.
    let plain = output_within(&mut Command::new(program("touch_barely")), Duration::from_secs(60));
    let said = String::from_utf8(plain.stdout).unwrap();
    let resident = said.lines().find_map(|line| line.strip_prefix("VmRSS ")).unwrap();
    let resident: i64 = resident.split(' ').nth(2).unwrap().parse::<i64>().unwrap() << 10;
    let process = &summary["process"];
    assert!(number(process, "vsz") > 256 << 20, "{process}");
    assert!(number(process, "rss") < resident + (16 << 20), "{resident} {process}");
}

#[test]
fn course_allocate() {
    check("course_allocate", true);
}

#[test]
fn page_walk() {
    check("page_walk", true);
}

#[test]
fn real_syn() {
    check("real_syn", true);
}

#[test]
fn real_serde_json() {
    check("real_serde_json", true);
}

#[test]
fn real_regex() {
    check("real_regex", false);
}

/// Valgrind's DHAT counts every block of malloc, C code's included. What the tracker cannot see by definition is told
/// apart by its stack, one by one; all the rest is equal.
#[test]
fn dhat_agrees() {
    if !has_tool("valgrind") {
        return;
    }
    for name in ["leaking_cache", "course_allocate"] {
        let run = Run::traced(name, &[]);
        let summary = run.json("summary", &[]);
        assert_eq!(
            number(&summary, "reallocations"),
            0,
            "so that DHAT's way of counting them does not matter"
        );
        let dhat = dhat(&run, name);
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

fn dhat(run: &Run, name: &str) -> Value {
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
