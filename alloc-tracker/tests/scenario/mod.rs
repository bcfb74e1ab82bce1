//! Runs every scenario in a process of its own. The test program starts itself again with the
//! scenario's name in the environment, waits for that process with a time limit, and then checks
//! the files and the output of the process.
//!
//! In: a table of [`Scenario`]s. Out: the lines and the exit status of a test harness. There is no
//! libtest here, because its threads and its messages would cause events that are counted.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod leak_checks;
pub(crate) mod noted;
pub(crate) mod replay;

use std::ffi::{OsStr, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use replay::Replay;

/// One scenario: the work of the process, and the checks of its result.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Runs in the child, on its main thread, before anything else in `main`.
    pub(crate) child: fn(),
    /// Runs in the parent. Starts the child as often as it needs to, and checks the results.
    pub(crate) check: fn(&'static str),
}

/// Is the `main` of every test program.
pub(crate) fn main(scenarios: &[Scenario]) -> ExitCode {
    if let Some(name) = std::env::var_os(NAME) {
        let scenario =
            scenarios.iter().find(|scenario| name == scenario.name).expect("a scenario of this program");
        (scenario.child)();
        return ExitCode::SUCCESS;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        // No scenario is ever marked as ignored.
        if !args.iter().any(|arg| arg == "--ignored") {
            scenarios.iter().for_each(|scenario| println!("{}: test", scenario.name));
        }
        return ExitCode::SUCCESS;
    }
    let exact = args.iter().any(|arg| arg == "--exact");
    let mut filters = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--test-threads" | "--skip" | "--format" | "--color" => _ = rest.next(),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| if exact { name == *filter } else { name.contains(filter) })
    };
    let mut failed = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| wanted(scenario.name)) {
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.check)(scenario.name)));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {} ... {verdict} ({:.1} s)", scenario.name, begun.elapsed().as_secs_f64());
        failed.extend(outcome.is_err().then_some(scenario.name));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// A process that is to be started for a scenario.
pub(crate) struct Run {
    command: Command,
    folder: tempfile::TempDir,
    limit: Duration,
}

impl Run {
    /// Returns a run of the scenario with this name, without a recording.
    pub(crate) fn of(name: &str) -> Run {
        let itself = std::env::current_exe().expect("the path of this test");
        Run::with_program(name, itself.as_os_str(), &[])
    }

    /// Returns a run of the scenario in another build of the test program.
    pub(crate) fn of_program(name: &str, program: &Path) -> Run {
        Run::with_program(name, program.as_os_str(), &[])
    }

    /// Returns a run of the scenario in a shell that first runs `script`, such as `ulimit -f 8`.
    pub(crate) fn through_shell(name: &str, script: &str) -> Run {
        let itself = std::env::current_exe().expect("the path of this test");
        let script = format!("{script}\nexec \"$0\"");
        Run::with_program(
            name,
            OsStr::new("/bin/sh"),
            &[OsStr::new("-c"), OsStr::new(&script), itself.as_os_str()],
        )
    }

    fn with_program(name: &str, program: &OsStr, args: &[&OsStr]) -> Run {
        let folder = tempfile::tempdir().expect("a folder for the scenario");
        let mut command = Command::new(program);
        command
            .args(args)
            .env(NAME, name)
            .env(FOLDER, folder.path())
            .env("ALLOC_ORACLE_OUT", folder.path().join("counts.json"))
            .env_remove("ALLOC_TRACKER")
            .env_remove("ALLOC_TRACKER_OUT")
            .env_remove("ALLOC_TRACKER_RUN")
            .env_remove("ALLOC_TRACKER_CHECK")
            .env_remove("ALLOC_TRACKER_FOLLOW")
            .env_remove("ALLOC_TRACKER_DRAINER")
            .current_dir(folder.path())
            .process_group(0);
        Run { command, folder, limit: Duration::from_secs(60) }
    }

