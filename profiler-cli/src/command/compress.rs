//! `profiler-cli compress`: compresses dumps in place.
//!
//! In: dumps. Out: the same files, smaller and with the names of their code, and one line on stdout
//! for each. A signal that asks this program to end must leave no half-written file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use alloc_dump::symbols::EncodedSymbols;
use clap::{Args, ValueHint};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::input::{SymbolArgs, dump_path};
use super::progress::ProgressLine;
use super::symbols::find_names;
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
started without them. If the program is still as it ran, the dump also gets the names of its code,
and can then be read when the program was built anew. A dump that is not complete stays as it is,
unless --close can complete it.";

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
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Runs `profiler-cli compress`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CompressArgs) -> Result<ExitCode, Failure> {
    rewrite_all(&args.dumps, &|dump, stop| {
        if args.close {
            let because = |reason| NotRewritten::Because(format!("{}: {reason}", dump.display()));
            close_killed(dump).map_err(because)?;
        }
        let symbols = find_names(dump, &args.symbols)?.and_then(|names| names.symbols);
        compress_with_progress(dump, symbols.as_deref(), stop).map(outcome_text)
    })
}

/// Why a dump was not rewritten. The dump has not changed then.
pub(super) enum NotRewritten {
    /// A signal asked this program to end.
    Stopped,
    /// The dump is not complete, or cannot be read.
    Unusable(String),
    /// For another reason, in one line that names the dump.
    Because(String),
}

/// Rewrites dumps one after the other, and prints a line for each. `rewrite` gets a dump and a flag
/// that is set when a signal asks this program to end. It returns what to print.
///
/// # Errors
/// If stdout cannot be written. A dump that was not rewritten gives exit status 2.
pub(super) fn rewrite_all(
    dumps: &[PathBuf],
    rewrite: &dyn Fn(&Path, &AtomicBool) -> Result<String, NotRewritten>,
) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    let stop = stop_on_signals();
    let mut printed = Ok(());
    for dump in dumps {
        match rewrite(dump, &stop) {
            Ok(line) => {
                let mut out = anstream::stdout();
                // If stdout is closed, the remaining dumps are still rewritten.
                printed = printed.and(writeln!(out, "{}: {line}", Safe(&dump.to_string_lossy())));
            }
            Err(NotRewritten::Stopped) => return Ok(ExitCode::from(INTERRUPTED_STATUS)),
            Err(NotRewritten::Unusable(message) | NotRewritten::Because(message)) => {
                print_message(Safe(&message));
                status = ExitCode::from(2);
            }
        }
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

/// Compresses a dump in place, with these names of its code, and shows the progress.
///
/// # Errors
/// See [`NotRewritten`]; the dump is then as it was.
pub(super) fn compress_with_progress(
    dump: &Path,
    symbols: Option<&[EncodedSymbols]>,
    stop: &AtomicBool,
) -> Result<CompressOutcome, NotRewritten> {
    let progress = ProgressLine::of_bytes("compressing");
    let done = compress_dump(dump, symbols, stop, &mut |done, total| progress.update(done, total));
    let name = dump.to_string_lossy();
    done.map_err(|error| match error {
        CompressDumpError::Stopped => NotRewritten::Stopped,
        CompressDumpError::Dump(error) => NotRewritten::Unusable(error.to_string()),
        CompressDumpError::Incomplete => NotRewritten::Unusable(format!("{name}: {error}")),
        error => NotRewritten::Because(format!("{name}: {error}")),
    })
}

/// Returns the sizes before and after, for a person.
pub(super) fn outcome_text(outcome: CompressOutcome) -> String {
    match outcome {
        CompressOutcome::Smaller { before, after } => format!("{} -> {}", bytes(before), bytes(after)),
        CompressOutcome::Larger { before, after } => {
            format!("{} -> {} with the names of its code", bytes(before), bytes(after))
        }
        CompressOutcome::Unchanged => "nothing to gain".to_owned(),
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
