//! A program that links the tracker and is not profiled executes at most one percent more
//! instructions than without it.

use std::process::Command;
use std::time::Duration;

use tests::{has_tool, output_within, program};

#[test]
fn a_linked_tracker_that_is_off_costs_at_most_one_percent_of_instructions() {
    if !has_tool("valgrind") {
        return;
    }
    let (plain, linked) = (instructions("untracked"), instructions("unasked"));
    println!("{plain} instructions, and {linked} with the tracker linked");
    assert!(plain > 10_000_000, "{plain} instructions are too few to prove anything");
    assert!(linked <= plain + plain / 100, "{plain} instructions, and {linked} with the tracker linked");
}

/// Counts the instructions of a program that is not profiled, with Valgrind's Callgrind.
fn instructions(name: &str) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program(name));
    valgrind.env_remove("ALLOC_TRACKER");
    let output = output_within(&mut valgrind, Duration::from_secs(120));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !output.stdout.is_empty(), "{name}: {stderr}");
    let collected = stderr.lines().find_map(|line| line.split("Collected :").nth(1));
    collected
        .unwrap_or_else(|| panic!("{name}: no count of instructions in {stderr}"))
        .trim()
        .parse()
        .unwrap()
}
