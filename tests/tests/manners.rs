//! `profiler-cli run` does not disturb programs: they end as they do without it, and their dumps
//! are complete and exact.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tests::stunts::RELEASE;
use tests::{
    json, line_of, number, output_within, profiler_cli, program, send, wait_for_line, wait_until, workspace,
};

/// Runs `unruly` under `profiler-cli run` to its end.
fn run(folder: &Path, args: &[&str]) -> Output {
    output_within(&mut command(folder, args), Duration::from_secs(60))
}

/// Returns the command that runs `unruly` under `profiler-cli run`, with the dump `x.alloc` in the
/// folder.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = profiler_cli();
    command
        .args(["run", "--report", "none", "-o"])
        .arg(folder.join("x.alloc"))
        .arg("--")
        .arg(program("unruly"))
        .args(args)
        // If the system writes a core file, it goes into the temporary folder.
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Returns the leak of the 50 blocks that the program holds when it ends, at their line; null if
/// there is none.
fn held(dump: &Path) -> Value {
    let leaks = json("leaks", dump, &["--function", "unruly::hold"]);
    let line = line_of(&workspace().join("tests/src/bin/unruly.rs"), "// HELD");
    leaks["leaks"].as_array().unwrap().iter().find(|leak| leak["line"] == line).cloned().unwrap_or_default()
}

/// Requires a complete and exact dump, without a sidecar, that only its owner may read. With
/// `holds`, the 50 blocks of 1,000 bytes are live at its end; else they are freed.
fn check_dump(dump: &Path, holds: bool) {
    let summary = json("summary", dump, &[]);
    assert_eq!(
        (&summary["complete"], &summary["exact"]),
        (&Value::Bool(true), &Value::Bool(true)),
        "{summary}"
    );
    assert_eq!(number(&summary, "recovered_bytes"), 0, "the dump itself has all events");
    assert!(!dump.with_extension("alloc.tail").exists(), "no sidecar is left");
    assert_eq!(std::fs::metadata(dump).unwrap().permissions().mode() & 0o777, 0o600);
    if holds {
        let held = held(dump);
        assert_eq!((number(&held, "bytes"), number(&held, "blocks")), (50_000, 50));
    } else {
        assert!(held(dump).is_null(), "all blocks were dropped");
    }
}

#[test]
fn exit_status_is_passed_on_and_the_dump_is_complete() {
    for (args, code, holds) in [
        (&["return"][..], 0, false),
        (&["exit", "0"], 0, true),
        (&["exit", "7"], 7, true),
        (&["panic"], 101, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        check_dump(&folder.path().join("x.alloc"), holds);
    }
}

#[test]
fn fatal_signals_give_the_exit_status_of_a_shell_and_lose_no_event() {
    for (end, signal) in [("abort", 6), ("overflow", 6)] {
        let folder = tempfile::tempdir().unwrap();
        // The limit makes sure that the recursion overflows the stack even where the system has no
        // limit.
        let within = command(folder.path(), &[end]);
        let mut limited = Command::new("bash");
        limited.args(["-c", "ulimit -Ss 8192; exec \"$0\" \"$@\""]).arg(within.get_program());
        limited
            .args(within.get_args())
            .envs(within.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = output_within(limited.current_dir(folder.path()), Duration::from_secs(60));
        assert_eq!(
            output.status.code(),
            Some(128 + signal),
            "{end}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let dump = folder.path().join("x.alloc");
        check_dump(&dump, true);
        let end = "the process was ended by SIGABRT (exit status 134)";
        assert_eq!((&json("summary", &dump, &[])["ending"], signal), (&end.into(), 6));
    }
}

#[test]
fn signals_end_the_program_and_leave_a_complete_dump() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
        for to_program in [true, false] {
            if signal == Signal::KILL && !to_program {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let mut child = command(folder.path(), &["wait"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            wait_for_line(&mut child);
            send(signal, if to_program { child_of(child.id()) } else { child.id() });
            let output = child.wait_with_output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(128 + signal.as_raw()),
                "{signal:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            check_dump(&folder.path().join("x.alloc"), true);
        }
    }
}

#[test]
fn a_busy_program_killed_at_any_moment_leaves_a_complete_dump() {
    for round in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            command(folder.path(), &["work"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_line(&mut child);
        std::thread::sleep(Duration::from_millis(round * 7));
        send(Signal::KILL, child_of(child.id()));
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
        check_dump(&folder.path().join("x.alloc"), true);
    }
}

/// Without `run` the next reading command recovers the events from the killed program's sidecar,
/// and reports that in one line.
#[test]
fn a_reader_recovers_the_events_of_a_killed_program_from_its_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    let mut child = Command::new(program("unruly"))
        .arg("wait")
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let output = tests::cli(["leaks", dump.to_str().unwrap()]);
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.lines().filter(|line| line.contains("recovered")).count(), 1, "{stderr}");
    assert_eq!(number(&held(&dump), "bytes"), 50_000);
    let summary = json("summary", &dump, &[]);
    assert_eq!(summary["complete"], false, "the dump cannot show whether the program was at its end");
    assert!(number(&summary, "recovered_bytes") > 0);
}

#[test]
fn other_processes_of_a_run_do_not_touch_the_dump() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["child"]);
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        stderr.lines().filter(|line| line.contains("%p in the file name gives each process a dump")).count(),
        1,
        "{stderr}"
    );
    check_dump(&folder.path().join("x.alloc"), false);
    // With %p in the file name each process has a dump of its own.
    let mut command = profiler_cli();
    command.args(["run", "--report", "none", "-o"]).arg(folder.path().join("each.%p.alloc")).arg("--");
    command.arg(program("unruly")).arg("child");
    let output = output_within(&mut command, Duration::from_secs(60));
    assert!(output.status.success());
    let dumps: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("each."))
        .collect();
    assert_eq!(dumps.len(), 2);
    dumps.iter().for_each(|dump| check_dump(&dump.path(), false));
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("dump: ").count(), 2);
}

