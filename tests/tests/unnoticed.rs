//! A program that watches itself sees the same whether it is recorded or not: the same threads, the
//! same children, and no refusal of what the kernel gives only to a process with one thread. Only
//! descriptors and mappings may be more, by what docs/LIMITS.md says.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tests::stunts::RELEASE;
use tests::{output_within, profiler_cli};

/// Without the drain process: the dump, its sidecar and its folder, and two files of `/proc`.
const MORE_DESCRIPTORS_OF_CALLER: u64 = 5;
/// Some tables, the sidecar and the ring of the only thread.
const MORE_MAPPINGS: u64 = 16;

/// Runs the program, recorded as this environment says.
fn watch(folder: &Path, environment: &[(&str, &str)]) -> Output {
    watch_by(Command::new(RELEASE.program_named("watcher")), folder, environment)
}

/// Runs a command that runs the program.
fn watch_by(mut command: Command, folder: &Path, environment: &[(&str, &str)]) -> Output {
    command.envs(environment.iter().copied()).env("ALLOC_TRACKER_OUT", folder.join("x.alloc"));
    let output = output_within(command.current_dir(folder), Duration::from_secs(60));
    assert!(output.status.success(), "{output:?}");
    output
}

/// Returns the figure that the program has printed to stderr under this name.
fn figure(output: &Output, name: &str) -> u64 {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = stderr.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {stderr}"))
}

fn check_sees_the_same(alone: &Output, recorded: &Output, more_descriptors: u64) {
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(recorded), text(alone));
    for (name, more) in [("mappings", MORE_MAPPINGS), ("descriptors", more_descriptors)] {
        let [before, after] = [alone, recorded].map(|output| figure(output, name));
        assert!((before..=before + more).contains(&after), "{name}: {before} alone, {after} recorded");
    }
}

/// The program floods a ring of its own, so that the ring is drained while it runs.
#[test]
fn a_recorded_program_sees_what_it_sees_alone() {
    let folder = tempfile::tempdir().unwrap();
    let alone = watch(folder.path(), &[]);
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 threads, 1 tasks"));
    for (drainer, descriptors) in [("process", 0), ("caller", MORE_DESCRIPTORS_OF_CALLER)] {
        let recorded =
            watch(folder.path(), &[("ALLOC_TRACKER", "trace"), ("ALLOC_TRACKER_DRAINER", drainer)]);
        check_sees_the_same(&alone, &recorded, descriptors);
    }
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "-o"]).arg(folder.path().join("y.alloc")).arg("--");
    run.arg(RELEASE.program_named("watcher"));
    check_sees_the_same(&alone, &watch_by(run, folder.path(), &[]), 0);
}
