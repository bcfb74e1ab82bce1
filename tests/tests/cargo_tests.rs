//! `profiler-cli cargo test` on a package whose tests link the tracker: cargo runs each test
//! program, and each one is recorded into a dump of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use tests::{has_tool, output_within, profiler_cli, program, workspace};

const MANIFEST: &str = "\
[package]
name = \"tracked-tests\"
version = \"0.1.0\"
edition = \"2024\"

[lib]
doctest = false

[workspace]

";

/// What each program begins with.
const TRACKER: &str = "\
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();
";

/// A test program that keeps 300,000 bytes. It fails if the test `fails` is chosen.
const PASSES: &str = "
#[test]
fn keeps() {
    std::mem::forget(std::hint::black_box(vec![1u8; 300_000]));
}
";

const FAILS: &str = "
#[test]
fn fails() {
    panic!(\"on purpose\");
}
";

const MAIN: &str = "
fn main() {
    println!(\"ran {}\", std::env::args().skip(1).collect::<String>());
    std::process::exit(std::env::args().len() as i32 - 1);
}
";

/// Creates a package whose second test program fails.
fn package() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: String| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let tracker = workspace().join("alloc-tracker");
    write("Cargo.toml", format!("{MANIFEST}[dependencies]\nalloc-tracker.path = {tracker:?}\n"));
    write("src/lib.rs", String::new());
    write("src/main.rs", format!("{TRACKER}{MAIN}"));
    write("tests/a_passes.rs", format!("{TRACKER}{PASSES}"));
    write("tests/b_fails.rs", format!("{TRACKER}{FAILS}"));
    write("tests/c_passes.rs", format!("{TRACKER}{PASSES}"));
    fs::copy(workspace().join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    folder
}

/// Runs a command of the CLI in the package. The folder for build products is that of other tests,
/// so that the tracker is built once.
fn in_package(folder: &Path, command: &mut Command, args: &[&str]) -> Output {
    command
        .args(args)
        .env("CARGO", env!("CARGO"))
        .env("CARGO_TARGET_DIR", workspace().join("target/end-to-end"))
        .env("CARGO_NET_OFFLINE", "true")
        .current_dir(folder);
    output_within(command, Duration::from_secs(400))
}

/// Runs the CLI with an empty folder for dumps; returns its output and the names of the dumps.
fn profile(folder: &Path, args: &[&str]) -> (Output, Vec<String>) {
    let dumps = dumps_folder();
    let _ = fs::remove_dir_all(&dumps);
    let output = in_package(folder, &mut profiler_cli(), args);
    let names = fs::read_dir(&dumps).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".alloc"));
    names.sort();
    (output, names)
}

fn dumps_folder() -> PathBuf {
    workspace().join("target/end-to-end/alloc-tracker")
}

/// Returns the names without process ids.
fn without_pids(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.split('.').next().unwrap().to_owned()).collect()
}

/// One test function, because its parts use one folder for dumps.
#[test]
fn each_program_that_cargo_runs_is_recorded() {
    let package = package();
    let folder = package.path();

    // Cargo stops at the first program that fails, and its status comes out.
    let (output, names) = profile(folder, &["cargo", "test", "--tests"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(101), "{error}");
    let of_tests = ["a_passes", "b_fails"].map(str::to_owned);
    let tests: Vec<String> =
        without_pids(&names).into_iter().filter(|name| !name.starts_with("tracked")).collect();
    assert_eq!(tests, of_tests, "{error}");
    assert!(error.contains("programs recorded in ") && error.contains("exit 101"), "{error}");
    assert!(!error.contains("Line #"), "no report for each: {error}");
    let row = error.lines().find(|line| line.contains("  a_passes.")).unwrap();
    assert!(row.contains("exit 0") && row.contains("KiB"), "{row}");

    // All of cargo's options are in force, and a filter reaches the programs.
    let args = ["cargo", "test", "--no-fail-fast", "--test", "*_*", "--report", "summary", "keeps"];
    let (output, names) = profile(folder, &args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    assert_eq!(without_pids(&names), ["a_passes", "b_fails", "c_passes"], "{error}");

    // The newest dump is that of the last program.
    let output = in_package(folder, &mut profiler_cli(), &["summary", "@last", "--json"]);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["command"].as_str().unwrap().contains("c_passes"), "{summary}");
    assert!(summary["live_bytes"].as_u64().unwrap() >= 300_000, "{summary}");

    // A single program gets the whole report, and its status comes out.
    let (output, names) = profile(folder, &["cargo", "run", "--", "x"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"ran x\n"[..]), "{error}");
    assert_eq!(without_pids(&names), ["tracked-tests"]);
    assert!(error.contains("the program ended with exit status 1"), "{error}");
    assert!(error.contains("\n  live at end ") && error.contains("\nflamegraph: "), "{error}");
    let picture = names[0].replace(".alloc", ".peak.svg");
    assert!(dumps_folder().join(picture).is_file());

    // The same as a command of cargo, with a dump whose folder is made.
    let mut by_cargo = Command::new(program("cargo-alloc"));
    by_cargo.env("XDG_CACHE_HOME", workspace().join("target/end-to-end/cache"));
    let args = ["alloc", "run", "-q", "-o", "new/folder/x.alloc", "--report", "none"];
    let output = in_package(folder, &mut by_cargo, &args);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ran \n"[..]), "{output:?}");
    assert!(folder.join("new/folder/x.alloc").is_file());

    // Several programs never share a dump.
    let args = ["cargo", "test", "--test", "a_passes", "--test", "c_passes", "-o", "one.alloc"];
    assert_eq!(profile(folder, &args).0.status.code(), Some(0));
    let mut dumps = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(dumps.by_ref().filter(|name| name.to_string_lossy().ends_with(".alloc")).count(), 2);

    if has_tool("cargo-nextest") {
        let args = ["cargo", "nextest", "run", "--no-fail-fast", "--test", "a_passes", "--test", "b_fails"];
        let (output, names) = profile(folder, &args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(100), "as nextest exits: {error}");
        assert_eq!(without_pids(&names), ["a_passes", "b_fails"], "a process for each test: {error}");
    }
}