/// Folders are taken as they are: whether the user names the folder, or it is the working
/// directory.
#[test]
fn a_percent_sign_in_the_name_of_a_folder_is_nothing_special() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("100%peak");
    std::fs::create_dir(&inner).unwrap();
    let absolute = inner.join("y.alloc");
    for output in [None, Some(Path::new("x.alloc")), Some(&absolute), Some(Path::new("../100%peak/%p.z"))] {
        let mut command = profiler_cli();
        command.args(["run", "--report", "none"]).current_dir(&inner);
        output.into_iter().for_each(|output| _ = command.arg("-o").arg(output));
        command.arg("--").arg(program("unruly")).arg("return");
        let output = output_within(&mut command, Duration::from_secs(60));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut names: Vec<String> = std::fs::read_dir(&inner)
        .unwrap()
        .map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().replace(|c: char| c.is_ascii_digit(), "")
        })
        .collect();
    names.sort();
    assert_eq!(names, [".z", "unruly..alloc", "x.alloc", "y.alloc"]);
}

#[test]
fn a_limit_on_file_size_stops_the_recording_and_not_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("x.alloc");
    // 512 KiB: the sidecar fits, the dump of 448,000 events does not.
    let mut traced = Command::new("bash");
    traced
        .args(["-c", "ulimit -f 512; ALLOC_TRACKER=trace ALLOC_TRACKER_OUT=\"$1\" exec \"$0\" 4"])
        .arg(program("parser_temporaries"))
        .arg(&dump);
    let plain = output_within(Command::new(program("parser_temporaries")).arg("4"), Duration::from_secs(60));
    let output = output_within(&mut traced, Duration::from_secs(60));
    assert_eq!((output.status.code(), &output.stdout), (plain.status.code(), &plain.stdout));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("File too large") && stderr.contains(dump.to_str().unwrap()), "{stderr}");
    let summary = json("summary", &dump, &[]);
    assert_eq!(summary["complete"], false);
    let events = number(&summary, "allocations") + number(&summary, "deallocations");
    assert!((50_000..448_000).contains(&events), "the events before the limit are in the dump: {events}");
    assert!(summary["warnings"].to_string().contains("File too large"), "{}", summary["warnings"]);
}

