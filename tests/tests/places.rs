//! The profile attributes the planted habit of each example to its exact source line.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, example_source, frames_of, line_of, number, source_of, workspace};

/// Returns the row of the line that ends with `marker`, from the table of `function`.
fn row(lines: &Value, name: &str, function: &str, marker: &str) -> Value {
    let line = line_of(&example_source(name), marker);
    let table = table(lines, function);
    let rows = table["lines"].as_array().unwrap();
    rows.iter().find(|row| row["line"] == line).unwrap_or_else(|| panic!("no line {line} in {table}")).clone()
}

/// Returns the first table whose function's name ends with `function`.
fn table<'a>(lines: &'a Value, function: &str) -> &'a Value {
    let functions = lines["functions"].as_array().unwrap();
    let named = |table: &&Value| table["function"].as_str().is_some_and(|name| name.ends_with(function));
    functions.iter().find(named).unwrap_or_else(|| panic!("no table of {function}"))
}

/// Adds up one figure over all rows of a table.
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
    assert_eq!(source_of(&leaks, first), source);
    assert_eq!(first["function"], "leaking_cache::render");
    // 1,000 entries of 4,096 bytes.
    assert_eq!((number(first, "bytes"), number(first, "blocks")), (1000 * 4096, 1000));
    let (first_ns, last_ns) = (number(first, "first_ns"), number(first, "last_ns"));
    assert!(
        0 < first_ns && first_ns < last_ns && last_ns <= number(&run.json("summary", &[]), "duration_ns")
    );
    let stack: Vec<&str> = frames_of(&leaks, first).iter().filter_map(|f| f["function"].as_str()).collect();
    assert_eq!(stack.first(), Some(&"leaking_cache::render"));
    assert_eq!(stack.last(), Some(&"leaking_cache::main"));
    let all = number(&leaks, "total_bytes") + number(&leaks["suppressed"], "bytes");
    assert_eq!(all, run.oracle()["live_bytes"]);
}

/// With line tables only, the least debug info that has lines, inlined functions have short names
/// without a path. A function of the tracker must not be taken for one of the user's code.
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
    let leaks = run.json("leaks", &[]);
    let first = &leaks["leaks"][0];
    assert_eq!(first["line"], line_of(&example_source("leaking_cache"), "// PLANTED: leak"), "{first}");
    assert_eq!((number(first, "bytes"), number(first, "blocks")), (1000 * 4096, 1000));
    let function = frames_of(&leaks, first)[0]["function"].as_str().unwrap();
    assert!(function.ends_with("render"), "{function}");
}

