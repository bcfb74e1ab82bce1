//! The planted habits of the examples stand where the profile says, at their exact lines.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, example_source, line_of, number, workspace};

/// The row of the line that ends with this marker, in the table of this function.
fn row(lines: &Value, name: &str, function: &str, marker: &str) -> Value {
    let line = line_of(&example_source(name), marker);
    let table = table(lines, function);
    let rows = table["lines"].as_array().unwrap();
    rows.iter().find(|row| row["line"] == line).unwrap_or_else(|| panic!("no line {line} in {table}")).clone()
}

fn table<'a>(lines: &'a Value, function: &str) -> &'a Value {
    let functions = lines["functions"].as_array().unwrap();
    let named = |table: &&Value| table["function"].as_str().is_some_and(|name| name.ends_with(function));
    functions.iter().find(named).unwrap_or_else(|| panic!("no table of {function}"))
}

fn sum(table: &Value, figure: &str) -> i64 {
    table["lines"].as_array().unwrap().iter().filter_map(|row| row[figure].as_i64()).sum()
}

#[test]
fn the_planted_leak_is_the_first_row() {
    let run = Run::traced("leaking_cache", &[]);
    let leaks = run.json("leaks", &[]);
    let first = &leaks["leaks"][0];
    let source = example_source("leaking_cache");
    assert_eq!(first["line"], line_of(&source, "// PLANTED: leak"));
    assert_eq!(first["file"].as_str().unwrap(), source.to_str().unwrap());
    assert_eq!(first["function"], "leaking_cache::render");
    // 1,000 entries of 4,096 bytes.
    assert_eq!((number(first, "bytes"), number(first, "blocks")), (1000 * 4096, 1000));
    let (first_ns, last_ns) = (number(first, "first_ns"), number(first, "last_ns"));
    assert!(
        0 < first_ns && first_ns < last_ns && last_ns <= number(&run.json("summary", &[]), "duration_ns")
    );
    let stack: Vec<&str> =
        first["stack"].as_array().unwrap().iter().filter_map(|f| f["function"].as_str()).collect();
    assert_eq!(stack.first(), Some(&"leaking_cache::render"));
    assert_eq!(stack.last(), Some(&"leaking_cache::main"));
    assert_eq!(number(&leaks, "total_bytes"), run.oracle()["live_bytes"]);
}

/// With the least debug info that has lines, inlined functions have short names: the tracker's own must not pass for the user's.
#[test]
fn the_planted_leak_is_the_first_row_with_line_tables_only() {
    let cargo = Command::new(env!("CARGO"))
        .env_remove("CARGO_BUILD_TARGET")
        .args(["build", "--quiet", "-p", "examples", "--bin", "leaking_cache", "--profile", "line-tables"])
        .args(["--config", "profile.line-tables.inherits=\"release\""])
        .args(["--config", "profile.line-tables.debug=\"line-tables-only\""])
        .arg("--target-dir")
        .arg(workspace().join("target"))
        .current_dir(workspace())
        .status();
    assert!(cargo.expect("cargo runs").success(), "cargo cannot build the example");
    let program = workspace().join("target/line-tables/leaking_cache");
    let run = Run::of(&mut Command::new(program), Duration::from_secs(300));
    let first = &run.json("leaks", &[])["leaks"][0];
    assert_eq!(first["line"], line_of(&example_source("leaking_cache"), "// PLANTED: leak"), "{first}");
    assert_eq!((number(first, "bytes"), number(first, "blocks")), (1000 * 4096, 1000));
    let function = first["stack"][0]["function"].as_str().unwrap();
    assert!(function.ends_with("render"), "{function}");
}

#[test]
fn increments_stand_at_their_lines() {
    let run = Run::traced("course_allocate", &[]);
    let lines = run.json("lines", &["--function", "allocate"]);
    let row = |marker| row(&lines, "course_allocate", "::allocate", marker);
    // The figures of the course's own table: two buffers, each with its line, freed at the closing brace.
    for (marker, increment, occurrences) in [
        ("// PLANTED: x", BUFFER_X, 1),
        ("// PLANTED: y", BUFFER_Y, 1),
        ("// PLANTED: freed", -BUFFER_X - BUFFER_Y, 2),
    ] {
        let row = row(marker);
        assert_eq!(
            (number(&row, "increment"), number(&row, "occurrences")),
            (increment, occurrences),
            "{row}"
        );
    }
    assert!(row("// PLANTED: sum")["increment"].is_null(), "a line without heap events has no figures");
    let usage = |marker| number(&row(marker), "mem_usage");
    assert_eq!(usage("// PLANTED: y") - usage("// PLANTED: x"), BUFFER_Y);
    assert_eq!(usage("// PLANTED: x") - usage("// PLANTED: freed"), BUFFER_X);
}

