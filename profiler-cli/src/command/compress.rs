//! `profiler-cli compress`: its arguments, the signals that interrupt it, and the lines that it prints.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::progress::Progress;
use super::{Failure, say};
use crate::cli::CompressArgs;
use crate::dumps::compress::{CompressDumpError, CompressOutcome, compress_dump};
use crate::units::{Safe, bytes};

/// `profiler-cli compress`.
///
/// # Errors
/// See [`Failure`].
pub fn compress(args: &CompressArgs) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    let stop = stop_on_signals();
    let mut printed = Ok(());
    for dump in &args.dumps {
        let name = dump.to_string_lossy();
        let progress = Progress::of_bytes("compressing");
        let result = compress_dump(dump, &stop, &mut |done, total| progress.tell(done, total));
        drop(progress);
        let message = match result {
            Ok(outcome) => {
                // The remaining dumps are compressed even if nobody reads what is printed.
                printed = printed.and(write_outcome(&name, outcome));
                continue;
            }
            Err(CompressDumpError::Stopped) => return Ok(ExitCode::from(STATUS_OF_SIGINT)),
            Err(CompressDumpError::Dump(error)) => error.to_string(),
            Err(error) => format!("{name}: {error}"),
        };
        say(Safe(&message));
        status = ExitCode::from(2);
    }
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(status),
    }
}

fn write_outcome(name: &str, outcome: CompressOutcome) -> io::Result<()> {
    let mut out = anstream::stdout();
    match outcome {
        CompressOutcome::Smaller { before, after } => {
            writeln!(out, "{}: {} -> {}", Safe(name), bytes(before), bytes(after))
        }
        CompressOutcome::Unchanged => writeln!(out, "{}: nothing to gain", Safe(name)),
    }
}

/// Returns a flag that SIGINT, SIGTERM and SIGHUP set. From here on these signals do nothing else, so
/// that the process lives long enough to remove a half-written file.
pub fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // If this fails, the signal ends the process as before.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stop));
    }
    stop
}

/// The exit status that a shell gives for a program that SIGINT has ended.
const STATUS_OF_SIGINT: u8 = 130;
