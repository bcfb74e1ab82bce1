//! Line tables as one HTML file: the source text, with heat on the lines. In: [`Lines`]. Out: a
//! page in the shell of `render::html`. No name and no source text may ever become markup.

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use super::escape::{BreakablePath, Html};
use super::html::Page;
use crate::analyze::column::{COLUMNS, FigureKind, LineColumn};
use crate::analyze::lines::{FunctionLines, LineRow, Lines};
use crate::names::rust_path::split_name;
use crate::units::{bytes, count, more};

/// Writes the page. `command` is the command line of the recorded program.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, lines: &Lines, command: &str) -> io::Result<()> {
    let page = Page {
        title: &format!("Memory by line: {command}"),
        content_id: "tables",
        content_name: "the tables",
    };
    page.write(out, |out| write_body(out, lines, command))
}

fn write_body(out: &mut dyn Write, lines: &Lines, command: &str) -> io::Result<()> {
    write_navigation(out, &lines.functions)?;
    writeln!(out, "<main id=\"tables\" tabindex=\"-1\">\n<header>\n<h1>Memory by line</h1>")?;
    writeln!(out, "<p><code>{}</code></p>", Html(command))?;
    if let Some(interval) = &lines.interval {
        let name = interval.name();
        writeln!(out, "<p>Interval: {}; peak and live are those of the interval</p>", Html(&name))?;
    }
    if !lines.complete {
        writeln!(out, "<p class=\"warning\">The recording is not complete: see the summary.</p>")?;
    }
    write_switches(out)?;
    writeln!(out, "</header>")?;
    if lines.functions.is_empty() && lines.omitted == 0 {
        writeln!(out, "<p>{}</p>", super::no_function(lines))?;
    }
    for (function, number) in lines.functions.iter().zip(1..) {
        write_function(out, function, number)?;
    }
    if lines.omitted > 0 {
        writeln!(
            out,
            "<p class=\"omitted\">{}; <code>--top {}</code> shows all, <code>--function</code> picks.</p>",
            more(lines.omitted as u64, "function"),
            lines.functions.len() + lines.omitted
        )?;
    }
    writeln!(out, "</main>")
}

/// Writes the list of functions, with a link to each table.
fn write_navigation(out: &mut dyn Write, functions: &[FunctionLines]) -> io::Result<()> {
    writeln!(
        out,
        "<nav aria-label=\"Functions\">\n<h2>Functions</h2>\n\
         <div id=\"filtering\" hidden><label for=\"filter\">Filter</label> \
         <input id=\"filter\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\"> \
         <span id=\"found\" role=\"status\"></span></div>\n<ol>"
    )?;
    for (function, number) in functions.iter().zip(1..) {
        let (path, name) = split_name(&function.function);
        writeln!(
            out,
            "<li><a href=\"#f{number}\"><span class=\"name\">{}<b>{}</b></span> \
             <span class=\"figures\"><span class=\"{}\">{}</span>, {} allocated</span></a></li>",
            BreakablePath(path),
            Html(name),
            direction(function.increment),
            FigureKind::ByteChange.show(function.increment.into()),
            bytes(function.allocated)
        )?;
    }
    writeln!(out, "</ol>\n</nav>")
}

/// Writes the switches. They are checkboxes that the style reads, so they work without a script.
/// `autocomplete` is off, because some browsers restore the state of a checkbox after a reload
/// without showing it.
fn write_switches(out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<p class=\"switches\"><input id=\"more\" type=\"checkbox\" autocomplete=\"off\"><label for=\"more\">More columns</label>\n\
         <input id=\"theme\" type=\"checkbox\" autocomplete=\"off\"><label for=\"theme\">Other theme</label>\n\
         <button id=\"show-keys\" type=\"button\" hidden>Keys <kbd>?</kbd></button></p>\n\
         <details>\n<summary>What the columns mean</summary>\n<dl>"
    )?;
    for column in COLUMNS {
        writeln!(out, "<dt>{}</dt><dd>{}</dd>", column.title, column.help)?;
    }
    writeln!(
        out,
        "</dl>\n<p>An empty cell: the line had no heap event, or was never reached. The stronger the colour of a line and \
         the wider the bar below its increment, the closer it comes to the largest of its function; + is growth, - is release.</p>\n</details>"
    )
}

