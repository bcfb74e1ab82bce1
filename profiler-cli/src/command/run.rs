//! `profiler-cli run`: starts a program with the recorder switched on, waits for it, closes the
//! dumps that it left, reports, compresses the dumps, and puts the names of their code into them.
//!
//! In: a command line. Out: dumps, a report on stderr, and the exit status of the program. The
//! dumps are closed and the status is known before anything else is done with them.

pub mod about;
mod commit;
mod finish;
mod recording;
mod report;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum, ValueHint};
use serde::{Deserialize, Serialize};

use self::about::AboutArgs;
pub(super) use self::finish::finish;
use self::finish::print_end;
pub use self::finish::{COMPRESS_PROCESS, REPORT_PROCESS, compress_process};
pub(super) use self::recording::{
    RecordSettings, RecordedProgram, exit_code, forward_signals, record, wait, watched_signals,
};
pub use self::report::report_process;
use super::input::SymbolArgs;
use super::{Failure, print_message};
use crate::dumps::place::default_folder;
use crate::io_error::plain;
use crate::load::parse_time;
use crate::units::Safe;

const EXAMPLES: &str = "\
Examples:
  profiler-cli run -- ./server --port 80
  profiler-cli run -o %p.alloc --report none -- ./run-tests.sh
  profiler-cli run --for 10m --max-dump 2GiB --label version=1.2 -- ./server
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
    /// they are, and made if they are missing. [default: PROGRAM.%p.alloc in target/alloc-tracker
    /// of the workspace, or in the working directory]
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
    /// What the dump says about the recording, and when the recording ends.
    #[command(flatten)]
    pub about: AboutArgs,
    /// Take a snapshot when the program ends: `leaks` then tells what was lost, and what holds the
    /// rest.
    #[arg(long, env = "PROFILER_SNAPSHOT_AT_END", value_parser = FalseyValueParser::new())]
    pub snapshot_at_end: bool,
    /// Take a snapshot after each such time, such as 60s or 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    pub snapshot_every: Option<Duration>,
    /// Leave the dump as the program wrote it: several times as large, and without names of its
    /// code.
    #[arg(long, env = "PROFILER_NO_COMPRESS", value_parser = FalseyValueParser::new())]
    pub no_compress: bool,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// What a thread does when events come faster than they can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum OnFull {
    /// The thread waits, and no event is lost
    Block,
    /// The event is dropped, and counted as lost
    Drop,
}

/// How much of a very deep stack is compared at each event with the stack of the event before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Verify {
    /// A bounded part; such stacks are counted as partly verified
    Bounded,
    /// Every frame, in a time that grows with the depth
    All,
}

/// What annotated functions also record at each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum LineUsage {
    /// Resident memory of the process
    Rss,
    /// Minor and major page faults of the thread
    Faults,
}

/// The report that is printed when the program has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
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
    let program = record(&args.command, &args.recording.settings()?)?;
    if program.dumps.is_empty() {
        return Ok(without_dump(&program));
    }
    finish(std::slice::from_ref(&program), &args.recording);
    Ok(exit_code(program.status()))
}

/// Says that a program has left no dump, and why. Returns the exit status: that of the program, or
/// 2 if that was a success.
pub(super) fn without_dump(program: &RecordedProgram) -> ExitCode {
    print_end(program.status());
    match &program.unreadable {
        Some(error) => print_message(Safe(error)),
        None => print_message(format_args!(
            "no dump: {} never called alloc-tracker; {NO_DUMP_HINT}",
            program.program.display()
        )),
    }
    failure_or_2(program.status())
}

/// Returns the exit status of a program; 2 if it is a success.
pub(super) fn failure_or_2(status: ExitStatus) -> ExitCode {
    if status.success() { ExitCode::from(2) } else { exit_code(status) }
}

/// What keeps a program from calling the tracker, and what to do about each cause.
pub(super) const NO_DUMP_HINT: &str = "either the attribute is missing: add `#[global_allocator] static ALLOC: AllocTracker = \
     AllocTracker::system();`, or libstd is linked dynamically: build without `-C prefer-dynamic`";

/// Parses the time between two snapshots.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_time(text) {
        Some(us @ 1_000_000..) => Ok(Duration::from_micros(us)),
        _ => Err("give a time of a second or more, such as 60s or 10m".to_owned()),
    }
}

impl RecordingArgs {
    /// Returns how programs are to be recorded that are started in the working directory.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub(super) fn settings(&self) -> anyhow::Result<RecordSettings> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|error| anyhow::anyhow!("cannot use {path:?} as the dump's name: {}", plain(&error)))
        };
        Ok(RecordSettings {
            output: self.output.as_ref().map(absolute).transpose()?.map(PathBuf::into_os_string),
            folder: default_folder()?.into_os_string(),
            on_full: self.on_full,
            verify: self.verify,
            follow_forks: self.follow_forks,
            lines: self.lines.clone(),
            about: self.about.clone(),
            snapshot_at_end: self.snapshot_at_end,
            snapshot_every: self.snapshot_every,
            group: None,
        })
    }
}
