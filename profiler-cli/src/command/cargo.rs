//! `profiler-cli cargo`: has cargo build and run programs, and records each of them as `run` does.
//!
//! In: cargo's own arguments. Out: dumps, a report and cargo's exit status. Cargo does all of its
//! work itself, and starts each program by a process of this program (its setting `runner`). So
//! everything is as with cargo alone: which programs are run, in which order, folder and
//! environment, and which status comes out.

mod line;
mod program_log;
mod record;
mod settings;
mod split;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};

use clap::Args;

use self::line::{CargoCommand, CargoLine};
use self::program_log::ProgramLog;
pub use self::record::record_process;
pub use self::settings::RECORD_PROCESS;
pub use self::split::split;
use super::run::{
    NO_DUMP_HINT, RecordedProgram, RecordingArgs, exit_code, failure_or_2, finish, forward_signals, wait,
    watched_signals, without_dump,
};
use super::{Failure, print_message};
use crate::dumps::reserve::{make_folder_of, new_run_token};
use crate::io_error::plain;

const EXAMPLES: &str = "\
Examples:
  profiler-cli cargo --release --bin server -- --port 80     short for `cargo run`
  profiler-cli cargo run --release -p server -- --port 80
  profiler-cli cargo test -p parser roundtrip
  profiler-cli cargo bench --bench codec
  profiler-cli cargo nextest run --workspace
";

const NOTES: &str = "\
All other options are cargo's own and go to cargo as they are: -p, --features, -j, --target, +nightly
and so on; `cargo help run` explains them. Several programs, such as the tests of a workspace, are
recorded one by one, and get a table instead of a report. `build` only builds, with the debug info
that the reports need. The exit status is cargo's.";

/// Options of `cargo`.
#[derive(Debug, Args)]
#[command(
    before_help = EXAMPLES,
    after_help = NOTES,
    override_usage = "profiler-cli cargo [OPTIONS] [run|test|bench|nextest run|build] [CARGO'S OPTIONS] [-- ARGS]"
)]
pub struct CargoArgs {
    /// Recording and report.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// Cargo's arguments; [`split`] has moved them behind the options.
    #[arg(last = true, value_name = "ARGS", hide = true)]
    pub args: Vec<OsString>,
}

/// Runs `profiler-cli cargo`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CargoArgs) -> Result<ExitCode, Failure> {
    let line = CargoLine::parse(&args.args)?;
    if line.command == CargoCommand::Nextest && !is_installed("cargo-nextest") {
        let advice = "install it (`cargo install --locked cargo-nextest`), or use `profiler-cli cargo test`";
        return Err(anyhow::anyhow!("cargo-nextest is not installed: {advice}").into());
    }
    if let Some(output) = &args.recording.output {
        // Before a build of several minutes.
        make_folder_of(output)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {}", output.display(), plain(&error)))?;
    }
    let cargo = cargo_program(&line);
    let log = ProgramLog::begin(&args.recording.settings()?.in_group(new_run_token()))?;
    let options = settings::options(&cargo, &line, log.path())?;
    let mut signals = watched_signals()?;
    let mut child = Command::new(&cargo)
        .args(line.arguments(options))
        .envs(settings::variables(&line))
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run {}: {}", cargo.display(), plain(&error)))?;
    let (cargo_id, folder) = (child.id(), log.path().to_owned());
    let handle = signals.handle();
    let receivers = move || receivers(cargo_id, &folder);
    let forwarder = std::thread::spawn(move || forward_signals(&mut signals, receivers));
    let status = wait_for_all(&mut child, &log);
    handle.close();
    // The thread ends when the handle is closed. It cannot panic.
    let _ = forwarder.join();
    let status = status?;
    let programs = log.programs();
    drop(log);
    Ok(report(&line, &programs, status, &args.recording))
}

/// Whether cargo has a command of this name that can be profiled.
pub(super) fn is_command(name: &str) -> bool {
    CargoCommand::named(name.as_ref()).is_some()
}

/// Reports on the programs that cargo has run, and returns the exit status.
fn report(
    line: &CargoLine,
    programs: &[RecordedProgram],
    status: ExitStatus,
    recording: &RecordingArgs,
) -> ExitCode {
    let ended = exit_code(status);
    match programs {
        [] => {
            if status.success() && !line.runs_nothing() {
                print_message("cargo ran no program, so nothing was recorded");
            }
            return ended;
        }
        [program] if program.dumps.is_empty() => {
            without_dump(program);
            return failure_or_2(status);
        }
        several if several.iter().all(|program| program.dumps.is_empty()) => {
            let unreadable = several.iter().find_map(|program| program.unreadable.as_ref());
            match unreadable {
                Some(error) => print_message(error),
                None => {
                    print_message(format_args!("no dump: no program called alloc-tracker; {NO_DUMP_HINT}"))
                }
            }
            return failure_or_2(status);
        }
        _ => finish(programs, recording),
    }
    ended
}

/// Waits for cargo and for all programs that it has started.
fn wait_for_all(cargo: &mut Child, log: &ProgramLog) -> anyhow::Result<ExitStatus> {
    let status = wait(cargo).map_err(|error| anyhow::anyhow!("cannot wait for cargo: {}", plain(&error)))?;
    log.wait_for_programs();
    Ok(status)
}

/// Returns the processes that signals are passed on to: cargo, and those that record a program.
fn receivers(cargo: u32, log: &Path) -> Vec<u32> {
    // `cargo run` becomes the process that records.
    let mut receivers = ProgramLog::recorders(log);
    if !receivers.contains(&cargo) {
        receivers.push(cargo);
    }
    receivers
}

/// Returns the program to run for `cargo`. Only the one in the search path knows `+nightly`; where
/// this process was started by cargo, `CARGO` is the one that did.
fn cargo_program(line: &CargoLine) -> OsString {
    let given = std::env::var_os("CARGO").filter(|_| line.toolchain.is_none());
    given.unwrap_or_else(|| "cargo".into())
}

/// Whether a program is in a folder in which cargo looks for its further commands.
fn is_installed(program: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    folders.any(|folder| folder.join(program).is_file())
}