    /// Has the process recorded into `dump.alloc` of the scenario's folder.
    pub(crate) fn traced(self) -> Run {
        let dump = self.dump();
        self.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", dump)
    }

    /// Has the process recorded, and every stack compared with that of an independent walk.
    pub(crate) fn checked(self) -> Run {
        self.traced().env("ALLOC_TRACKER_CHECK", "1")
    }

    /// Has the program's own threads write the dump.
    pub(crate) fn drained_by_caller(self) -> Run {
        self.env("ALLOC_TRACKER_DRAINER", "caller")
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.alloc")
    }

    /// Returns the command, for a caller that starts the process itself, and the scenario's folder.
    pub(crate) fn into_command(self) -> (Command, tempfile::TempDir) {
        (self.command, self.folder)
    }

    /// Starts the process and waits for its end.
    pub(crate) fn finish(self) -> Outcome {
        self.start().wait()
    }

    /// Starts the process.
    pub(crate) fn start(mut self) -> Running {
        let file = |name| std::fs::File::create(self.folder.path().join(name)).expect("a file for its words");
        self.command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = self.command.spawn().expect("the scenario starts");
        Running { child, folder: self.folder, deadline: Instant::now() + self.limit }
    }
}

/// The running process of a scenario.
pub(crate) struct Running {
    child: Child,
    folder: tempfile::TempDir,
    deadline: Instant,
}

impl Running {
    pub(crate) fn pid(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the process is ours and has not been waited for, so its number is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits until `done` returns true. Fails if the process ends or its time is over before that.
    pub(crate) fn until(&mut self, mut done: impl FnMut() -> bool) {
        while !done() {
            let ended = self.child.try_wait().expect("the status of the process");
            assert!(ended.is_none(), "the process ended too early: {ended:?}\n{}", self.words("stderr"));
            self.check_time();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the end of the process. When its time is over, kills it with all its children and
    /// fails the test.
    pub(crate) fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the status of the process") {
                break status;
            }
            self.check_time();
            std::thread::sleep(Duration::from_millis(2));
        };
        self.wait_for_drain_process();
        let (stdout, stderr) = (self.words("stdout"), self.words("stderr"));
        Outcome { status, stdout, stderr, pid: self.child.id(), folder: self.folder }
    }

    /// Waits until no process has the dump locked any more. The drain process of a program that
    /// ends in an unusual way needs some milliseconds to notice.
    fn wait_for_drain_process(&mut self) {
        let Ok(dump) = std::fs::File::open(self.folder.path().join("dump.alloc")) else { return };
        // SAFETY: `flock` takes two numbers. The lock ends with the descriptor.
        while unsafe { libc::flock(dump.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } != 0 {
            assert!(Instant::now() < self.deadline, "the dump stays locked");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn check_time(&mut self) {
        if Instant::now() > self.deadline {
            // SAFETY: the group was made for this child, which has not been waited for.
            unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
            self.child.wait().expect("the end of the process");
            panic!("the process hangs; stderr so far: {}", self.words("stderr"));
        }
    }

    fn words(&self, name: &str) -> String {
        let words = std::fs::read(self.folder.path().join(name)).expect("the output of the process");
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// The result of a process: its exit status, its output, and its folder.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) pid: u32,
    folder: tempfile::TempDir,
}

impl Outcome {
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.alloc")
    }

    pub(crate) fn sidecar(&self) -> PathBuf {
        self.folder.path().join("dump.alloc.tail")
    }

    /// Asserts that the process has ended with this status, and that the tracker has printed
    /// nothing on stderr.
    #[track_caller]
    pub(crate) fn assert_quiet(&self, code: i32) {
        self.assert_code(code);
        assert_eq!(self.our_lines(), [""; 0]);
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.status.code(), Some(code), "{:?}\n{}", self.status, self.stderr);
    }

    #[track_caller]
    pub(crate) fn assert_signal(&self, signal: i32) {
        assert_eq!(self.status.signal(), Some(signal), "{:?}\n{}", self.status, self.stderr);
    }

    /// Asserts that the process has ended with this status, and that the tracker has printed
    /// exactly one line on stderr, which contains all of `parts`.
    #[track_caller]
    pub(crate) fn assert_one_line(&self, code: i32, parts: &[&str]) {
        self.assert_code(code);
        let lines = self.our_lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in parts {
            assert!(lines[0].contains(part), "no {part:?} in {:?}", lines[0]);
        }
    }

    /// Returns the lines that the tracker has printed on stderr.
    pub(crate) fn our_lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| line.starts_with("alloc-tracker:")).collect()
    }

