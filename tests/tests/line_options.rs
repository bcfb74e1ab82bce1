//! What `lines` shows on request, of functions with `#[profile]`, and of a program that records itself more than once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, json, line_of, number, output_within, program, workspace};

fn source(name: &str) -> std::path::PathBuf {
    workspace().join("tests/src/bin").join(name)
}

fn tables(lines: &Value) -> &[Value] {
    lines["functions"].as_array().unwrap()
}

/// The line, and what was allocated and freed in calls from there, of each caller.
fn callers(run: &Run, function: &str) -> Vec<(String, i64, i64, i64)> {
    let lines = run.json("lines", &["--callers", "--function", function]);
    let [table] = tables(&lines) else { panic!("{lines}") };
    let callers = table["callers"].as_array().unwrap().iter();
    let caller = |caller: &Value| {
        let name = caller["function"].as_str().unwrap().to_owned();
        (name, number(caller, "line"), number(caller, "allocated"), number(caller, "freed"))
    };
    callers.map(caller).collect()
}

#[test]
fn callers_are_the_lines_that_call() {
    let run = Run::traced("announced", &[]);
    let line = |ending: &str| i64::from(line_of(&source("announced.rs"), ending));
    let outer = line("let more = inner(); //= 1 3000");
    assert_eq!(callers(&run, "announced::inner"), [("announced::outer".to_owned(), outer, 3500, 500)]);
    // A hundred bytes for each depth: 500 of the outermost call, the rest by itself. What they free is freed as they return.
    let (by_main, by_itself) = (line("recurses(4);"), line("let below = recurses(depth - 1); //= 4 0"));
    let expected = [
        ("announced::recurses".to_owned(), by_itself, 1000, 1000),
        ("announced::main".to_owned(), by_main, 500, 500),
    ];
    assert_eq!(callers(&run, "announced::recurses"), expected);
}

#[test]
fn functions_stand_in_the_order_that_was_asked_for() {
    let sum = |table: &Value, field: &str| -> i64 {
        table["lines"].as_array().unwrap().iter().filter_map(|row| row[field].as_i64()).sum()
    };
    let in_order = |run: &Run, field: &str, file: &str| {
        let lines = run.json("lines", &["--sort", field, "--file", file]);
        let sums: Vec<i64> = tables(&lines).iter().map(|table| sum(table, field)).collect();
        assert!(sums.is_sorted_by(|a, b| a >= b), "{field}: {sums:?}");
        assert!(sums.first() > sums.last(), "{field}: all the same proves nothing: {sums:?}");
    };
    let run = Run::traced("announced", &[]);
    for field in ["allocated", "increment", "peak"] {
        in_order(&run, field, "announced.rs");
    }
    let lines = run.json("lines", &["--sort", "name", "--file", "announced.rs"]);
    let names: Vec<&str> = tables(&lines).iter().map(|table| table["function"].as_str().unwrap()).collect();
    assert!(names.len() > 10 && names.is_sorted(), "{names:?}");
    // What that leaves at its end is the C library's business; this keeps a cache.
    in_order(&Run::traced("leaking_cache", &[]), "live", "leaking_cache.rs");
}

/// How often the lines with these endings were reached, and what they added.
fn rows(dump: &Path, function: &str, endings: &[&str]) -> Vec<(i64, i64)> {
    let lines = json("lines", dump, &["--function", function]);
    let [table] = tables(&lines) else { panic!("{lines}") };
    assert_eq!(table["source"], "annotation", "{lines}");
    let row = |ending: &&str| {
        let line = i64::from(line_of(&source("twice.rs"), ending));
        let row = table["lines"].as_array().unwrap().iter().find(|row| row["line"] == line).unwrap();
        (number(row, "occurrences"), number(row, "increment"))
    };
    endings.iter().map(row).collect()
}

#[test]
fn two_recordings_of_a_process_know_nothing_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let dumps = [folder.path().join("first.alloc"), folder.path().join("second.alloc")];
    let output = output_within(Command::new(program("twice")).args(&dumps), Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second] = &dumps;
    let endings = ["// grows", "// repeats", "// frees"];
    assert_eq!(rows(first, "twice::grows", &endings), [(1, 100), (1, 200), (1, -100)]);
    assert_eq!(rows(second, "twice::grows", &endings), [(2, 600), (2, 1200), (2, -600)]);
    // It began in the first one, and is over before it ends: there is its first line, and nothing in the second.
    assert_eq!(rows(first, "twice::changes_over", &["// in the first"]), [(1, 70)]);
    let annotated = |dump: &Path, name: &str| {
        let lines = json("lines", dump, &["--function", name]);
        tables(&lines).iter().any(|table| table["source"] == "annotation")
    };
    assert!(!annotated(second, "twice::changes_over"));
    // It began before either.
    assert!(!annotated(first, "twice::spans_both") && !annotated(second, "twice::spans_both"));
    for dump in &dumps {
        let summary = json("summary", dump, &[]);
        assert_eq!((&summary["complete"], number(&summary, "lost_events")), (&Value::from(true), 0));
    }
}

/// What the program's own functions have allocated, by name, but for `main`.
fn allocated(run: &Run, args: &[&str]) -> BTreeMap<String, i64> {
    let lines = run.json("lines", &[&["--file", "instances.rs"], args].concat());
    let named = |table: &Value| (table["function"].as_str().unwrap().to_owned(), number(table, "allocated"));
    tables(&lines).iter().map(named).filter(|(name, _)| !name.ends_with("main")).collect()
}

#[test]
fn instances_of_a_generic_function_stand_together_or_apart() {
    let run = Run::traced("instances", &[]);
    let together = allocated(&run, &[]);
    assert_eq!(together.values().copied().collect::<Vec<_>>(), [7000, 12_000], "{together:?}");
    let apart = allocated(&run, &["--split-generics"]);
    assert_eq!(apart.len(), 4, "{apart:?}");
    for (ending, bytes) in [
        ("filled::<u8>", 1000),
        ("filled::<[u16; 3]>", 6000),
        ("by_closure::<u32>", 4000),
        ("by_closure::<i64>", 8000),
    ] {
        let mut found = apart.iter().filter(|(name, _)| name.ends_with(ending)).map(|(_, bytes)| *bytes);
        assert_eq!((found.next(), found.next()), (Some(bytes), None), "{ending}: {apart:?}");
    }
    // By the function, and by one of its instances.
    let names = |pattern: &str| allocated(&run, &["--split-generics", "--function", pattern]);
    assert_eq!(names("instances::by_closure").values().sum::<i64>(), 12_000);
    assert_eq!(names("instances::by_closure::<u32>").into_values().collect::<Vec<_>>(), [4000]);
}
