//! After the program: says how it ended, has the report made, and compresses the dumps.
//!
//! In: recorded programs. Out: text on stderr, and smaller dumps. Nothing that goes wrong here may
//! change the exit status of the program. The report needs as much memory as the dump has stacks,
//! so a process of its own makes it, and another one compresses: if one of them runs out of memory
//! or panics, this process goes on.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::recording::{RecordedProgram, wait};
use super::{RecordingArgs, Report};
use crate::command::compress::{NotRewritten, compress_with_progress, stop_on_signals};
use crate::command::input::SymbolArgs;
use crate::command::print_message;
<<<<<<< HEAD
use crate::dumps::compress::{CompressDumpError, remove_temporary_files};
=======
use crate::command::symbols::find_names;
>>>>>>> main
use crate::io_error::plain;
use crate::units::Safe;
use crate::units::signals::{ended_by_signal, ended_with_status};

/// The first argument of a process of this program that makes a report. It reads a
/// [`ReportRequest`] as JSON from stdin.
pub const REPORT_PROCESS: &str = "internal-report";

/// The first argument of a process of this program that compresses the dumps behind it.
pub const COMPRESS_PROCESS: &str = "internal-compress";

/// What to report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReportRequest {
    /// How much of it.
    pub(super) report: Report,
    /// The programs; several get a table instead of a report.
    pub(super) programs: Vec<RecordedProgram>,
    /// Folders with files that have symbols.
    pub(super) symbols: Vec<OsString>,
    /// Crates that are the user's own code, whatever their paths say.
    pub(super) own: Vec<String>,
    /// Whether to leave the cache of symbols alone.
    pub(super) no_cache: bool,
}

/// Reports on programs that have left dumps, and compresses the dumps.
pub(in crate::command) fn finish(programs: &[RecordedProgram], recording: &RecordingArgs) {
    if let [program] = programs {
        print_end(program.status());
    }
    if recording.report != Report::None {
        let symbols = recording.symbols.symbols.iter().map(|folder| folder.clone().into_os_string());
        let request = ReportRequest {
            report: recording.report,
            programs: programs.to_vec(),
            symbols: symbols.collect(),
            own: recording.symbols.own.iter().map(ToString::to_string).collect(),
            no_cache: recording.symbols.no_cache,
        };
        if let Some(failure) = failure_of(|| report_status(&request)) {
            print_message(format_args!(
                "the report failed: {failure}; nothing of the dump is lost, and `profiler-cli summary` reads it again"
            ));
        }
    }
    let dumps = || programs.iter().flat_map(RecordedProgram::dumps);
    // A table names the dumps already.
    if recording.report == Report::None || programs.len() == 1 {
        let mut out = anstream::stderr();
        for dump in dumps() {
            // The dump is there, even if nobody reads stderr any more.
            let _ = writeln!(out, "dump: {}", Safe(&dump.to_string_lossy()));
        }
    }
<<<<<<< HEAD
    if !recording.no_compress
        && let Some(failure) = failure_of(|| compress_status(&dumps().collect::<Vec<_>>()))
    {
        print_message(format_args!("cannot compress: {failure}; the dump stays as it is"));
=======
    if !recording.no_compress {
        let stop = stop_on_signals();
        dumps().for_each(|dump| compress_finished_dump(dump, &recording.symbols, &stop));
>>>>>>> main
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

/// Makes a report, and returns how that process has ended.
fn report_status(request: &ReportRequest) -> io::Result<ExitStatus> {
    let request = serde_json::to_vec(request)?;
    let mut command = this_program(REPORT_PROCESS);
    let mut child = command.arg(color_of_this_process()).stdin(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the process has ended already, its status says more than this error.
        let _ = stdin.write_all(&request);
    }
    wait(&mut child)
}

/// Compresses dumps, and returns how that process has ended.
fn compress_status(dumps: &[&Path]) -> io::Result<ExitStatus> {
    let mut command = this_program(COMPRESS_PROCESS);
    let mut child = command.args(dumps).stdin(Stdio::null()).spawn()?;
    let status = wait(&mut child)?;
    if !status.success() {
        dumps.iter().for_each(|dump| remove_temporary_files(dump, child.id()));
    }
    Ok(status)
}

/// Returns a command that starts this program once more. Not by its path: the file may have been
/// replaced while the profiled program was running.
fn this_program(process: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(process).stdout(Stdio::null());
    command
}

/// The main function of a process that compresses dumps.
pub fn compress_process(dumps: &[OsString]) -> ExitCode {
    let stop = stop_on_signals();
    dumps.iter().for_each(|dump| compress_finished_dump(Path::new(dump), &stop));
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

/// Compresses a dump, and puts the names of its code into it. A dump that is not complete or not
/// readable stays as it is without a message, because the report has said so already.
fn compress_finished_dump(dump: &Path, symbols: &SymbolArgs, stop: &AtomicBool) {
    let symbols = match find_names(dump, symbols) {
        Ok(names) => names.and_then(|names| names.symbols),
        Err(NotRewritten::Because(message)) => {
            print_message(format_args!("cannot keep names in {}", Safe(&message)));
            None
        }
        Err(_) => None,
    };
    if let Err(NotRewritten::Because(message)) = compress_with_progress(dump, symbols.as_deref(), stop) {
        print_message(format_args!("cannot compress {}", Safe(&message)));
    }
}
