//! What the end-to-end tests share: the programs, built once as a user would build them, and
//! functions that run them.
//!
//! The programs are `profiler-cli` in release mode, and the examples and this package's own
//! programs in release mode with debug info. The examples have the independent counting allocator
//! around the tracker (feature `oracle`). All are copied away from cargo's folder, so that a later
//! build does not change them.
#![forbid(unsafe_code)]

mod elsewhere;
pub mod relay;
pub mod stunts;
pub mod workload;

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Returns the folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

/// Returns the path of a program by its name: `profiler-cli`, an example, or a program of this
/// package.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

/// Whether an optional tool is installed. Prints that the test is skipped if not.
pub fn has_tool(name: &str) -> bool {
    let installed =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !installed {
        println!("skipped: {name} missing");
    }
    installed
}

/// Returns the number of the only line of a source file that ends with this text.
pub fn line_of(file: &Path, ending: &str) -> u32 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut numbers =
        text.lines().zip(1..).filter(|(line, _)| line.ends_with(ending)).map(|(_, number)| number);
    let number = numbers.next().unwrap_or_else(|| panic!("no line of {} ends with {ending}", file.display()));
    assert_eq!(numbers.next(), None, "several lines of {} end with {ending}", file.display());
    number
}

/// Returns the source file of an example.
pub fn example_source(name: &str) -> PathBuf {
    workspace().join("examples/src/bin").join(name).with_extension("rs")
}

/// A run of a program, in a folder of its own with all files that it wrote.
pub struct Run {
    /// The folder, which is removed with the run.
    pub folder: TempDir,
    /// What the program printed, and its exit status.
    pub output: Output,
}

impl Run {
    /// Runs a program with the recorder switched on by the environment. The oracle's report goes
    /// beside the dump. Fails if the program takes longer than five minutes.
    pub fn traced(name: &str, args: &[&str]) -> Run {
        Run::traced_within(Duration::from_secs(300), name, args)
    }

    /// Runs a program as [`Run::traced`] does; fails if it takes longer than `limit`.
    pub fn traced_within(limit: Duration, name: &str, args: &[&str]) -> Run {
        Run::of(Command::new(program(name)).args(args), limit)
    }

    /// Runs a command as [`Run::traced_within`] does. The command may have an environment of its
    /// own.
    pub fn of(command: &mut Command, limit: Duration) -> Run {
        let folder = tempfile::tempdir().expect("a temporary folder");
        command
            .env("ALLOC_TRACKER", "trace")
            .env("ALLOC_TRACKER_OUT", folder.path().join("dump.alloc"))
            .env("ALLOC_ORACLE_OUT", folder.path().join("oracle.json"))
            .current_dir(folder.path());
        let output = output_within(command, limit);
        Run { folder, output }
    }

    /// Returns the path of the dump.
    pub fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.alloc")
    }

    /// Returns the counts of the oracle.
    pub fn oracle(&self) -> Value {
        let text =
            std::fs::read_to_string(self.folder.path().join("oracle.json")).expect("the oracle's report");
        serde_json::from_str(&text).expect("the oracle writes JSON")
    }

    /// Returns what a reading command of the CLI prints as JSON for the dump of this run.
    pub fn json(&self, command: &str, args: &[&str]) -> Value {
        json(command, &self.dump(), args)
    }
}

/// Returns what a reading command of the CLI prints as JSON for a dump.
pub fn json(command: &str, dump: &Path, args: &[&str]) -> Value {
    let output = cli([OsStr::new(command), dump.as_os_str(), OsStr::new("--json")]
        .into_iter()
        .chain(args.iter().map(OsStr::new)));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the CLI writes JSON")
}

/// Runs the CLI to its end.
pub fn cli<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    output_within(profiler_cli().args(args), Duration::from_secs(300))
}

/// Returns a command that runs the CLI without the settings of the user or the system.
pub fn profiler_cli() -> Command {
    let mut command = Command::new(program("profiler-cli"));
    command.env("XDG_CACHE_HOME", workspace().join("target/end-to-end/cache"));
    command.env_remove("CLICOLOR_FORCE").env_remove("PROFILER_COLOR");
    command
}

