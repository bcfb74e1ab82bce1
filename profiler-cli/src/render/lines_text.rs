//! Line tables for people, in a layout like that of memory_profiler. In: [`Lines`]. Out: text with
//! colours.

use std::io::{self, Write};

use anstyle::Style;

use super::frame_text::write_function_and_position;
use super::text_width::{TextWidth, cut_end, write_paragraph};
use super::{FAINT, GROWTH, HEADING, RELEASE};
use crate::analyze::column::{COLUMNS, FigureKind, LineColumn, OptionalColumn, magnitude};
use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::units::{Safe, SizeUnit, bytes, count, more};

/// The columns, units and precision of the text.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Columns after the usual columns, in this order.
    pub columns: Vec<OptionalColumn>,
    /// Unit of all sizes. With `None`, each usual column has the unit that fits its largest figure,
    /// and every other figure has the unit that fits it.
    pub unit: Option<SizeUnit>,
    /// Number of digits of sizes after the decimal point.
    pub precision: usize,
    /// Columns of the terminal.
    pub width: TextWidth,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { columns: Vec::new(), unit: None, precision: 1, width: TextWidth::default() }
    }
}

/// Writes all tables.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines, shape: &Shape) -> io::Result<()> {
    if lines.functions.is_empty() && lines.omitted == 0 {
        writeln!(out, "{}", super::no_function(lines))?;
    }
    if let Some(interval) = &lines.interval {
        let text = format!("{}; peak and live are those of the interval", interval.name());
        write_paragraph(out, "Interval: ", &Safe(&text).to_string(), shape.width)?;
        writeln!(out)?;
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

/// Writes one table.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write_function(out: &mut dyn Write, function: &FunctionLines, shape: &Shape) -> io::Result<()> {
    if let Some(file) = &function.file {
        writeln!(out, "Filename: {}", Safe(file))?;
    }
    writeln!(out, "Function: {HEADING}{}{HEADING:#}", Safe(&function.function))?;
    let source = match function.source {
        "annotation" => "annotation",
        _ => "recorded stacks (Occurrences counts heap events, not executions)",
    };
    writeln!(out, "Source:   {source}")?;
    if let Some(note) = function.note.clone().or_else(|| freed_elsewhere(function)) {
        write_paragraph(out, "Note:     ", &note, shape.width)?;
    }
    let sum = fitting(shape, function.increment.unsigned_abs());
    let sum = sum.show_to(function.increment, shape.precision);
    let mut columns: Vec<TextColumn> =
        columns(function, shape).map(|column| TextColumn::of(column, function, shape, &sum)).collect();
    drop_columns(&mut columns, shape);
    let room = room_for_source(&columns, shape);
    let indent = if room < usize::MAX { common_indent(function) } else { 0 };
    let titles: String = columns.iter().map(|column| column.padded(column.column.title)).collect();
    let header = format!("{:>6}{titles}   Line Contents", "Line #");
    writeln!(out, "\n{header}\n{}", "=".repeat(header.len().min(shape.width.columns())))?;
    for (at, row) in function.lines.iter().enumerate() {
        let figures: String = columns.iter().map(|column| column.cell(at, row)).collect();
        let text = without_tabs(row).chars().skip(indent).collect::<String>();
        let text = cut_end(text.trim_end(), room);
        let line = format!("{:>6}{figures}   {}", row.line, Safe(&text));
        writeln!(out, "{}", line.trim_end())?;
    }
    let usual = columns.iter().filter(|column| column.column.is_usual);
    let sums: String =
        usual.map(|column| column.padded(if column.is_increment() { &sum } else { "" })).collect();
    let both = format!("sum: {} B allocated, {} B freed", count(function.allocated), count(function.freed));
    if both.len() <= room {
        writeln!(out, "{:>6}{sums}   {FAINT}{both}{FAINT:#}", "")?;
    } else {
        writeln!(out, "{:>6}{}\n{:>7}{FAINT}{both}{FAINT:#}", "", sums.trim_end(), "")?;
    }
    write_callers(out, function, shape)
}

/// Returns a note if the increment says little about what is live: other functions or threads have
/// freed most of it, or given it another size.
fn freed_elsewhere(function: &FunctionLines) -> Option<String> {
    let live: u64 = function.lines.iter().filter_map(|row| row.live).sum();
    let increment = u64::try_from(function.increment).ok()?;
    (increment >= LEAST_NOTED && live < increment / 2).then(|| {
        let (increment, live) = (bytes(increment), bytes(live));
        format!("of the increment of {increment}, {live} are live at the end; other code freed or reallocated the rest")
    })
}

/// The smallest increment that is worth a note, in bytes.
const LEAST_NOTED: u64 = 64 << 10;

/// Leaves out columns if the terminal has no room for them and for the source: first those that the
/// others tell most about. A column that was asked for stays, and so does the increment.
fn drop_columns(columns: &mut Vec<TextColumn>, shape: &Shape) {
    if room_for_source(columns, shape) < LEAST_SOURCE && shape.columns.is_empty() {
        columns.retain(|column| column.column.is_usual);
    }
    for kind in [FigureKind::Bytes, FigureKind::Count] {
        if room_for_source(columns, shape) < LEAST_SOURCE {
            columns.retain(|column| !column.column.is_usual || column.column.kind != kind);
        }
    }
}

/// The fewest columns of source that are worth reading.
const LEAST_SOURCE: usize = 30;

/// Returns the columns that are left for the source text.
fn room_for_source(columns: &[TextColumn], shape: &Shape) -> usize {
    let figures: usize = columns.iter().map(|column| column.width + 1).sum();
    match shape.width.columns() {
        usize::MAX => usize::MAX,
        width => width.saturating_sub(6 + figures + 3).max(10),
    }
}