fn write_function(out: &mut dyn Write, function: &FunctionLines, number: usize) -> io::Result<()> {
    let shown: Vec<&LineColumn> =
        COLUMNS.iter().filter(|column| column.has_figures(&function.lines)).collect();
    let (path, name) = split_name(&function.function);
    writeln!(
        out,
        "<section id=\"f{number}\" aria-labelledby=\"f{number}-name\">\n<div class=\"about\">\n\
         <h2 id=\"f{number}-name\"><a href=\"#f{number}\">{}<b>{}</b></a></h2>",
        BreakablePath(path),
        Html(name)
    )?;
    if let Some(file) = &function.file {
        writeln!(out, "<p class=\"file\">{}:{}</p>", Html(file), function.start_line)?;
    }
    let source = match function.source {
        "annotation" => "annotation (Occurrences counts how often a line was reached)",
        _ => "recorded stacks (Occurrences counts heap events, not executions)",
    };
    writeln!(out, "<p>Source: {source}</p>")?;
    if let Some(note) = &function.note {
        writeln!(out, "<p class=\"warning\">Note: {}</p>", Html(note))?;
    }
    writeln!(out, "</div>\n<table>\n<caption>")?;
    writeln!(
        out,
        "Sum: <b class=\"{}\">{}</b>, {} B allocated, {} B freed",
        direction(function.increment),
        FigureKind::ByteChange.show(function.increment.into()),
        count(function.allocated),
        count(function.freed)
    )?;
    write!(out, "</caption>\n<thead><tr><th scope=\"col\">Line #</th>")?;
    for column in &shown {
        let (class, title) = (class(column), column.help);
        write!(out, "<th scope=\"col\"{class} title=\"{title}\">{}</th>", column.title)?;
    }
    writeln!(out, "<th scope=\"col\" class=\"source\">Line contents</th></tr></thead>\n<tbody>")?;
    let increments = function.lines.iter().filter_map(|row| row.increment.map(i64::unsigned_abs));
    let largest = increments.max().unwrap_or(0);
    for row in &function.lines {
        write_row(out, row, number, &shown, largest)?;
    }
    writeln!(out, "</tbody>\n</table>\n</section>")
}

fn write_row(
    out: &mut dyn Write,
    row: &LineRow,
    function: usize,
    columns: &[&LineColumn],
    largest: u64,
) -> io::Result<()> {
    let id = format!("f{function}-L{}", row.line);
    let increment = row.increment.unwrap_or(0);
    match heat(increment, largest) {
        0 => write!(out, "<tr id=\"{id}\">")?,
        steps => write!(out, "<tr id=\"{id}\" class=\"{} h{steps}\">", direction(increment))?,
    }
    // The Tab key skips lines without figures.
    let silent = if row.increment.is_none() { " tabindex=\"-1\"" } else { "" };
    write!(out, "<th scope=\"row\"><a href=\"#{id}\"{silent}>{}</a></th>", row.line)?;
    for column in columns {
        let class = class(column);
        let Some(figure) = (column.figure)(row) else {
            write!(out, "<td{class}></td>")?;
            continue;
        };
        let text = column.kind.show(figure);
        match column.kind.show_exactly(figure).filter(|exact| *exact != text) {
            Some(exact) => write!(out, "<td{class} title=\"{exact}\">{text}</td>")?,
            None => write!(out, "<td{class}>{text}</td>")?,
        }
    }
    writeln!(out, "<td class=\"source\">{}</td></tr>", Html(row.text.as_deref().unwrap_or_default()))
}

/// Returns the class attribute by which the style knows the cells of a column.
fn class(column: &LineColumn) -> &'static str {
    match (column.kind, column.is_usual) {
        (FigureKind::ByteChange, true) => " class=\"heat\"",
        (_, true) => "",
        (_, false) => " class=\"more\"",
    }
}

/// Returns the heat of a line: the share that its increment has of the largest one of the function,
/// in [`HEAT_STEPS`] and rounded up, so that only an increment of 0 has no heat.
fn heat(increment: i64, largest: u64) -> u64 {
    let share = u128::from(increment.unsigned_abs()) * u128::from(HEAT_STEPS);
    u64::try_from(share.div_ceil(u128::from(largest.max(1)))).unwrap_or(HEAT_STEPS).min(HEAT_STEPS)
}

/// Steps of heat. The style has a class for each step, because style attributes would need a laxer
/// content security policy.
const HEAT_STEPS: u64 = 20;

/// Returns the class by which the style colours an increment.
fn direction(increment: i64) -> &'static str {
    match increment {
        1.. => "growth",
        0 => "level",
        _ => "release",
    }
}
