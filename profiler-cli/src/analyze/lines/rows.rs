//! The rows of line tables. In: the totals of a function, and its source. Out: a [`FunctionLines`]
//! with its [`LineRow`]s and [`CallerRow`]s.

use crate::analyze::function_source::FunctionSource;
use crate::analyze::lines::order::sort_callers;
use crate::analyze::lines::totals::{FunctionKey, FunctionTotals, LineTotals};
use crate::analyze::lines::{CallerRow, FunctionLines, LineRow, LineSelection};
use crate::names::function_name::function_of;
use crate::names::rust_path::last_name;
use crate::source::Sources;
use crate::units::bytes_exactly;

/// Makes the table of a function that was found on stacks.
pub(super) fn table(
    key: &FunctionKey<'_>,
    totals: &FunctionTotals<'_>,
    sources: &dyn Sources,
    selection: &LineSelection,
) -> FunctionLines {
    let callers = selection.callers.then(|| caller_rows(totals));
    let mut totals = totals.clone();
    let lines = |totals: &FunctionTotals<'_>| {
        totals.by_line.keys().copied().filter(|line| *line > 0).collect::<Vec<u32>>()
    };
    let with_events = lines(&totals);
    let (first, last) = (with_events.first().copied().unwrap_or(0), with_events.last().copied().unwrap_or(0));
    let name = last_name(function_of(key.function));
    let source = FunctionSource::of(key.file, sources, name, (first, last));
    let extent = source.extent(name, first, last);
    let (start_line, end_line) = extent.map_or((first, last), |extent| (extent.start, extent.end));
    // Events without a line count at the first line of the function, so that the rows add up to the
    // total.
    if let Some(without_line) = totals.by_line.remove(&0) {
        totals.by_line.entry(start_line).or_default().merge(&without_line);
    }
    let sum = |figure: fn(&LineTotals) -> u64| totals.by_line.values().map(figure).sum::<u64>();
    let (allocated, freed) = (sum(|row| row.allocated), sum(|row| row.freed));
    // If the function was not found in its source, its lines may be far apart: code of a macro has
    // the lines of the macro.
    let gaps = extent.is_some() || end_line - start_line <= MAX_GUESSED_LINES;
    let numbers: Vec<u32> =
        if gaps { (start_line..=end_line).collect() } else { totals.by_line.keys().copied().collect() };
    FunctionLines {
        function: key.function.to_owned(),
        file: key.file.map(str::to_owned),
        own: totals.is_own,
        start_line,
        end_line,
        source: "stacks",
        lines: numbers
            .into_iter()
            .map(|line| line_row(line, totals.by_line.get(&line), source.text(line)))
            .collect(),
        note: source.note,
        increment: allocated.wrapping_sub(freed) as i64,
        allocated,
        freed,
        callers,
    }
}

/// The most lines of a function that was not found in its source for which every line has a row. A
/// longer function has rows only for lines with events.
const MAX_GUESSED_LINES: u32 = 500;

fn line_row(line: u32, row: Option<&LineTotals>, text: Option<String>) -> LineRow {
    LineRow {
        line,
        mem_usage: row.map(|row| row.mem_usage),
        increment: row.map(|row| row.allocated.wrapping_sub(row.freed) as i64),
        occurrences: row.map(|row| row.events),
        allocated: row.map(|row| row.allocated),
        freed: row.map(|row| row.freed),
        count: row.map(|row| row.allocations),
        blocks: row.map(|row| row.blocks),
        peak: row.map(|row| row.peak),
        live: row.map(|row| row.live),
        temporary: row.map(|row| row.temporary),
        short_lived: row.and_then(|row| row.short_lived),
        max_live: row.map(|row| row.max_live),
        text,
        ..LineRow::default()
    }
}

/// Returns the call sites of a function. The call sites that allocated most come first.
pub(super) fn caller_rows(totals: &FunctionTotals<'_>) -> Vec<CallerRow> {
    let mut callers: Vec<CallerRow> = totals
        .callers
        .iter()
        .map(|((key, line), row)| CallerRow {
            function: key.function.to_owned(),
            file: key.file.map(str::to_owned),
            line: *line,
            events: row.events,
            allocated: row.allocated,
            freed: row.freed,
        })
        .collect();
    sort_callers(&mut callers);
    callers
}

/// Adds call sites to a table, which may have some already: stacks may have several instances of
/// one annotated function.
pub(super) fn add_callers(function: &mut FunctionLines, more: Vec<CallerRow>) {
    let callers = function.callers.get_or_insert_default();
    callers.extend(more);
    sort_callers(callers);
}

/// Returns the note under the table of an annotated function of which `outside` bytes were
/// allocated on its stacks and are not in its rows; `None` if there are no such bytes.
///
/// Closures of the function allocated these bytes on other threads, or after the function had
/// returned, so the bytes belong to no activation of the function.
pub(super) fn bytes_outside_note(outside: u64) -> Option<String> {
    (outside > 0).then(|| {
        let outside = bytes_exactly(outside);
        format!(
            "not in these rows: {outside} that closures of it allocated on other threads, or after it had returned"
        )
    })
}
