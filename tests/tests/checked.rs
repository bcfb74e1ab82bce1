//! Every stack that the recorder walks is the stack that an independent full walk finds (`ALLOC_TRACKER_CHECK=1`): in the
//! examples, and in a program that panics, leaps, switches stacks, is interrupted, recurses and reloads its code, in every
//! way that it can be built.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::{FAT, FRAMED, RELEASE, SMALL, Variant, libraries};
use tests::{Run, number, program};

const LIMIT: Duration = Duration::from_secs(120);

/// What must be true beside that no stack differs.
#[derive(Clone, Copy)]
struct Expected {
    /// So many stacks are compared at least.
    checked: i64,
    /// Whether all are. Those that were found by the full walk in the first place have nothing to be compared with.
    all: bool,
    /// Whether events of signal handlers may be lost, since they interrupt the recorder itself.
    losses: bool,
}

const ALL: Expected = Expected { checked: 0, all: true, losses: false };

/// Of each stunt so many events are recorded, by arithmetic on its source, and some more by what it calls.
const STUNTS: [(&str, Expected); 7] = [
    ("parsing", Expected { checked: 100_000, ..ALL }),
    // 600 panics, each through several frames with an event on the way in and on the way out.
    ("panics", Expected { checked: 20_000, ..ALL }),
    // 5,000 leaps with two blocks outside and up to nine inside.
    ("leaps", Expected { checked: 50_000, ..ALL }),
    ("fibers", Expected { checked: 5_000, all: false, losses: false }),
    // 200 descents with 30 blocks each.
    ("recursion", Expected { checked: 10_000, ..ALL }),
    // Events of the interrupted code; those of the handler are walked in full.
    ("signals", Expected { checked: 10_000, all: false, losses: true }),
    // 2,000 loads with ten blocks each that are moved once. Who still has the rules of the library before may find that
    // they lead nowhere, and walk in full.
    ("libraries", Expected { checked: 5_000, all: false, losses: false }),
];

#[test]
fn examples() {
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
fn stunts() {
    stunts_of(&RELEASE);
    let mut runtime = Command::new(RELEASE.program());
    // 300 tasks that receive ten blocks each.
    check("runtime", runtime.arg("runtime"), Expected { checked: 20_000, ..ALL });
}

#[test]
fn stunts_with_frame_pointers() {
    stunts_of(&FRAMED);
}

#[test]
fn stunts_optimized_across_crates() {
    stunts_of(&FAT);
}

#[test]
fn stunts_small_and_without_unwinding() {
    stunts_of(&SMALL);
}

fn stunts_of(variant: &Variant) {
    let (program, libraries) = (variant.program(), libraries());
    for (stunt, expected) in STUNTS {
        if stunt == "panics" && variant.name == SMALL.name {
            // A panic would be the end.
            continue;
        }
        let mut command = Command::new(&program);
        command.arg(stunt).args(&libraries);
        check(&format!("{stunt} as {}", variant.name), &mut command, expected);
    }
}

fn check(what: &str, command: &mut Command, expected: Expected) {
    let run = Run::of(command.env("ALLOC_TRACKER_CHECK", "1"), LIMIT);
    let said = String::from_utf8_lossy(&run.output.stderr);
    assert!(run.output.status.success() && said.is_empty(), "{what}: {:?}: {said}", run.output.status);
    let summary = run.json("summary", &[]);
    let (checked, different) = (number(&summary, "checked_stacks"), number(&summary, "different_stacks"));
    assert_eq!(different, 0, "{what}: of {checked} stacks so many are not what a full walk finds");
    assert!(checked >= expected.checked, "{what}: {checked} of {} stacks are compared", expected.checked);
    let events = |of: &Value| -> i64 {
        ["allocations", "deallocations", "reallocations"].iter().map(|kind| number(of, kind)).sum()
    };
    let recorded = events(&summary);
    if expected.all {
        assert_eq!(checked, recorded, "{what}: stacks that are compared, and events");
    }
    let lost = number(&summary, "lost_events");
    assert!(lost == 0 || expected.losses && lost < recorded / 5, "{what}: {lost} events are lost");
    assert_eq!(
        recorded + lost,
        events(&run.oracle()),
        "{what}: events that are recorded or lost, and counted"
    );
    for nothing in ["truncated_stacks", "dropped_frames"] {
        assert_eq!(number(&summary, nothing), 0, "{what}: {nothing}");
    }
}
