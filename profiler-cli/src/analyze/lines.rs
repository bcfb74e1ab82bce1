//! Line tables like those of memory_profiler, from annotated functions and from recorded stacks.
//!
//! In: a profile, its named stacks and the sources. Out: [`Lines`]. This file has the tables and
//! the whole way to them; `selection` chooses the functions, `totals` adds up their stacks, `order`
//! sorts the tables, and `rows` makes them.
//!
//! An event counts once for each function on its stack, at the line of the innermost call of that
//! function. So the increments of a function's lines add up to the change of the heap during its
//! calls. Closures belong to the function that they are written in, and instances of a generic
//! function are one function.

mod order;
mod rows;
mod selection;
mod totals;

use std::collections::BTreeMap;

use serde::Serialize;

use self::order::{compare_functions, sort_tables};
use self::rows::{add_callers, bytes_outside_note, caller_rows, table};
use self::totals::{FunctionKey, FunctionTotals, collect};
use crate::analyze::annotated;
use crate::analyze::filter::Filter;
use crate::analyze::interval::CountedInterval;
use crate::analyze::source_paths::SourcePaths;
use crate::names::function_name::function_of;
use crate::names::stacks::Stacks;
use crate::profile::Profile;
use crate::source::Sources;

pub use self::selection::LineSelection;

/// Line tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lines {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Whether a filter or a choice of threads left functions or events out.
    pub filtered: bool,
    /// Number of functions that `--top` cut off.
    pub omitted: usize,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// One table for each function.
    pub functions: Vec<FunctionLines>,
}

/// The lines of one function.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FunctionLines {
    /// Path of the function. Without generic arguments, unless instances are split.
    pub function: String,
    /// Source file of the function. Null if it has no line tables.
    pub file: Option<String>,
    /// Whether the function is the user's own code, and not that of a dependency or the runtime.
    pub own: bool,
    /// First line of the table.
    pub start_line: u32,
    /// Last line of the table.
    pub end_line: u32,
    /// Origin of the figures: `annotation` if the function itself has reported its lines, `stacks`
    /// if the lines are those of frames on the recorded stacks of heap events.
    pub source: &'static str,
    /// A sentence that says why the source text is missing or may be wrong, or which bytes the rows
    /// leave out. Null if there is nothing to say.
    pub note: Option<String>,
    /// Sum of the increments of all lines, in bytes.
    pub increment: i64,
    /// Bytes allocated at all lines.
    pub allocated: u64,
    /// Bytes freed at all lines.
    pub freed: u64,
    /// One row for each source line. Figures are null for lines that had no heap event, or were
    /// never reached.
    pub lines: Vec<LineRow>,
    /// The call sites of the function, for calls during which the heap changed. The call sites that
    /// allocated most come first. Null unless callers were asked for. Also null for an annotated
    /// function that is on no recorded stack.
    pub callers: Option<Vec<CallerRow>>,
}

/// One call site of a function, with the heap events during the calls from there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallerRow {
    /// Path of the calling function. Without generic arguments, unless instances are split.
    pub function: String,
    /// Source file of the calling function. Null if it is not known.
    pub file: Option<String>,
    /// Line of the call. Null if it is not known.
    pub line: Option<u32>,
    /// Number of heap events during the calls.
    pub events: u64,
    /// Bytes allocated during the calls.
    pub allocated: u64,
    /// Bytes freed during the calls.
    pub freed: u64,
}

