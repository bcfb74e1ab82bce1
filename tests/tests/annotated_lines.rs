//! Annotated functions in the program `annotated`. Every line shows the figures in the comment
//! behind it, and the lines of a function add up to what an independent counter measured.

use serde_json::Value;
use tests::{Run, cli, workspace};

/// What a line changes, by the comment behind it.
#[derive(Debug, PartialEq)]
enum Expected {
    Increment(i64),
    Freed(i64),
}

/// Parses the comments `//= OCCURRENCES CHANGE`. Returns for each the number of its line, how often
/// the line is reached, and what it changes.
fn expectations(text: &str) -> Vec<(i64, i64, Expected)> {
    let marked = text.lines().zip(1..).filter_map(|(line, number)| {
        let (code, marker) = line.split_once("//= ")?;
        // A comment that is alone on its line is about the line before.
        Some((number - i64::from(code.trim().is_empty()), marker))
    });
    let marked = marked.filter(|(_, marker)| marker.starts_with(|first: char| first.is_ascii_digit()));
    let parsed = marked.map(|(number, marker)| {
        let (occurrences, change) = marker.split_once(' ').unwrap();
        let change = match change.strip_prefix("freed ") {
            Some(freed) => Expected::Freed(freed.parse().unwrap()),
            None => Expected::Increment(change.parse().unwrap()),
        };
        (number, occurrences.parse().unwrap(), change)
    });
    parsed.collect()
}

