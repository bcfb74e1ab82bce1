//! The table of several recorded programs. In: programs that have ended. Out: a row for each, with
//! its totals and the name of its dump. Names of functions are not needed.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use super::recording::{RecordedProgram, without_hash};
use super::report::main_dump;
use crate::command::input::load_profile;
use crate::load::LoadOptions;
use crate::render::{FAINT, GROWTH, HEADING};
use crate::units::signals::signal_name;
use crate::units::{Safe, bytes, count, plural};

/// Writes the table.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write_table(out: &mut dyn Write, programs: &[RecordedProgram]) -> io::Result<()> {
    let without = programs.iter().filter(|program| program.dumps.is_empty()).count();
    let folder = common_folder(programs);
    let place = folder.as_ref().map_or_else(String::new, |folder| format!(" in {}", folder.display()));
    let recorded = plural((programs.len() - without) as u64, "program");
    writeln!(out, "\n{HEADING}{recorded} recorded{HEADING:#}{}", Safe(&place))?;
    writeln!(
        out,
        "  {FAINT}{:<9} {:>10} {:>12} {:>13}  dump{FAINT:#}",
        "status", "peak", "live at end", "allocations"
    )?;
    for program in programs {
        if let Some(row) = ProgramRow::of(program, folder.as_deref()) {
            write_row(out, &row)?;
        }
    }
    if without > 0 {
        writeln!(out, "  {} never called alloc-tracker:", plural(without as u64, "program"))?;
    }
    for program in programs.iter().filter(|program| program.dumps.is_empty()) {
        writeln!(out, "    {}  {}", status_of(program), Safe(&name_of(program)))?;
    }
    Ok(())
}

/// One recorded program.
struct ProgramRow {
    status: String,
    is_failure: bool,
    /// Bytes at the peak, bytes live at the end and number of allocations; an error if the dump
    /// cannot be read.
    figures: Result<[u64; 3], String>,
    is_exact: bool,
    dump: String,
    /// The other dumps: those of forked children.
    children: usize,
}

impl ProgramRow {
    /// `None` if the program has no dump.
    fn of(program: &RecordedProgram, folder: Option<&Path>) -> Option<ProgramRow> {
        let dump = main_dump(program)?;
        let profile = load_profile(dump, &LoadOptions::default());
        let shown = folder.and_then(|folder| dump.strip_prefix(folder).ok()).unwrap_or(dump);
        Some(ProgramRow {
            status: status_of(program),
            is_failure: !program.status().success(),
            is_exact: profile.as_ref().is_ok_and(|profile| profile.trust.is_exact()),
            figures: profile.map_err(|error| format!("{error:#}")).map(|profile| {
                let totals = &profile.totals;
                [totals.peak_bytes, totals.live_bytes, totals.allocations]
            }),
            dump: shown.to_string_lossy().into_owned(),
            children: program.dumps.len() - 1,
        })
    }
}

fn write_row(out: &mut dyn Write, row: &ProgramRow) -> io::Result<()> {
    let style = if row.is_failure { GROWTH } else { anstyle::Style::new() };
    write!(out, "  {style}{:<9}{style:#} ", row.status)?;
    match &row.figures {
        Ok([peak, live, allocations]) => {
            let (peak, live, allocations) = (bytes(*peak), bytes(*live), count(*allocations));
            write!(out, "{peak:>10} {live:>12} {allocations:>13}  {}", Safe(&row.dump))?;
            if !row.is_exact {
                write!(out, "  {GROWTH}not exact{GROWTH:#}")?;
            }
        }
        Err(error) => write!(out, "{}", Safe(error))?,
    }
    match row.children {
        0 => writeln!(out),
        children => writeln!(out, "  and {} of forked children", plural(children as u64, "dump")),
    }
}

/// Returns the exit status or the name of the signal.
fn status_of(program: &RecordedProgram) -> String {
    let status = program.status();
    match (status.code(), status.signal().unwrap_or(0)) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned),
    }
}

/// Returns the name of a program without folders and without cargo's hash.
fn name_of(program: &RecordedProgram) -> String {
    let name = Path::new(&program.program).file_name().unwrap_or(&program.program);
    String::from_utf8_lossy(without_hash(name.as_encoded_bytes())).into_owned()
}

/// Returns the folder of all dumps; `None` if they are in several.
fn common_folder(programs: &[RecordedProgram]) -> Option<PathBuf> {
    let mut folders = programs.iter().flat_map(RecordedProgram::dumps).map(Path::parent);
    let first = folders.next()??;
    folders.all(|folder| folder == Some(first)).then(|| first.to_owned())
}
