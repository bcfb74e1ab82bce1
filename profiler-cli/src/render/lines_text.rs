//! Line tables in memory_profiler's shape.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING, RELEASE};
use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::units::{Safe, Unit, count};

/// Writes all tables.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines) -> io::Result<()> {
    if lines.functions.is_empty() && lines.omitted == 0 {
        writeln!(out, "No function of the program's own has heap events.")?;
    }
    for (at, function) in lines.functions.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        write_function(out, function)?;
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

/// Writes one table.
///
/// # Errors
/// Those of `out`.
pub fn write_function(out: &mut dyn Write, function: &FunctionLines) -> io::Result<()> {
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
    let header = format!(
        "{:>6} {:>12} {:>12}  {:>11}   {}",
        "Line #", "Mem usage", "Increment", "Occurrences", "Line Contents"
    );
    writeln!(out, "\n{header}\n{}", "=".repeat(header.len()))?;
    let largest = |figure: &dyn Fn(&LineRow) -> Option<u64>| {
        function.lines.iter().filter_map(figure).max().unwrap_or(0)
    };
    let usage = Unit::fitting(largest(&|row| row.mem_usage));
    let increment = Unit::fitting(largest(&|row| row.increment.map(i64::unsigned_abs)));
    for row in &function.lines {
        write_row(out, row, usage, increment)?;
    }
    writeln!(
        out,
        "{:>6} {:>12} {:>12}  {:>11}   {FAINT}sum: {} B allocated, {} B freed{FAINT:#}",
        "",
        "",
        Unit::fitting(function.increment.unsigned_abs()).show(function.increment),
        "",
        count(function.allocated),
        count(function.freed),
    )
}

fn write_row(out: &mut dyn Write, row: &LineRow, usage: Unit, unit: Unit) -> io::Result<()> {
    let mem_usage = row.mem_usage.map_or_else(String::new, |bytes| usage.show(bytes as i64));
    let increment = row.increment.map_or_else(String::new, |bytes| unit.show(bytes));
    let occurrences = row.occurrences.map_or_else(String::new, |events| events.to_string());
    let style = match row.increment {
        Some(bytes) if bytes > 0 => GROWTH,
        Some(bytes) if bytes < 0 => RELEASE,
        _ => anstyle::Style::new(),
    };
    let text = row.text.as_deref().unwrap_or_default();
    let line = format!(
        "{:>6} {mem_usage:>12} {style}{increment:>12}{style:#}  {occurrences:>11}   {}",
        row.line,
        Safe(&text.replace('\t', "    "))
    );
    writeln!(out, "{}", line.trim_end())
}
