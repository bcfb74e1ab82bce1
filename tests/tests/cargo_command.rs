//! `profiler-cli cargo` starts programs and tests in the same folder and environment as cargo does,
//! with debug info whatever the profile says. Most tests use a package that does not link the
//! tracker, so that the tracker need not be built. The CLI then reports at the end of the program
//! that there is no dump.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use tests::{json, output_within, profiler_cli, workspace};

const MANIFEST: &str = "\
[package]
name = \"parcel\"
version = \"1.2.3-beta\"
edition = \"2021\"
authors = [\"A\", \"B\"]
default-run = \"chosen\"
readme = \"Cargo.toml\"

[[bench]]
name = \"arguments\"
harness = false

[profile.dev]
debug = 0
strip = true

[workspace]
";

/// Line 3 captures the backtrace.
const CHOSEN: &str = "\
fn main() {
    println!(\"chosen {}\", std::env::args().skip(1).collect::<String>());
    println!(\"{}\", std::backtrace::Backtrace::force_capture());
}
";

/// The manifest of a package that links the tracker, without the dependency itself.
const TRACKED_MANIFEST: &str = "\
[package]
name = \"tracked-parcel\"
version = \"0.1.0\"
edition = \"2024\"

[workspace]

";

/// A program that links the tracker.
const TRACKED_PROGRAM: &str = "\
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() {
    std::hint::black_box(vec![1u8; 100]);
}
";

const TEST: &str = "\
#[test]
fn is_started_as_by_cargo() {
    let text = std::fs::read_to_string(\"Cargo.toml\").unwrap();
    assert!(text.contains(\"parcel\"));
    let set = |name: &str| std::env::var(name).unwrap();
    assert_eq!(set(\"CARGO_MANIFEST_DIR\"), std::env::current_dir().unwrap().to_str().unwrap());
    for (name, built_in) in [
        (\"CARGO_PKG_NAME\", env!(\"CARGO_PKG_NAME\")),
        (\"CARGO_PKG_VERSION\", env!(\"CARGO_PKG_VERSION\")),
        (\"CARGO_PKG_VERSION_MAJOR\", env!(\"CARGO_PKG_VERSION_MAJOR\")),
        (\"CARGO_PKG_VERSION_MINOR\", env!(\"CARGO_PKG_VERSION_MINOR\")),
        (\"CARGO_PKG_VERSION_PATCH\", env!(\"CARGO_PKG_VERSION_PATCH\")),
        (\"CARGO_PKG_VERSION_PRE\", env!(\"CARGO_PKG_VERSION_PRE\")),
        (\"CARGO_PKG_AUTHORS\", env!(\"CARGO_PKG_AUTHORS\")),
        (\"CARGO_PKG_LICENSE\", env!(\"CARGO_PKG_LICENSE\")),
        (\"CARGO_PKG_README\", env!(\"CARGO_PKG_README\")),
        (\"OUT_DIR\", env!(\"OUT_DIR\")),
        (\"MADE_BY_SCRIPT\", env!(\"MADE_BY_SCRIPT\")),
        (\"CONFIGURED\", \"here\"),
    ] {
        assert_eq!(set(name), built_in, \"{name}\");
    }
    println!(\"as by cargo\");
}
";

/// Creates the package `parcel`, which does not link the tracker, below a folder with settings for
/// cargo.
fn package() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("parcel/Cargo.toml", MANIFEST);
    write("parcel/build.rs", "fn main() { println!(\"cargo:rustc-env=MADE_BY_SCRIPT=yes\"); }\n");
    write("parcel/src/bin/chosen.rs", CHOSEN);
    write("parcel/src/bin/other.rs", "fn main() {}\n");
    write("parcel/tests/place.rs", TEST);
    write(
        "parcel/benches/arguments.rs",
        "fn main() { println!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>()); }",
    );
    write(".cargo/config.toml", "env.CONFIGURED = 'here'\n");
    folder
}

/// Runs `profiler-cli cargo` in the folder above the package.
fn cargo(folder: &Path, args: &[&str]) -> Output {
    let mut command = profiler_cli();
    command
        .args(["cargo", "--manifest-path", "parcel/Cargo.toml", "--offline"])
        .args(args)
        .env("CARGO", env!("CARGO"))
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(folder);
    output_within(&mut command, Duration::from_secs(300))
}

/// Returns stdout and stderr as text.
fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_default_program_runs_with_debug_info_and_a_missing_dump_is_reported() {
    let folder = package();
    let output = cargo(folder.path(), &["--", "with arguments"]);
    let (printed, error) = texts(&output);
    assert!(printed.starts_with("chosen with arguments\n"), "{printed}{error}");
    assert!(printed.contains("src/bin/chosen.rs:3"), "{printed}{error}");
    assert!(error.contains("no dump"), "{error}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn tests_run_in_the_folder_and_environment_that_cargo_gives_them() {
    let folder = package();
    let output = cargo(folder.path(), &["--test", "place", "--", "--nocapture"]);
    let (printed, error) = texts(&output);
    assert!(printed.contains("as by cargo") && printed.contains("1 passed"), "{printed}{error}");
}

#[test]
fn benchmarks_get_the_argument_bench() {
    let folder = package();
    let output = cargo(folder.path(), &["--bench", "arguments", "--", "some"]);
    let (printed, error) = texts(&output);
    assert!(printed.contains(r#"["some", "--bench"]"#), "{printed}{error}");
}

/// Cargo itself says what it cannot do, and its status is passed on.
#[test]
fn several_programs_without_a_default_are_refused_by_cargo_with_the_choices() {
    let folder = package();
    let manifest = folder.path().join("parcel/Cargo.toml");
    fs::write(&manifest, MANIFEST.replace("default-run = \"chosen\"\n", "")).unwrap();
    let output = cargo(folder.path(), &[]);
    let (_, error) = texts(&output);
    assert!(error.contains("--bin") && error.contains("chosen") && error.contains("other"), "{error}");
    assert_eq!(output.status.code(), Some(101));
}

/// All options before the dashes that are not this program's reach cargo, known or not.
#[test]
fn options_of_cargo_reach_cargo() {
    let folder = package();
    let output = cargo(folder.path(), &["--bin", "chosen", "--no-such-option", "3"]);
    let (_, error) = texts(&output);
    assert!(error.contains("unexpected argument '--no-such-option'"), "{error}");
    assert_eq!(output.status.code(), Some(1), "as cargo exits");
    let mut command = profiler_cli();
    command
        .args(["cargo", "-q", "--offline", "run", "-j", "1", "--config", "build.incremental=false"])
        .args([
            "--report",
            "none",
            "--bin",
            "chosen",
            "--manifest-path",
            "parcel/Cargo.toml",
            "--",
            "x",
            "-j",
        ])
        .env("CARGO", env!("CARGO"))
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(folder.path());
    let (printed, error) = texts(&output_within(&mut command, Duration::from_secs(300)));
    assert!(printed.starts_with("chosen x-j\n"), "{printed}{error}");
    assert!(!error.contains("Compiling") && !error.contains("Running"), "cargo was quiet: {error}");
}

#[test]
fn commands_that_run_nothing_are_refused_in_one_line() {
    let mut command = profiler_cli();
    command.args(["cargo", "check"]).env("CARGO", env!("CARGO"));
    let (_, error) = texts(&output_within(&mut command, Duration::from_secs(60)));
    assert!(error.contains("cannot profile `cargo check`") && error.lines().count() == 1, "{error}");
}

/// A debug build of the recorder is slow, so the summary says when a recorder was one.
#[test]
fn in_a_debug_build_the_recorder_is_optimized() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let manifest = format!(
        "{TRACKED_MANIFEST}[dependencies]\nalloc-tracker.path = {:?}\n",
        workspace().join("alloc-tracker")
    );
    fs::write(path("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace().join("Cargo.lock"), path("Cargo.lock")).unwrap();
    fs::create_dir(path("src")).unwrap();
    fs::write(path("src/main.rs"), TRACKED_PROGRAM).unwrap();
    let (dump, target) = (path("x.alloc"), workspace().join("target/end-to-end"));
    let with_package = |command: &mut Command| {
        command.args(["--offline", "--manifest-path"]).arg(path("Cargo.toml"));
        command.arg("--target-dir").arg(&target);
        output_within(command, Duration::from_secs(300))
    };
    let mut by_cli = profiler_cli();
    by_cli.args(["cargo", "--report", "none", "-o"]).arg(&dump).env("CARGO", env!("CARGO"));
    let output = with_package(&mut by_cli);
    assert!(output.status.success(), "{output:?}");
    let of_debug_build = || json("summary", &dump, &[])["recorder_debug_assertions"].as_bool().unwrap();
    assert!(!of_debug_build());

    let output = with_package(Command::new(env!("CARGO")).arg("build"));
    assert!(output.status.success(), "{output:?}");
    let mut by_hand = Command::new(target.join("debug/tracked-parcel"));
    by_hand.env("ALLOC_TRACKER", "trace").env("ALLOC_TRACKER_OUT", &dump);
    assert!(output_within(&mut by_hand, Duration::from_secs(60)).status.success());
    assert!(of_debug_build());
    let text = output_within(profiler_cli().arg("summary").arg(&dump), Duration::from_secs(60));
    assert!(String::from_utf8_lossy(&text.stdout).contains("\n  recorder       a debug build"), "{text:?}");
}
