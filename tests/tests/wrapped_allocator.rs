//! Allocators of the user's around the tracker are the allocator, not a site: every event is at the
//! line of the program that wanted the memory.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{LIMITED, LINE_TABLES, UNOPTIMIZED, Variant};
use tests::{Run, frames_of, line_of, number, workspace};

const LIMIT: Duration = Duration::from_secs(60);
const MEBIBYTE: i64 = 1 << 20;

fn source() -> PathBuf {
    workspace().join("tests/stunts/src/bin/budget.rs")
}

fn run(variant: &Variant) -> Run {
    let run = Run::of(&mut Command::new(variant.program_named("budget")), LIMIT);
    assert_eq!(String::from_utf8_lossy(&run.output.stdout), "refused true, counted true\n");
    run
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

/// Inlining decides which functions of the allocators have a frame, and debug info decides which of
/// the inlined ones have a path in their name.
#[test]
fn every_event_is_at_the_line_that_wanted_memory() {
    for variant in [LIMITED, LINE_TABLES, UNOPTIMIZED] {
        let run = run(&variant);
        let at = |marker: &str| line_of(&source(), marker);
        let leaks = run.json("leaks", &["--top", "100"]);
        let leak = |index: usize| {
            let leak = &list(&leaks, "leaks")[index];
            (leak["line"].as_u64().unwrap() as u32, number(leak, "bytes"), number(leak, "blocks"))
        };
        assert_eq!(leak(0), (at("// RENDERED"), 300_000, 300), "{}", variant.name);
        assert_eq!(leak(1), (at("// PARSED"), 100_000, 500), "{}", variant.name);
        // The table of two large blocks: a vector of words begins with room for four.
        let noted = list(&leaks, "leaks").iter().find(|leak| leak["line"] == at("// NOTED"));
        let noted = noted.unwrap_or_else(|| panic!("{}: no table in {leaks}", variant.name));
        assert_eq!((number(noted, "bytes"), number(noted, "blocks")), (32, 1));

        let summary = run.json("summary", &["--top", "100"]);
        // The trait's own `realloc` allocates, copies and frees.
        assert!(number(&summary, "peak_bytes") >= 400_000 + 3 * MEBIBYTE, "{summary}");
        assert_eq!(number(&summary, "reallocations"), 0);
        assert!(number(&summary, "allocated_bytes") < 5 * MEBIBYTE, "a refused allocation is no event");
        for list_of_sites in ["top_peak", "top_allocated", "top_allocations"] {
            for site in list(&summary, list_of_sites) {
                // In the source file the allocators come before `main`.
                let is_here = site["file"].as_str().is_some_and(|file| file.ends_with("/budget.rs"));
                let line = site["line"].as_u64().unwrap_or(0) as u32;
                assert!(
                    !is_here || line == at("// NOTED") || line > at("fn main() {"),
                    "{}: {site} in {list_of_sites}",
                    variant.name
                );
            }
        }

        let lines = run.json("lines", &["--function", "grow"]);
        let table = list(&lines, "functions")
            .iter()
            .find(|table| table["function"].as_str().is_some_and(|name| name.ends_with("grow")));
        let table = table.unwrap_or_else(|| panic!("no table of grow in {lines}"));
        let row = |marker: &str| {
            let row = list(table, "lines").iter().find(|row| row["line"] == at(marker)).unwrap();
            (number(row, "allocated"), number(row, "freed"))
        };
        // While the large blocks are allocated, the table of large blocks grows by 32 B once.
        assert_eq!(row("// ONE MEBIBYTE"), (MEBIBYTE + 32, 0), "{}", variant.name);
        assert_eq!(row("// TWO MEBIBYTES"), (2 * MEBIBYTE, MEBIBYTE), "{}", variant.name);
        assert_eq!(row("// DROPPED"), (0, 2 * MEBIBYTE), "{}", variant.name);
    }
}

/// With `--full` no frame of the allocators is missing.
#[test]
fn all_frames_show_the_allocators_as_well() {
    let leaks = run(&LIMITED).json("leaks", &["--full", "--top", "1"]);
    let stack = frames_of(&leaks, &list(&leaks, "leaks")[0]);
    let position = |part: &str| {
        stack.iter().position(|frame| frame["function"].as_str().is_some_and(|name| name.contains(part)))
    };
    let (charge, render) =
        (position("charge").expect("its frame"), position("budget::render").expect("its frame"));
    assert!(charge < render, "{stack:?}");
}
