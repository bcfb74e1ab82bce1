//! A dump outlives the build that it was recorded of. Its figures never change, and its code has
//! the names of the recorded build or addresses, but never names of another build.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::fs::inotify;
use serde_json::Value;
use tests::stunts::RELEASE;
use tests::{Run, number, output_within, profiler_cli, program};

/// A program that was recorded and can be replaced, with its dump and a symbol cache of its own.
struct Recorded {
    folder: tempfile::TempDir,
}

const PROGRAM: &str = "leaking_cache";
const OTHER_PROGRAM: &str = "touch_barely";

impl Recorded {
    fn new() -> Recorded {
        // The system may forbid to start programs from the folder for temporary files, so this
        // folder is below the target folder.
        let recorded = Recorded { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() };
        recorded.install(PROGRAM);
        let mut command = Command::new(recorded.program());
        command.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", recorded.dump());
        assert!(output_within(&mut command, Duration::from_secs(60)).status.success());
        recorded
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("prog")
    }

    fn dump(&self) -> PathBuf {
        self.folder.path().join("x.alloc")
    }

    /// Replaces the program. Another process, `cp`, makes the copy: if this process wrote the file,
    /// a child that another test starts at that moment would inherit the open file, and the system
    /// does not start a program that is open for writing.
    fn install(&self, name: &str) {
        self.remove();
        assert!(Command::new("cp").arg(program(name)).arg(self.program()).status().unwrap().success());
    }

    fn remove(&self) {
        let _ = fs::remove_file(self.program());
    }

    fn cli<S: AsRef<OsStr>>(&self, command: &str, args: &[S]) -> Output {
        let mut cli = profiler_cli();
        cli.env("XDG_CACHE_HOME", self.folder.path().join("cache"));
        cli.arg(command).arg(self.dump()).args(args.iter().map(AsRef::as_ref));
        output_within(&mut cli, Duration::from_secs(60))
    }

