//! Line tables as CSV (RFC 4180). In: [`Lines`]. Out: one row for each line of each function, with
//! an empty field for each figure that the line lacks.

use std::io::{self, Write};

use super::csv_cause;
use super::escape::CsvText;
use crate::analyze::column::COLUMNS;
use crate::analyze::lines::{FunctionLines, LineRow, Lines};

/// Writes all tables as one table with a header. Writes nothing, not even the header, if there is
/// no line.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    let rows =
        lines.functions.iter().flat_map(|function| function.lines.iter().map(move |row| (function, row)));
    for (number, (function, row)) in rows.enumerate() {
        if number == 0 {
            out.write_record(header()).map_err(csv_cause)?;
        }
        out.write_record(record(function, row)).map_err(csv_cause)?;
    }
    out.flush()
}

/// Returns the names of all fields.
fn header() -> impl Iterator<Item = &'static str> {
    let figures = COLUMNS.iter().map(|column| column.name);
    ["function", "file", "source", "line"].into_iter().chain(figures).chain(["text"])
}

/// Returns the fields of one line, in the order of the header.
fn record(function: &FunctionLines, row: &LineRow) -> Vec<String> {
    let text = |text: Option<&str>| text.map_or_else(String::new, |text| CsvText(text).to_string());
    let mut fields = vec![
        text(Some(&function.function)),
        text(function.file.as_deref()),
        function.source.to_owned(),
        row.line.to_string(),
    ];
    let figure = |figure: Option<i128>| figure.map_or_else(String::new, |figure| figure.to_string());
    fields.extend(COLUMNS.iter().map(|column| figure((column.figure)(row))));
    fields.push(text(row.text.as_deref()));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_line(text: &str) -> Lines {
        let line = LineRow {
            line: 7,
            mem_usage: Some(10),
            increment: Some(-3),
            text: Some(text.to_owned()),
            ..LineRow::default()
        };
        let function = FunctionLines {
            function: "f".to_owned(),
            file: None,
            own: true,
            start_line: 7,
            end_line: 7,
            source: "stacks",
            note: None,
            increment: -3,
            allocated: 0,
            freed: 3,
            lines: vec![line],
            callers: None,
        };
        Lines {
            schema: "",
            complete: true,
            interval: None,
            filtered: false,
            omitted: 0,
            source_root: None,
            functions: vec![function],
        }
    }

    #[test]
    fn text_is_quoted_and_missing_figures_are_empty() {
        let mut out = Vec::new();
        write(&mut out, &one_line("g(\"a, b\")")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().nth(1), Some("f,,stacks,7,10,-3,,,,,,,,,,,,,,,,\"g(\"\"a, b\"\")\""));
    }

    #[test]
    fn the_header_has_every_column_and_every_row_as_many_fields() {
        let mut out = Vec::new();
        write(&mut out, &one_line("g")).unwrap();
        let text = String::from_utf8(out).unwrap();
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        let header = format!("function,file,source,line,{},text", names.join(","));
        assert_eq!(text.lines().next(), Some(header.as_str()));
        assert_eq!(text.lines().nth(1).map(|row| row.split(',').count()), Some(5 + COLUMNS.len()));
    }

    #[test]
    fn no_line_is_no_output() {
        let mut out = Vec::new();
        write(&mut out, &Lines { functions: Vec::new(), ..one_line("") }).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn a_closed_pipe_is_reported_as_one() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let long = "x".repeat(100_000);
        assert_eq!(write(&mut Gone, &one_line(&long)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