/// The figures of one source line. Bytes of blocks are the sizes that the program asked for. All
/// figures are null for a line that had no heap event, or was never reached. JSON has them in the
/// order of [`COLUMNS`](crate::analyze::column::COLUMNS).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineRow {
    /// Number of the line; the first line of a file is 1.
    pub line: u32,
    /// Live bytes of the whole process when the line was last left; from stacks, after the last
    /// heap event of the line.
    pub mem_usage: Option<u64>,
    /// Bytes allocated minus bytes freed.
    pub increment: Option<i64>,
    /// How often the line was reached; from stacks, the number of its heap events.
    pub occurrences: Option<u64>,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated: Option<u64>,
    /// Bytes freed, old sizes of reallocations included.
    pub freed: Option<u64>,
    /// Number of allocations, without reallocations.
    pub count: Option<u64>,
    /// Blocks allocated minus blocks freed.
    pub blocks: Option<i64>,
    /// The most live bytes of the whole process at any of the times when the line was left. Null
    /// from stacks.
    pub max: Option<u64>,
    /// Nanoseconds of wall time that were spent at the line, good to a microsecond for each time
    /// that it was reached. Null from stacks.
    pub time_ns: Option<u64>,
    /// Bytes of the blocks that got their present size at the line and were live at the global
    /// peak. Like the next two figures also null if an annotated function ran at too many
    /// combinations of lines to tell them apart.
    pub peak: Option<u64>,
    /// Bytes of the blocks that got their present size at the line and are live at the end.
    pub live: Option<u64>,
    /// Number of blocks that were allocated at the line and freed by the next heap event of their
    /// thread.
    pub temporary: Option<u64>,
    /// Number of blocks that got their last size at the line and were short-lived.
    pub short_lived: Option<u64>,
    /// The most bytes of blocks that had got their size at the line and were live at one time. From
    /// stacks, an upper bound: the sum of what each stack of the line held at most, which is exact
    /// if there is one.
    pub max_live: Option<u64>,
    /// Bytes by which the resident memory of the process changed at the line. Null from stacks, or
    /// if it was not recorded.
    pub rss: Option<i64>,
    /// Number of minor page faults of the thread at the line. Null from stacks, or if it was not
    /// recorded.
    pub minor_faults: Option<u64>,
    /// Number of major page faults of the thread at the line. Null from stacks, or if it was not
    /// recorded.
    pub major_faults: Option<u64>,
    /// Source text of the line. Null if the source is not at hand.
    pub text: Option<String>,
}

/// Makes a table for every annotated function that ran, and for every other function of the user's
/// own code that has heap events. The filter selects among these functions.
///
/// Functions of the runtime have tables only with `full`, or if the filter selects no other
/// function. Annotated functions come first, then the user's other functions, then those of
/// packages from a registry. Within the last two groups, functions are ordered by the bytes that
/// they allocate themselves, without their callees; the largest come first.
pub fn lines(
    profile: &Profile,
    stacks: &Stacks,
    sources: &dyn Sources,
    filter: &Filter,
    selection: &LineSelection,
) -> Lines {
    let mut functions = annotated::tables(profile, stacks, sources, filter);
    let mut found = collect(profile, stacks, filter, selection.full, selection);
    if found.is_empty() && functions.is_empty() && !filter.is_empty() {
        found = collect(profile, stacks, filter, true, selection);
    }
    // A function has one table. A table of its annotation replaces the table of its stacks.
    let mut tables: Vec<(FunctionKey<'_>, FunctionTotals<'_>)> = found.into_iter().collect();
    tables.sort_by_key(|(key, _)| *key);
    let mut by_stacks: BTreeMap<usize, u64> = BTreeMap::new();
    tables.retain(|(key, totals)| {
        let lines = totals.by_line.keys().copied().filter(|line| *line > 0);
        let function = function_of(key.function);
        let Some(better) = annotated::covering(&functions, function, key.file, lines) else { return true };
        *by_stacks.entry(better).or_default() += totals.allocated();
        if selection.callers {
            add_callers(&mut functions[better], caller_rows(totals));
        }
        false
    });
    for (function, allocated) in by_stacks {
        let table = &mut functions[function];
        let note = table.note.take();
        table.note = note.or_else(|| bytes_outside_note(allocated.saturating_sub(table.allocated)));
    }
    tables.sort_by(compare_functions);
    let top = selection.top.unwrap_or(usize::MAX);
    let mut all = functions.len() + tables.len();
    if selection.sort.is_none() && selection.min_increment == 0 {
        // Source is not needed for tables that `top` cuts off.
        tables.truncate(top.saturating_sub(functions.len()));
    }
    functions.extend(tables.iter().map(|(key, totals)| table(key, totals, sources, selection)));
    if selection.min_increment > 0 {
        functions.retain(|function| selection.has_enough_increment(function));
        all = functions.len();
    }
    if let Some(order) = selection.sort {
        sort_tables(&mut functions, order);
    }
    functions.truncate(top);
    let paths = SourcePaths::of(profile, stacks);
    functions.iter_mut().for_each(|function| shorten_paths(function, &paths));
    Lines {
        schema: "alloc-tracker/lines/1",
        complete: profile.trust.is_complete(),
        interval: CountedInterval::of(profile),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads || selection.min_increment > 0,
        omitted: all - functions.len(),
        source_root: paths.root(),
        functions,
    }
}

/// Makes the paths of a table those that reports show.
fn shorten_paths(function: &mut FunctionLines, paths: &SourcePaths) {
    let callers = function.callers.iter_mut().flatten().map(|caller| &mut caller.file);
    for file in callers.chain([&mut function.file]).flatten() {
        *file = paths.shown(file).to_owned();
    }
}
