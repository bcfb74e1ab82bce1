//! `profiler-cli run`: starts a program with the recorder switched on, waits for it, closes the
//! dumps that it left, reports, compresses the dumps, and puts the names of their code into them.
//!
//! In: a command line. Out: dumps, a report on stderr, and the exit status of the program. Signals
//! that are sent to this process alone are passed on to the program. Nothing here may write to
//! stdout, which belongs to the program.

mod report;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::AtomicBool;

use alloc_dump::trailer::EndReason;
use anyhow::Context;
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum, ValueHint};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use self::report::print_report;
use super::compress::{NotRewritten, compress_with_progress, stop_on_signals};
use super::input::SymbolArgs;
use super::symbols::find_names;
use super::{Failure, print_message};
use crate::dumps::close::{CloseOutcome, close};
use crate::dumps::find::{FoundDumps, dumps_of_run, has_pid_placeholder};
use crate::dumps::reserve::{Reservation, new_run_token};
use crate::io_error::plain;
use crate::units::Safe;

const EXAMPLES: &str = "\
Examples:
  profiler-cli run -- ./server --port 80
  profiler-cli run -o %p.alloc --report none -- ./run-tests.sh
";

/// Options of `run`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct RunArgs {
    /// Recording and report.
    #[command(flatten)]
    pub recording: RecordingArgs,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Where the recording is written, what is recorded, and what is reported. `cargo` has the same
/// options.
#[derive(Debug, Args)]
pub struct RecordingArgs {
    /// Path of the dump; %p in the file's name is replaced by the process id, folders are taken as
    /// they are. [default: PROGRAM.%p.alloc]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// What to print to stderr after the program has ended.
    #[arg(long, value_enum, default_value_t = Report::Full)]
    pub report: Report,
    /// What a thread does when events come faster than they can be written.
    #[arg(long, value_enum, default_value_t = OnFull::Block, env = "PROFILER_ON_FULL")]
    pub on_full: OnFull,
    /// How much of a stack with more than 8,192 frames is compared at each event.
    #[arg(long, value_enum, default_value_t = Verify::Bounded, env = "PROFILER_VERIFY")]
    pub verify: Verify,
    /// Record forked children too, each into its own dump; the dump's file name must contain %p.
    #[arg(long)]
    pub follow_forks: bool,
    /// What annotated functions also record at each line; costs some microseconds a line.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT", env = "PROFILER_LINES")]
    pub lines: Vec<LineUsage>,
    /// Leave the dump as the program wrote it: several times as large, and without names of its
    /// code.
    #[arg(long, env = "PROFILER_NO_COMPRESS", value_parser = FalseyValueParser::new())]
    pub no_compress: bool,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// What a thread does when events come faster than they can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// The thread waits, and no event is lost
    Block,
    /// The event is dropped, and counted as lost
    Drop,
}

/// How much of a very deep stack is compared at each event with the stack of the event before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// A bounded part; such stacks are counted as partly verified
    Bounded,
    /// Every frame, in a time that grows with the depth
    All,
}

/// What annotated functions also record at each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LineUsage {
    /// Resident memory of the process
    Rss,
    /// Minor and major page faults of the thread
    Faults,
}

/// The report that is printed when the program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// Summary, lines of the function that allocates most, leaks, and a flamegraph beside the dump
    Full,
    /// The summary
    Summary,
    /// Only the name of the dump
    None,
}

/// Runs `profiler-cli run`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    profile_program(&args.command, &args.recording, &Surroundings::default())
}

/// The working directory and environment of a program, where they differ from those of this
/// process.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The program's working directory; `None` for the working directory of this process.
    pub folder: Option<PathBuf>,
    /// Environment variables to set, besides those of this process.
    pub variables: Vec<(OsString, OsString)>,
}

