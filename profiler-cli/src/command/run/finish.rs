//! After the program: says how it ended, has the report made, and compresses the dumps.
//!
//! In: recorded programs. Out: text on stderr, and smaller dumps. Nothing that goes wrong here may
//! change the exit status of the program. The report and the names of code need memory for all
//! stacks of the dump. So a process of its own makes the report, and another one keeps names and
//! compresses: if one of them runs out of memory or panics, this process goes on.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::recording::{RecordedProgram, wait};
use super::{RecordingArgs, Report};
use crate::command::compress::{NotRewritten, compress_with_progress, stop_on_signals};
use crate::command::input::SymbolArgs;
use crate::command::print_message;
use crate::command::symbols::find_names;
use crate::dumps::compress::remove_temporary_files;
use crate::io_error::plain;
use crate::pattern::Pattern;
use crate::units::Safe;
use crate::units::signals::{ended_by_signal, ended_with_status};

/// The first argument of a process of this program that makes a report. It reads an
/// `AfterRun` as JSON from stdin.
pub const REPORT_PROCESS: &str = "internal-report";

/// The first argument of a process of this program that compresses dumps. `WITH_NAMES` may
/// follow. It reads an `AfterRun` as JSON from stdin.
pub const COMPRESS_PROCESS: &str = "internal-compress";

/// Has the names of code put into the dumps.
const WITH_NAMES: &str = "names";

/// What to do when programs have ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AfterRun {
    /// How much to report.
    pub(super) report: Report,
    /// The programs; several get a table instead of a report.
    pub(super) programs: Vec<RecordedProgram>,
    /// Files and folders with symbols.
    symbols: Vec<OsString>,
    /// Crates that are the user's own code, whatever their paths say.
    own: Vec<String>,
    /// Whether to leave the cache of symbols alone.
    no_cache: bool,
}

impl AfterRun {
    fn of(programs: &[RecordedProgram], recording: &RecordingArgs) -> AfterRun {
        let SymbolArgs { symbols, own, no_cache } = &recording.symbols;
        AfterRun {
            report: recording.report,
            programs: programs.to_vec(),
            symbols: symbols.iter().map(|path| path.clone().into_os_string()).collect(),
            own: own.iter().map(ToString::to_string).collect(),
            no_cache: *no_cache,
        }
    }

    /// Reads a value from stdin.
    ///
    /// # Errors
    /// If another program than this one has written it.
    pub(super) fn read() -> anyhow::Result<AfterRun> {
        let read = serde_json::from_reader(io::stdin().lock());
        read.context("only `profiler-cli run` and `profiler-cli cargo` start this process")
    }

    /// Where names come from.
    pub(super) fn symbols(&self) -> SymbolArgs {
        SymbolArgs {
            symbols: self.symbols.iter().map(PathBuf::from).collect(),
            own: self.own.iter().map(|name| Pattern::new(name)).collect(),
            no_cache: self.no_cache,
        }
    }

    fn dumps(&self) -> impl Iterator<Item = &Path> {
        self.programs.iter().flat_map(RecordedProgram::dumps)
    }
}

/// Reports on programs that have left dumps, and compresses the dumps.
pub(in crate::command) fn finish(programs: &[RecordedProgram], recording: &RecordingArgs) {
    if let [program] = programs {
        print_end(program.status());
    }
    let after = AfterRun::of(programs, recording);
    let failure = match recording.report {
        Report::None => None,
        _ => failure_of(|| run_this_program(&[REPORT_PROCESS, color_of_this_process()], &after, |_| {})),
    };
    if let Some(failure) = &failure {
        print_message(format_args!(
            "the report failed: {failure}; nothing of the dump is lost, and `profiler-cli summary` reads it again"
        ));
    }
    // A table names the dumps already.
    if recording.report == Report::None || programs.len() == 1 || failure.is_some() {
        let mut out = anstream::stderr();
        for dump in after.dumps() {
            // The dump is there, even if nobody reads stderr any more.
            let _ = writeln!(out, "dump: {}", Safe(&dump.to_string_lossy()));
        }
    }
    if !recording.no_compress {
        compress(&after);
    }
}

