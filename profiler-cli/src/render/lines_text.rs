//! Line tables in memory_profiler's shape.

use std::io::{self, Write};

use clap::ValueEnum;

use super::{FAINT, GROWTH, HEADING, RELEASE};
use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::units::{Safe, Unit, count, time};

/// Columns that `lines` has besides the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LinesColumn {
    /// Bytes allocated
    Allocated,
    /// Bytes freed
    Freed,
    /// Blocks allocated minus blocks freed
    Blocks,
    /// The most live bytes when the line was left; of annotated functions
    Max,
    /// Wall time spent at the line; of annotated functions
    Time,
    /// Bytes allocated there that were live at the global peak
    Peak,
    /// Bytes allocated there that are live at the end
    Live,
    /// Blocks allocated there and freed by the next heap event of their thread
    Temporary,
    /// Change of the resident memory; of annotated functions, recorded with --lines rss
    Rss,
    /// Minor page faults; of annotated functions, recorded with --lines faults
    MinorFaults,
    /// Major page faults; of annotated functions, recorded with --lines faults
    MajorFaults,
}

/// How figures are written.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Columns besides the usual ones.
    pub columns: Vec<LinesColumn>,
    /// The unit of sizes; without one the largest figure of a column chooses it.
    pub unit: Option<Unit>,
    /// Digits behind the point.
    pub precision: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { columns: Vec::new(), unit: None, precision: 1 }
    }
}

/// Writes all tables in this shape.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines, shape: &Shape) -> io::Result<()> {
    if lines.functions.is_empty() && lines.omitted == 0 {
        writeln!(out, "No function of the program's own has heap events.")?;
    }
    for (at, function) in lines.functions.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        write_function(out, function, shape)?;
    }
    if lines.omitted > 0 {
        writeln!(
            out,
            "\n{} more functions; --top {} shows all, --function picks.",
            lines.omitted,
            lines.functions.len() + lines.omitted
        )?;
    }
    if !lines.complete {
        writeln!(out, "\nThe recording is not complete: see the summary.")?;
    }
    Ok(())
}

/// Writes one table in this shape.
///
/// # Errors
/// Those of `out`.
pub fn write_function(out: &mut dyn Write, function: &FunctionLines, shape: &Shape) -> io::Result<()> {
    if let Some(file) = &function.file {
        writeln!(out, "Filename: {}", Safe(file))?;
    }
    writeln!(out, "Function: {HEADING}{}{HEADING:#}", Safe(&function.function))?;
    let source = match function.source {
        "annotation" => "annotation",
        _ => "recorded stacks (Occurrences counts the heap events of a line, not its executions)",
    };
    writeln!(out, "Source:   {source}")?;
    if let Some(note) = &function.note {
        writeln!(out, "Note:     {note}")?;
    }
    let more: String = shape.columns.iter().map(|column| format!("{:>13}", title(*column))).collect();
    let header = format!(
        "{:>6} {:>12} {:>12}  {:>11}{more}   {}",
        "Line #", "Mem usage", "Increment", "Occurrences", "Line Contents"
    );
    writeln!(out, "\n{header}\n{}", "=".repeat(header.len()))?;
    let largest = |figure: &dyn Fn(&LineRow) -> Option<u64>| {
        function.lines.iter().filter_map(figure).max().unwrap_or(0)
    };
    let fitting = |largest| shape.unit.unwrap_or_else(|| Unit::fitting(largest));
    let usage = fitting(largest(&|row| row.mem_usage));
    let increment = fitting(largest(&|row| row.increment.map(i64::unsigned_abs)));
    for row in &function.lines {
        write_row(out, row, usage, increment, shape)?;
    }
    writeln!(
        out,
        "{:>6} {:>12} {:>12}  {:>11}   {FAINT}sum: {} B allocated, {} B freed{FAINT:#}",
        "",
        "",
        fitting(function.increment.unsigned_abs()).show_to(function.increment, shape.precision),
        "",
        count(function.allocated),
        count(function.freed),
    )?;
    write_callers(out, function, shape)
}

