//! Stacks of so many frames that the recorder compares only a part of each with the one before:
//! their number is in the summary, the figures are exact, and each stack is that of an independent
//! full walk.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::stunts::RELEASE;
use tests::{Run, cli, json, number};

const LIMIT: Duration = Duration::from_secs(240);
/// Frames up to which a stack is always verified whole.
const WHOLE: i64 = 8192;
/// More frames than a stack of the program has outside of its recursion, and inside.
const OTHER_FRAMES: i64 = 40;

/// Runs a recursion of so many levels.
fn levels(what: &str, levels: i64, settings: &[(&str, &str)]) -> Run {
    let mut command = Command::new(RELEASE.program());
    command.args(["levels", what, &levels.to_string()]).envs(settings.iter().copied());
    Run::of(&mut command, LIMIT)
}

fn events(summary: &Value) -> i64 {
    ["allocations", "deallocations", "reallocations"].iter().map(|kind| number(summary, kind)).sum()
}

#[test]
fn stacks_of_deep_recursions_equal_those_of_a_full_walk() {
    const LEVELS: i64 = 10_000;
    // Events at each level.
    for (what, at_each) in [("list", 1), ("expression", 2), ("down", 2)] {
        let run = levels(what, LEVELS, &[("ALLOC_TRACKER_CHECK", "1")]);
        let summary = run.json("summary", &[]);
        assert_eq!(number(&summary, "different_stacks"), 0, "{what}");
        assert_eq!(number(&summary, "checked_stacks"), events(&summary), "{what}");
        let partly = number(&summary, "partly_verified_stacks");
        let least = at_each * (LEVELS - WHOLE - 1);
        assert!(
            (least..=least + at_each * OTHER_FRAMES + OTHER_FRAMES).contains(&partly),
            "{what}: {partly}"
        );
        assert_eq!(summary["exact"], true, "{what}");
        assert_eq!(events(&summary), events(&run.oracle()), "{what}");
        assert_eq!(number(&summary, "truncated_stacks"), 0, "{what}");
        let text = String::from_utf8(cli(["summary".into(), run.dump()]).stdout).unwrap();
        assert!(text.contains("very deep stacks in part only"), "{text}");
    }
}

#[test]
fn stacks_that_are_less_deep_are_verified_whole() {
    for what in ["list", "expression", "down"] {
        let run = levels(what, WHOLE - OTHER_FRAMES, &[]);
        let summary = run.json("summary", &[]);
        assert_eq!(number(&summary, "partly_verified_stacks"), 0, "{what}");
        let text = String::from_utf8(cli(["summary".into(), run.dump()]).stdout).unwrap();
        assert!(!text.contains("in part only"), "{text}");
    }
}

#[test]
fn every_word_is_compared_if_the_user_wants_that() {
    let run = levels("list", 12_000, &[("ALLOC_TRACKER_VERIFY", "all")]);
    let summary = run.json("summary", &[]);
    assert_eq!((number(&summary, "partly_verified_stacks"), summary["exact"].clone()), (0, true.into()));
    assert!(events(&summary) >= 24_000);
    // The same by an option of the CLI.
    let dump = run.folder.path().join("run.alloc");
    for (verify, is_partly) in [("all", false), ("bounded", true)] {
        let args = ["run", "--report", "none", "--verify", verify, "-o", dump.to_str().unwrap(), "--"];
        let program = RELEASE.program();
        let output = cli(args.into_iter().chain([program.to_str().unwrap(), "levels", "list", "12000"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(number(&json("summary", &dump, &[]), "partly_verified_stacks") > 0, is_partly, "{verify}");
    }
}

#[test]
fn a_program_that_is_killed_leaves_the_number_of_partly_verified_stacks() {
    let run = levels("abort", 10_000, &[]);
    assert!(!run.output.status.success());
    let summary = run.json("summary", &[]);
    assert_eq!(summary["complete"], false);
    // At the deepest level 50 blocks are allocated and freed. The first event walks there, so its
    // stack is whole, and each free comes after that.
    let partly = number(&summary, "partly_verified_stacks");
    assert!((50..100).contains(&partly), "{partly}");
}

/// Reports follow each frame of such a dump once, and not once for each stack that has it.
#[test]
fn reports_of_a_deep_recursion_take_seconds() {
    const LEVELS: i64 = 200_000;
    let run = levels("list", LEVELS, &[]);
    let summary = run.json("summary", &[]);
    assert_eq!(number(&summary, "truncated_stacks"), 0);
    let freed = |summary: &Value| number(summary, "deallocations") >= LEVELS;
    assert!(freed(&summary));
    let lines = run.json("lines", &["--function", "tear_down"]);
    let tear_down = &lines["functions"][0];
    // The block of each level is freed by the function of that level.
    assert_eq!(number(tear_down, "freed"), LEVELS * 48);
    for args in [vec!["leaks", "--full"], vec!["timeline"], vec!["flamegraph", "--full", "-o", "x.svg"]] {
        let mut command = tests::profiler_cli();
        command.current_dir(run.folder.path()).arg(args[0]).arg(run.dump()).args(&args[1..]);
        let output = tests::output_within(&mut command, Duration::from_secs(60));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let picture = std::fs::metadata(run.folder.path().join("x.svg")).unwrap().len();
    assert!(picture < 4 << 20, "{picture}");
}
