//! Budgets in tests. The cases run side by side, in one process by `cargo test` and in many by
//! `cargo nextest`: no one may disturb another one. Those that exceed their budget say what, where
//! and how to record it.

mod cases;

use std::env;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use alloc_tracker::AllocTracker;
use cases::EXCEED;
use tempfile::TempDir;
use tests::{has_tool, output_within, profiler_cli, workspace};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

/// Runs one test of this program in a process of its own, and returns its output.
fn run_alone(test: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test]).env(EXCEED, "1").current_dir(workspace().join("tests"));
    let output = output_within(&mut command, Duration::from_secs(60));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(101), "{text}");
    text
}

/// The message has what was expected and found, the line, and the command for this very test.
#[test]
fn a_failure_says_what_where_and_how_to_record_it() {
    let expected = [
        ("exceeds_sync", "allocations: expected at most 1, found 3", "    2: "),
        ("exceeds_above", "peak: expected at most 1,024 B, found 2,000 B", "    2,000 B: "),
        ("exceeds_above", "leaked: expected at most 0 B, found 2,000 B", "    2,000 B: "),
        ("exceeds_below", "allocated: expected at most 1,024 B, found 1,025 B", "    1,024 B: "),
        ("exceeds_in_helper", "allocated: expected at most 100 B, found 101 B", "    101 B: "),
        ("exceeds_all", "peak: expected at most 16,777,216 B, found 2", "    20,971,520 B: "),
    ];
    for (test, found, site) in expected {
        let test = format!("cases::inner::{test}");
        let text = run_alone(&test);
        assert!(text.contains(found), "{found} in {text}");
        let begin = format!("{site}budgets::cases::block at ");
        let line = text.lines().find(|line| line.starts_with(&begin)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(" at tests/budgets/cases.rs:"), "{text}");
        let command = format!("`profiler-cli cargo test --package tests --test budgets -- --exact {test}`");
        assert!(text.contains(&command), "{command} in {text}");
    }
}

/// Creates a package with the same cases.
fn package() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tracker = workspace().join("alloc-tracker");
    let manifest = format!(
        "[package]\nname = \"budgeted\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nalloc-tracker.path = {tracker:?}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n"
    );
    fs::create_dir_all(folder.path().join("src")).unwrap();
    fs::create_dir_all(folder.path().join("tests/all-cases")).unwrap();
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::write(folder.path().join("src/lib.rs"), "").unwrap();
    let main = "mod cases;\n#[global_allocator]\n\
                static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();\n";
    fs::write(folder.path().join("tests/all-cases/main.rs"), main).unwrap();
    fs::write(folder.path().join("tests/all-cases/cases.rs"), include_str!("cases.rs")).unwrap();
    fs::copy(workspace().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    folder
}

/// Runs a command in the package.
fn in_package(folder: &TempDir, command: &mut Command) -> Output {
    command
        .env("CARGO", env!("CARGO"))
        .env("CARGO_TARGET_DIR", workspace().join("target/end-to-end"))
        .env("CARGO_NET_OFFLINE", "true")
        .current_dir(folder.path());
    output_within(command, Duration::from_secs(400))
}

/// By cargo and by nextest the bounds hold, and the command of a failure records the test that has
/// failed, and no other.
#[test]
fn cargo_and_nextest_run_the_same_tests() {
    let package = package();
    let mut cargo = Command::new(env!("CARGO"));
    let output = in_package(&package, cargo.args(["test", "--test", "all-cases"]).env(EXCEED, "1"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start =
        "profiler-cli cargo test --package budgeted --test all-cases -- --exact cases::inner::exceeds_sync";
    assert_eq!(text.matches("record this test").count(), 5, "{text}{output:?}");
    assert!(text.contains(&format!("`{start}`")), "{text}");

    let words = start.split(' ').skip(1);
    let mut profiler = profiler_cli();
    let output = in_package(&package, profiler.args(words).env(EXCEED, "1"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(101), "{output:?}");
    assert!(
        text.contains("running 1 test") && text.contains("budget of cases::inner::exceeds_sync at "),
        "{text}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("all_cases"), "{output:?}");

    if has_tool("cargo-nextest") {
        let mut nextest = Command::new(env!("CARGO"));
        let output = in_package(&package, nextest.args(["nextest", "run", "--test", "all-cases"]));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        let tests = include_str!("cases.rs").matches("test]\n").count()
            + include_str!("cases.rs").matches("test(flavor").count();
        assert!(text.contains(&format!("{tests} tests run: {tests} passed")), "{text}");
    }
}
