//! Options of `lines`: callers, the order of tables, instances of generic functions. And the tables
//! of annotated functions in a process that makes two recordings.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, json, line_of, number, output_within, program, workspace};

/// Returns the path of a program's source file.
fn source(name: &str) -> std::path::PathBuf {
    workspace().join("tests/src/bin").join(name)
}

fn tables(lines: &Value) -> &[Value] {
    lines["functions"].as_array().unwrap()
}

/// Returns for each caller its name, its line, and the bytes that were allocated and freed in calls
/// from that line.
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
fn callers_are_the_lines_of_the_calls() {
    let run = Run::traced("annotated", &[]);
    let line = |ending: &str| i64::from(line_of(&source("annotated.rs"), ending));
    // `inner` allocates 500 and 3000 bytes, and frees the 500 when it returns.
    let outer = line("let more = inner(); //= 1 3000");
    assert_eq!(callers(&run, "annotated::inner"), [("annotated::outer".to_owned(), outer, 3500, 500)]);
    // The call at depth d allocates 100 * (d + 1) bytes, and frees them when it returns. `main`
    // calls at depth 4: 500 bytes. The calls at the depths 3 to 0 come from `recurses` itself:
    // 400 + 300 + 200 + 100 bytes.
    let (by_main, by_itself) = (line("recurses(4);"), line("let below = recurses(depth - 1); //= 4 0"));
    let expected = [
        ("annotated::recurses".to_owned(), by_itself, 1000, 1000),
        ("annotated::main".to_owned(), by_main, 500, 500),
    ];
    assert_eq!(callers(&run, "annotated::recurses"), expected);
}

#[test]
fn tables_are_in_the_requested_order() {
    let sum = |table: &Value, field: &str| -> i64 {
        table["lines"].as_array().unwrap().iter().filter_map(|row| row[field].as_i64()).sum()
    };
    let in_order = |run: &Run, field: &str, file: &str| {
        let lines = run.json("lines", &["--sort", field, "--file", file]);
        let sums: Vec<i64> = tables(&lines).iter().map(|table| sum(table, field)).collect();
        assert!(sums.is_sorted_by(|a, b| a >= b), "{field}: {sums:?}");
        assert!(sums.first() > sums.last(), "{field}: equal sums prove nothing: {sums:?}");
    };
    let run = Run::traced("annotated", &[]);
    for field in ["allocated", "increment", "peak"] {
        in_order(&run, field, "annotated.rs");
    }
    let lines = run.json("lines", &["--sort", "name", "--file", "annotated.rs"]);
    let names: Vec<&str> = tables(&lines).iter().map(|table| table["function"].as_str().unwrap()).collect();
    assert!(names.len() > 10 && names.is_sorted(), "{names:?}");
    // How many bytes of `annotated` are live at its end depends on the C library. `leaking_cache`
    // keeps a cache.
    in_order(&Run::traced("leaking_cache", &[]), "live", "leaking_cache.rs");
}

/// Returns the occurrences and the increments of the lines of a function that end with these texts.
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
fn two_recordings_of_a_process_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let dumps = [folder.path().join("first.alloc"), folder.path().join("second.alloc")];
    let output = output_within(Command::new(program("twice")).args(&dumps), Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second] = &dumps;
    // The first recording has one call with 100 bytes, the second has two calls with 300 bytes
    // each. A call allocates its bytes once as scratch and twice as the result, and frees the
    // scratch.
    let endings = ["// grows", "// repeats", "// frees"];
    assert_eq!(rows(first, "twice::grows", &endings), [(1, 100), (1, 200), (1, -100)]);
    assert_eq!(rows(second, "twice::grows", &endings), [(2, 600), (2, 1200), (2, -600)]);
    // `changes_over` begins in the first recording, which ends before the function does. The first
    // dump has the function's first line; the second dump has no table of it.
    assert_eq!(rows(first, "twice::changes_over", &["// in the first"]), [(1, 70)]);
    let annotated = |dump: &Path, name: &str| {
        let lines = json("lines", dump, &["--function", name]);
        tables(&lines).iter().any(|table| table["source"] == "annotation")
    };
    assert!(!annotated(second, "twice::changes_over"));
    // `spans_both` begins before both recordings.
    assert!(!annotated(first, "twice::spans_both") && !annotated(second, "twice::spans_both"));
    for dump in &dumps {
        let summary = json("summary", dump, &[]);
        assert_eq!((&summary["complete"], number(&summary, "lost_events")), (&Value::from(true), 0));
    }
}

/// Returns the bytes that each of the program's own functions has allocated, by name, without
/// `main`.
fn allocated(run: &Run, args: &[&str]) -> BTreeMap<String, i64> {
    let lines = run.json("lines", &[&["--file", "instances.rs"], args].concat());
    let named = |table: &Value| (table["function"].as_str().unwrap().to_owned(), number(table, "allocated"));
    tables(&lines).iter().map(named).filter(|(name, _)| !name.ends_with("main")).collect()
}

#[test]
fn instances_of_a_generic_function_share_a_table_unless_split() {
    let run = Run::traced("instances", &[]);
    // Each instance makes 1000 values: 1000 * (1 + 6) bytes by `filled`, 1000 * (4 + 8) bytes by
    // `by_closure`.
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
    // A pattern may name the function or one of its instances.
    let names = |pattern: &str| allocated(&run, &["--split-generics", "--function", pattern]);
    assert_eq!(names("instances::by_closure").values().sum::<i64>(), 12_000);
    assert_eq!(names("instances::by_closure::<u32>").into_values().collect::<Vec<_>>(), [4000]);
}
