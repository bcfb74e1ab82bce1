//! Line tables byte for byte in the format that Python's memory_profiler 0.61 prints
//! (`show_results`), for scripts that read its output. In: [`Lines`]. Out: text. The format
//! determines the titles. The figures are those of this project: exact heap bytes, in MiB.

use std::io::{self, Write};

use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::units::Safe;

/// Writes all tables, with `precision` digits after the decimal point; memory_profiler has 1 by
/// default.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines, precision: usize) -> io::Result<()> {
    lines.functions.iter().try_for_each(|function| write_function(out, function, precision))
}

fn write_function(out: &mut dyn Write, function: &FunctionLines, precision: usize) -> io::Result<()> {
    let header = row("Line #", "Mem usage", "Increment", "Occurrences", "Line Contents");
    writeln!(out, "Filename: {}\n", Safe(function.file.as_deref().unwrap_or("?")))?;
    writeln!(out, "{header}\n{}", "=".repeat(header.len()))?;
    for line in &function.lines {
        writeln!(out, "{}", figures(line, precision))?;
    }
    out.write_all(b"\n\n")
}

fn figures(line: &LineRow, precision: usize) -> String {
    let size = |bytes: Option<i64>| bytes.map_or_else(String::new, |bytes| mebibytes(bytes, precision));
    let usage = line.mem_usage.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let occurrences = line.occurrences.map_or_else(String::new, |times| times.to_string());
    let text = Safe(line.text.as_deref().unwrap_or_default()).to_string();
    row(&line.line.to_string(), &size(usage), &size(line.increment), &occurrences, &text)
}

fn row(line: &str, usage: &str, increment: &str, occurrences: &str, text: &str) -> String {
    format!("{line:>6} {usage:>12} {increment:>12}  {occurrences:>10}   {text}")
}

/// Returns a size as Python's `'{0:5.1f} MiB'` prints it, if the precision is 1.
fn mebibytes(bytes: i64, precision: usize) -> String {
    let number = format!("{:.precision$}", bytes as f64 / f64::from(1 << 20));
    format!("{:>width$} MiB", crate::units::without_negative_zero(&number), width = precision + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_shape_of_the_original() {
        // The widths are those of its template: '{0:>6} {1:>12} {2:>12}  {3:>10}   {4:<}'.
        let header = row("Line #", "Mem usage", "Increment", "Occurrences", "Line Contents");
        assert_eq!(header, "Line #    Mem usage    Increment  Occurrences   Line Contents");
        assert_eq!(header.len(), 61);
        let mut line = LineRow {
            line: 8,
            mem_usage: Some(127 * (1 << 20) + (1 << 19)),
            increment: Some(155 << 19),
            occurrences: Some(1),
            text: Some("    let x = big();".to_owned()),
            ..LineRow::default()
        };
        let shown = figures(&line, 1);
        assert_eq!(shown, "     8    127.5 MiB     77.5 MiB           1       let x = big();");
        line.increment = Some(-1);
        assert!(figures(&line, 1).contains("      0.0 MiB "), "{}", figures(&line, 1));
        assert_eq!(mebibytes(-(3 << 19), 3), " -1.500 MiB");
        assert_eq!(mebibytes(1 << 20, 1), "  1.0 MiB");
    }
}