/// Compares every line of a program with the comment behind it. Returns how many comments there
/// are.
fn compare_with_comments(program: &str) -> usize {
    let run = Run::traced(program, &[]);
    let file = format!("{program}.rs");
    let source = std::fs::read_to_string(workspace().join("tests/src/bin").join(&file)).unwrap();
    let lines = run.json("lines", &["--file", &file]);
    let tables: Vec<&Value> = lines["functions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|table| table["source"] == "annotation")
        .collect();
    let mut rows: Vec<&Value> = tables.iter().flat_map(|table| table["lines"].as_array().unwrap()).collect();
    rows.retain(|row| !row["occurrences"].is_null());
    let mut wrong = Vec::new();
    let expected = expectations(&source);
    for (line, occurrences, change) in &expected {
        let row = rows.iter().find(|row| row["line"] == *line).copied().unwrap_or(&Value::Null);
        let shown = match change {
            Expected::Increment(_) => Expected::Increment(row["increment"].as_i64().unwrap_or(i64::MAX)),
            Expected::Freed(_) => Expected::Freed(row["freed"].as_i64().unwrap_or(i64::MAX)),
        };
        if row["occurrences"] != *occurrences || shown != *change {
            wrong.push(format!("line {line}: {occurrences} {change:?} expected, {row}"));
        }
    }
    for row in &rows {
        if !expected.iter().any(|(line, ..)| row["line"] == *line) {
            wrong.push(format!("no figures are expected here: {row}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    expected.len()
}

#[test]
fn every_line_shows_what_arithmetic_says() {
    assert!(compare_with_comments("annotated") > 50);
}

#[test]
fn a_method_whose_form_is_prescribed_shows_what_arithmetic_says() {
    assert_eq!(compare_with_comments("canonical"), 11);
}

#[test]
fn lines_add_up_to_what_a_counter_measured() {
    let run = Run::traced("annotated", &[]);
    let lines = run.json("lines", &["--file", "annotated.rs"]);
    let measured = String::from_utf8_lossy(&run.output.stdout).into_owned();
    let measured: Vec<(&str, i64)> = measured
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, change)| Some((name, change.parse().ok()?)))
        .collect();
    for (name, change) in [("after_release", 0), ("outer", 0), ("recurses", 0), ("one_statement", 0)] {
        assert!(measured.contains(&(name, change)), "what the counter itself measured: {measured:?}");
        let table = lines["functions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|table| table["function"] == format!("annotated::{name}"))
            .unwrap();
        assert_eq!(
            (table["increment"].as_i64(), &table["source"]),
            (Some(change), &Value::from("annotation"))
        );
    }
}

#[test]
fn a_function_has_one_table_also_for_one_thread() {
    let run = Run::traced("annotated", &[]);
    let lines = run.json("lines", &["--function", "annotated::outer"]);
    assert_eq!(lines["functions"].as_array().unwrap().len(), 1, "{lines}");
    // The first thread, whose name is `annotated`, ran `outer`.
    let of_main = run.json("lines", &["--file", "annotated.rs", "--thread", "annotated"]);
    let names = |lines: &Value| lines["functions"].to_string();
    assert!(names(&of_main).contains("annotated::outer"), "{of_main}");
}

/// The arguments of a function are freed when it ends. These frees are in its annotated table only,
/// and do not make a second table from stacks.
#[test]
fn no_annotated_function_has_a_second_table_from_stacks() {
    let run = Run::traced("annotated", &[]);
    let lines = run.json("lines", &["--file", "annotated.rs"]);
    let names = |source: &str| {
        let tables = lines["functions"].as_array().unwrap().iter();
        let from_source = tables.filter(|table| table["source"] == source);
        from_source.map(|table| table["function"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (annotated, recorded) = (names("annotation"), names("stacks"));
    assert!(annotated.contains(&"annotated::Twice::len".to_owned()), "{annotated:?}");
    let both: Vec<_> = annotated.iter().filter(|name| recorded.contains(name)).collect();
    assert!(both.is_empty(), "{both:?}");
}

/// The lines of such a function are lines of the file that defines the macro.
#[test]
fn a_function_made_by_a_macro_of_another_file_is_in_that_file() {
    let run = Run::traced("annotated", &[]);
    let lines = run.json("lines", &["--function", "annotated::made_elsewhere"]);
    let table = &lines["functions"][0];
    assert!(table["file"].as_str().unwrap().ends_with("tests/src/elsewhere.rs"), "{table}");
    let rows: Vec<_> = table["lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| !row["occurrences"].is_null())
        .map(|row| (row["text"].as_str().unwrap().trim().to_owned(), row["increment"].as_i64().unwrap()))
        .collect();
    let expected = [("let copy = list.clone();", 5), ("copy.len()", 0), ("}", -10)];
    assert_eq!(rows, expected.map(|(text, increment)| (text.to_owned(), increment)));
}

#[test]
fn the_summary_lists_the_marks() {
    let summary = Run::traced("annotated", &[]).json("summary", &[]);
    let [mark] = summary["marks"].as_array().unwrap().as_slice() else { panic!("{}", summary["marks"]) };
    assert_eq!((&mark["name"], &mark["thread"]), (&Value::from("all is done"), &Value::from("annotated")));
    assert!(mark["ns"].as_u64().unwrap() <= summary["duration_ns"].as_u64().unwrap());
}

/// Returns what `lines` prints.
fn printed(run: &Run, args: &[&str]) -> String {
    let dump = run.dump();
    let output = cli([&["lines", dump.to_str().unwrap()], args].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The expected table is made from the figures of the JSON, by the template of memory_profiler:
/// '{0:>6} {1:>12} {2:>12}  {3:>10}   {4:<}'.
#[test]
fn the_memory_profiler_format_follows_memory_profilers_template() {
    let run = Run::traced("annotated", &[]);
    let filter = ["--function", "annotated::outer"];
    let table = &run.json("lines", &filter)["functions"][0];
    let mib = |value: &Value| {
        value.as_i64().map_or(String::new(), |bytes| {
            let number = format!("{:5.1}", bytes as f64 / 1_048_576.0);
            format!("{} MiB", if number == " -0.0" { "  0.0" } else { &number })
        })
    };
    let mut expected = format!(
        "Filename: {}\n\nLine #    Mem usage    Increment  Occurrences   Line Contents\n{}\n",
        table["file"].as_str().unwrap(),
        "=".repeat(61)
    );
    for row in table["lines"].as_array().unwrap() {
        let times = row["occurrences"].as_i64().map_or(String::new(), |times| times.to_string());
        let (usage, increment) = (mib(&row["mem_usage"]), mib(&row["increment"]));
        let (line, text) = (row["line"].as_i64().unwrap(), row["text"].as_str().unwrap());
        expected += &format!("{line:>6} {usage:>12} {increment:>12}  {times:>10}   {text}\n");
    }
    let format = ["--format", "memory_profiler"];
    assert_eq!(printed(&run, &[filter, format].concat()), expected + "\n\n");
}

#[test]
fn csv_has_the_figures_of_the_json() {
    let run = Run::traced("annotated", &[]);
    let csv = printed(&run, &["--function", "annotated::inner", "--csv"]);
    assert_eq!(csv, printed(&run, &["--function", "annotated::inner", "--format", "csv"]));
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(header[..7], ["function", "file", "source", "line", "mem_usage", "increment", "occurrences"]);
    let increments =
        lines.filter_map(|line| line.split(',').nth(5)).filter_map(|value| value.parse::<i64>().ok());
    // The scratch buffer has 500 bytes, the result 3000, and the closing brace frees the scratch
    // buffer.
    assert_eq!(increments.collect::<Vec<_>>(), [500, 3000, -500]);
    let columns = printed(&run, &["--function", "annotated::inner", "--columns", "allocated,freed,blocks"]);
    let header = columns.lines().find(|line| line.starts_with("Line #")).unwrap();
    let titles: Vec<&str> = header.split_whitespace().collect();
    assert_eq!(titles[5..], ["Occurrences", "Allocated", "Freed", "Blocks", "Line", "Contents"]);
}
