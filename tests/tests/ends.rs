//! A recorded program ends as it does alone, in every way in which a program can end: with the same
//! status, and as soon.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tests::stunts::RELEASE;
use tests::{profiler_cli, wait_for_line};

/// The ways to end, with the status of each: an exit code, or a signal.
const ENDS: &[(&str, End)] = &[
    ("return", End::Code(3)),
    ("exit", End::Code(4)),
    ("_exit", End::Code(5)),
    ("exit of the last thread", End::Code(6)),
    ("exit_group", End::Code(7)),
    ("abort", End::Signal(6)),
    ("kill", End::Signal(9)),
    ("segmentation fault", End::Signal(11)),
    ("filter kills the thread", End::Signal(31)),
    ("filter kills the process", End::Signal(31)),
    ("exec", End::Code(9)),
    ("panic", End::Code(101)),
    ("first thread ends first", End::Code(13)),
    ("first thread ends first, then exit", End::Code(12)),
    // Rust's handler prints a line and aborts.
    ("stack overflow", End::Signal(6)),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    fn of(status: ExitStatus) -> End {
        status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Code)
    }

    /// Returns how `profiler-cli run` passes this end on: as a shell does.
    fn passed_on(self) -> End {
        match self {
            End::Code(code) => End::Code(code),
            End::Signal(signal) => End::Code(128 + signal),
        }
    }
}

/// How a program is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorded {
    No,
    ByEnvironment,
    /// By the environment, and the program's own threads write the dump.
    ByCallers,
    UnderRun,
}

fn command(program: &Path, way: &str, recorded: Recorded, folder: &Path) -> Command {
    let dump = folder.join("x.alloc");
    let mut command = Command::new(program);
    match recorded {
        Recorded::No => {}
        Recorded::ByEnvironment => _ = command.env("ALLOC_TRACKER", "trace"),
        Recorded::ByCallers => {
            command.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_DRAINER", "caller");
        }
        Recorded::UnderRun => {
            command = profiler_cli();
            command.args(["run", "--report", "none", "-o"]).arg(&dump).arg("--").arg(program);
        }
    }
    // A backtrace of a panic takes long, recorded or not.
    command.arg(way).env("ALLOC_TRACKER_OUT", dump).env("RUST_BACKTRACE", "0").current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program, and returns its end and the time from its last event to its end.
fn run(program: &Path, way: &str, recorded: Recorded) -> (End, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(program, way, recorded, folder.path()).spawn().unwrap();
    wait_for_line(&mut child);
    let last_event = Instant::now();
    let status = wait_within_a_minute(&mut child, way);
    let took = last_event.elapsed();
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "{way}: the program prints no more, and nobody else does");
    (End::of(status), took)
}

fn wait_within_a_minute(child: &mut std::process::Child, way: &str) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{way}: the program does not end");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn program() -> PathBuf {
    RELEASE.program_named("ends")
}

/// Compares the end of a program, recorded or not, with the right one. Returns a line for each that
/// is wrong.
fn wrong_ends(way: &str, end: End) -> Vec<String> {
    let program = program();
    let mut wrong = Vec::new();
    for recorded in [Recorded::No, Recorded::ByEnvironment, Recorded::ByCallers, Recorded::UnderRun] {
        let right = if recorded == Recorded::UnderRun { end.passed_on() } else { end };
        let (seen, _) = run(&program, way, recorded);
        if seen != right {
            wrong.push(format!("{way}, recorded {recorded:?}: {seen:?} instead of {right:?}"));
        }
    }
    wrong
}

/// Compares the time from the last event to the end of the program with the time that it takes
/// alone. The latter depends on the way to end: a stack that overflows is filled first.
fn check_time(way: &str) {
    let program = program();
    let median = |recorded| {
        let mut times: Vec<Duration> = (0..RUNS).map(|_| run(&program, way, recorded).1).collect();
        times.sort_unstable();
        times[RUNS / 2]
    };
    let alone = median(Recorded::No);
    for recorded in [Recorded::ByEnvironment, Recorded::ByCallers] {
        let took = median(recorded);
        assert!(took < alone + LATER_AT_MOST, "{way}, recorded {recorded:?}: {took:?}, alone {alone:?}");
    }
}

const RUNS: usize = 7;
const LATER_AT_MOST: Duration = Duration::from_millis(20);

#[test]
fn the_status_is_that_of_the_program_alone() {
    let wrong: Vec<String> = ENDS.iter().flat_map(|(way, end)| wrong_ends(way, *end)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_program_ends_within_milliseconds_of_its_last_event() {
    for (way, _) in ENDS {
        check_time(way);
    }
}