/// 77.5 MiB, as in the course.
const BUFFER_X: i64 = 155 << 19;
const BUFFER_Y: i64 = BUFFER_X;

/// Over all its calls a function changes the heap by the sum of its lines: with loops, recursion, nested calls,
/// closures, early returns and several instances, compared with a counter around the calls.
#[test]
fn increments_add_up_to_the_change_of_the_heap() {
    let run = Run::traced("measured", &[]);
    let said = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let mut checked = 0;
    for line in said.lines() {
        let (name, change) = line.split_once(' ').unwrap();
        let lines = run.json("lines", &["--function", &format!("measured::{name}")]);
        let tables: Vec<&Value> = lines["functions"].as_array().unwrap().iter().collect();
        assert_eq!(tables.len(), 1, "one table for {name}, with all instances and closures");
        // `nests` calls two of the others: they have events of its calls as well, and it has theirs.
        if !["grows", "recurses"].contains(&name) {
            assert_eq!(sum(tables[0], "increment"), change.parse::<i64>().unwrap(), "{name}");
            checked += 1;
        }
    }
    let change = |name: &str| -> i64 {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // What the functions that `nests` calls did there: 1 + … + 19 bytes by `grows`, 20 + 10 + 0 and three times 5 by
    // `recurses`, both three times.
    let all = |name: &str| sum(table(&run.json("lines", &[]), &format!("::{name}")), "increment");
    assert_eq!(all("grows"), change("grows") + 3 * (19 * 20 / 2));
    assert_eq!(all("recurses"), change("recurses") + 3 * (20 + 10 + 3 * 5));
    assert_eq!((checked, said.lines().count()), (5, 7));
}

/// Every table adds up, in programs of other people's code too.
#[test]
fn tables_are_consistent() {
    for name in ["leaking_cache", "parser_temporaries", "real_serde_json", "real_syn"] {
        let run = Run::traced(name, &[]);
        let (lines, summary) = (run.json("lines", &["--full"]), run.json("summary", &[]));
        for table in lines["functions"].as_array().unwrap() {
            assert_eq!(sum(table, "increment"), number(table, "increment"), "{}", table["function"]);
            assert_eq!(sum(table, "allocated") - sum(table, "freed"), sum(table, "increment"));
        }
        // Every event has the outermost frame of the process on its stack.
        let start = table(&lines, "_start");
        assert_eq!(sum(start, "allocated"), number(&summary, "allocated_bytes"), "{name}");
        assert_eq!(sum(start, "increment"), number(&summary, "live_bytes"), "{name}");
    }
}

#[test]
fn temporaries_and_peaks_are_at_their_sites() {
    let run = Run::traced("parser_temporaries", &[]);
    let summary = run.json("summary", &["--top", "100"]);
    let source = example_source("parser_temporaries");
    let at = |list: &str, marker: &str| {
        let line = line_of(&source, marker);
        let sites = summary[list].as_array().unwrap();
        sites
            .iter()
            .find(|site| site["line"] == line)
            .unwrap_or_else(|| panic!("no {marker} in {list}"))
            .clone()
    };
    // 14 tokens in each of 4,000 statements, every one a String that is dropped at once.
    let planted = at("top_allocations", "// PLANTED: temporaries");
    assert_eq!(
        (number(&planted, "allocations"), number(&planted, "temporary_allocations")),
        (14 * 4000, 14 * 4000)
    );
    assert!(number(&summary, "temporary_allocations") >= 14 * 4000);
    // The program text: 31 bytes a statement.
    assert_eq!(number(&at("top_peak", "// PLANTED: peak"), "peak_bytes"), 31 * 4000);

    let run = Run::traced("touch_barely", &[]);
    let summary = run.json("summary", &[]);
    let first = &summary["top_peak"][0];
    assert_eq!(first["line"], line_of(&example_source("touch_barely"), "// PLANTED: peak"));
    assert_eq!(number(first, "peak_bytes"), 256 << 20);

    let run = Run::traced("growing_queue", &[]);
    let summary = run.json("summary", &[]);
    let first = &summary["top_peak"][0];
    assert_eq!(first["line"], line_of(&example_source("growing_queue"), "// PLANTED: peak"));
    assert_eq!(number(first, "peak_bytes"), 3001 * 1024);
}

/// Frees have stacks too: what a consumer frees stands in the consumer, in its thread.
#[test]
fn frees_are_where_they_happen() {
    let run = Run::traced("growing_queue", &[]);
    let lines = run.json("lines", &["--function", "consume"]);
    let freed = row(&lines, "growing_queue", "::consume", "// PLANTED: freed");
    assert_eq!(number(&freed, "freed"), 4000 * 1024);
    let of_consumer = run.json("lines", &["--function", "consume", "--thread", "consumer"]);
    assert_eq!(row(&of_consumer, "growing_queue", "::consume", "// PLANTED: freed"), freed);
    let of_producer = run.json("lines", &["--function", "produce", "--thread", "producer"]);
    let produced = row(&of_producer, "growing_queue", "::produce", "// PLANTED: peak");
    assert_eq!((number(&produced, "allocated"), number(&produced, "freed")), (4000 * 1024, 0));
    // What is held counts for the thread that gave it its size, in every table.
    assert_eq!(number(&produced, "peak"), 3001 * 1024);
    let widths = |thread: &str| number(&run.json("flamegraph", &["--thread", thread]), "total");
    let (producer, consumer, others) = (widths("producer"), widths("consumer"), widths("growing_queue"));
    assert!(producer >= 3001 * 1024 && consumer < 1024 * 1024, "{producer} {consumer}");
    assert_eq!(producer + consumer + others, number(&run.json("summary", &[]), "peak_bytes"));
    let live = |args: &[&str]| number(&run.json("leaks", args), "total_bytes");
    let of_each = ["producer", "consumer", "growing_queue"].map(|thread| live(&["--thread", thread]));
    assert_eq!(of_each.iter().sum::<i64>(), live(&[]));
}

/// Programs of other people's code: the marked line is somewhere on the stack.
#[test]
fn marked_lines_of_real_programs_have_their_figures() {
    let run = Run::traced("real_serde_json", &[]);
    let lines = run.json("lines", &[]);
    let row = |function, marker| row(&lines, "real_serde_json", function, marker);
    let text = row("::document", "// PLANTED: text");
    assert_eq!(number(&text, "allocated"), 1 + 5000 * 78);
    let clones = row("::transform", "// PLANTED: clones");
    assert_eq!((number(&clones, "allocated"), number(&clones, "occurrences")), (5000 * 11, 5000));
    // A buffer that doubles from 128 bytes to 512 KiB: the last size is what the line has added.
    let doubling = row("::serialise", "// PLANTED: doubling");
    assert_eq!((number(&doubling, "occurrences"), number(&doubling, "increment")), (12, (128 << 12) - 128));

    let run = Run::traced("real_syn", &[]);
    let said = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let words: Vec<&str> = said.lines().find(|line| line.starts_with("kept ")).unwrap().split(' ').collect();
    let (names, bytes): (i64, i64) = (words[1].parse().unwrap(), words[4].parse().unwrap());
    let leaks = run.json("leaks", &[]);
    let line = line_of(&example_source("real_syn"), "// PLANTED: kept");
    let kept: Vec<&Value> =
        leaks["leaks"].as_array().unwrap().iter().filter(|leak| leak["line"] == line).collect();
    let total = |figure| kept.iter().map(|leak| number(leak, figure)).sum::<i64>();
    assert_eq!((total("blocks"), total("bytes")), (names, bytes));
}

/// The same dump gives the same bytes, and the weights of the picture are those of the metric.
#[test]
fn flamegraphs_are_deterministic_and_add_up() {
    let run = Run::traced("leaking_cache", &[]);
    let summary = run.json("summary", &[]);
    for (metric, total) in [
        ("live", "live_bytes"),
        ("peak", "peak_bytes"),
        ("allocated", "allocated_bytes"),
        ("allocations", "allocations"),
        ("temporary", "temporary_allocations"),
    ] {
        let draw = || {
            let path = run.folder.path().join("x.svg");
            let output = tests::cli([
                "flamegraph",
                run.dump().to_str().unwrap(),
                "--metric",
                metric,
                "-o",
                path.to_str().unwrap(),
            ]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::read_to_string(path).unwrap()
        };
        let svg = draw();
        assert_eq!(svg, draw());
        assert!(
            svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>") && svg.contains("leaking_cache")
        );
        let stacks = run.json("flamegraph", &["--metric", metric]);
        assert_eq!(stacks["total"], summary[total]);
        let sum: i64 = stacks["stacks"].as_array().unwrap().iter().map(|stack| number(stack, "value")).sum();
        assert_eq!(sum, number(&summary, total));
    }
    let full = run.json("flamegraph", &["--full"]);
    let text = full.to_string();
    assert!(text.contains("__libc_start_main") && text.contains("__rust_alloc"), "--full keeps the runtime");
    assert!(!run.json("flamegraph", &[]).to_string().contains("\"std::rt::lang_start::<()>"));
}
