//! A dump is compressed once its program has ended. It is smaller then, and the reading commands
//! print the same bytes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use alloc_dump::frame::FrameHeader;
use alloc_dump::layout::{FRAME_HEADER_LEN, FRAME_SYMBOLS, HEADER_LEN};
use rustix::process::Signal;
use serde_json::Value;
use tests::{Run, cli, json, number, output_within, profiler_cli, program, send, wait_until};

/// Returns all that the reading commands print.
fn printed(dump: &Path) -> Vec<Vec<u8>> {
    let print = |command: &str| {
        let output = cli([command.as_ref(), dump.as_os_str(), "--json".as_ref()]);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    ["summary", "leaks", "lines"].into_iter().map(print).collect()
}

fn compress(dumps: &[&Path]) -> Output {
    cli(std::iter::once("compress".as_ref()).chain(dumps.iter().map(|dump| dump.as_os_str())))
}

fn size(dump: &Path) -> u64 {
    fs::metadata(dump).unwrap().len()
}

/// Returns the bytes of a dump without those of the names of its code.
fn size_without_names(dump: &Path) -> u64 {
    let bytes = fs::read(dump).unwrap();
    let (mut at, mut names) = (HEADER_LEN, 0);
    while let Some(frame) = bytes.get(at..).and_then(FrameHeader::decode) {
        let len = FRAME_HEADER_LEN + frame.len as usize;
        names += if frame.kind == FRAME_SYMBOLS { len } else { 0 };
        at += len;
    }
    (bytes.len() - names) as u64
}

/// Returns the files of a folder in order, for tests that nothing is left beside a dump.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// For each example, the limit of bytes per event in its compressed dump. The dumps of programs
/// with few events consist mostly of records of their modules.
const LIMITS: [(&str, f64); 9] = [
    ("course_allocate", 200.0),
    ("growing_queue", 2.0),
    ("leaking_cache", 2.0),
    ("page_walk", 0.5),
    ("parser_temporaries", 0.5),
    ("real_regex", 2.0),
    ("real_serde_json", 1.0),
    ("real_syn", 2.0),
    ("touch_barely", 100.0),
];

#[test]
fn a_compressed_dump_reads_the_same_and_is_within_its_limit() {
    for (name, limit) in LIMITS {
        let run = Run::traced(name, &[]);
        let dump = run.dump();
        let (before, raw) = (printed(&dump), size(&dump));
        let output = compress(&[&dump]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains(" -> "));
        assert!(size_without_names(&dump) < raw, "{name}");
        let after = printed(&dump);
        assert!(before == after, "{name} reads differently when compressed");

        let summary: Value = serde_json::from_slice(&after[0]).unwrap();
        let events: i64 = ["allocations", "deallocations", "reallocations"]
            .iter()
            .map(|field| number(&summary, field))
            .sum();
        let each = size_without_names(&dump) as f64 / events as f64;
        println!("{name}: {:.3} -> {each:.3} bytes an event", raw as f64 / events as f64);
        assert!(each < limit, "{name}: {each} bytes an event");

        // Compressing the dump again changes nothing, and the file is not replaced.
        let (bytes, inode) = (fs::read(&dump).unwrap(), fs::metadata(&dump).unwrap().ino());
        assert!(compress(&[&dump]).status.success());
        assert_eq!((fs::read(&dump).unwrap(), fs::metadata(&dump).unwrap().ino()), (bytes, inode));
    }
}

/// Runs an example under `profiler-cli run`.
fn run_in(folder: &Path, options: &[&str]) -> Output {
    let mut command = profiler_cli();
    command
        .args(["run", "--report", "none", "-o", "x.alloc"])
        .args(options)
        .arg("--")
        .arg(program("parser_temporaries"))
        .current_dir(folder);
    output_within(&mut command, Duration::from_secs(60))
}

#[test]
fn run_leaves_a_compressed_dump_and_no_other_file() {
    let [folder, raw] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let output = run_in(folder.path(), &[]);
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).lines().count(),
        1,
        "stderr has one line, which names the dump"
    );
    assert!(run_in(raw.path(), &["--no-compress"]).status.success());
    let dump = folder.path().join("x.alloc");
    assert!(size(&dump) * 10 < size(&raw.path().join("x.alloc")));
    assert_eq!(files_in(folder.path()), std::slice::from_ref(&dump));
    assert_eq!(fs::metadata(&dump).unwrap().permissions().mode() & 0o777, 0o600);
    let summary = json("summary", &dump, &[]);
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn run_compresses_the_dump_of_a_killed_program_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = profiler_cli();
    command
        .args(["run", "--report", "none", "-o", "x.alloc", "--"])
        .arg(program("unruly"))
        .arg("work")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (dump, sidecar) = (folder.path().join("x.alloc"), folder.path().join("x.alloc.tail"));
    wait_until("a few dump frames", || fs::metadata(&dump).is_ok_and(|metadata| metadata.len() > 1 << 20));
    assert!(sidecar.exists());
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let program = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    send(Signal::KILL, program);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert_eq!(files_in(folder.path()), std::slice::from_ref(&dump));
    let summary = json("summary", &dump, &[]);
    assert_eq!((&summary["complete"], &summary["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    let events = number(&summary, "allocations") + number(&summary, "deallocations");
    assert!(size(&dump) < events as u64, "{} bytes for {events} events", size(&dump));
}

/// A service that was started by its environment and killed has left a dump without an end.
#[test]
fn the_dump_of_a_killed_program_is_closed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, sidecar) = (folder.path().join("x.alloc"), folder.path().join("x.alloc.tail"));
    let mut command = std::process::Command::new(program("unruly"));
    command.arg("work").env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", &dump);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("a few dump frames", || fs::metadata(&dump).is_ok_and(|metadata| metadata.len() > 1 << 20));
    let close = || cli(["compress".as_ref(), "--close".as_ref(), dump.as_os_str()]);

    // As long as the program runs, its dump is left alone.
    let output = close();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && error.contains("its program still runs"), "{error}");
    assert!(sidecar.exists());

    child.kill().unwrap();
    child.wait().unwrap();
    let killed = json("summary", &dump, &[]);
    assert_eq!(killed["complete"], false);
    assert!(killed["warnings"].to_string().contains("`profiler-cli compress --close`"), "{killed}");
    let output = close();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(files_in(folder.path()), std::slice::from_ref(&dump));
    let closed = json("summary", &dump, &[]);
    assert_eq!((&closed["complete"], &closed["exact"]), (&Value::Bool(true), &Value::Bool(true)));
    for figure in ["allocations", "deallocations", "live_bytes", "peak_bytes"] {
        assert_eq!(closed[figure], killed[figure], "{figure}");
    }
    let events = number(&closed, "allocations") + number(&closed, "deallocations");
    assert!(size(&dump) < events as u64, "{} bytes for {events} events", size(&dump));
}