/// Some file systems may refuse a store into a part of a file that exists already. There the
/// recorder keeps the sidecar in memory, as it does here on request: `x.alloc.tail` is a link to a
/// file in `/dev/shm`, and both are removed together.
#[test]
fn a_sidecar_in_memory_is_recovered_and_then_removed_with_its_link() {
    if !Path::new("/dev/shm").is_dir() {
        println!("skipped: /dev/shm missing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (dump, sidecar) = (folder.path().join("x.alloc"), folder.path().join("x.alloc.tail"));
    let in_memory = || {
        let target = std::fs::read_link(&sidecar).unwrap();
        assert!(target.starts_with("/dev/shm") && target.is_file(), "{}", target.display());
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        target
    };
    let mut child = Command::new(program("unruly"))
        .arg("wait")
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &dump)
        .env("ALLOC_TRACKER_SIDECAR", "memory")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut child);
    let first = in_memory();
    child.kill().unwrap();
    child.wait().unwrap();
    let summary = json("summary", &dump, &[]);
    assert!(number(&summary, "recovered_bytes") > 0 && number(&summary, "live_bytes") >= 50_000, "{summary}");

    // On another machine the copied link would lead nowhere. The reader warns of that.
    let copy = folder.path().join("copy.alloc");
    std::fs::copy(&dump, &copy).unwrap();
    std::os::unix::fs::symlink("/dev/shm/alloc-tracker.nowhere", folder.path().join("copy.alloc.tail"))
        .unwrap();
    let summary = json("summary", &copy, &[]);
    assert!(summary["warnings"].to_string().contains("not there any more"), "{}", summary["warnings"]);

    // The next run removes the old sidecar. Its program is killed, so `profiler-cli run` completes
    // the dump and removes the sidecar with its link.
    let mut command = command(folder.path(), &["wait"]);
    command.env("ALLOC_TRACKER_SIDECAR", "memory").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = command.spawn().unwrap();
    wait_for_line(&mut run);
    let second = in_memory();
    assert_ne!(first, second);
    send(Signal::KILL, child_of(run.id()));
    assert_eq!(run.wait().unwrap().code(), Some(137));
    check_dump(&dump, true);
    for removed in [&first, &second, &sidecar] {
        assert!(std::fs::symlink_metadata(removed).is_err(), "{}", removed.display());
    }
}

/// With `ALLOC_TRACKER_DRAINER=caller` the program's own threads write the dump. So a thread may
/// meet the limit anywhere in the hook, for instance before it stores an event whose stack is new.
#[test]
fn a_program_survives_the_limit_on_file_size_wherever_in_the_hook_it_is_met() {
    let sources = workspace().join("profiler-cli/src");
    for kib in (280..1500).step_by(61) {
        let folder = tempfile::tempdir().unwrap();
        let mut traced = Command::new("bash");
        traced
            .args(["-c", "ulimit -f \"$1\"; exec \"$0\" 1 \"$2\""])
            .arg(program("real_syn"))
            .arg(kib.to_string())
            .arg(&sources)
            .env("ALLOC_TRACKER", "trace")
            .env("ALLOC_TRACKER_OUT", folder.path().join("x.alloc"))
            .env("ALLOC_TRACKER_DRAINER", "caller")
            .current_dir(folder.path());
        let output = output_within(&mut traced, Duration::from_secs(120));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "at {kib} KiB: {:?} {stderr}", output.status);
        assert!(stderr.lines().count() <= 1, "{stderr}");
        json("summary", &folder.path().join("x.alloc"), &[]);
    }
}

/// Waits until the process has a child, and returns the child's id.
fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    wait_until("the program", || {
        std::fs::read_to_string(&path).is_ok_and(|children| !children.trim().is_empty())
    });
    std::fs::read_to_string(&path).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn forked_children_have_dumps_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let counted = folder.path().join("counted.");
    let mut command = profiler_cli();
    command.args(["run", "--follow-forks", "--report", "none", "-o"]).arg(folder.path().join("%p.alloc"));
    command.arg("--").arg(RELEASE.program()).arg("lineage").arg(&counted);
    let output = output_within(&mut command, Duration::from_secs(60));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let mut dumps: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "alloc"))
        .collect();
    dumps.sort();
    assert_eq!(dumps.len(), 3, "{stderr}");
    let summaries: Vec<Value> = dumps.iter().map(|dump| json("summary", dump, &[])).collect();
    for summary in &summaries {
        assert_eq!(summary["complete"], true, "{summary}");
        assert_eq!((number(summary, "lost_events"), number(summary, "dropped_frames")), (0, 0));
    }
    for depth in 1..=2 {
        let counted = std::fs::read_to_string(format!("{}{depth}", counted.display())).unwrap();
        let [allocations, deallocations] =
            [0, 1].map(|field| counted.split(' ').nth(field).unwrap().parse::<i64>().unwrap());
        let own = summaries.iter().find(|summary| {
            // The child's count misses the events after it: the line of text, the name of its file,
            // and the work of `exit`.
            (allocations..allocations + 20).contains(&number(summary, "allocations"))
                && (deallocations..deallocations + 20).contains(&number(summary, "deallocations"))
        });
        let own = own.unwrap_or_else(|| panic!("no dump of the child with {counted} events: {summaries:#?}"));
        assert!(number(own, "foreign_frees") >= 1, "{own}");
        assert!(allocations >= 1000);
    }
}