    fn json(&self, command: &str, args: &[&str]) -> Value {
        let output = self.cli(command, &[&["--json"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns what the commands print that print names.
    fn named(&self, args: &[&str]) -> Vec<Value> {
        ["summary", "leaks", "lines"].into_iter().map(|command| self.json(command, args)).collect()
    }
}

fn build_id(path: &Path) -> Option<String> {
    let notes = Command::new("readelf").arg("-n").arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&notes.stdout).into_owned();
    text.split("Build ID: ").nth(1)?.split_whitespace().next().map(str::to_owned)
}

#[test]
fn without_names_there_are_figures_addresses_and_one_warning() {
    let recorded = Recorded::new();
    let before = recorded.json("summary", &["--no-cache"]);
    recorded.install(OTHER_PROGRAM);
    let after = recorded.json("summary", &["--no-cache"]);
    for total in ["allocations", "allocated_bytes", "peak_bytes", "live_bytes", "live_blocks", "stacks"] {
        assert_eq!(after[total], before[total], "{total}");
    }
    assert!(number(&after, "unresolved_frames") > number(&before, "unresolved_frames"));
    let leaks = recorded.json("leaks", &["--no-cache", "--full"]);
    assert!(leaks.to_string().contains("prog+0x"), "{leaks}");
    assert!(!leaks.to_string().contains(OTHER_PROGRAM) && !leaks.to_string().contains("\"main"), "{leaks}");

    let output = recorded.cli("summary", &["--no-cache"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("was rebuilt").count(), 1, "{text}");
    assert!(text.contains("--symbols") && text.contains(recorded.program().to_str().unwrap()), "{text}");
    for name in [PROGRAM, OTHER_PROGRAM] {
        if let Some(id) = build_id(&program(name)) {
            assert!(text.contains(&id), "{text} names {id}");
        }
    }
}

#[test]
fn a_check_of_totals_needs_no_names() {
    let recorded = Recorded::new();
    let live = number(&recorded.json("summary", &[]), "live_bytes");
    assert!(live > 1000 * 4096);
    recorded.remove();
    for (limit, status) in [(live - 1, 1), (live, 0)] {
        let output = recorded.cli("leaks", &["--no-cache", "--fail-on-leak", &limit.to_string()]);
        assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_recorded_build_as_a_file_or_in_a_folder_gives_names() {
    let recorded = Recorded::new();
    let before = recorded.named(&["--no-cache"]);
    recorded.install(OTHER_PROGRAM);
    let symbols = recorded.folder.path().join("old");
    fs::create_dir(&symbols).unwrap();
    let kept = symbols.join("program-of-yesterday");
    fs::copy(program(PROGRAM), &kept).unwrap();
    for path in [&symbols, &kept] {
        assert_eq!(recorded.named(&["--no-cache", "--symbols", path.to_str().unwrap()]), before);
    }
}

#[test]
fn the_symbol_cache_gives_names() {
    let recorded = Recorded::new();
    let before = recorded.named(&[]);
    recorded.remove();
    assert_eq!(recorded.named(&[]), before);
    recorded.install(OTHER_PROGRAM);
    assert_eq!(recorded.named(&[]), before);
}

/// A dump with names is read without opening the program, and is named when the program is gone.
#[test]
fn a_dump_with_names_never_opens_the_program() {
    let recorded = Recorded::new();
    let before = recorded.named(&["--no-cache"]);
    let named = recorded.cli("symbols", &["--no-cache"]);
    let line = String::from_utf8(named.stdout).unwrap();
    assert!(named.status.success() && line.contains(": names of "), "{line}");

    let opened = Watch::of(&recorded.program());
    assert_eq!(recorded.named(&["--no-cache"]), before);
    assert!(!opened.has_events(), "the program was opened");
    // The watch works: without names in the dump the program is opened.
    let other = Recorded::new();
    let opened = Watch::of(&other.program());
    other.named(&["--no-cache"]);
    assert!(opened.has_events());

    recorded.remove();
    assert_eq!(recorded.named(&["--no-cache"]), before);
    recorded.install(OTHER_PROGRAM);
    assert_eq!(recorded.named(&["--no-cache"]), before);
    // The names are in the dump already, so that nothing is written.
    let (bytes, again) = (fs::read(recorded.dump()).unwrap(), recorded.cli("symbols", &["--no-cache"]));
    assert!(again.status.success());
    assert_eq!(fs::read(recorded.dump()).unwrap(), bytes);
}

/// Notices when a file is opened.
struct Watch(rustix::fd::OwnedFd);

impl Watch {
    fn of(path: &Path) -> Watch {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watch = Watch(inotify::init(flags).unwrap());
        inotify::add_watch(&watch.0, path, inotify::WatchFlags::OPEN).unwrap();
        watch
    }

    fn has_events(&self) -> bool {
        let mut events = [0; 4096];
        match rustix::io::read(&self.0, &mut events) {
            Ok(len) => len > 0,
            Err(error) => {
                assert_eq!(error, rustix::io::Errno::AGAIN);
                false
            }
        }
    }
}

#[test]
fn run_and_compress_keep_names_unless_told_otherwise() {
    for (how, has_names) in [("run", true), ("run --no-compress", false), ("compress", true)] {
        let recorded = Recorded::new();
        match how {
            "compress" => assert!(recorded.cli("compress", &["--no-cache"]).status.success()),
            _ => {
                let options = how.split(' ').skip(1);
                let mut run = profiler_cli();
                run.env("XDG_CACHE_HOME", recorded.folder.path().join("cache"));
                run.args(["run", "--no-cache", "--report", "none"]).args(options).arg("-o");
                run.arg(recorded.dump()).arg("--").arg(recorded.program());
                assert!(output_within(&mut run, Duration::from_secs(60)).status.success());
            }
        }
        let before = recorded.named(&["--no-cache"]);
        recorded.remove();
        assert_eq!(recorded.named(&["--no-cache"]) == before, has_names, "{how}");
    }
}

#[test]
fn names_of_another_build_are_never_kept() {
    let recorded = Recorded::new();
    recorded.install(OTHER_PROGRAM);
    let output = recorded.cli("symbols", &["--no-cache"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("was rebuilt"), "{stderr}");
    assert!(!recorded.json("leaks", &["--no-cache", "--full"]).to_string().contains(OTHER_PROGRAM));
    // Libraries are as they were, so their names were kept; the program's come from a copy later.
    let symbols = recorded.folder.path().join("old");
    fs::copy(program(PROGRAM), &symbols).unwrap();
    let named = recorded.cli("symbols", &["--no-cache", "--symbols", symbols.to_str().unwrap()]);
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    recorded.remove();
    let leaks = recorded.json("leaks", &["--no-cache"]);
    assert_eq!(leaks["leaks"][0]["function"], "leaking_cache::render");
}

/// The stacks of a signal handler have exact addresses, which the code alone tells.
#[test]
fn stacks_of_signal_handlers_read_the_same_without_files() {
    let run = Run::of(Command::new(RELEASE.program()).arg("signals"), Duration::from_secs(60));
    let stacks = || run.json("flamegraph", &["--no-cache", "--full", "--metric", "allocated"]);
    let before = stacks();
    let compressed = tests::cli([OsStr::new("compress"), run.dump().as_os_str(), OsStr::new("--no-cache")]);
    assert!(compressed.status.success());
    assert_eq!(stacks(), before);
}