/// Returns the number of blanks that all lines of a function begin with.
fn common_indent(function: &FunctionLines) -> usize {
    let texts = function.lines.iter().map(without_tabs).filter(|text| !text.trim().is_empty());
    texts.map(|text| text.chars().take_while(|c| *c == ' ').count()).min().unwrap_or(0)
}

fn without_tabs(row: &LineRow) -> String {
    row.text.as_deref().unwrap_or_default().replace('\t', "    ")
}

/// Returns the usual columns, then the columns that `shape` names, in its order. Without any named
/// column, the number of allocations is there if a line allocates and its increment does not show
/// that.
fn columns<'a>(function: &FunctionLines, shape: &'a Shape) -> impl Iterator<Item = &'static LineColumn> + 'a {
    let usual = COLUMNS.iter().filter(|column| column.is_usual);
    let count = COLUMNS.iter().find(|column| column.name == "count");
    let hides_allocations = shape.columns.is_empty() && hides_allocations(function, shape);
    let named = shape.columns.iter().map(|OptionalColumn(column)| *column);
    usual.chain(count.filter(|_| hides_allocations)).chain(named)
}

/// Whether a line allocates, and its increment is shown as zero.
fn hides_allocations(function: &FunctionLines, shape: &Shape) -> bool {
    let increments = || function.lines.iter().filter_map(|row| row.increment);
    let unit = fitting(shape, increments().map(i64::unsigned_abs).max().unwrap_or(0));
    let zero = unit.show_to(0, shape.precision);
    let is_hidden = |row: &LineRow| {
        row.count.is_some_and(|count| count > 0)
            && row.increment.is_some_and(|increment| unit.show_to(increment, shape.precision) == zero)
    };
    function.lines.iter().any(is_hidden)
}

/// A column of one table: its cells and their width.
struct TextColumn {
    column: &'static LineColumn,
    /// Text of the cell in each row; empty if the line has no figure.
    cells: Vec<String>,
    width: usize,
}

impl TextColumn {
    /// Makes the cells of a column. `sum` is the text below the column of increments, which must
    /// fit too.
    fn of(column: &'static LineColumn, function: &FunctionLines, shape: &Shape, sum: &str) -> TextColumn {
        let figures = || function.lines.iter().map(column.figure);
        // A usual column has one unit for all its rows. In any other column, each figure has the
        // unit that fits it.
        let largest = || figures().flatten().map(magnitude).max().unwrap_or(0);
        let unit = shape.unit.or_else(|| column.is_usual.then(|| SizeUnit::fitting(largest())));
        let show = |figure: i128| match column.kind {
            // Without separators, as memory_profiler prints occurrences.
            FigureKind::Count if column.is_usual => figure.to_string(),
            kind => kind.show_in_text(figure, unit, shape.precision),
        };
        let cells: Vec<String> = figures().map(|figure| figure.map_or_else(String::new, show)).collect();
        let mut text = TextColumn { column, cells, width: 0 };
        let longest = text.cells.iter().map(String::len).max().unwrap_or(0);
        text.width = match column.kind {
            // One more, because memory_profiler has two blanks before its occurrences.
            FigureKind::Count if column.is_usual => longest.max(11) + 1,
            _ if text.is_increment() => longest.max(12).max(sum.len()),
            _ => longest.max(12),
        };
        text
    }

    fn is_increment(&self) -> bool {
        self.column.is_usual && self.column.kind == FigureKind::ByteChange
    }

    /// Returns a text that is right-aligned in the column, with a blank before it.
    fn padded(&self, text: &str) -> String {
        format!(" {text:>width$}", width = self.width)
    }

    /// Returns the cell of a row; the increment has the colour of its direction.
    fn cell(&self, at: usize, row: &LineRow) -> String {
        let (text, width) = (&self.cells[at], self.width);
        let style = if self.is_increment() { style(row) } else { Style::new() };
        format!(" {style}{text:>width$}{style:#}")
    }
}

fn fitting(shape: &Shape, bytes: u64) -> SizeUnit {
    shape.unit.unwrap_or_else(|| SizeUnit::fitting(bytes))
}

fn write_callers(out: &mut dyn Write, function: &FunctionLines, shape: &Shape) -> io::Result<()> {
    let Some(callers) = &function.callers else { return Ok(()) };
    writeln!(out, "\nCalled from:")?;
    for caller in callers.iter().take(MAX_CALLERS) {
        let position = super::source_position(caller.file.as_deref(), caller.line);
        let increment = caller.allocated.wrapping_sub(caller.freed) as i64;
        let (allocated, increment) = (size(shape, caller.allocated as i64), size(shape, increment));
        let figures = format!("  {allocated:>12} allocated, {increment:>12} increment  ");
        write!(out, "{figures}")?;
        let room = shape.width.columns().saturating_sub(figures.chars().count());
        write_function_and_position(out, Style::new(), (&caller.function, &position), room)?;
        writeln!(out)?;
    }
    match callers.len() {
        0 => writeln!(out, "  nobody, as far as recorded stacks tell"),
        all if all > MAX_CALLERS => writeln!(out, "  … {} more; --json has all", all - MAX_CALLERS),
        _ => Ok(()),
    }
}

/// The most call sites that are shown below a table.
const MAX_CALLERS: usize = 5;

/// Returns the colour of an increment.
fn style(row: &LineRow) -> Style {
    match row.increment {
        Some(bytes) if bytes > 0 => GROWTH,
        Some(bytes) if bytes < 0 => RELEASE,
        _ => Style::new(),
    }
}

/// Returns a size in the unit of `shape`, or in the unit that fits it.
fn size(shape: &Shape, bytes: i64) -> String {
    fitting(shape, bytes.unsigned_abs()).show_to(bytes, shape.precision)
}
