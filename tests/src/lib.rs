//! What the end-to-end tests share: the programs, built once as a user would build them, and ways to run them.
//!
//! The programs are the examples, with the independent counting allocator around the tracker (feature `oracle`), in
//! release mode with debug info, and the release `profiler-cli`. They are copied away from cargo's folder, so that a
//! build in between does not change them.
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

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

/// A program of the workspace by name: `profiler-cli`, an example, or one of this package's own.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build).join(name)
}

/// Whether an optional tool is installed; says so if not.
pub fn has_tool(name: &str) -> bool {
    let found =
        Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {name} missing");
    }
    found
}

/// The number of the only line of a source file that ends with this text.
pub fn line_of(file: &Path, ending: &str) -> u32 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut found =
        text.lines().zip(1..).filter(|(line, _)| line.ends_with(ending)).map(|(_, number)| number);
    let number = found.next().unwrap_or_else(|| panic!("no line of {} ends with {ending}", file.display()));
    assert_eq!(found.next(), None, "several lines of {} end with {ending}", file.display());
    number
}

/// The source file of an example.
pub fn example_source(name: &str) -> PathBuf {
    workspace().join("examples/src/bin").join(name).with_extension("rs")
}

/// A run of a program, with everything it left in a folder of its own.
pub struct Run {
    /// The folder.
    pub folder: TempDir,
    /// What it printed, and its status.
    pub output: Output,
}

impl Run {
    /// Runs a program with the recorder switched on by the environment, and the oracle's report beside the dump.
    pub fn traced(name: &str, args: &[&str]) -> Run {
        Run::traced_within(Duration::from_secs(300), name, args)
    }

    /// The same; fails if it takes longer.
    pub fn traced_within(limit: Duration, name: &str, args: &[&str]) -> Run {
        Run::of(Command::new(program(name)).args(args), limit)
    }

    /// The same with any program, by a command that may have an environment of its own.
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

    /// The dump.
    pub fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.alloc")
    }

    /// What the oracle counted.
    pub fn oracle(&self) -> Value {
        let text =
            std::fs::read_to_string(self.folder.path().join("oracle.json")).expect("the oracle's report");
        serde_json::from_str(&text).expect("the oracle writes JSON")
    }

    /// What a reading command of the CLI prints as JSON.
    pub fn json(&self, command: &str, args: &[&str]) -> Value {
        json(command, &self.dump(), args)
    }
}

/// What a reading command of the CLI prints as JSON for a dump.
pub fn json(command: &str, dump: &Path, args: &[&str]) -> Value {
    let output = cli([OsStr::new(command), dump.as_os_str(), OsStr::new("--json")]
        .into_iter()
        .chain(args.iter().map(OsStr::new)));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the CLI writes JSON")
}

/// Runs the CLI.
pub fn cli<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    output_within(profiler_cli().args(args), Duration::from_secs(300))
}

/// The CLI as it is without a user's or a system's own settings.
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
    // No more than the line: the rest is somebody else's.
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

/// Waits until `ready` says so; fails after two minutes.
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
    /// The next of them, of 31 bits.
    #[allow(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        // The constants of Knuth's MMIX; the upper bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A size such as programs ask for: mostly small, rarely large enough for a mapping of its own.
    pub fn size(&mut self) -> usize {
        let largest = match self.below(1000) {
            0 => 300_000,
            1..20 => 9_000,
            _ => 300,
        };
        1 + self.below(largest) as usize
    }
}

/// A number in a JSON object.
pub fn number(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_else(|| panic!("{field} is no number: {}", value[field]))
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
            // A folder of ours from a process that had the same id may be there.
            std::fs::copy(&path, folder.join(entry.file_name())).expect("a copy of a program");
        }
    }
    folder
}

fn remove_copies_of_ended_processes(copies: &Path) {
    for entry in std::fs::read_dir(copies).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another process of the tests may be removing it just now.
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