/// Compresses the dumps, with the names of their code if there is memory for these.
fn compress(after: &AfterRun) {
    let compressed = |arguments: &[&str]| {
        let remove = |id| after.dumps().for_each(|dump| remove_temporary_files(dump, id));
        failure_of(|| run_this_program(arguments, after, remove))
    };
    if let Some(failure) = compressed(&[COMPRESS_PROCESS, WITH_NAMES]) {
        print_message(format_args!("cannot keep names in the dump: {failure}"));
        if let Some(failure) = compressed(&[COMPRESS_PROCESS]) {
            print_message(format_args!("cannot compress: {failure}; the dump stays as it is"));
        }
    }
}

/// Says how the program ended, unless it succeeded.
pub(super) fn print_end(status: ExitStatus) {
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code), _) => print_message(format_args!("the program {}", ended_with_status(code))),
        (None, signal) => print_message(format_args!("the program {}", ended_by_signal(signal.unwrap_or(0)))),
    }
}

/// Has a process of this program do something. Returns why it has not done it; `None` if it has, or
/// if it has said itself why not.
fn failure_of(process: impl FnOnce() -> io::Result<ExitStatus>) -> Option<String> {
    match process() {
        Ok(status) if matches!(status.code(), Some(0 | 2)) => None,
        Ok(status) => Some(match status.code() {
            Some(code) => format!("its process {}", ended_with_status(code)),
            None => format!("its process {}", ended_by_signal(status.signal().unwrap_or(0))),
        }),
        Err(error) => Some(plain(&error)),
    }
}

/// Runs this program once more, and returns how it has ended. `clean_up` gets the id of a process
/// that has failed.
fn run_this_program(
    arguments: &[&str],
    after: &AfterRun,
    clean_up: impl FnOnce(u32),
) -> io::Result<ExitStatus> {
    let after = serde_json::to_vec(after)?;
    // Not by its path: the file may have been replaced while the profiled program was running.
    let mut command = Command::new("/proc/self/exe");
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the process has ended already, its status says more than this error.
        let _ = stdin.write_all(&after);
    }
    let status = wait(&mut child)?;
    if !status.success() {
        clean_up(child.id());
    }
    Ok(status)
}

/// The main function of a process that compresses dumps. `arguments` are those behind
/// [`COMPRESS_PROCESS`].
pub fn compress_process(arguments: &[OsString]) -> ExitCode {
    let after = match AfterRun::read() {
        Ok(after) => after,
        Err(error) => {
            print_message(Safe(&format!("{error:#}")));
            return ExitCode::from(2);
        }
    };
    let symbols = arguments.iter().any(|argument| argument == WITH_NAMES).then(|| after.symbols());
    let stop = stop_on_signals();
    after.dumps().for_each(|dump| compress_finished_dump(dump, symbols.as_ref(), &stop));
    ExitCode::SUCCESS
}

/// Returns the value of `--color` that gives a process the colours of this one.
fn color_of_this_process() -> &'static str {
    match anstream::ColorChoice::global() {
        anstream::ColorChoice::Always | anstream::ColorChoice::AlwaysAnsi => "always",
        anstream::ColorChoice::Never => "never",
        anstream::ColorChoice::Auto => "auto",
    }
}

/// Compresses a dump, and puts the names of its code into it if `symbols` says where they come
/// from. A dump that is not complete or not readable stays as it is without a message, because the
/// report has said so already.
fn compress_finished_dump(dump: &Path, symbols: Option<&SymbolArgs>, stop: &AtomicBool) {
    let names = match symbols.map(|symbols| find_names(dump, symbols)) {
        Some(Ok(names)) => names.and_then(|names| names.symbols),
        Some(Err(NotRewritten::Because(message))) => {
            print_message(format_args!("cannot keep names in {}", Safe(&message)));
            None
        }
        Some(Err(_)) | None => None,
    };
    if let Err(NotRewritten::Because(message)) = compress_with_progress(dump, names.as_deref(), stop) {
        print_message(format_args!("cannot compress {}", Safe(&message)));
    }
}
