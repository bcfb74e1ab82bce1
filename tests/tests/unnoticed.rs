//! A program that watches itself sees the same whether it is recorded or not: the same threads, the
//! same children, and no refusal of what the kernel gives only to a process with one thread. Only
//! descriptors and mappings may be more, by what docs/LIMITS.md says.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tests::output_within;
use tests::stunts::RELEASE;

/// Some tables, the sidecar and the ring of the only thread.
const MORE_MAPPINGS: u64 = 16;

/// Runs the program, recorded as this environment says.
fn watch(folder: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(RELEASE.program_named("watcher"));
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

fn check_sees_the_same(alone: &Output, recorded: &Output) {
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text(recorded), text(alone));
    let [before, after] = [alone, recorded].map(|output| figure(output, "mappings"));
    assert!((before..=before + MORE_MAPPINGS).contains(&after), "{before} mappings alone, {after} recorded");
}

#[test]
fn a_program_that_writes_its_dump_itself_sees_what_it_sees_alone() {
    let folder = tempfile::tempdir().unwrap();
    let alone = watch(folder.path(), &[]);
    assert!(String::from_utf8_lossy(&alone.stdout).contains("1 threads, 1 tasks"));
    let recorded = watch(folder.path(), &[("ALLOC_TRACKER", "trace"), ("ALLOC_TRACKER_DRAINER", "caller")]);
    check_sees_the_same(&alone, &recorded);
}
