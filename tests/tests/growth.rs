//! `leaks --growing`: a service with a leak, a full cache and a steady part, while it runs and when
//! it has ended.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;
use tests::{cli, json, number, program, wait_for_line};

/// What was read while the service ran, and the dump that it left.
struct Recording {
    while_it_ran: Value,
    folder: TempDir,
}

static RECORDING: LazyLock<Recording> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let while_it_ran = record(Command::new(program("sessions")), &folder, |dump| {
        json("leaks", dump, &["--growing", "--all"])
    });
    Recording { while_it_ran, folder }
});

/// Starts the service, which writes a dump into the folder, and calls `look` with the dump once the
/// service has served. Returns what `look` returned, when the service has ended.
fn record<T>(mut service: Command, folder: &TempDir, look: impl FnOnce(&Path) -> T) -> T {
    let dump = folder.path().join("dump.alloc");
    let mut child = service
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child);
    let seen = look(&dump);
    assert!(child.try_wait().unwrap().is_none(), "it runs until its input ends");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    seen
}

fn dump() -> std::path::PathBuf {
    RECORDING.folder.path().join("dump.alloc")
}

fn printed(dump: &Path, args: &[&str]) -> String {
    let args = [OsStr::new("leaks"), dump.as_os_str()].into_iter().chain(args.iter().map(OsStr::new));
    let output = cli(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The sessions grow, and nothing else does.
fn assert_sessions_grow(report: &Value) {
    let summary = &report["growth"];
    assert_eq!((number(summary, "growing"), number(summary, "slowing")), (1, 0), "{summary}");
    assert!(number(summary, "steady") >= 2, "the cache and the requests: {summary}");
    assert_eq!(summary["windows"].as_array().unwrap().len(), 12);
    let row = &report["leaks"][0];
    assert_eq!(row["function"], "sessions::open_session");
    let growth = &row["growth"];
    assert_eq!(growth["verdict"], "growing", "{growth}");
    let floors: Vec<u64> =
        growth["floors"].as_array().unwrap().iter().map(|floor| floor.as_u64().unwrap()).collect();
    assert!(floors.len() == 12 && floors.iter().all(|floor| floor % 1024 == 0), "{floors:?}");
    assert_eq!(number(growth, "bytes"), (floors[11] - floors[0]) as i64);
    assert!(growth["p"].as_f64().unwrap() < 0.05 / summary["sites_tested"].as_f64().unwrap());
    // No session ends.
    let kept = &growth["kept_share"];
    assert!(kept[0].as_f64().unwrap() > 0.8 && kept[1] == 1.0, "{kept}");
    assert!(number(growth, "bytes_per_hour") > 0);
    let each = growth["bytes_per_allocation"].as_f64().unwrap();
    // Each session has 1024 bytes, and none ends.
    assert_eq!(each, 1024.0, "{growth}");
    assert!(growth["sentence"].as_str().unwrap().starts_with("its least use rose in 11 of 11"), "{growth}");
}

#[test]
fn the_leak_is_found_while_the_service_runs_and_when_it_has_ended() {
    let recording = &*RECORDING;
    assert_sessions_grow(&recording.while_it_ran);
    assert_eq!(recording.while_it_ran["complete"], false);
    // With --all the other sites have their verdicts, and the reasons for them.
    let rows = recording.while_it_ran["leaks"].as_array().unwrap();
    for function in ["sessions::fill_cache", "sessions::serve"] {
        let row = rows.iter().find(|row| row["function"] == function).expect("a row with live blocks");
        assert_eq!(row["growth"]["verdict"], "steady", "{row}");
        assert!(row["growth"]["limit"].is_null() && row["growth"]["sentence"] != "");
    }
    let at_the_end = json("leaks", &dump(), &["--growing"]);
    assert_sessions_grow(&at_the_end);
    assert_eq!(at_the_end["complete"], true);
}

#[test]
fn a_leak_is_found_although_the_program_frees_everything_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut tidy = Command::new(program("sessions"));
    tidy.arg("tidy");
    record(tidy, &folder, |_| ());
    let dump = folder.path().join("dump.alloc");
    let at_the_end = json("leaks", &dump, &[]);
    assert!(number(&at_the_end, "total_bytes") < 64 << 10, "{at_the_end}");
    let report = json("leaks", &dump, &["--growing"]);
    assert_sessions_grow(&report);
    assert_eq!(report["interval"]["to"], "teardown");
    let text = printed(&dump, &["--growing"]);
    assert!(text.contains("Live at teardown ("), "{text}");
    let check = |condition: &str| {
        let output =
            cli([OsStr::new("leaks"), dump.as_os_str(), OsStr::new("--fail-on"), OsStr::new(condition)]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check("growing").0, Some(1));
    // What is live at the end, and what grew before, are two questions.
    let (status, said) = check("growing,live:64KiB");
    assert!(status == Some(0) && said.contains("or with --to teardown"), "{said}");
}

#[test]
fn marks_may_be_windows() {
    let report = json("leaks", &dump(), &["--growing", "--windows-from", "mark:ten requests"]);
    assert_sessions_grow(&report);
    let windows = report["growth"]["windows"].as_array().unwrap();
    assert!(windows.windows(2).all(|pair| pair[0]["to_ns"] == pair[1]["from_ns"]));
    let args =
        ["leaks", dump().to_str().unwrap(), "--growing", "--windows-from", "mark:none"].map(str::to_owned);
    let output = cli(args);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no mark matches 'none'; there are: 'ten requests'"), "{error}");
}

#[test]
fn the_text_has_a_sparkline_and_a_sentence_for_each_site() {
    let text = printed(&dump(), &["--growing"]);
    assert!(text.contains("1 site growing; "), "{text}");
    let line = text.lines().find(|line| line.contains("growing: its least use rose")).expect("a sentence");
    let bars: Vec<char> = line.chars().filter(|bar| ('▁'..='█').contains(bar)).collect();
    assert!(bars.len() == 12 && bars.is_sorted() && bars[0] == '▁' && bars[11] == '█', "{line}");
    assert!(text.contains("open_session") && !text.contains("fill_cache"), "{text}");
}

#[test]
fn without_the_option_nothing_is_said_about_growth() {
    let report = json("leaks", &dump(), &[]);
    assert!(report["growth"].is_null());
    let rows = report["leaks"].as_array().unwrap();
    assert!(rows.len() >= 3 && rows.iter().all(|row| row["growth"].is_null()));
}

#[test]
fn a_limit_of_memory_is_recorded_and_named() {
    let folder = tempfile::tempdir().unwrap();
    // 8 GiB of virtual memory: the unit of `ulimit -v` is 1 KiB.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 8388608 && exec \"$0\""]).arg(program("sessions"));
    record(limited, &folder, |_| ());
    let dump = folder.path().join("dump.alloc");
    let report = json("leaks", &dump, &["--growing"]);
    let growth = &report["leaks"][0]["growth"];
    let limit = &growth["limit"];
    let after = limit["after_seconds"].as_f64().unwrap();
    if limit["name"] == "RLIMIT_AS" {
        assert_eq!(number(limit, "bytes"), 8 << 30);
        assert!(growth["sentence"].as_str().unwrap().contains("; at this rate RLIMIT_AS (8.0 GiB) in "));
    } else {
        // The machine that runs the test may have a control group with less.
        assert_eq!(limit["name"], "cgroup memory limit");
    }
    let most = (8u64 << 30) as f64 * 3600.0 / growth["bytes_per_hour"].as_f64().unwrap();
    assert!(after > 0.0 && after < most, "{after} {most}");
}
