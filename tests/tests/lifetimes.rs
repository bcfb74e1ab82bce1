//! Lifetimes of blocks, and the most that was live at one time: by arithmetic on a program with
//! known lifetimes, and compared with Valgrind's dhat where that is installed.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use tests::{Run, cli, has_tool, line_of, number, program, workspace};

static RUN: LazyLock<Run> = LazyLock::new(|| Run::traced("lives", &[]));

/// The lines that allocate: number of allocations, most bytes and most blocks at one time.
const SITES: [(&str, i64, i64, i64); 3] = [
    ("// first of a pair", 100, 64, 1),
    ("// second of a pair", 100, 32, 1),
    ("// one of ten", 10, 10_000, 10),
];

fn line(ending: &str) -> u32 {
    line_of(&workspace().join("tests/src/bin/lives.rs"), ending)
}

/// Returns the site of a line from the tables of the summary.
fn site(summary: &Value, ending: &str) -> Value {
    let number = line(ending);
    let sites = summary["top_allocations"].as_array().unwrap();
    let site = sites.iter().find(|site| site["line"] == number);
    site.unwrap_or_else(|| panic!("no site at line {number} in {sites:#?}")).clone()
}

#[test]
fn blocks_that_die_together_are_short_lived_although_none_is_temporary() {
    let summary = RUN.json("summary", &["--top", "100"]);
    assert_eq!(summary["short_lived_within"], "1000events");
    for (ending, allocations, bytes, blocks) in SITES {
        let site = site(&summary, ending);
        let of = |field| number(&site, field);
        assert_eq!((of("allocations"), of("temporary_allocations")), (allocations, 0), "{site}");
        assert_eq!((of("short_lived_allocations"), of("freed_blocks")), (allocations, allocations));
        assert_eq!((of("max_live_bytes"), of("max_live_blocks")), (bytes, blocks), "{site}");
        assert_eq!(site["max_live_is_exact"], true);
        assert!(of("mean_lifetime_ns") >= 0 && of("median_lifetime_ns") >= 0);
    }
    // A block of a pair is freed by the second event after its allocation, one of ten by the tenth.
    for (within, pair, ten) in
        [("1events", 0, 0), ("2events", 100, 0), ("9events", 100, 0), ("10events", 100, 10)]
    {
        let summary = RUN.json("summary", &["--top", "100", "--short-lived-within", within]);
        let short = |ending| number(&site(&summary, ending), "short_lived_allocations");
        let expected = (pair, pair, ten);
        assert_eq!((short(SITES[0].0), short(SITES[1].0), short(SITES[2].0)), expected, "{within}");
    }
    let whole = RUN.json("summary", &["--short-lived-within", "1h"]);
    assert_eq!(number(&whole, "short_lived_allocations"), number(&whole, "deallocations"));
}

#[test]
fn the_most_that_a_site_of_two_stacks_held_is_a_bound_until_it_is_asked_for() {
    let most = |args: &[&str]| {
        let summary = RUN.json("summary", &[&["--top", "100"], args].concat());
        let site = site(&summary, "// from two calls");
        assert_eq!((number(&site, "allocations"), number(&site, "temporary_allocations")), (2, 2));
        let is_exact = site["max_live_is_exact"].as_bool().unwrap();
        (is_exact, number(&site, "max_live_bytes"), number(&site, "max_live_blocks"))
    };
    // The first block is freed before the second one is allocated.
    assert_eq!(most(&[]), (false, 1000, 2));
    assert_eq!(most(&["--exact-max-live"]), (true, 500, 1));
    assert_eq!(most(&["--exact-max-live", "--to", "end"]), (true, 500, 1));
}

#[test]
fn lines_have_allocations_short_lives_and_the_most_that_they_held() {
    let tables = RUN.json("lines", &[]);
    let rows = tables["functions"].as_array().unwrap().iter().flat_map(|table| {
        let is_ours = table["function"].as_str().unwrap().starts_with("lives::");
        table["lines"].as_array().unwrap().iter().filter(move |_| is_ours)
    });
    let rows: Vec<Value> = rows.cloned().collect();
    for (ending, allocations, bytes, _) in SITES {
        let number_of_line = line(ending);
        let row = rows.iter().find(|row| row["line"] == number_of_line && !row["count"].is_null()).unwrap();
        let of = |field| number(row, field);
        assert_eq!(
            (of("count"), of("short_lived"), of("max_live")),
            (allocations, allocations, bytes),
            "{row}"
        );
    }
    let dump = RUN.dump();
    let args =
        ["lines", dump.to_str().unwrap(), "--function", "lives::hold", "--columns", "short-lived,max-live"];
    let text = String::from_utf8(cli(args).stdout).unwrap();
    assert!(text.contains("Short-lived") && text.contains("9.8 KiB"), "{text}");
}

#[test]
fn allocations_and_the_most_that_was_live_equal_those_of_dhat() {
    if !has_tool("valgrind") {
        return;
    }
    let out = RUN.folder.path().join("dhat.json");
    let output = Command::new("valgrind")
        .args(["--tool=dhat", "--num-callers=40", &format!("--dhat-out-file={}", out.display())])
        .arg(program("lives"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dhat: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    let frames = dhat["ftbl"].as_array().unwrap();
    let summary = RUN.json("summary", &["--top", "100"]);
    for (ending, ..) in SITES {
        let position = format!("lives.rs:{})", line(ending));
        let is_here =
            |frame: &Value| frames[frame.as_u64().unwrap() as usize].as_str().unwrap().ends_with(&position);
        let points = dhat["pps"].as_array().unwrap().iter();
        let here: Vec<&Value> =
            points.filter(|point| point["fs"].as_array().unwrap().iter().any(is_here)).collect();
        assert_eq!(here.len(), 1, "{position}");
        let (site, point) = (site(&summary, ending), here[0]);
        for (ours, theirs) in
            [("allocations", "tbk"), ("allocated_bytes", "tb"), ("peak_bytes", "gb"), ("peak_blocks", "gbk")]
        {
            assert_eq!(site[ours], point[theirs], "{ours} of {position}");
        }
        // Valgrind 3.19 notes the maxima of a point only when the whole heap reaches a maximum: it
        // says 0 for the blocks of a pair.
        if number(point, "gb") > 0 {
            assert_eq!(site["max_live_bytes"], point["mb"], "{position}");
            assert_eq!(site["max_live_blocks"], point["mbk"], "{position}");
        }
    }
}

#[test]
fn every_local_peak_is_found_and_can_be_looked_at() {
    let all = RUN.json("peaks", &["--drop", "50", "--top", "1000"]);
    let summary = RUN.json("summary", &[]);
    let peaks = all["peaks"].as_array().unwrap();
    assert_eq!(number(&peaks[0], "bytes"), number(&summary, "peak_bytes"));
    for peak in peaks.iter().take(5) {
        let at = peak["at"].as_str().unwrap();
        let heap = RUN.json("leaks", &["--at", at, "--no-default-suppressions"]);
        assert_eq!(heap["total_bytes"], peak["bytes"], "{peak}");
        assert_eq!(heap["total_blocks"], peak["blocks"], "{peak}");
    }
    assert!(peaks.is_sorted_by_key(|peak| std::cmp::Reverse(number(peak, "bytes"))));
    let dump = RUN.dump();
    let text = String::from_utf8(cli(["peaks", dump.to_str().unwrap(), "--top", "1"]).stdout).unwrap();
    assert!(text.contains("  1. ") && text.contains("--at event:"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
