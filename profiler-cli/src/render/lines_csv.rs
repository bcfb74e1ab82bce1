//! Line tables as CSV (RFC 4180): a row for each line of each function, empty where a line has no figure.

use std::io::{self, Write};

use serde::Serialize;

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
                function: &function.function,
                file: function.file.as_deref(),
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
                text: line.text.as_deref(),
            })
            .map_err(io::Error::other)?;
        }
    }
    out.flush()
}

#[derive(Serialize)]
struct Row<'a> {
    function: &'a str,
    file: Option<&'a str>,
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
    text: Option<&'a str>,
}
