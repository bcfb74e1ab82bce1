//! Five cases in which Python's memory_profiler shows wrong figures. Here every row has the figures
//! that arithmetic gives. And the example of the course, by annotations and by recorded stacks.

use serde_json::Value;
use tests::{Run, number};

const MIB: i64 = 1 << 20;

/// The line tables of a program, as JSON.
struct Tables(Value);

impl Tables {
    fn of(program: &str) -> Tables {
        Tables(Run::traced(program, &[]).json("lines", &["--file", &format!("{program}.rs")]))
    }

    fn table(&self, function: &str) -> &Value {
        let tables = self.0["functions"].as_array().unwrap();
        let found = tables.iter().find(|table| table["function"].as_str().unwrap().ends_with(function));
        found.unwrap_or_else(|| panic!("no {function} in {}", self.0))
    }

    /// Returns occurrences and increment of the first line of `function` that begins with `text`.
    fn row(&self, function: &str, text: &str) -> (i64, i64) {
        let lines = self.table(function)["lines"].as_array().unwrap();
        let found = lines.iter().find(|row| row["text"].as_str().unwrap().trim().starts_with(text));
        let row = found.unwrap_or_else(|| panic!("no {text} in {function}"));
        (number(row, "occurrences"), number(row, "increment"))
    }
}

#[test]
fn a_loop_after_a_release_shows_only_its_own_changes() {
    let tables = Tables::of("five_cases");
    let row = |text| tables.row("::loop_after_release", text);
    assert_eq!(row("let high"), (1, 90 * MIB));
    assert_eq!(row("drop(high)"), (1, -90 * MIB));
    assert_eq!(row("for _"), (11, 0));
    assert_eq!(row("let low"), (10, 10 * MIB));
    // Each of the ten rounds frees 1 MiB at the brace of the loop. The function's own brace frees
    // nothing.
    let lines = tables.table("::loop_after_release")["lines"].as_array().unwrap().clone();
    let braces = lines.iter().filter(|row| row["text"].as_str().unwrap().trim() == "}");
    let freed: Vec<i64> = braces.filter_map(|row| row["increment"].as_i64()).collect();
    assert_eq!(freed, [-10 * MIB, 0]);
    let highest = lines.iter().filter_map(|row| row["max"].as_i64()).max().unwrap();
    assert!((90 * MIB..91 * MIB).contains(&highest), "no row exceeds the 90 MiB that the process really had");
}

#[test]
fn the_row_of_a_call_has_what_the_callee_leaves_allocated() {
    let tables = Tables::of("five_cases");
    assert_eq!(tables.row("::caller", "let first"), (1, 10 * MIB));
    assert_eq!(tables.row("::caller", "let second"), (1, 30 * MIB));
    assert_eq!(tables.row("::caller", "drop("), (1, -40 * MIB));
    assert_eq!(tables.row("::callee", "let scratch"), (1, 13 * MIB));
    assert_eq!(tables.row("::callee", "let result"), (1, 30 * MIB));
    assert_eq!(tables.row("::callee", "drop("), (1, -13 * MIB));
    assert_eq!(number(tables.table("::callee"), "increment"), 30 * MIB);
}

#[test]
fn recursion_counts_each_event_once() {
    let tables = Tables::of("five_cases");
    let row = |text| tables.row("::recursion", text);
    assert_eq!(row("let own"), (3, (3 + 2 + 1) * MIB));
    assert_eq!(row("if depth"), (3, 0));
    assert_eq!(row("recursion("), (2, 0));
    assert_eq!(row("drop("), (3, -6 * MIB));
    assert_eq!(number(tables.table("::recursion"), "increment"), 0);
}

#[test]
fn a_statement_of_several_lines_is_one_row() {
    let tables = Tables::of("five_cases");
    assert_eq!(tables.row("::several_lines", "let total"), (1, 7 * MIB));
    let lines = tables.table("::several_lines")["lines"].as_array().unwrap();
    let within = lines.iter().filter(|row| row["text"].as_str().unwrap().trim().starts_with("block("));
    assert!(within.clone().count() == 3 && within.clone().all(|row| row["occurrences"].is_null()));
}

#[test]
fn the_head_of_a_loop_is_reached_once_more_than_its_body() {
    let tables = Tables::of("five_cases");
    let row = |text| tables.row("::heads_of_loops", text).0;
    assert_eq!((row("while"), row("rounds += 1")), (8, 7));
    assert_eq!((row("for"), row("black_box(")), (6, 5));
}

#[test]
fn the_example_of_the_course_is_the_same_by_annotations_and_by_stacks() {
    const BUFFER: i64 = 79_360 << 10;
    let tables = Tables::of("course");
    let (annotated, recorded) = (tables.table("::annotated"), tables.table("::recorded"));
    assert_eq!((&annotated["source"], &recorded["source"]), (&"annotation".into(), &"stacks".into()));
    for (function, allocates, sums) in [("::annotated", 1, Some((1, 0))), ("::recorded", 1, None)] {
        assert_eq!(tables.row(function, "let x"), (allocates, BUFFER), "{function}");
        assert_eq!(tables.row(function, "let y"), (allocates, BUFFER), "{function}");
        if let Some(sums) = sums {
            assert_eq!(tables.row(function, "x.len()"), sums);
        }
        let brace = tables.table(function)["lines"].as_array().unwrap().last().unwrap();
        assert_eq!((&brace["text"], number(brace, "increment")), (&"}".into(), -2 * BUFFER), "{function}");
    }
    // The usage includes what the process held before, which is small. So whole units of 64 KiB are
    // compared.
    let usage = |table: &Value| -> Vec<i64> {
        let lines = table["lines"].as_array().unwrap().iter();
        lines.filter(|row| !row["increment"].is_null()).filter_map(|row| row["mem_usage"].as_i64()).collect()
    };
    let (with, without) = (usage(annotated), usage(recorded));
    let rounded = |bytes: &[i64]| bytes.iter().map(|bytes| bytes / (1 << 16)).collect::<Vec<_>>();
    let of_lines = |all: &[i64]| vec![all[0], all[1], all[all.len() - 1]];
    // The annotated table ends with the rows `x`, `y`, `x.len() + y.len()` and `}`. The table from
    // stacks has no row with figures for the third.
    let with_events = vec![with[with.len() - 4], with[with.len() - 3], with[with.len() - 1]];
    assert_eq!(rounded(&with_events), rounded(&of_lines(&without)));
    assert_eq!(rounded(&of_lines(&without)), [BUFFER >> 16, BUFFER >> 15, 0]);
}
