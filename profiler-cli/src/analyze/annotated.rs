//! Line tables of annotated functions, which report their lines. In: a profile, its named stacks
//! and the sources. Out: [`FunctionLines`], in which an occurrence is one execution of the line.

use std::cmp::Reverse;

use crate::analyze::filter::Filter;
use crate::analyze::function_source::FunctionSource;
use crate::analyze::lines::{FunctionLines, LineRow};
use crate::names::function_name::function_of;
use crate::names::rust_path::{crate_of, last_name};
use crate::names::stacks::{NamedFrame, Stacks};
use crate::profile::{Annotated, AnnotatedLine, Profile};
use crate::source::Sources;

/// Makes a table for each annotated function that ran and that the filter accepts. The functions
/// that allocated most come first.
pub(super) fn tables(
    profile: &Profile,
    stacks: &Stacks,
    sources: &dyn Sources,
    filter: &Filter,
) -> Vec<FunctionLines> {
    let ran = profile.annotated.iter().filter(|function| !function.lines.is_empty());
    let mut tables: Vec<FunctionLines> = ran
        .map(|function| (function, file_of(function, stacks)))
        .filter(|(function, file)| filter.accepts_name(&function.name, Some(file)))
        .map(|(function, file)| table(function, file, sources))
        .collect();
    tables.sort_by(|a, b| {
        (Reverse(a.allocated), &a.function, a.start_line).cmp(&(
            Reverse(b.allocated),
            &b.function,
            b.start_line,
        ))
    });
    tables
}

/// Returns the index of the table of a function that recorded stacks have in this file at these
/// lines; `None` if the function is not annotated.
pub(super) fn covering(
    tables: &[FunctionLines],
    function: &str,
    file: Option<&str>,
    lines: impl Iterator<Item = u32> + Clone,
) -> Option<usize> {
    // The code that frees the arguments has the line of the attribute, which is above the first
    // line of the function.
    let is_at_attribute = |table: &FunctionLines| {
        table.function == function && lines.clone().all(|line| line <= table.end_line)
    };
    let has_lines = |table: &FunctionLines| {
        let extent = table.start_line..=table.end_line;
        lines.clone().any(|line| extent.contains(&line)) || is_at_attribute(table)
    };
    tables.iter().position(|table| {
        // Without line tables, only the name of the function is known.
        let Some(file) = file else { return table.function == function };
        table.file.as_deref() == Some(file)
            && last_name(&table.function) == last_name(function)
            && has_lines(table)
    })
}

/// Returns the path of a function's file as the debug info has it. If no frame is in that file,
/// returns the path as the function reports it.
///
/// An annotated function reports the path that was given to the compiler. Mostly it is relative to
/// a folder that only the debug info names. So the stacks are searched for a file whose path ends
/// in it.
fn file_of(function: &Annotated, stacks: &Stacks) -> String {
    if function.file.starts_with('/') {
        return function.file.clone();
    }
    let suffix = format!("/{}", function.file.trim_start_matches("./"));
    // Every package has a `src/lib.rs`, so the crate must be the same too.
    let fits = |frame: &&NamedFrame| {
        frame.file.as_deref().is_some_and(|file| file.ends_with(&suffix))
            && crate_of(&frame.function) == crate_of(&function.name)
    };
    let is_function = |frame: &&NamedFrame| {
        last_name(function_of(&frame.function)) == last_name(&function.name)
            && frame.line.is_some_and(|line| (function.start_line..=function.end_line).contains(&line))
    };
    let frame = stacks.all_frames().filter(fits).find(is_function).or_else(|| stacks.all_frames().find(fits));
    frame.and_then(|frame| frame.file.as_deref()).unwrap_or(&function.file).to_owned()
}

fn table(function: &Annotated, path: String, sources: &dyn Sources) -> FunctionLines {
    let extent = (function.start_line, function.end_line);
    let source = FunctionSource::of(Some(&path), sources, last_name(&function.name), extent);
    let sum =
        |figure: fn(&AnnotatedLine) -> u64| function.lines.values().map(figure).fold(0, u64::saturating_add);
    let (allocated, freed) = (sum(|line| line.allocated), sum(|line| line.freed));
    // NOTE: the dump is not trusted. It may claim that a function has a billion lines, or report
    // lines that lie outside of the function.
    let whole = function.end_line - function.start_line <= MAX_LINES;
    let inside = function.start_line..=function.end_line;
    let gaps = inside.clone().filter(|_| whole).filter(|line| !function.lines.contains_key(line));
    let mut numbers: Vec<u32> =
        gaps.take(MAX_LINES as usize + 1).chain(function.lines.keys().copied()).collect();
    numbers.sort_unstable();
    let row = |line: u32| row(line, function.lines.get(&line), source.text(line));
    FunctionLines {
        function: function.name.clone(),
        file: Some(path),
        own: true,
        start_line: function.start_line,
        end_line: function.end_line,
        source: "annotation",
        lines: numbers.into_iter().map(row).collect(),
        note: source.note,
        increment: allocated.wrapping_sub(freed) as i64,
        allocated,
        freed,
        callers: None,
    }
}

/// The most lines of a function for which every line has a row. A longer function has rows only for
/// lines that ran.
const MAX_LINES: u32 = 20_000;

fn row(line: u32, figures: Option<&AnnotatedLine>, text: Option<String>) -> LineRow {
    LineRow {
        line,
        mem_usage: figures.map(|line| line.mem_usage),
        increment: figures.map(|line| line.allocated.wrapping_sub(line.freed) as i64),
        occurrences: figures.map(|line| line.occurrences),
        allocated: figures.map(|line| line.allocated),
        freed: figures.map(|line| line.freed),
        count: figures.map(|line| line.allocations),
        blocks: figures.map(|line| line.blocks),
        max: figures.map(|line| line.max),
        time_ns: figures.map(|line| line.time_us.saturating_mul(1000)),
        peak: figures.and_then(|line| line.peak),
        live: figures.and_then(|line| line.live),
        temporary: figures.and_then(|line| line.temporary),
        short_lived: figures.and_then(|line| line.short_lived),
        max_live: figures.and_then(|line| line.max_live),
        rss: figures.and_then(|line| line.rss),
        minor_faults: figures.and_then(|line| line.minor_faults),
        major_faults: figures.and_then(|line| line.major_faults),
        text,
    }
}
