//! Suppressions and gates of `leaks`: a program with planted leaks, programs that free everything,
//! and a test program that cargo runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;
use tests::{Run, cli, line_of, number, output_within, profiler_cli, workspace};

/// The planted blocks: the cache's table and entry, the codec's block, the explained, the
/// unexplained and the lost one.
const TABLE: i64 = 512;
const ENTRY: i64 = 1 << 10;
const CODEC: i64 = 2 << 10;
const EXPLAINED: i64 = 4 << 10;
const UNEXPLAINED: i64 = 8 << 10;
const LOST: i64 = 16 << 10;
/// What is live at the mark `served` and not at the end.
const BUFFER: i64 = 32 << 10;
/// Without what a comment explains.
const TOTAL: i64 = TABLE + ENTRY + CODEC + UNEXPLAINED + LOST;

static RUN: LazyLock<Run> = LazyLock::new(|| Run::traced("planted", &[]));

fn source() -> PathBuf {
    workspace().join("tests/src/bin/planted.rs")
}

/// Runs `leaks` on the dump of the planted program.
fn leaks(args: &[&str]) -> (String, String, Option<i32>) {
    let dump = RUN.dump();
    texts(&cli(["leaks", dump.to_str().unwrap()].iter().chain(args)))
}

fn texts(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Writes a file with suppressions into the folder of the run; returns its path.
fn file(name: &str, text: &str) -> String {
    let path = RUN.folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn suppressed_blocks_are_in_no_row_and_no_total_but_in_a_list_of_their_own() {
    let whole = RUN.json("leaks", &[]);
    assert_eq!((number(&whole, "total_bytes"), number(&whole, "total_blocks")), (TOTAL, 5));
    let supp =
        file("listed.supp", "# of the program\nleak:codec_open\nleak:^planted::keep_in_*$\nleak:nothing\n");
    let report = RUN.json("leaks", &["--suppressions", &supp]);
    assert_eq!(number(&report, "total_bytes"), TOTAL - CODEC - ENTRY);
    let rows = report["leaks"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| number(row, "bytes")).collect::<Vec<_>>(), [LOST, UNEXPLAINED, TABLE]);

    let list = report["suppressed"]["patterns"].as_array().unwrap();
    let row = |row: &Value| {
        let text = |field: &str| row[field].as_str().unwrap().to_owned();
        (text("kind"), text("pattern"), text("source"), number(row, "bytes"), number(row, "blocks"))
    };
    let expected = |kind: &str, pattern: &str, source: String, bytes, blocks| {
        (kind.to_owned(), pattern.to_owned(), source, bytes, blocks)
    };
    let comment = format!("tests/src/bin/planted.rs:{}", line_of(&source(), "// the explained block"));
    let because = "leak: ok because the table of the planted program lives as long as the process";
    assert_eq!(
        list[..4].iter().map(row).collect::<Vec<_>>(),
        [
            expected("file", "leak:codec_open", format!("{supp}:2"), CODEC, 1),
            expected("file", "leak:^planted::keep_in_*$", format!("{supp}:3"), ENTRY, 1),
            expected("file", "leak:nothing", format!("{supp}:4"), 0, 0),
            expected("comment", because, comment, EXPLAINED, 1),
        ]
    );
    // What std keeps is all that is left.
    let of_std = &list[4..];
    assert!(of_std.iter().all(|row| row["kind"] == "default" && row["source"] == "default"), "{of_std:?}");
    let of_std: i64 = of_std.iter().map(|row| number(row, "bytes")).sum();
    let suppressed = number(&report["suppressed"], "bytes");
    assert_eq!(suppressed, CODEC + ENTRY + EXPLAINED + of_std);
    let summary = RUN.json("summary", &[]);
    assert_eq!(number(&report, "total_bytes") + suppressed, number(&summary, "live_bytes"));
    let with_std = RUN.json("leaks", &["--no-default-suppressions"]);
    assert_eq!(number(&with_std, "total_bytes"), TOTAL + of_std);

    let (text, error, code) = leaks(&["--suppressions", &supp]);
    assert!(
        text.contains("\nSuppressed: 7.0 KiB (7,168 B) in 3 blocks\n  2.0 KiB in 1 block: leak:codec_open (")
    );
    assert!(error.contains("listed.supp:4: leak:nothing matched nothing\n"), "{error}");
    let line = line_of(&source(), "// the unexplained block");
    let warning = format!("planted.rs:{line}: the comment 'leak: ok' does not count without a reason");
    assert!(error.contains(&warning) && code == Some(0), "{error}");
}

#[test]
fn a_pattern_matches_files_and_modules_too() {
    for (pattern, left) in [("planted.rs", 0), ("/planted$", 0), ("libz.so", TOTAL), ("codec_*:42", TOTAL)] {
        let supp = file("any.supp", &format!("leak:{pattern}\n"));
        let report = RUN.json("leaks", &["--suppressions", &supp]);
        assert_eq!(number(&report, "total_bytes"), left, "{pattern}");
    }
}

#[test]
fn a_bad_file_is_one_line_and_status_2() {
    for (text, expected) in [
        ("leak:a\nrace:b\n", "bad.supp:2: this is no suppression: give leak:PATTERN, or a # comment"),
        ("leak:\n", "bad.supp:1: there is no pattern after leak:"),
    ] {
        let (_, error, code) = leaks(&["--suppressions", &file("bad.supp", text)]);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    fs::write(RUN.folder.path().join("bytes.supp"), b"leak:a\n\xff\n").unwrap();
    let path = RUN.folder.path().join("bytes.supp");
    let (_, error, code) = leaks(&["--suppressions", path.to_str().unwrap()]);
    assert!(code == Some(2) && error.contains("bytes.supp:2: this is no text in UTF-8"), "{error}");
    let (_, error, code) = leaks(&["--suppressions", "/dev/zero"]);
    assert!(code == Some(2) && error.contains("larger than 1 MiB"), "{error}");
}

#[test]
fn blocks_of_an_interval_are_those_at_its_end_or_those_at_the_end_of_the_recording() {
    let between = ["--from", "mark:warm", "--to", "mark:served"];
    let at_its_end = RUN.json("leaks", &between);
    assert_eq!(number(&at_its_end, "total_bytes"), ENTRY + CODEC + UNEXPLAINED + BUFFER);
    assert_eq!(at_its_end["interval"]["still_live"], false);
    let still = RUN.json("leaks", &[&between[..], &["--still-live"]].concat());
    assert_eq!(number(&still, "total_bytes"), ENTRY + CODEC + UNEXPLAINED);
    assert_eq!(number(&still["suppressed"], "bytes"), EXPLAINED);
    assert_eq!(still["interval"]["still_live"], true);
    for (row, share) in still["leaks"].as_array().unwrap().iter().zip([8.0 / 11.0, 2.0 / 11.0, 1.0 / 11.0]) {
        assert!((row["share"].as_f64().unwrap() - share).abs() < 1e-9, "{row}");
    }
    let (text, _, _) = leaks(&[&between[..], &["--still-live"]].concat());
    assert!(
        text.starts_with("Born from mark:warm (") && text.contains(") and still live at the end: 11.0 KiB (")
    );
    let (_, error, code) = leaks(&["--still-live"]);
    assert!(code == Some(2) && error.contains("--from"), "without an interval: {error}");
}

#[test]
fn a_gate_fails_with_1_and_names_the_first_row() {
    let line = line_of(&source(), "// the lost block");
    let limit = |bytes: i64| format!("live:{bytes}");
    assert_eq!(leaks(&["--fail-on", &limit(TOTAL)]).2, Some(0));
    let (text, error, code) = leaks(&["--fail-on", &limit(TOTAL - 1)]);
    assert!(code == Some(1) && text.starts_with("Live at the end: 27.5 KiB (28,160 B)"), "{error}");
    let expected = format!(
        "27.5 KiB (28,160 B) are live at the end; --fail-on live allows 27.5 KiB (28,159 B); the first row is \
         planted::lost at tests/src/bin/planted.rs:{line} with 16.0 KiB (16,384 B)\n"
    );
    assert!(error.ends_with(&expected), "{error}");
    // With a filter, which the message names.
    let (_, error, code) = leaks(&["--function", "planted::lost", "--fail-on-leak", "1KiB"]);
    assert!(error.contains(
        ", of what --function planted::lost lets through; --fail-on-leak allows 1.0 KiB (1,024 B)"
    ));
    assert_eq!(code, Some(1), "{error}");
    // What is suppressed does not count.
    let supp = file("gate.supp", "leak:planted::lost\nleak:planted::unexplained\n");
    let few = limit(TOTAL - LOST - UNEXPLAINED);
    assert_eq!(leaks(&["--suppressions", &supp, "--fail-on", &few]).2, Some(0));
    // Several conditions, by commas and by several options. Each that holds has a line.
    let (_, error, code) =
        leaks(&["--fail-on", "live:1,live:100MiB", "--fail-on", "live:2", "--fail-on-leak", "3"]);
    assert_eq!((error.matches(" are live at the end; ").count(), code), (3, Some(1)), "{error}");
    // What cannot be decided is no pass, and what is no condition is no gate.
    for (condition, expected) in
        [("lost", "--fail-on lost needs a snapshot"), ("held", "give live:SIZE, lost, lost:SIZE or growing")]
    {
        let (_, error, code) = leaks(&["--fail-on", condition]);
        assert!(code == Some(2) && error.contains(expected), "{error}");
    }
}

#[test]
fn options_come_from_profiler_toml() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("ours.supp", "leak:planted::\n");
    write("profiler.toml", "[leaks]\nsuppressions = [\"ours.supp\"]\nfail-on = [\"live:0\"]\n");
    let dump = RUN.dump();
    let run = |args: &[&str]| {
        let mut command = profiler_cli();
        command.current_dir(folder.path().join("below")).arg("leaks").arg(&dump).args(args);
        texts(&output_within(&mut command, Duration::from_secs(60)))
    };
    let (text, error, code) = run(&[]);
    assert!(text.starts_with("Nothing but what is suppressed is live at the end.\n"), "{text}");
    assert_eq!(code, Some(0), "{error}");
    write("ours.supp", "leak:nothing\n");
    assert_eq!(run(&[]).2, Some(1));
}

/// The dumps of several programs get a report each, and a gate fails if it fails for one of them.
#[test]
fn several_dumps_have_reports_of_their_own() {
    let quiet = Run::traced("frees_all", &["hello"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("a.alloc"), path("b.alloc"));
    fs::copy(quiet.dump(), &first).unwrap();
    fs::copy(RUN.dump(), &second).unwrap();
    fs::write(path("notes.txt"), "no dump").unwrap();
    let all = folder.path().to_str().unwrap();

    // In the order of the command line; a folder's in the order of their names; each once.
    for dumps in [&[&*first, &second][..], &[all], &[all, &first]] {
        let (text, error, code) =
            texts(&cli(["leaks"].iter().chain(dumps).chain(&["--fail-on", "live:20KiB"])));
        let headings: Vec<&str> = text.lines().filter(|line| line.contains(".alloc: ")).collect();
        assert_eq!(headings.len(), 2, "{text}");
        assert!(
            headings[0].starts_with(&format!("{first}: "))
                && headings[0].contains("frees_all hello (process ")
        );
        assert!(headings[1].starts_with(&format!("{second}: ")) && headings[1].contains("planted (process "));
        let complaint =
            format!("{second}: 27.5 KiB (28,160 B) are live at the end; --fail-on live allows 20.0 KiB");
        assert!(code == Some(1) && error.contains(&complaint) && !error.contains(&first), "{error}");
    }
    let output = cli(["leaks", all, "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["schema"], "alloc-tracker/leaks-list/1");
    let dumps = list["dumps"].as_array().unwrap();
    assert_eq!(dumps.iter().map(|one| number(one, "total_bytes")).collect::<Vec<_>>(), [0, TOTAL]);
    // Each is what the command prints for that dump alone.
    for (one, dump) in dumps.iter().zip([&first, &second]) {
        assert_eq!(*one, tests::json("leaks", Path::new(dump), &[]));
        assert_eq!(
            (one["dump"].as_str(), &one["limit"], &one["exact"]),
            (Some(&**dump), &Value::Null, &true.into())
        );
        assert_eq!(one["pid"], tests::json("summary", Path::new(dump), &[])["pid"]);
    }
    assert_eq!((&dumps[0]["command"], &dumps[1]["command"]), (&"frees_all hello".into(), &"planted".into()));

    // A function of one of the programs is enough for a filter.
    let code = |args: &[&str]| cli(["leaks", all].iter().chain(args)).status.code();
    assert_eq!(code(&["--function", "planted::lost", "--fail-on", "live:16KiB"]), Some(0));
    assert_eq!(code(&["--function", "planted::lots"]), Some(2));
    // A file that is no dump is found out before anything is printed.
    let (text, error, code) = texts(&cli(["leaks", &first, &path("notes.txt")]));
    assert_eq!((&*text, code), ("", Some(2)), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let (_, error, code) = texts(&cli(["leaks", empty.path().to_str().unwrap()]));
    assert!(code == Some(2) && error.contains("there is no dump in "), "{error}");
}

/// `--fail-on-leak 0` without any filter.
#[test]
fn a_program_that_frees_everything_passes_a_gate_of_0() {
    let unwanted = [("RUST_BACKTRACE", None), ("RUST_BACKTRACE", Some("1"))];
    for (name, backtrace) in [
        ("hello", unwanted[0]),
        ("eprintln", unwanted[0]),
        ("threads", unwanted[0]),
        ("panic", unwanted[0]),
        ("panic", unwanted[1]),
        ("panic-in-thread", unwanted[1]),
        ("locks", unwanted[0]),
        ("hashmap", unwanted[0]),
        ("thread-local", unwanted[0]),
        ("env", unwanted[0]),
        ("backtrace", unwanted[0]),
        ("current-thread", unwanted[0]),
        ("child", unwanted[0]),
        ("sockets", unwanted[0]),
        ("files", unwanted[0]),
        ("sync", unwanted[0]),
    ] {
        let run = frees_all(name, backtrace);
        let (text, error, code) = texts(&cli(["leaks", run.dump().to_str().unwrap(), "--fail-on-leak", "0"]));
        assert_eq!(code, Some(0), "{name} {backtrace:?}: {text}{error}");
        let all = run.json("leaks", &["--no-default-suppressions"]);
        assert!(number(&all, "total_bytes") > 0, "std keeps something in each program");
    }
}

/// What a program has not freed because it left early is its own.
#[test]
fn what_is_live_because_the_program_left_early_is_not_suppressed() {
    let run = frees_all("exit", ("RUST_BACKTRACE", None));
    // The iterator over the arguments has a table of two strings of 24 bytes; the second is "exit".
    let report = run.json("leaks", &[]);
    assert_eq!((number(&report, "total_bytes"), number(&report, "total_blocks")), (2 * 24 + 4, 2));
}

fn frees_all(name: &str, (variable, value): (&str, Option<&str>)) -> Run {
    let mut command = Command::new(tests::program("frees_all"));
    command.arg(name).env_remove(variable).envs(value.map(|value| (variable, value)));
    let run = Run::of(&mut command, Duration::from_secs(60));
    assert!(run.output.status.success(), "{name}: {}", String::from_utf8_lossy(&run.output.stderr));
    run
}

const MANIFEST: &str = "\
[package]
name = \"gated-tests\"
version = \"0.1.0\"
edition = \"2024\"

[lib]
doctest = false

[workspace]

[dependencies]
";

/// Three tests that free everything.
const QUIET: &str = "
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

#[test]
fn prints() {
    println!(\"{}\", String::from(\"captured\").repeat(3));
}

#[test]
#[should_panic]
fn panics() {
    panic!(\"{}\", vec![1].len());
}

#[test]
fn starts_a_thread() {
    assert_eq!(std::thread::spawn(|| vec![1, 2].len()).join().unwrap(), 2);
}
";

const LEAKING: &str = "
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

#[test]
fn leaks() {
    std::mem::forget(std::hint::black_box(vec![1u8; 1000]));
}
";

/// `@run` stands for the dumps of all test programs that one command of cargo has started.
#[test]
fn all_dumps_of_a_test_run_are_checked_at_once() {
    let package = tempfile::tempdir().unwrap();
    let folder = package.path();
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let tracker = workspace().join("alloc-tracker");
    write("Cargo.toml", &format!("{MANIFEST}alloc-tracker.path = {tracker:?}\n"));
    write("src/lib.rs", "");
    write("tests/leaking.rs", LEAKING);
    write("tests/quiet.rs", QUIET);
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let run = |args: &[&str]| {
        let mut command = profiler_cli();
        command
            .args(args)
            .env("CARGO", env!("CARGO"))
            .env("CARGO_TARGET_DIR", workspace().join("target/end-to-end/gated"))
            .env("CARGO_NET_OFFLINE", "true")
            .current_dir(folder);
        texts(&output_within(&mut command, Duration::from_secs(400)))
    };
    let names = |list: &Value| {
        let dumps = list["dumps"].as_array().unwrap().iter();
        let file = |one: &Value| Path::new(one["dump"].as_str().unwrap()).file_name().unwrap().to_owned();
        dumps.map(|one| file(one).to_str().unwrap().split('.').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The dumps of an earlier run stay in the folder.
    for _ in 0..2 {
        let (_, error, code) = run(&["cargo", "test", "--test", "leaking", "--test", "quiet"]);
        assert_eq!(code, Some(0), "{error}");
    }
    let (text, error, code) = run(&["leaks", "@run", "--json", "--fail-on", "live:0"]);
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{error}"));
    assert_eq!(names(&list), ["leaking", "quiet"]);
    assert_eq!(
        list["dumps"].as_array().unwrap().iter().map(|one| number(one, "total_bytes")).collect::<Vec<_>>(),
        [1000, 0]
    );
    assert!(code == Some(1) && error.contains("leaking.") && !error.contains("quiet."), "{error}");
    // A single program is a run as well.
    assert_eq!(run(&["cargo", "test", "--test", "quiet"]).2, Some(0));
    let (text, error, code) = run(&["leaks", "@run", "--fail-on-leak", "0"]);
    assert!(code == Some(0) && text.starts_with("Nothing but what is suppressed"), "{text}{error}");
}
