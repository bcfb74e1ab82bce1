//! A profile is never right about nothing: programs whose allocations do not reach the tracker, all
//! of them or some, say so, and no check passes on their dumps.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use alloc_dump::header::Header;
use alloc_dump::layout::FRAME_HEADER_LEN;
use alloc_dump::record::{Installation, Process, Record};
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};
use serde_json::Value;
use tests::stunts::{DYNAMIC, RELEASE, Variant};
use tests::{cli, json, number, output_within, profiler_cli, program};

const LIMIT: Duration = Duration::from_secs(60);
/// `linkage::allocate_own` allocates this many blocks of 1,000 bytes.
const BLOCKS: i64 = 100;

/// Returns the folder with the dynamic standard library of this toolchain; `None` and a word if it
/// has none.
fn libstd() -> Option<OsString> {
    let output = Command::new("rustc").args(["--print", "target-libdir"]).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    let is_libstd = |name: &str| name.starts_with("libstd-") && name.ends_with(".so");
    let mut files = std::fs::read_dir(&folder).ok()?.flatten();
    if files.any(|file| file.file_name().to_str().is_some_and(is_libstd)) {
        return Some(folder.into());
    }
    println!("skipped: the toolchain has no dynamic standard library");
    None
}

/// Returns the command that runs a stunt, which finds libstd in this folder.
fn stunt(variant: &Variant, libstd: &OsString, args: &[&str]) -> Command {
    let mut command = Command::new(variant.program());
    command.args(args).env("LD_LIBRARY_PATH", libstd).env_remove("ALLOC_TRACKER").env("RUST_BACKTRACE", "0");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Requires that `leaks --fail-on-leak` with any limit ends with 1 and one line that has all of
/// these parts.
fn assert_check_fails(dump: &Path, parts: &[&str]) {
    let dump = dump.to_str().unwrap();
    let output = cli(["leaks", dump, "--fail-on-leak", "1000000000"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let line = stderr.lines().find(|line| line.contains("--fail-on-leak fails")).unwrap_or_default();
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {stderr}");
    }
}

/// Returns the bytes and blocks that are live at the end below a function.
fn held(dump: &Path, function: &str) -> (i64, i64) {
    let output = cli(["leaks", dump.to_str().unwrap(), "--json", "--function", function]);
    if !output.status.success() {
        // Nothing matches.
        return (0, 0);
    }
    let leaks: Value = serde_json::from_slice(&output.stdout).unwrap();
    (number(&leaks, "total_bytes"), number(&leaks, "total_blocks"))
}

struct Recorded {
    _folder: tempfile::TempDir,
    dump: std::path::PathBuf,
    said: String,
    /// Bytes of the block that the standard library has allocated.
    read: i64,
}

fn record(variant: &Variant, libstd: &OsString) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let output = output_within(&mut stunt(variant, libstd, &["records", dump.to_str().unwrap()]), LIMIT);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let (said, read) = stdout.trim().split_once('\n').unwrap();
    Recorded { _folder: folder, dump, said: said.to_owned(), read: read.parse().unwrap() }
}

#[test]
fn a_static_std_is_recorded() {
    let recorded = record(&RELEASE, &OsString::new());
    assert_eq!(recorded.said, "Complete true");
    let summary = json("summary", &recorded.dump, &[]);
    assert_eq!((&summary["installation"], &summary["exact"]), (&"complete".into(), &true.into()));
    assert_eq!(held(&recorded.dump, "linkage::records"), (BLOCKS * (1000 + 16) + recorded.read, BLOCKS + 2));
    let output = output_within(&mut stunt(&RELEASE, &OsString::new(), &["measures"]), LIMIT);
    assert_eq!(text(&output.stdout), "1 1000\n");
}

#[test]
fn a_dynamic_std_is_said_to_be_missing() {
    let Some(libstd) = libstd() else { return };
    let recorded = record(&DYNAMIC, &libstd);
    assert_eq!(recorded.said, "Partial false");
    let summary = json("summary", &recorded.dump, &[]);
    assert_eq!((&summary["installation"], &summary["exact"]), (&"partial".into(), &false.into()));
    assert_eq!(summary["complete"], true);
    let warnings = summary["warnings"].to_string();
    assert!(warnings.contains("allocations inside the standard library are not recorded"), "{warnings}");
    // What the program's own code has allocated is there, and what std has allocated is not.
    assert_eq!(held(&recorded.dump, "linkage::allocate_own"), (BLOCKS * (1000 + 16), BLOCKS + 1));
    assert!(number(&summary, "live_bytes") < recorded.read, "{summary}");
    assert_check_fails(&recorded.dump, &["libstd is linked dynamically", "prefer-dynamic"]);
}

#[test]
fn nothing_is_counted_where_std_is_dynamic() {
    let Some(libstd) = libstd() else { return };
    let output = output_within(&mut stunt(&DYNAMIC, &libstd, &["measures"]), LIMIT);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(101), ""), "{stderr}");
    assert!(stderr.contains("libstd is linked dynamically") && stderr.contains("linkage.rs:"), "{stderr}");
}