/// Sends a signal to a process.
pub fn send(signal: Signal, process: u32) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("the id of a process");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {process}: {error}"));
}

/// Waits until a child has printed a line.
pub fn wait_for_line(child: &mut Child) {
    let stdout = child.stdout.as_mut().expect("its output is piped");
    // Byte by byte: whatever follows the line must stay in the pipe for other readers.
    let mut byte = [0];
    while byte != *b"\n" {
        stdout.read_exact(&mut byte).expect("a line");
    }
}

/// Runs a command to its end; fails if that takes longer than `limit`.
pub fn output_within(command: &mut Command, limit: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", command.get_program().display()));
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(limit) {
        Ok(output) => output.expect("the output of a child can be read"),
        Err(_) => {
            send(Signal::KILL, id);
            panic!("{} did not end within {limit:?}", command.get_program().display());
        }
    }
}

/// Waits until `ready` returns true; fails after two minutes.
pub fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(120), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Numbers that look random and are the same for the same seed.
pub struct Lcg(pub u64);

impl Lcg {
    /// Returns the next number, of 31 bits.
    #[allow(clippy::should_implement_trait, reason = "the sequence has no end")]
    pub fn next(&mut self) -> u64 {
        // The constants of Knuth's MMIX. Only the upper bits look random.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Returns the next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a size such as programs request: mostly small, rarely large enough for a mapping of
    /// its own.
    pub fn size(&mut self) -> usize {
        let largest = match self.below(1000) {
            0 => 300_000,
            1..20 => 9_000,
            _ => 300,
        };
        1 + self.below(largest) as usize
    }
}

/// Returns the frames of the largest stack of a row of `leaks --json`, innermost first.
pub fn frames_of<'a>(report: &'a Value, row: &Value) -> Vec<&'a Value> {
    let indices = row["stacks"][0]["frames"].as_array().unwrap_or_else(|| panic!("a row has a stack: {row}"));
    indices.iter().map(|index| &report["frames"][index.as_u64().unwrap() as usize]).collect()
}

/// Returns the path of the source file of a row, whose path is relative to the report's root; an
/// empty path if the row has none.
pub fn source_of(report: &Value, row: &Value) -> PathBuf {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Path::new(&text(&report["source_root"])).join(text(&row["file"]))
}

/// Returns a number of a JSON object.
pub fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_else(|| panic!("{field} is not a number: {}", value[field]))
}

fn build() -> PathBuf {
    let target = workspace().join("target");
    cargo(&target, &["-p", "profiler-cli"], false);
    cargo(&target, &["-p", "examples", "-p", "tests", "--bins", "--features", "examples/oracle"], true);
    let copies = target.join("end-to-end");
    remove_copies_of_ended_processes(&copies);
    let folder = copies.join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).expect("a folder for the programs");
    for entry in std::fs::read_dir(target.join("release")).expect("cargo's folder").flatten() {
        let path = entry.path();
        if path.is_file() && path.extension().is_none() {
            // Overwrites the copies of an earlier process with the same id.
            std::fs::copy(&path, folder.join(entry.file_name())).expect("a copy of a program");
        }
    }
    folder
}

fn remove_copies_of_ended_processes(copies: &Path) {
    for entry in std::fs::read_dir(copies).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // May fail: another process of the tests may remove it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn cargo(target: &Path, args: &[&str], with_debug_info: bool) {
    let mut command = Command::new(env!("CARGO"));
    command.env_remove("CARGO_BUILD_TARGET");
    command
        .args(["build", "--release", "--quiet", "--target-dir"])
        .arg(target)
        .args(args)
        .current_dir(workspace());
    if with_debug_info {
        // What `profiler-cli cargo --release` sets.
        command.env("CARGO_PROFILE_RELEASE_DEBUG", "limited").env("CARGO_PROFILE_RELEASE_STRIP", "none");
    }
    assert!(command.status().expect("cargo runs").success(), "cargo cannot build {args:?}");
}