/// Profiles a command line, and returns the exit status of the program.
///
/// # Errors
/// See [`Failure`].
pub fn profile_program(
    command: &[OsString],
    recording: &RecordingArgs,
    surroundings: &Surroundings,
) -> Result<ExitCode, Failure> {
    let (program, arguments) = command.split_first().context("no program to run: name it after --")?;
    let pattern = match &recording.output {
        Some(path) => path.clone(),
        None => default_output(program),
    };
    let pattern = std::path::absolute(&pattern)
        .map_err(|error| anyhow::anyhow!("cannot use {:?} as the dump's name: {}", pattern, plain(&error)))?;
    if recording.follow_forks && !has_pid_placeholder(&pattern) {
        let pattern = pattern.display();
        let reason = "--follow-forks needs %p in the dump's name, so that each process has its own dump";
        return Err(anyhow::anyhow!("{pattern}: {reason}").into());
    }
    let token = new_run_token();
    // This must come first. From here on these signals do not end this process, because it may have
    // to put an earlier dump back that it has set aside.
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
        .map_err(|error| anyhow::anyhow!("cannot watch for signals: {}", plain(&error)))?;
    let reservation = Reservation::make(&pattern, &token)?;
    let mut started = Command::new(program);
    if let Some(folder) = &surroundings.folder {
        started.current_dir(folder);
    }
    // A variable that the user has set holds otherwise.
    if recording.verify == Verify::All {
        started.env("ALLOC_TRACKER_VERIFY", "all");
    }
    let mut child = started
        .args(arguments)
        .envs(surroundings.variables.iter().map(|(name, value)| (name, value)))
        .env("ALLOC_TRACKER", "trace")
        .env("ALLOC_TRACKER_OUT", &pattern)
        .env("ALLOC_TRACKER_RUN", &token)
        .env("ALLOC_TRACKER_ON_FULL", if recording.on_full == OnFull::Drop { "drop" } else { "block" })
        .env("ALLOC_TRACKER_LINES", recorder_names(&recording.lines))
        .env("ALLOC_TRACKER_FOLLOW", if recording.follow_forks { "1" } else { "0" })
        .spawn()
        .map_err(|error| anyhow::anyhow!("cannot run {}: {}", program.display(), plain(&error)))?;
    let pid = child.id();
    let handle = signals.handle();
    let forwarder = std::thread::spawn(move || forward_signals(&mut signals, pid));
    let status = wait(&mut child);
    handle.close();
    // The thread ends when the handle is closed. It cannot panic.
    let _ = forwarder.join();
    let status = status.map_err(|error| {
        anyhow::anyhow!("cannot wait for {} (process {pid}): {}", program.display(), plain(&error))
    })?;
    let FoundDumps { of_run: dumps, unreadable } = dumps_of_run(&pattern, &token)?;
    close_dumps(&dumps, pid, status);
    if let (true, Some(error)) = (dumps.is_empty(), unreadable.first()) {
        // The new dump stays, because its records may be readable for somebody else.
        reservation.discard_replaced();
        print_message(Safe(&error.to_string()));
        return Ok(if status.success() { ExitCode::from(2) } else { exit_code(status) });
    }
    if dumps.is_empty() {
        print_message(format_args!(
            "no dump: {} never called alloc-tracker; {NO_DUMP_HINT}",
            program.display()
        ));
        return Ok(if status.success() { ExitCode::from(2) } else { exit_code(status) });
    }
    reservation.discard_replaced();
    match print_report(&dumps, pid, recording) {
        // After the report, so that the report does not wait for the source to be parsed.
        Ok(Some(reported)) => {
            if let Some(dir) = recording.symbols.options().cache_dir {
                reported.keep_evidence(&dir);
            }
        }
        Ok(None) | Err(Failure::ClosedPipe) => {}
        Err(Failure::Input(error)) => print_message(format_args!("{error:#}")),
    }
    if !recording.no_compress {
        let stop = stop_on_signals();
        dumps.iter().for_each(|dump| compress_finished_dump(dump, &recording.symbols, &stop));
    }
    Ok(exit_code(status))
}

/// What keeps a program from calling the tracker, and what to do about each cause.
const NO_DUMP_HINT: &str = "either the attribute is missing: add `#[global_allocator] static ALLOC: AllocTracker = \
     AllocTracker::system();`, or libstd is linked dynamically: build without `-C prefer-dynamic`";

/// Returns the names by which the recorder knows these values, separated by commas.
fn recorder_names(lines: &[LineUsage]) -> String {
    let name = |usage: &LineUsage| match usage {
        LineUsage::Rss => "rss",
        LineUsage::Faults => "faults",
    };
    lines.iter().map(name).collect::<Vec<_>>().join(",")
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

/// Returns the exit status that a shell would give: 128 + N if signal N killed the program.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// Returns `PROGRAM.%p.alloc`. A `%` in the program's name is left out, lest it be taken for a
/// `%p`.
fn default_output(program: &OsStr) -> PathBuf {
    let name = Path::new(program).file_name().unwrap_or(OsStr::new("program"));
    let mut file: Vec<u8> = name.as_bytes().iter().copied().filter(|byte| *byte != b'%').collect();
    file.extend_from_slice(b".%p.alloc");
    PathBuf::from(OsString::from_vec(file))
}

/// Passes signals on to the program if they were sent to this process alone. Signals from the
/// terminal reach the program without our help.
fn forward_signals(signals: &mut SignalsInfo<WithOrigin>, pid: u32) {
    for origin in signals.forever() {
        if matches!(origin.cause, Cause::Sent(_))
            && let Some(signal) = Signal::from_named_raw(origin.signal)
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // Fails if the program has just ended, which is fine.
            let _ = kill_process(pid, signal);
        }
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Closes the dumps of this run. `pid` and `status` are the process id and the exit status of the
/// program itself; the end of its forked children is not known.
fn close_dumps(dumps: &[PathBuf], pid: u32, status: ExitStatus) {
    let end = |writer: u32| match (status.code(), status.signal()) {
        _ if writer != pid => EndReason::Vanished,
        (Some(code), _) => EndReason::Exited(code as u8),
        (None, signal) => EndReason::Signalled(signal.unwrap_or(0) as u8),
    };
    for dump in dumps {
        match close(dump, pid, end) {
            Ok(CloseOutcome::StillWritten) => print_message(format_args!(
                "{}: its process is still running; the report covers what is in the dump so far",
                dump.display()
            )),
            Ok(_) => {}
            Err(error) => {
                print_message(format_args!("cannot close {}: {}", dump.display(), plain(&error)));
            }
        }
    }
}
