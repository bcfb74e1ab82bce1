//! Every stack that the recorder walks equals the stack that an independent full walk finds
//! (`ALLOC_TRACKER_CHECK=1`). The programs are the examples and `stunts`, which panics, jumps over
//! frames, switches stacks, is interrupted by signals, recurses and reloads its code. `stunts` is
//! built in several ways that change what a stack looks like.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{FAT, FRAMED, RELEASE, SMALL, Variant, libraries};
use tests::{Run, number, program};

const LIMIT: Duration = Duration::from_secs(120);

/// Requirements beside the one that no stack differs.
#[derive(Clone, Copy)]
struct Expected {
    /// The least number of stacks that are compared.
    checked: i64,
    /// Whether the stacks of all events are compared. Stacks that the recorder found by a full walk
    /// in the first place are not: that walk has nothing to be compared with.
    all: bool,
    /// Whether events may be lost: those of a signal handler that interrupts the recorder itself.
    losses: bool,
}

const ALL: Expected = Expected { checked: 0, all: true, losses: false };

/// The lower bounds of compared stacks come from arithmetic on the source of each stunt. What a
/// stunt calls has events, too.
const STUNTS: [(&str, Expected); 9] = [
    ("parsing", Expected { checked: 100_000, ..ALL }),
    // 600 panics, each through several frames with an event on the way in and on the way out.
    ("panics", Expected { checked: 20_000, ..ALL }),
    // 5,000 calls, most of which end by a jump over frames. Each has two blocks outside of these
    // frames, and one to nine blocks inside.
    ("leaps", Expected { checked: 50_000, ..ALL }),
    // Three times sixty fibers, each with 36 to 40 levels of two blocks: 180 * 36 * 2 * 2 events.
    ("fibers", Expected { checked: 25_000, ..ALL }),
    // Two threads with a thousand fibers, each with five blocks: 2 * 1,000 * 5 * 2 events.
    ("many-fibers", Expected { checked: 20_000, ..ALL }),
    // Twelve recursions over 60 stacks, with six calls of two blocks each and a block behind the
    // return to the stack before: 12 * 60 * (6 * 2 + 1) * 2 events.
    ("segments", Expected { checked: 18_720, ..ALL }),
    // 200 recursions to depth 300 with 9 + 20 blocks each: 200 * 29 * 2 events, and some of a
    // deeper one.
    ("recursion", Expected { checked: 10_000, ..ALL }),
    // Only the events of the interrupted code are compared. The handler's stacks are walked in
    // full.
    ("signals", Expected { checked: 10_000, all: false, losses: true }),
    // 2,000 loads with ten blocks each, and each block is moved once. Where unwind rules are still
    // those of the library before and lead nowhere, the recorder walks in full.
    ("libraries", Expected { checked: 5_000, all: false, losses: false }),
];

#[test]
fn stacks_of_the_examples_equal_those_of_a_full_walk() {
    for (name, checked) in [
        ("course_allocate", 10),
        ("growing_queue", 8_000),
        ("leaking_cache", 3_000),
        ("page_walk", 100_000),
        ("parser_temporaries", 100_000),
        ("real_regex", 100_000),
        ("real_serde_json", 100_000),
        ("real_syn", 200_000),
        ("touch_barely", 5),
    ] {
        check(name, &mut Command::new(program(name)), Expected { checked, ..ALL });
    }
}

#[test]
fn stacks_of_stunts_equal_those_of_a_full_walk() {
    check_stunts(&RELEASE);
    let mut runtime = Command::new(RELEASE.program());
    // 300 tasks, each of which receives ten blocks.
    check("runtime", runtime.arg("runtime"), Expected { checked: 20_000, ..ALL });
}

#[test]
fn stacks_with_frame_pointers_equal_those_of_a_full_walk() {
    check_stunts(&FRAMED);
}

#[test]
fn stacks_optimized_across_crates_equal_those_of_a_full_walk() {
    check_stunts(&FAT);
}

#[test]
fn stacks_optimized_for_size_without_unwinding_equal_those_of_a_full_walk() {
    check_stunts(&SMALL);
}

/// Checks every stunt in a program that was built in this way.
fn check_stunts(variant: &Variant) {
    let (program, libraries) = (variant.program(), libraries());
    for (stunt, expected) in STUNTS {
        if stunt == "panics" && variant.name == SMALL.name {
            // In this variant a panic ends the process.
            continue;
        }
        let mut command = Command::new(&program);
        command.arg(stunt).args(&libraries);
        check(&format!("{stunt} as {}", variant.name), &mut command, expected);
    }
}

/// Runs a program with `ALLOC_TRACKER_CHECK=1` and requires that its dump meets the expectations.
fn check(what: &str, command: &mut Command, expected: Expected) {
    let run = Run::of(command.env("ALLOC_TRACKER_CHECK", "1"), LIMIT);
    let stderr = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success() && stderr.is_empty(), "{what}: {:?}: {stderr}", run.output.status);
    let summary = run.json("summary", &[]);
    let (checked, different) = (number(&summary, "checked_stacks"), number(&summary, "different_stacks"));
    assert_eq!(different, 0, "{what}: stacks that differ from those of a full walk, of {checked}");
    assert!(
        checked >= expected.checked,
        "{what}: {checked} stacks are compared, at least {} expected",
        expected.checked
    );
    let events = |of: &Value| -> i64 {
        ["allocations", "deallocations", "reallocations"].iter().map(|kind| number(of, kind)).sum()
    };
    let recorded = events(&summary);
    if expected.all {
        assert_eq!(checked, recorded, "{what}: compared stacks, and recorded events");
    }
    let lost = number(&summary, "lost_events");
    assert!(lost == 0 || expected.losses && lost < recorded / 5, "{what}: {lost} events are lost");
    assert_eq!(recorded + lost, events(&run.oracle()), "{what}: events as recorded or lost, and as counted");
    for counter in ["truncated_stacks", "dropped_frames"] {
        assert_eq!(number(&summary, counter), 0, "{what}: {counter}");
    }
}
