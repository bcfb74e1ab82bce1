//! `--at`, `--from` and `--to`: reports about a moment or an interval. The program is a staircase:
//! five steps of one MiB up, with a mark at each, and all down.

use std::sync::LazyLock;

use serde_json::Value;
use tests::{Run, cli, line_of, number, workspace};

const STEP: i64 = 1 << 20;
/// Makes `leaks` count what std keeps for itself, as all other commands do.
const WITH_STD: &str = "--no-default-suppressions";
const MARKS: [&str; 7] = ["ground", "one", "two", "three", "four", "five", "down"];

static RUN: LazyLock<Run> = LazyLock::new(|| Run::traced("staircase", &[]));

/// Returns what is live at each mark, which the recording says in another way than by an interval.
fn live_at_marks() -> Vec<i64> {
    let timeline = RUN.json("timeline", &[]);
    let marks = timeline["marks"].as_array().unwrap();
    assert_eq!(marks.iter().map(|mark| mark["name"].as_str().unwrap()).collect::<Vec<_>>(), MARKS);
    marks.iter().map(|mark| number(mark, "live_bytes")).collect()
}

/// Returns what a command prints, and its exit status.
fn printed(args: &[&str]) -> (String, String, Option<i32>) {
    let dump = RUN.dump();
    let mut all = vec![args[0], dump.to_str().unwrap()];
    all.extend(&args[1..]);
    let output = cli(all);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn at_a_mark_the_live_heap_is_that_of_the_mark() {
    let live = live_at_marks();
    for (mark, live) in MARKS.iter().zip(&live) {
        let at = format!("mark:{mark}");
        let summary = RUN.json("summary", &["--at", &at]);
        assert_eq!(number(&summary, "live_bytes"), *live, "{mark}");
        assert_eq!(number(&summary["interval"], "live_bytes_after"), *live, "{mark}");
        assert_eq!(number(&RUN.json("leaks", &["--at", &at, WITH_STD]), "total_bytes"), *live, "{mark}");
        assert_eq!(number(&RUN.json("flamegraph", &["--at", &at]), "total"), *live, "{mark}");
    }
    let whole = RUN.json("summary", &[]);
    assert!(whole["interval"].is_null());
    let peak = number(&whole, "peak_bytes");
    assert_eq!(peak, live[5]);
    assert_eq!(number(&RUN.json("leaks", &["--at", "peak", WITH_STD]), "total_bytes"), peak);
    assert_eq!(
        number(&RUN.json("leaks", &["--at", "end", WITH_STD]), "total_bytes"),
        number(&whole, "live_bytes")
    );
}

#[test]
fn between_two_marks_what_was_born_and_freed_is_the_difference() {
    let live = live_at_marks();
    for (from, to) in [(0, 5), (1, 4), (2, 6), (3, 3), (5, 6)] {
        let (from_mark, to_mark) = (format!("mark:{}", MARKS[from]), format!("mark:{}#1", MARKS[to]));
        let summary = RUN.json("summary", &["--from", &from_mark, "--to", &to_mark]);
        let interval = &summary["interval"];
        assert_eq!(interval["from"], from_mark);
        let (before, after) = (number(interval, "live_bytes_before"), number(interval, "live_bytes_after"));
        assert_eq!((before, after), (live[from], live[to]), "{from} {to}");
        let change = number(&summary, "allocated_bytes") - number(&summary, "freed_bytes");
        assert_eq!(before + change, after, "{from} {to}");
        let highest = *live[from..=to].iter().max().unwrap();
        assert_eq!(number(&summary, "peak_bytes"), highest, "{from} {to}");
        let leaks = RUN.json("leaks", &["--from", &from_mark, "--to", &to_mark]);
        let steps = if to == 6 { 0 } else { (to - from) as i64 };
        assert_eq!(number(&leaks, "total_bytes"), steps * STEP, "{from} {to}");
        assert_eq!(number(&leaks, "total_blocks"), steps, "{from} {to}");
    }
}

#[test]
fn lines_calls_and_curves_are_those_of_the_interval() {
    let args = ["--from", "mark:one", "--to", "mark:four"];
    let lines = RUN.json("lines", &[&args[..], &["--function", "climb"]].concat());
    let table = &lines["functions"][0];
    assert_eq!((number(table, "increment"), number(table, "freed")), (3 * STEP, 0));
    let rows = table["lines"].as_array().unwrap();
    let step = rows.iter().find(|row| row["text"].as_str().unwrap().contains("vec![")).unwrap();
    assert_eq!((number(step, "occurrences"), number(step, "live")), (3, 3 * STEP));
    // The first step is older than the interval, but part of its peak.
    assert_eq!(number(step, "peak"), 4 * STEP);

    let timeline = RUN.json("timeline", &args);
    let (from, to) = (number(&timeline["interval"], "from_ns"), number(&timeline["interval"], "to_ns"));
    let of = |field: &str| timeline[field].as_array().unwrap().clone();
    let heap = of("heap");
    assert_eq!((number(&heap[0], "start_ns"), number(heap.last().unwrap(), "end_ns")), (from, to));
    let spans = timeline["functions"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 3);
    assert!(of("samples").iter().all(|sample| (from..=to).contains(&number(sample, "ns"))));
    let marks: Vec<Value> = of("marks").iter().map(|mark| mark["name"].clone()).collect();
    assert_eq!(marks, ["two", "three", "four"]);
}

#[test]
fn the_text_names_the_interval() {
    let (summary, _, _) = printed(&["summary", "--from", "mark:one", "--to", "mark:four"]);
    assert!(summary.contains("\n  interval       from mark:one (") && summary.contains(" to mark:four ("));
    assert!(summary.contains("\n  born and live  3.0 MiB (3,145,728 B) in 3 blocks\n"), "{summary}");
    let (leaks, _, _) = printed(&["leaks", "--from", "mark:one", "--to", "mark:four"]);
    assert!(leaks.starts_with("Born from mark:one ("), "{leaks}");
    let (leaks, _, _) = printed(&["leaks", "--at", "mark:two"]);
    assert!(leaks.starts_with("Live at mark:two ("), "{leaks}");
    let (lines, _, _) = printed(&["lines", "--to", "-1ms"]);
    assert!(lines.starts_with("Interval: up to "), "{lines}");
    let (timeline, _, _) = printed(&["timeline", "--from", "mark:one", "--width", "80"]);
    assert!(timeline.contains("\nInterval: from mark:one ("), "{timeline}");
    assert!(timeline.lines().all(|line| line.chars().count() <= 80), "{timeline}");
    let (svg, _, _) = printed(&["flamegraph", "--at", "mark:three", "-o", "-"]);
    assert!(svg.contains("Live at mark:three (") && svg.contains("3.0 MiB"), "{svg}");
}

#[test]
fn a_moment_that_is_not_there_is_refused_in_one_line() {
    for (args, expected) in [
        (&["--at", "mark:tree"][..], "no mark is named 'tree'; there are: 'ground', 'one', 'two', 'three'"),
        (&["--at", "mark:one#2"], "mark 'one' was set once, so there is no mark:one#2"),
        (&["--from", "2h"], "2h: the recording has a length of "),
        (&["--from", "mark:two", "--to", "mark:one"], "--from mark:two comes after --to mark:one"),
        (&["--from", "event:9", "--to", "1us"], "--from event:9 comes after --to 1us"),
    ] {
        for command in ["summary", "lines", "leaks", "flamegraph"] {
            let (_, stderr, code) = printed(&[&[command], args].concat());
            assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
            assert!(stderr.contains(expected), "{stderr}");
        }
    }
    let (_, stderr, code) = printed(&["summary", "--at", "tomorrow"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("give a moment: 30s, 1.5ms or 2m from the start"), "{stderr}");
    let (_, _, code) = printed(&["summary", "--at", "peak", "--to", "1s"]);
    assert_eq!(code, Some(2), "--at is a moment, --to the end of an interval");
}

/// What a growing buffer holds is no new block, and yet it is what the interval left behind.
#[test]
fn older_blocks_that_grow_in_an_interval_are_part_of_what_it_leaves_behind() {
    let run = Run::traced("grower", &[]);
    let source = workspace().join("tests/src/bin/grower.rs");
    let (grows, born) =
        (line_of(&source, "// grows from 100 to 1,000 bytes"), line_of(&source, "// born in the interval"));
    let between = ["--from", "mark:before", "--to", "mark:after"];
    let leaks = run.json("leaks", &between);
    let of = |value: &Value| {
        ["line", "bytes", "blocks", "grown_bytes", "grown_blocks"].map(|field| number(value, field))
    };
    let rows: Vec<_> = leaks["leaks"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(rows, [[i64::from(grows), 0, 0, 900, 1], [i64::from(born), 50, 1, 0, 0]]);
    let total = ["total_bytes", "total_blocks", "grown_bytes", "grown_blocks"];
    assert_eq!(total.map(|field| number(&leaks, field)), [50, 1, 900, 1]);

    let dump = run.dump();
    let report = |limit: &str| {
        let all = ["leaks", dump.to_str().unwrap(), "--fail-on-leak", limit];
        cli(all.into_iter().chain(between))
    };
    let text = String::from_utf8(report("950").stdout).unwrap();
    assert!(text.contains(" 900 B, 94.7 %, by the growth of 1 older block at "), "{text}");
    assert_eq!((report("950").status.code(), report("949").status.code()), (Some(0), Some(1)));

    // In the whole recording the buffer is one block. It was allocated at least two milliseconds
    // before it got its present size.
    let whole = run.json("leaks", &[]);
    let row = &whole["leaks"].as_array().unwrap().iter().find(|row| row["line"] == grows).unwrap();
    assert_eq!(of(row), [i64::from(grows), 1000, 1, 0, 0]);
    assert!(number(row, "last_ns") - number(row, "first_ns") >= 2_000_000, "{row}");
}