    /// Replays the dump and its sidecar.
    #[track_caller]
    pub(crate) fn replay(&self) -> Replay {
        Replay::of(&self.dump())
    }

    /// Replays the dump of a finished recording. Asserts that it has a trailer, no damage, no
    /// sidecar, and no event that cannot have happened.
    #[track_caller]
    pub(crate) fn whole_replay(&self) -> Replay {
        let replay = self.replay();
        replay.assert_whole();
        assert!(!self.sidecar().exists(), "the sidecar of a finished recording");
        replay
    }

    /// Returns the oracle's counts as of the process's last exit handler.
    #[track_caller]
    pub(crate) fn oracle(&self) -> Counts {
        let line =
            std::fs::read_to_string(self.folder.path().join("counts.json")).expect("the oracle's report");
        Counts::parse(&line)
    }

    /// Returns a number that the scenario has printed as `NAME=NUMBER` on a line of its own.
    #[track_caller]
    pub(crate) fn number(&self, name: &str) -> u64 {
        let value = self.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.stdout)).parse().expect("a number")
    }

    /// Returns the names of the files in the scenario's folder, without those that the test puts
    /// there itself.
    pub(crate) fn files(&self) -> Vec<OsString> {
        let own = ["stdout", "stderr", "counts.json"];
        let names = std::fs::read_dir(self.folder.path()).expect("its folder");
        let names = names.map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| !own.iter().any(|own| name == own)).collect()
    }
}

/// Exact totals, from the oracle or from a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) allocations: u64,
    pub(crate) deallocations: u64,
    pub(crate) reallocations: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) freed_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_blocks: u64,
    pub(crate) peak_bytes: u64,
}

impl Counts {
    /// Reads the line of JSON that the oracle has written.
    #[track_caller]
    pub(crate) fn parse(line: &str) -> Counts {
        let count = |name: &str| {
            let (_, rest) = line.split_once(&format!("\"{name}\":")).expect("every count has a name");
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().expect("a number")
        };
        Counts {
            allocations: count("allocations"),
            deallocations: count("deallocations"),
            reallocations: count("reallocations"),
            allocated_bytes: count("allocated_bytes"),
            freed_bytes: count("freed_bytes"),
            live_bytes: count("live_bytes"),
            live_blocks: count("live_blocks"),
            peak_bytes: count("peak_bytes"),
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.allocations + self.deallocations + self.reallocations
    }

    /// Returns the counts without the peak, which depends on the order in which a counter sees the
    /// events of several threads.
    pub(crate) fn without_peak(self) -> Counts {
        Counts { peak_bytes: 0, ..self }
    }
}

/// Returns the folder of the scenario that this process runs.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).expect("only a scenario has a folder"))
}

/// A generator of numbers that look random and are the same in every run.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    pub(crate) fn next(&mut self) -> u64 {
        // The constants of Knuth's MMIX. The upper bits are the most random ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a size as programs ask for: mostly small, rarely large enough for a mapping of its
    /// own.
    pub(crate) fn size(&mut self) -> usize {
        let largest = match self.below(1000) {
            0 => 300_000,
            1..20 => 9_000,
            _ => 300,
        };
        1 + self.below(largest) as usize
    }
}

const NAME: &str = "SCENARIO";
const FOLDER: &str = "SCENARIO_FOLDER";
