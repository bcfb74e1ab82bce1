//! `timeline` shows the process over time. The program's heap is a staircase: five steps of one MiB
//! up, and all down.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, cli, number, program};

const STEP: i64 = 1 << 20;
const STEPS: i64 = 5;

fn points<'a>(timeline: &'a Value, field: &str) -> &'a Vec<Value> {
    timeline[field].as_array().unwrap()
}

#[test]
fn the_heap_is_exact_at_every_mark_and_between_them() {
    let run = Run::traced("staircase", &[]);
    let timeline = run.json("timeline", &[]);
    let marks = points(&timeline, "marks");
    let names: Vec<&str> = marks.iter().map(|mark| mark["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ground", "one", "two", "three", "four", "five", "down"]);
    let at_mark: Vec<i64> = marks.iter().map(|mark| number(mark, "live_bytes")).collect();
    let ground = at_mark[0];
    let climbed: Vec<i64> = (0..=STEPS).map(|step| ground + step * STEP).collect();
    assert_eq!(at_mark[..6], climbed);
    // The steps are freed, and so is the vector that held them: five entries of 24 bytes.
    assert_eq!(at_mark[6], ground - STEPS * 24);

    let heap = points(&timeline, "heap");
    let ends: Vec<(i64, i64)> = heap.iter().map(|p| (number(p, "start_ns"), number(p, "end_ns"))).collect();
    assert!(ends.windows(2).all(|pair| pair[0].1 == pair[1].0), "the intervals have no gaps");
    assert_eq!(ends.last().unwrap().1, number(&timeline, "duration_ns"));
    let most = heap.iter().map(|point| number(point, "max")).max().unwrap();
    let summary = run.json("summary", &[]);
    assert_eq!((most, number(&timeline, "peak_bytes")), (ground + STEPS * STEP, most));
    assert_eq!(number(heap.last().unwrap(), "last"), number(&summary, "live_bytes"));
    // `climb` rests for 40 ms after each allocation, and its mark follows. So 20 ms before the mark
    // the heap holds the steps so far and nothing else changes.
    for (step, mark) in marks[1..6].iter().enumerate() {
        let middle = number(mark, "ns") - 20_000_000;
        let point = heap.iter().find(|point| number(point, "end_ns") > middle).unwrap();
        let expected = ground + (step as i64 + 1) * STEP;
        assert_eq!((number(point, "min"), number(point, "max")), (expected, expected), "step {step}");
    }
}

#[test]
fn samples_show_touched_pages_and_calls_last_as_long_as_they_did() {
    let run = Run::traced("staircase", &["rest"]);
    let timeline = run.json("timeline", &[]);
    let samples = points(&timeline, "samples");
    let marks = points(&timeline, "marks");
    let (ground, five) = (number(&marks[0], "ns"), number(&marks[5], "ns"));
    let rss = |until: i64| {
        let seen = samples.iter().filter(|sample| number(sample, "ns") <= until);
        seen.map(|sample| number(sample, "rss")).max().unwrap()
    };
    // A page or two may have been resident before, and some kernels update the figure some dozen
    // pages late.
    assert!(rss(five) - rss(ground) >= STEPS * STEP - STEP / 4, "{} {}", rss(ground), rss(five));
    assert!(samples.is_sorted_by_key(|sample| number(sample, "minor_faults")));
    let functions = points(&timeline, "functions");
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0]["function"], "staircase::climb");
    let spans = points(&functions[0], "spans");
    assert_eq!(spans.len() as i64, STEPS);
    for (span, mark) in spans.iter().zip(&marks[1..6]) {
        let (start, end) = (number(span, "start_ns"), number(span, "end_ns"));
        assert!(end - start >= 40_000_000 && end <= number(mark, "ns"), "{span} {mark}");
        assert_eq!(span["thread"], "staircase");
    }
    let filtered = run.json("timeline", &["--function", "climb", "--thread", "staircase"]);
    assert_eq!(points(&filtered, "functions").len(), 1);
}

