//! Line tables in memory_profiler's shape.

use std::io::{self, Write};

use clap::ValueEnum;

use super::{FAINT, GROWTH, HEADING, RELEASE};
use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::units::{Safe, SizeUnit, count, more, time};

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
    pub unit: Option<SizeUnit>,
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
        writeln!(out, "{}", super::no_function(lines))?;
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
            "\n{}; --top {} shows all, --function picks.",
            more(lines.omitted as u64, "function"),
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
    let largest = |figure: &dyn Fn(&LineRow) -> Option<u64>| {
        function.lines.iter().filter_map(figure).max().unwrap_or(0)
    };
    let fitting = |largest| shape.unit.unwrap_or_else(|| SizeUnit::fitting(largest));
    let usage = fitting(largest(&|row| row.mem_usage));
    let increment = fitting(largest(&|row| row.increment.map(i64::unsigned_abs)));
    let sum = fitting(function.increment.unsigned_abs()).show_to(function.increment, shape.precision);
    let rows: Vec<Cells> = function.lines.iter().map(|row| Cells::of(row, usage, increment, shape)).collect();
    let width = |least: usize, cell: &dyn Fn(&Cells) -> &str| {
        rows.iter().map(|cells| cell(cells).len()).max().unwrap_or(0).max(least)
    };
    let widths = Widths {
        usage: width(12, &|cells| &cells.usage),
        increment: width(12, &|cells| &cells.increment).max(sum.len()),
        occurrences: width(11, &|cells| &cells.occurrences),
        more: (0..shape.columns.len()).map(|at| width(12, &|cells| &cells.more[at])).collect(),
    };
    let titles = Cells {
        usage: "Mem usage".to_owned(),
        increment: "Increment".to_owned(),
        occurrences: "Occurrences".to_owned(),
        more: shape.columns.iter().map(|column| title(*column).to_owned()).collect(),
    };
    let header = format!("{:>6} {}   Line Contents", "Line #", titles.line(&widths, anstyle::Style::new()));
    writeln!(out, "\n{header}\n{}", "=".repeat(header.len()))?;
    for (row, cells) in function.lines.iter().zip(&rows) {
        let text = row.text.as_deref().unwrap_or_default().replace('\t', "    ");
        let line = format!("{:>6} {}   {}", row.line, cells.line(&widths, style(row)), Safe(&text));
        writeln!(out, "{}", line.trim_end())?;
    }
    let Widths { usage, increment, occurrences, .. } = widths;
    writeln!(
        out,
        "{:>6} {:>usage$} {sum:>increment$}  {:>occurrences$}   {FAINT}sum: {} B allocated, {} B freed{FAINT:#}",
        "",
        "",
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

/// What stands in the columns of one row.
struct Cells {
    usage: String,
    increment: String,
    occurrences: String,
    more: Vec<String>,
}

struct Widths {
    usage: usize,
    increment: usize,
    occurrences: usize,
    more: Vec<usize>,
}

impl Cells {
    fn of(row: &LineRow, usage: SizeUnit, increment: SizeUnit, shape: &Shape) -> Cells {
        let precision = shape.precision;
        Cells {
            usage: row.mem_usage.map_or_else(String::new, |bytes| usage.show_to(bytes as i64, precision)),
            increment: row.increment.map_or_else(String::new, |bytes| increment.show_to(bytes, precision)),
            occurrences: row.occurrences.map_or_else(String::new, |events| events.to_string()),
            more: shape.columns.iter().map(|column| figure(row, *column, shape)).collect(),
        }
    }

    fn line(&self, widths: &Widths, style: anstyle::Style) -> String {
        let Widths { usage, increment, occurrences, more } = widths;
        let cell = |(text, width): (&String, &usize)| format!(" {text:>width$}");
        let more: String = self.more.iter().zip(more).map(cell).collect();
        let Cells { usage: used, increment: change, occurrences: often, .. } = self;
        format!("{used:>usage$} {style}{change:>increment$}{style:#}  {often:>occurrences$}{more}")
    }
}

fn style(row: &LineRow) -> anstyle::Style {
    match row.increment {
        Some(bytes) if bytes > 0 => GROWTH,
        Some(bytes) if bytes < 0 => RELEASE,
        _ => anstyle::Style::new(),
    }
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
    shape.unit.unwrap_or_else(|| SizeUnit::fitting(bytes.unsigned_abs())).show_to(bytes, shape.precision)
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
