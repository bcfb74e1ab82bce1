//! `profiler-cli symbols`: puts the names of a dump's code into the dump.
//!
//! In: dumps, and where names come from. Out: the same dumps with names, and one line on stdout for
//! each. `run`, `cargo` and `compress` use `find_names` too.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::compress::{NotRewritten, compress_with_progress, outcome_text, rewrite_all};
use super::input::SymbolArgs;
use super::progress::ProgressLine;
use super::{Failure, print_message};
use crate::load::load_code;
use crate::names::keep::{NamesToKeep, names_to_keep};
use crate::units::Safe;

const EXAMPLES: &str = "\
Examples:
  profiler-cli symbols server.4711.alloc
  profiler-cli symbols *.alloc --symbols /srv/builds/server
";

const NOTES: &str = "\
A dump with names is read without the program, also when that was built anew. `run`, `cargo` and
`compress` keep names already; this command is for other dumps, and for names from other files. It
also compresses the dump. A dump that is not complete stays as it is.";

/// Options of `symbols`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES, after_help = NOTES)]
pub struct SymbolsArgs {
    /// Dumps to put names into.
    #[arg(required = true, value_name = "DUMP", value_hint = ValueHint::FilePath)]
    pub dumps: Vec<PathBuf>,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Runs `profiler-cli symbols`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &SymbolsArgs) -> Result<ExitCode, Failure> {
    rewrite_all(&args.dumps, &|dump, stop| {
        let Some(names) = find_names(dump, &args.symbols)? else {
            // Says why the dump cannot be read.
            return compress_with_progress(dump, None, stop).map(outcome_text);
        };
        names.hints.iter().for_each(|hint| print_message(Safe(hint)));
        let NamesToKeep { symbols, named, addresses, .. } = names;
        if named == 0 {
            let reason = "nothing has the names of its code; pass --symbols PATH with the recorded build";
            return Err(NotRewritten::Because(format!("{}: {reason}", dump.display())));
        }
        let outcome = compress_with_progress(dump, symbols.as_deref(), stop)?;
        Ok(format!("names of {named} of {addresses} code addresses, {}", outcome_text(outcome)))
    })
}

/// Finds the names of a dump's code. `None` if the path is not that of a readable dump, which the
/// caller will find out.
///
/// # Errors
/// If a path with symbols cannot be read.
pub(super) fn find_names(dump: &Path, symbols: &SymbolArgs) -> Result<Option<NamesToKeep>, NotRewritten> {
    // Reading a pipe would consume its content.
    if !std::fs::metadata(dump).is_ok_and(|file| file.is_file()) {
        return Ok(None);
    }
    let reading = ProgressLine::of_bytes("reading");
    let Ok(profile) = load_code(dump, &mut |done, total| reading.update(done, total)) else {
        return Ok(None);
    };
    drop(reading);
    let naming = ProgressLine::of_items("naming");
    let progress = |done: usize, total: usize| naming.update(done as u64, total as u64);
    names_to_keep(&profile, symbols.options(), &progress).map(Some).map_err(|error| {
        let error = anyhow::Error::from(error);
        NotRewritten::Because(format!("{}: {error:#}", dump.display()))
    })
}