#[test]
fn increments_are_on_the_lines_that_cause_them() {
    let run = Run::traced("course_allocate", &[]);
    let lines = run.json("lines", &["--function", "allocate"]);
    let row = |marker| row(&lines, "course_allocate", "::allocate", marker);
    // The figures of the course's own table: each of two buffers has a line, and the closing brace
    // frees both.
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

/// 77.5 MiB, as in the course: 155 halves of a MiB.
const BUFFER_X: i64 = 155 << 19;
const BUFFER_Y: i64 = BUFFER_X;

/// Over all its calls a function changes the heap by the sum of its lines' increments. The program
/// has loops, recursion, nested calls, closures, early returns and several instances, and prints
/// what an independent counter around the calls measured.
#[test]
fn increments_add_up_to_the_change_of_the_heap() {
    let run = Run::traced("measured", &[]);
    let stdout = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let mut checked = 0;
    for line in stdout.lines() {
        let (name, change) = line.split_once(' ').unwrap();
        let lines = run.json("lines", &["--function", &format!("measured::{name}")]);
        let tables: Vec<&Value> = lines["functions"].as_array().unwrap().iter().collect();
        assert_eq!(tables.len(), 1, "{name} has one table, which includes all instances and closures");
        // `nests` calls `grows` and `recurses`. The tables of these two also have the events of
        // those calls, so they are compared below. The table of `nests` includes the events of its
        // callees.
        if !["grows", "recurses"].contains(&name) {
            assert_eq!(sum(tables[0], "increment"), change.parse::<i64>().unwrap(), "{name}");
            checked += 1;
        }
    }
    let change = |name: &str| -> i64 {
        let line = stdout.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // `nests` runs three times. Each time `grows` keeps 1 + … + 19 bytes, and `recurses` keeps
    // 20 + 10 + 0 bytes and three times 5 bytes.
    let all = |name: &str| sum(table(&run.json("lines", &[]), &format!("::{name}")), "increment");
    assert_eq!(all("grows"), change("grows") + 3 * (19 * 20 / 2));
    assert_eq!(all("recurses"), change("recurses") + 3 * (20 + 10 + 3 * 5));
    assert_eq!((checked, stdout.lines().count()), (5, 7));
}

/// The programs include ones that run real libraries.
#[test]
fn the_rows_of_every_table_add_up_to_its_total() {
    for name in ["leaking_cache", "parser_temporaries", "real_serde_json", "real_syn"] {
        let run = Run::traced(name, &[]);
        let (lines, summary) = (run.json("lines", &["--full"]), run.json("summary", &[]));
        for table in lines["functions"].as_array().unwrap() {
            assert_eq!(sum(table, "increment"), number(table, "increment"), "{}", table["function"]);
            assert_eq!(sum(table, "allocated") - sum(table, "freed"), sum(table, "increment"));
        }
        // `_start` is the outermost frame of every stack, so its table has every event.
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
    // Each of the 4,000 statements has 14 tokens, and each token is a String that is dropped at
    // once.
    let planted = at("top_allocations", "// PLANTED: temporaries");
    assert_eq!(
        (number(&planted, "allocations"), number(&planted, "temporary_allocations")),
        (14 * 4000, 14 * 4000)
    );
    assert!(number(&summary, "temporary_allocations") >= 14 * 4000);
    // The program text has 31 bytes for each of the 4,000 statements.
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

/// Frees have stacks, too: bytes that a consumer frees are on the consumer's line, in its thread.
#[test]
fn frees_count_for_the_line_and_thread_that_free() {
    let run = Run::traced("growing_queue", &[]);
    let lines = run.json("lines", &["--function", "consume"]);
    let freed = row(&lines, "growing_queue", "::consume", "// PLANTED: freed");
    assert_eq!(number(&freed, "freed"), 4000 * 1024);
    let of_consumer = run.json("lines", &["--function", "consume", "--thread", "consumer"]);
    assert_eq!(row(&of_consumer, "growing_queue", "::consume", "// PLANTED: freed"), freed);
    let of_producer = run.json("lines", &["--function", "produce", "--thread", "producer"]);
    let produced = row(&of_producer, "growing_queue", "::produce", "// PLANTED: peak");
    assert_eq!((number(&produced, "allocated"), number(&produced, "freed")), (4000 * 1024, 0));
    // In every table, live bytes count for the thread that gave the block its size.
    assert_eq!(number(&produced, "peak"), 3001 * 1024);
    let total_of = |thread: &str| number(&run.json("flamegraph", &["--thread", thread]), "total");
    let (producer, consumer, others) =
        (total_of("producer"), total_of("consumer"), total_of("growing_queue"));
    assert!(producer >= 3001 * 1024 && consumer < 1024 * 1024, "{producer} {consumer}");
    assert_eq!(producer + consumer + others, number(&run.json("summary", &[]), "peak_bytes"));
    let live = |args: &[&str]| number(&run.json("leaks", args), "total_bytes");
    let of_each = ["producer", "consumer", "growing_queue"].map(|thread| live(&["--thread", thread]));
    assert_eq!(of_each.iter().sum::<i64>(), live(&[]));
}

/// In programs that run real libraries, the marked line is somewhere on the stack, not at its leaf.
#[test]
fn marked_lines_of_real_programs_have_their_figures() {
    let run = Run::traced("real_serde_json", &[]);
    let lines = run.json("lines", &[]);
    let row = |function, marker| row(&lines, "real_serde_json", function, marker);
    let text = row("::document", "// PLANTED: text");
    assert_eq!(number(&text, "allocated"), 1 + 5000 * 78);
    let clones = row("::transform", "// PLANTED: clones");
    assert_eq!((number(&clones, "allocated"), number(&clones, "occurrences")), (5000 * 11, 5000));
    // The buffer doubles twelve times, from 128 bytes to 128 << 12 bytes (512 KiB). Each
    // reallocation frees the old size, so the line adds the last size minus the first.
    let doubling = row("::serialise", "// PLANTED: doubling");
    assert_eq!((number(&doubling, "occurrences"), number(&doubling, "increment")), (12, (128 << 12) - 128));

    let run = Run::traced("real_syn", &[]);
    let stdout = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let words: Vec<&str> =
        stdout.lines().find(|line| line.starts_with("kept ")).unwrap().split(' ').collect();
    let (names, bytes): (i64, i64) = (words[1].parse().unwrap(), words[4].parse().unwrap());
    let leaks = run.json("leaks", &[]);
    let line = line_of(&example_source("real_syn"), "// PLANTED: kept");
    let kept: Vec<&Value> =
        leaks["leaks"].as_array().unwrap().iter().filter(|leak| leak["line"] == line).collect();
    let total = |figure| kept.iter().map(|leak| number(leak, figure)).sum::<i64>();
    assert_eq!((total("blocks"), total("bytes")), (names, bytes));
}

/// Two drawings of a dump are equal byte for byte, and the weights of the stacks add up to the
/// metric's total in the summary.
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
