//! `profiler-cli compress`: compresses dumps in place.
//!
//! In: dumps. Out: the same files, smaller, and one line on stdout for each. A signal that asks
//! this program to end must leave no half-written file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueHint};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::input::dump_path;
use super::progress::ProgressLine;
use super::{Failure, print_message};
use crate::dumps::close::{CloseOutcome, close_abandoned};
use crate::dumps::compress::{CompressDumpError, CompressOutcome, compress_dump};
use crate::io_error::plain;
use crate::units::{Safe, bytes};

const EXAMPLES: &str = "\
Examples:
  profiler-cli compress server.4711.alloc
  profiler-cli compress *.alloc
  profiler-cli compress --close server.4711.alloc     after the server was killed
";

const NOTES: &str = "\
`run` and `cargo` compress their dumps already; this command is for dumps of programs that were
started without them. A dump that is not complete stays as it is, unless --close can complete it.";

/// Options of `compress`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub struct CompressArgs {
    /// Dumps to compress in place.
    #[arg(required = true, value_name = "DUMP", value_parser = dump_path(), value_hint = ValueHint::FilePath)]
    pub dumps: Vec<PathBuf>,
    /// First close dumps whose program was killed: take their last records over from DUMP.tail.
    ///
    /// A dump whose program still runs is left alone.
    #[arg(long)]
    pub close: bool,
}

/// Runs `profiler-cli compress`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CompressArgs) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    let stop = stop_on_signals();
    let mut printed = Ok(());
    for dump in &args.dumps {
        let name = dump.to_string_lossy();
        if args.close
            && let Err(reason) = close_killed(dump)
        {
            print_message(Safe(&format!("{name}: {reason}")));
            status = ExitCode::from(2);
            continue;
        }
        let message = match compress_with_progress(dump, &stop) {
            Ok(outcome) => {
                // If stdout is closed, the remaining dumps are still compressed.
                printed = printed.and(print_outcome(&name, outcome));
                continue;
            }
            Err(CompressDumpError::Stopped) => return Ok(ExitCode::from(INTERRUPTED_STATUS)),
            Err(CompressDumpError::Dump(error)) => error.to_string(),
            Err(error) => format!("{name}: {error}"),
        };
        print_message(Safe(&message));
        status = ExitCode::from(2);
    }
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(status),
    }
}

/// Closes a dump whose program was killed. Returns why that is not possible.
fn close_killed(dump: &Path) -> Result<(), String> {
    // A link stays a link, and the sidecar is beside the file that it names.
    let file = dump.canonicalize().map_err(|error| plain(&error))?;
    match close_abandoned(&file) {
        Ok(CloseOutcome::WasClosed | CloseOutcome::ClosedNow(_)) => Ok(()),
        Ok(CloseOutcome::StillWritten) => {
            Err("its program still runs, and is still being recorded".to_owned())
        }
        Ok(CloseOutcome::EndUnknown) => {
            Err("it cannot be closed: its last records are lost; `profiler-cli summary` says more".to_owned())
        }
        Err(error) => Err(format!("it cannot be closed: {}", plain(&error))),
    }
}

/// Compresses a dump in place, and shows the progress.
///
/// # Errors
/// See [`CompressDumpError`]; the dump is then as it was.
pub(super) fn compress_with_progress(
    dump: &Path,
    stop: &AtomicBool,
) -> Result<CompressOutcome, CompressDumpError> {
    let progress = ProgressLine::of_bytes("compressing");
    compress_dump(dump, stop, &mut |done, total| progress.update(done, total))
}

fn print_outcome(name: &str, outcome: CompressOutcome) -> io::Result<()> {
    let mut out = anstream::stdout();
    match outcome {
        CompressOutcome::Smaller { before, after } => {
            writeln!(out, "{}: {} -> {}", Safe(name), bytes(before), bytes(after))
        }
        CompressOutcome::Unchanged => writeln!(out, "{}: nothing to gain", Safe(name)),
    }
}

/// The exit status that a shell gives a program that SIGINT has killed.
const INTERRUPTED_STATUS: u8 = 130;

/// Returns a flag that is set by SIGINT, SIGTERM and SIGHUP. From then on these signals do nothing
/// else, so that a file that is half written can be removed.
pub(super) fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // If this fails, the signal keeps its previous effect.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}
