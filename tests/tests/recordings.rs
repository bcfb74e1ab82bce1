//! What a user may say about a recording: when it ends before the program does, and what its dump
//! says about itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json as value};
use tests::{has_tool, json, number, output_within, profiler_cli, program, send, wait_until};

/// Returns the command that records a program into `x.alloc` of the folder.
fn record(folder: &Path, options: &[&str], name: &str) -> Command {
    let mut command = profiler_cli();
    command
        .args(["run", "--report", "none", "--no-compress", "-o", "x.alloc"])
        .args(options)
        .arg("--")
        .arg(program(name))
        .env("ALLOC_ORACLE_OUT", folder.join("oracle.json"))
        .current_dir(folder);
    command
}

#[test]
fn a_recording_ends_when_its_dump_is_large_enough_and_the_program_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = record(folder.path(), &["--max-dump", "1MiB"], "real_syn");
    let output = output_within(&mut command, Duration::from_secs(120));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    assert!(error.contains("has reached its limit of 1048576 bytes; the program goes on"), "{error}");
    let dump = folder.path().join("x.alloc");
    let size = fs::metadata(&dump).unwrap().len();
    // What the rings hold comes on top: at most 8,192 entries for each of the few threads.
    assert!(((1 << 20)..(4 << 20)).contains(&size), "{size}");
    assert!(!folder.path().join("x.alloc.tail").exists());

    let summary = json("summary", &dump, &[]);
    assert_eq!(summary["limit"], value!({ "of": "dump_size", "bytes": 1 << 20 }));
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    let text = fs::read_to_string(folder.path().join("oracle.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let all = number(&oracle, "allocations");
    assert!(number(&summary, "allocations") < all, "the program had {all} allocations: {summary}");
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("the dump has reached its limit of 1.0 MiB (1,048,576 B)"), "{warnings}");

    // Nobody knows what the program left behind at its end.
    let mut gate = profiler_cli();
    gate.arg("leaks").arg(&dump).args(["--fail-on-leak", "1000GiB"]);
    let gate = output_within(&mut gate, Duration::from_secs(60));
    let error = String::from_utf8_lossy(&gate.stderr).into_owned();
    assert_eq!(gate.status.code(), Some(1), "{error}");
    assert!(error.contains("--fail-on-leak fails because the recording ended before the program"), "{error}");
}

#[test]
fn a_recording_ends_after_its_time_and_the_program_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = record(folder.path(), &["--for", "300ms"], "unruly");
    command.arg("work").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (dump, sidecar) = (folder.path().join("x.alloc"), folder.path().join("x.alloc.tail"));
    wait_until("a recording", || sidecar.exists());
    wait_until("its end", || !sidecar.exists());
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let program: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let ended = fs::metadata(&dump).unwrap().len();
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the program goes on");
    assert_eq!(fs::metadata(&dump).unwrap().len(), ended, "and nothing more is recorded");
    send(Signal::TERM, program);
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(143), "{error}");
    assert!(error.contains("the program ended by SIGTERM (exit status 143)"), "{error}");

    let summary = json("summary", &dump, &[]);
    assert_eq!(summary["limit"], value!({ "of": "duration", "ns": 300_000_000 }));
    assert_eq!(summary["exact"], true, "{summary}");
    assert!((300_000_000..5_000_000_000).contains(&number(&summary, "duration_ns")), "{summary}");
}

#[test]
fn the_dump_says_where_when_and_from_what_it_was_recorded() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    fs::write(folder.path().join(".git/HEAD"), COMMIT).unwrap();
    let options = ["--label", "version=1.2", "--label", "note=a = b", "--no-argv"];
    let mut command = record(folder.path(), &options, "lives");
    command.arg("secret");
    assert!(output_within(&mut command, Duration::from_secs(60)).status.success());
    let dump = folder.path().join("x.alloc");
    let summary = json("summary", &dump, &[]);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
    let labels = value!({ "host": host, "commit": COMMIT, "version": "1.2", "note": "a = b" });
    assert_eq!((&summary["labels"], &summary["command"]), (&labels, &"lives".into()));
    assert!(!String::from_utf8_lossy(&fs::read(&dump).unwrap()).contains("secret"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let recorded = number(&summary, "recorded_unix_ns") as u64;
    assert!((now - 120_000_000_000..=now).contains(&recorded), "{recorded} {now}");

    let text = output_within(profiler_cli().arg("summary").arg(&dump), Duration::from_secs(60));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let row = text.lines().find(|line| line.starts_with("  recorded ")).unwrap();
    assert!(row.ends_with(&format!(" UTC on {host}, commit 0123456789ab")), "{row}");
    assert!(text.contains("\n  labels         note=a = b, version=1.2\n"), "{text}");

    // An option wins over the commit that was found.
    let mut command = record(folder.path(), &["--label", "commit=mine"], "lives");
    assert!(output_within(&mut command, Duration::from_secs(60)).status.success());
    assert_eq!(json("summary", &dump, &[])["labels"]["commit"], "mine");
}

/// The report needs memory, and the program's status must not depend on it.
#[test]
fn a_report_that_fails_changes_neither_the_status_nor_the_dump() {
    if !has_tool("prlimit") {
        return;
    }
    // The report of this program needs 12 MB for a single table. Compressing needs less than 20 MB,
    // and closing the dump less than 6 MB.
    let mut sizes = Vec::new();
    for (limit, is_compressed) in [(25_000_000, true), (6_000_000, false)] {
        let folder = tempfile::tempdir().unwrap();
        // The recorded program limits its parent, which reports later.
        let syn = program("real_syn");
        let script = format!("prlimit --pid $PPID --data={limit} && {} && exit 3", syn.display());
        let mut command = profiler_cli();
        command.args(["run", "-o", "x.alloc", "--", "bash", "-c", &script]).current_dir(folder.path());
        let output = output_within(&mut command, Duration::from_secs(120));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{error}");
        let count = |text: &str| error.lines().filter(|line| line.contains(text)).count();
        let named = error.lines().filter(|line| line.starts_with("dump: ")).count();
        assert_eq!((count("the report failed: "), named), (1, 1), "{error}");
        assert_eq!(count("cannot compress: "), usize::from(!is_compressed), "{error}");
        let dump = folder.path().join("x.alloc");
        let summary = json("summary", &dump, &[]);
        assert_eq!(summary["exact"], true);
        let left = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name());
        let left = left.filter(|name| name != "x.alloc" && name != "x.peak.svg").count();
        assert_eq!(left, 0, "no other file is left");
        sizes.push(fs::metadata(&dump).unwrap().len());
    }
    assert!(sizes[0] * 3 < sizes[1], "the first one is compressed: {sizes:?}");
}