fn write_callers(out: &mut dyn Write, function: &FunctionLines, shape: &Shape) -> io::Result<()> {
    let Some(callers) = &function.callers else { return Ok(()) };
    writeln!(out, "\nCalled from:")?;
    for caller in callers.iter().take(MOST_CALLERS) {
        let place = super::place(caller.file.as_deref(), caller.line);
        let increment = caller.allocated.wrapping_sub(caller.freed) as i64;
        writeln!(
            out,
            "  {:>12} allocated, {:>12} increment  {}  {FAINT}{}{FAINT:#}",
            size(shape, caller.allocated as i64),
            size(shape, increment),
            Safe(&caller.function),
            Safe(&place)
        )?;
    }
    match callers.len() {
        0 => writeln!(out, "  nobody, as far as recorded stacks tell"),
        all if all > MOST_CALLERS => writeln!(out, "  … {} more; --json has all", all - MOST_CALLERS),
        _ => Ok(()),
    }
}

const MOST_CALLERS: usize = 5;

fn write_row(out: &mut dyn Write, row: &LineRow, usage: Unit, unit: Unit, shape: &Shape) -> io::Result<()> {
    let mem_usage =
        row.mem_usage.map_or_else(String::new, |bytes| usage.show_to(bytes as i64, shape.precision));
    let increment = row.increment.map_or_else(String::new, |bytes| unit.show_to(bytes, shape.precision));
    let occurrences = row.occurrences.map_or_else(String::new, |events| events.to_string());
    let style = match row.increment {
        Some(bytes) if bytes > 0 => GROWTH,
        Some(bytes) if bytes < 0 => RELEASE,
        _ => anstyle::Style::new(),
    };
    let text = row.text.as_deref().unwrap_or_default();
    let cell = |column: &LinesColumn| format!(" {:>12}", figure(row, *column, shape));
    let more: String = shape.columns.iter().map(cell).collect();
    let line = format!(
        "{:>6} {mem_usage:>12} {style}{increment:>12}{style:#}  {occurrences:>11}{more}   {}",
        row.line,
        Safe(&text.replace('\t', "    "))
    );
    writeln!(out, "{}", line.trim_end())
}

fn title(column: LinesColumn) -> &'static str {
    match column {
        LinesColumn::Allocated => "Allocated",
        LinesColumn::Freed => "Freed",
        LinesColumn::Blocks => "Blocks",
        LinesColumn::Max => "Max usage",
        LinesColumn::Time => "Time",
        LinesColumn::Peak => "At peak",
        LinesColumn::Live => "Live at end",
        LinesColumn::Temporary => "Temporary",
        LinesColumn::Rss => "RSS",
        LinesColumn::MinorFaults => "Minor faults",
        LinesColumn::MajorFaults => "Major faults",
    }
}

/// In the unit that was asked for, or the one that fits.
fn size(shape: &Shape, bytes: i64) -> String {
    shape.unit.unwrap_or_else(|| Unit::fitting(bytes.unsigned_abs())).show_to(bytes, shape.precision)
}

/// Empty where the line has none.
fn figure(row: &LineRow, column: LinesColumn, shape: &Shape) -> String {
    let change = |figure: Option<i64>| figure.map(|bytes| size(shape, bytes));
    let size = |figure: Option<u64>| change(figure.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    let figure = match column {
        LinesColumn::Allocated => size(row.allocated),
        LinesColumn::Freed => size(row.freed),
        LinesColumn::Blocks => row.blocks.map(|blocks| blocks.to_string()),
        LinesColumn::Max => size(row.max),
        LinesColumn::Time => row.time_ns.map(time),
        LinesColumn::Peak => size(row.peak),
        LinesColumn::Live => size(row.live),
        LinesColumn::Temporary => row.temporary.map(count),
        LinesColumn::Rss => change(row.rss),
        LinesColumn::MinorFaults => row.minor_faults.map(count),
        LinesColumn::MajorFaults => row.major_faults.map(count),
    };
    figure.unwrap_or_default()
}