#[test]
fn files_that_cannot_be_compressed_stay_unchanged() {
    let run = Run::traced("leaking_cache", &[]);
    let folder = run.folder.path();
    let bytes = fs::read(run.dump()).unwrap();
    let [text, cut] = [folder.join("x.txt"), folder.join("cut.alloc")];
    fs::write(&text, "hello\n").unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let missing = folder.join("missing.alloc");
    let files = files_in(folder);
    for (path, words) in [
        (&text, "not an alloc-tracker dump"),
        (&cut, "it is not complete"),
        (&missing, "No such file"),
        (&folder.to_owned(), "directory"),
    ] {
        let before = fs::read(path).ok();
        let output = compress(&[path, &run.dump()]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with("profiler-cli: ") && stderr.contains(words), "{stderr}");
        assert_eq!(fs::read(path).ok(), before);
    }
    // Each command also got a good dump, which was compressed all the same.
    assert!(size(&run.dump()) < bytes.len() as u64);
    assert_eq!(files_in(folder), files);
}

#[test]
fn compressing_keeps_links_and_permissions() {
    let run = Run::traced("leaking_cache", &[]);
    let link = run.folder.path().join("link.alloc");
    symlink("dump.alloc", &link).unwrap();
    fs::set_permissions(run.dump(), fs::Permissions::from_mode(0o640)).unwrap();
    let raw = size(&run.dump());
    assert!(compress(&[&link]).status.success());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(size(&run.dump()) < raw);
    assert_eq!(fs::metadata(run.dump()).unwrap().permissions().mode() & 0o777, 0o640);
}
