//! Line tables as CSV (RFC 4180): a row for each line of each function, empty where a line has no figure.

use std::io::{self, Write};

use serde::Serialize;

use super::{Cell, csv_cause};
use crate::analyze::lines::Lines;

/// Writes all tables as one, with a header.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    for function in &lines.functions {
        for line in &function.lines {
            out.serialize(Row {
                function: Cell(&function.function),
                file: function.file.as_deref().map(Cell),
                source: function.source,
                line: line.line,
                mem_usage: line.mem_usage,
                increment: line.increment,
                occurrences: line.occurrences,
                allocated: line.allocated,
                freed: line.freed,
                blocks: line.blocks,
                max: line.max,
                time_ns: line.time_ns,
                peak: line.peak,
                live: line.live,
                temporary: line.temporary,
                rss: line.rss,
                minor_faults: line.minor_faults,
                major_faults: line.major_faults,
                text: line.text.as_deref().map(Cell),
            })
            .map_err(csv_cause)?;
        }
    }
    out.flush()
}

#[derive(Serialize)]
struct Row<'a> {
    function: Cell<'a>,
    file: Option<Cell<'a>>,
    source: &'a str,
    line: u32,
    mem_usage: Option<u64>,
    increment: Option<i64>,
    occurrences: Option<u64>,
    allocated: Option<u64>,
    freed: Option<u64>,
    blocks: Option<i64>,
    max: Option<u64>,
    time_ns: Option<u64>,
    peak: Option<u64>,
    live: Option<u64>,
    temporary: Option<u64>,
    rss: Option<i64>,
    minor_faults: Option<u64>,
    major_faults: Option<u64>,
    text: Option<Cell<'a>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::lines::{FunctionLines, LineRow};

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
        Lines { schema: "", complete: true, filtered: false, omitted: 0, functions: vec![function] }
    }

    #[test]
    fn text_is_quoted_and_missing_figures_are_empty() {
        let mut out = Vec::new();
        write(&mut out, &one_line("g(\"a, b\")")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().nth(1), Some("f,,stacks,7,10,-3,,,,,,,,,,,,,\"g(\"\"a, b\"\")\""));
    }

    #[test]
    fn a_reader_that_has_gone_away_is_told_from_other_failures() {
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
