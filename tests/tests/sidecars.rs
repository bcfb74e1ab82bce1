//! A reader that cannot read a sidecar says so, and takes the dump for no more than it is: without
//! its sidecar, the dump of a killed program lacks the newest records, or all of them.
//!
//! A folder in the place of the sidecar cannot be read by any user. File permissions would stop
//! ordinary users only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::stunts::RELEASE;
use tests::{cli, json, number, output_within, profiler_cli, program, send, wait_for_line, wait_until};

/// Records `unruly` until it is killed, and hides its sidecar meanwhile. Returns the dump.
fn killed(folder: &Path, work: &str, least_len: u64) -> PathBuf {
    let dump = folder.join("x.alloc");
    let mut child = Command::new(program("unruly"))
        .arg(work)
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child);
    wait_until("the dump to grow", || std::fs::metadata(&dump).unwrap().len() >= least_len);
    child.kill().unwrap();
    child.wait().unwrap();
    hide(&dump);
    dump
}

/// Replaces the sidecar by a folder.
fn hide(dump: &Path) {
    let sidecar = dump.with_extension("alloc.tail");
    std::fs::rename(&sidecar, dump.with_extension("hidden")).unwrap();
    std::fs::create_dir(&sidecar).unwrap();
}

#[test]
fn a_dump_without_a_record_of_its_own_is_refused_if_its_sidecar_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let dump = killed(folder.path(), "wait", 0);
    for command in ["summary", "leaks", "lines", "flamegraph", "timeline"] {
        let output = cli([command, dump.to_str().unwrap(), "--json"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{command}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("x.alloc.tail, which cannot be read: Is a directory"), "{stderr}");
    }
    // With the sidecar all 50 blocks are there again.
    let sidecar = dump.with_extension("alloc.tail");
    std::fs::remove_dir(&sidecar).unwrap();
    std::fs::rename(dump.with_extension("hidden"), &sidecar).unwrap();
    assert!(number(&json("summary", &dump, &[]), "live_bytes") >= 50_000);
}

#[test]
fn a_profile_without_its_last_records_is_labelled() {
    let folder = tempfile::tempdir().unwrap();
    // A frame holds 256 KiB.
    let dump = killed(folder.path(), "work", 300 << 10);
    let summary = json("summary", &dump, &[]);
    assert_eq!((&summary["complete"], &summary["exact"]), (&false.into(), &false.into()));
    assert!(number(&summary, "allocations") > 1000, "the frames of the dump itself count");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("x.alloc.tail, which cannot be read: Is a directory"), "{warnings}");
    for command in ["leaks", "lines", "flamegraph", "timeline"] {
        let output = cli([command, dump.to_str().unwrap(), "--json"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert_eq!(stderr.lines().filter(|line| line.contains("cannot be read")).count(), 1, "{stderr}");
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["complete"], false, "{command}");
    }
}

/// `run` passes the status of the program on, and leaves what is there of the dump.
#[test]
fn run_says_that_it_cannot_read_what_the_program_left() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "-o"]).arg(&dump).arg("--").arg(program("unruly")).arg("wait");
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut run);
    hide(&dump);
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let child =
        std::fs::read_to_string(children).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    send(Signal::KILL, child);
    let output = run.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(128 + 9), "{stderr}");
    assert!(stderr.lines().count() == 2 && stderr.contains("x.alloc.tail, which cannot be read"), "{stderr}");
    assert!(stderr.contains("the program ended by SIGKILL (exit status 137)"), "{stderr}");
    assert!(dump.is_file() && dump.with_extension("hidden").is_file());
}

/// The program cannot remove its sidecar at its end, because it has another root by then.
#[test]
fn run_removes_what_the_program_could_not_remove() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "--report", "none", "-o"]).arg(&dump).arg("--");
    run.arg(RELEASE.program_named("ends")).arg("another root");
    let output = output_within(&mut run, Duration::from_secs(60));
    if output.status.code() == Some(77) {
        println!("skipped: no right to change the root");
        return;
    }
    assert_eq!(output.status.code(), Some(14), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!dump.with_extension("alloc.tail").exists());
    assert_eq!(json("summary", &dump, &[])["exact"], true);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