/// A whole process is recorded, from its first event on, without a question of the program.
#[test]
fn a_run_with_a_dynamic_std_leaves_a_dump_that_says_so() {
    let Some(libstd) = libstd() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut run = profiler_cli();
    run.args(["run", "--report", "summary", "-o"]).arg(&dump).arg("--").arg(DYNAMIC.program());
    run.args(["records", folder.path().join("other.alloc").to_str().unwrap()]);
    let output = output_within(run.env("LD_LIBRARY_PATH", &libstd), LIMIT);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for part in ["not exact", "allocations inside the standard library are not recorded"] {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
    // The program was told in the middle of the recording, and that is no other answer.
    assert_eq!(json("summary", &dump, &[])["installation"], "partial");
    assert_eq!(held(&dump, "linkage::allocate_own").1, 0, "they were freed after the guard's end");
    assert_check_fails(&dump, &["libstd is linked dynamically"]);
}

fn run_without_report(folder: &Path, name: &str) -> Output {
    let mut run = profiler_cli();
    run.args(["run", "-o"]).arg(folder.join("x.alloc")).arg("--").arg(program(name)).arg(folder);
    output_within(run.env("RUST_BACKTRACE", "0"), LIMIT)
}

/// `untracked` never uses the tracker; `forgotten` has the dependency and not the attribute.
#[test]
fn no_dump_has_two_causes_and_both_are_named() {
    for (name, code) in [("untracked", 2), ("forgotten", 101)] {
        let folder = tempfile::tempdir().unwrap();
        let output = run_without_report(folder.path(), name);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with("profiler-cli: no dump")).unwrap_or_default();
        for part in ["#[global_allocator]", "libstd is linked dynamically", "prefer-dynamic"] {
            assert!(line.contains(part), "{name}: no {part:?} in {stderr}");
        }
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_program_without_the_attribute_ends_in_a_panic_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut forgotten = Command::new(program("forgotten"));
    let forgotten = forgotten.arg(folder.path()).env_remove("ALLOC_TRACKER").env("RUST_BACKTRACE", "0");
    let output = output_within(forgotten, LIMIT);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(101), "{stderr}");
    assert!(stdout.starts_with("not recorded: ") && stdout.contains("#[global_allocator]"), "{stdout}");
    assert!(stderr.contains("forgotten.rs:") && stderr.contains("#[global_allocator]"), "{stderr}");
}

/// A check passes on a dump without any event only if the dump says that events would have been
/// recorded.
#[test]
fn a_dump_without_events_proves_nothing_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let path = dump.to_str().unwrap();
    for (installation, reason) in [
        (None, "no heap event was recorded"),
        (Some(Installation::Missing), "not the program's global allocator"),
        (Some(Installation::Partial), "libstd is linked dynamically"),
    ] {
        std::fs::write(&dump, dump_without_events(installation)).unwrap();
        assert_check_fails(&dump, &[reason]);
        assert_eq!(json("summary", &dump, &[])["exact"], false);
    }
    std::fs::write(&dump, dump_without_events(Some(Installation::Complete))).unwrap();
    let output = cli(["leaks", path, "--fail-on-leak", "0"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(json("summary", &dump, &[])["exact"], true);
}

fn dump_without_events(installation: Option<Installation>) -> Vec<u8> {
    let mut dump = Header { session: [7; 16], created_unix_ns: 0 }.encode().to_vec();
    let (mut buffer, mut encoder) = ([0; 4096], Encoder::new());
    let process = Process { pid: 42, page_size: 4096, exe: b"/app", ..Process::default() };
    encoder.push(&mut buffer, &Record::Process(process)).unwrap();
    if let Some(installation) = installation {
        encoder.push(&mut buffer, &Record::Installation(installation)).unwrap();
    }
    let len = encoder.seal(&mut buffer, 0);
    dump.extend_from_slice(&buffer[..len]);
    let mut last = [0; FRAME_HEADER_LEN + 128];
    let totals = Some(Totals::default());
    let trailer = Trailer { end: EndReason::Finished, duration_us: 10, totals };
    let len = seal_trailer(&mut last, 1, &trailer).unwrap();
    dump.extend_from_slice(&last[..len]);
    dump
}
