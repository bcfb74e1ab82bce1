//! The dumps of one run. In: the pattern of their names and the run's token. Out: their paths,
//! after each dump was closed. Dumps of other runs must not be touched.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use alloc_dump::trailer::EndReason;

use crate::command::print_message;
use crate::dumps::close::{CloseOutcome, close};
use crate::dumps::find::dumps_of_run;
use crate::io_error::plain;

/// Closes the dumps of this run and returns their paths, sorted. `pid` and `status` are those of
/// the program itself; the end of its forked children is not known.
///
/// # Errors
/// If the folder of the dumps cannot be read.
pub(super) fn close_dumps(
    pattern: &Path,
    token: &str,
    pid: u32,
    status: ExitStatus,
) -> anyhow::Result<Vec<PathBuf>> {
    let dumps = dumps_of_run(pattern, token)?;
    let end = |writer: u32| match (status.code(), status.signal()) {
        _ if writer != pid => EndReason::Vanished,
        (Some(code), _) => EndReason::Exited(code as u8),
        (None, signal) => EndReason::Signalled(signal.unwrap_or(0) as u8),
    };
    for dump in &dumps {
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
    Ok(dumps)
}