#[test]
fn csv_text_and_svg_show_the_figures_of_the_json() {
    let run = Run::traced("staircase", &[]);
    let timeline = run.json("timeline", &[]);
    let dump = run.dump();
    let printed = |args: &[&str]| {
        let mut all = vec!["timeline", dump.to_str().unwrap()];
        all.extend(args);
        let output = cli(all);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let csv = printed(&["--csv"]);
    assert_eq!(csv, printed(&["--format", "csv"]));
    let rows = |kind: &str| csv.lines().filter(|line| line.starts_with(kind)).count();
    assert_eq!(rows("heap,"), points(&timeline, "heap").len());
    assert_eq!(rows("sample,"), points(&timeline, "samples").len());
    assert_eq!((rows("mark,"), rows("call,")), (7, 5));

    let text = printed(&["--width", "80", "--height", "8"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["live heap (exact)", "RSS (sampled)", "Peak of the live heap: 5.0 MiB", "climb │"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }

    let picture = run.folder.path().join("memory.svg");
    printed(&["-o", picture.to_str().unwrap(), "--series", "heap,rss,vsz,minor-faults"]);
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert_eq!(svg.matches("class=\"call\"").count(), 5);
    assert_eq!(svg.matches("class=\"mark\"").count(), 7);
    assert!(svg.contains("VSZ (sampled)") && svg.ends_with("</svg>\n"));
}

#[test]
fn lines_show_resident_set_and_page_faults_on_request() {
    let mut command = Command::new(program("staircase"));
    let run = Run::of(command.env("ALLOC_TRACKER_LINES", "rss,faults"), Duration::from_secs(60));
    let tables = run.json("lines", &["--function", "climb"]);
    let table = &tables["functions"][0];
    let row = |text: &str| {
        let rows = table["lines"].as_array().unwrap();
        rows.iter().find(|row| row["text"].as_str().unwrap().contains(text)).unwrap()
    };
    let (step, rest) = (row("vec!["), row("sleep("));
    // This line touches every page of the five steps for the first time. The kernel counts in
    // batches of some pages, so up to 63 more may be there.
    let pages = STEPS * STEP / 4096;
    assert!((pages..pages + 64).contains(&number(step, "minor_faults")), "{step}");
    assert!((number(step, "rss") - STEPS * STEP).abs() <= 256 << 10, "{step}");
    assert!(number(rest, "rss").abs() <= 256 << 10 && number(rest, "minor_faults") < 64, "{rest}");
    assert!(!step["major_faults"].is_null());
    // All five steps are live at the peak, and none is live at the end.
    assert_eq!((number(step, "peak"), number(step, "live")), (STEPS * STEP, 0));
    assert_eq!((number(step, "increment"), number(step, "temporary")), (STEPS * STEP, 0));
    let without = Run::traced("staircase", &[]).json("lines", &["--function", "climb"]);
    let rows = without["functions"][0]["lines"].as_array().unwrap().clone();
    assert!(rows.iter().all(|row| row["rss"].is_null() && row["minor_faults"].is_null()));
}

#[test]
fn a_pattern_that_matches_no_function_is_refused_in_one_line() {
    let run = Run::traced("staircase", &[]);
    let output = cli(["timeline", run.dump().to_str().unwrap(), "--function", "clmib"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1);
    assert!(
        stderr.contains("no annotated function matches 'clmib'; the nearest: staircase::climb"),
        "{stderr}"
    );
}

#[test]
fn groups_add_up_to_the_heap_at_every_time() {
    let run = Run::traced("staircase", &[]);
    let dump = run.dump();
    let printed = |args: &[&str]| {
        let output = cli([&["timeline", dump.to_str().unwrap()], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for by in ["site", "crate", "thread"] {
        let timeline = run.json("timeline", &["--by", by, "--top", "2"]);
        let groups = &timeline["groups"];
        assert_eq!(groups["by"], by);
        let all = points(groups, "points");
        for point in all {
            let sum: i64 = points(point, "bytes").iter().map(|bytes| bytes.as_i64().unwrap()).sum();
            assert_eq!(sum, number(point, "max"), "{point}");
        }
        let highest = all.iter().map(|point| number(point, "max")).max().unwrap();
        assert_eq!(highest, number(&timeline, "peak_bytes"), "{by}");
        assert!(all.windows(2).all(|pair| pair[0]["end_ns"] == pair[1]["start_ns"]));
        // What held most comes first: the five steps.
        let first = &points(groups, "groups")[0];
        assert!(first["name"].as_str().unwrap().contains("staircase"), "{first}");
        assert!(number(first, "max_bytes") >= STEPS * STEP, "{first}");

        let text = printed(&["--by", by, "--top", "2", "--width", "80"]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains(&format!("At most, by {by}:\n  A    5.0 MiB  ")), "{text}");
        let csv = printed(&["--by", by, "--top", "2", "--csv"]);
        let rows = csv.lines().filter(|line| line.starts_with("group,")).count();
        assert_eq!(rows, all.len() * points(groups, "groups").len());
        let svg = printed(&["--by", by, "--top", "2", "-o", "-", "--format", "svg"]);
        assert!(svg.contains("<path class=\"g0\"") && svg.ends_with("</svg>\n"));
    }
    assert!(run.json("timeline", &[])["groups"].is_null());
}
