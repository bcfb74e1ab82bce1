//! The commands of the README work exactly as printed there, and its example output is up to date.

use std::process::Command;
use std::time::Duration;

use tests::{number, output_within, program, workspace};

/// Returns the commands that the README tells a reader to type, in order.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    lines.map(|line| line.split("     #").next().unwrap().trim().to_owned()).collect()
}

#[test]
fn one_command_builds_runs_and_reports() {
    let command = commands().remove(0);
    // The CLI is built before, so that the time limit covers only the work of the command itself.
    program("profiler-cli");
    let mut shell = Command::new("bash");
    shell.args(["-c", &command]).current_dir(workspace()).env_remove("CARGO_TARGET_DIR");
    let output = output_within(&mut shell, Duration::from_secs(900));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).lines().count(),
        1,
        "stdout has the program's output and no other"
    );
    for part in [
        "complete and exact: no event lost, no stack cut off",
        "Function: leaking_cache::render",
        "Line #    Mem usage    Increment  Occurrences   Line Contents",
        "// PLANTED: leak",
        "1. 3.9 MiB (4,096,000 B), 98.8 %, in 1,000 blocks at ",
        "flamegraph: ",
    ] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    let svg = std::fs::read_to_string(workspace().join("target/leaking_cache.peak.svg")).unwrap();
    assert!(svg.contains("leaking_cache::render") && svg.contains("Live at the peak"));
    let summary = tests::json("summary", &workspace().join("target/leaking_cache.alloc"), &[]);
    assert_eq!(summary["complete"], true);
    assert!(number(&summary, "live_bytes") > 1000 * 4096);
}

#[test]
fn the_second_command_is_what_ci_runs() {
    let test_command = commands().remove(1);
    let script = std::fs::read_to_string(workspace().join(".ci/run")).unwrap();
    assert!(script.lines().any(|line| line == test_command), "{test_command}");
}

/// The README's row of the planted leak has the number and the text of that line in the program.
#[test]
fn the_example_output_is_up_to_date() {
    let text = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let source = std::fs::read_to_string(tests::example_source("leaking_cache")).unwrap();
    let row = text.lines().find(|line| line.contains("// PLANTED: leak")).unwrap();
    let (number, line) = source
        .lines()
        .zip(1..)
        .find(|(line, _)| line.ends_with("// PLANTED: leak"))
        .map(|(l, n)| (n, l))
        .unwrap();
    assert!(row.trim_start().starts_with(&format!("{number} ")) && row.ends_with(line), "{row}");
}
