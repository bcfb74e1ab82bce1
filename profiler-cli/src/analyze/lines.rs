//! Line tables like those of memory_profiler, from annotated functions and from recorded stacks.
//!
//! In: a profile, its named stacks and the sources. Out: [`Lines`].
//!
//! An event counts once for each function on its stack, at the line of the innermost call of that
//! function. So the increments of a function's lines add up to the change of the heap during its
//! calls. Closures belong to the function that they are written in, and instances of a generic
//! function are one function.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::annotated;
use crate::analyze::column::TableOrder;
use crate::analyze::filter::Filter;
use crate::analyze::function_source::FunctionSource;
use crate::analyze::innermost::{OpenCall, on_every_stack};
use crate::names::function_name::{function_of, instance_of};
use crate::names::rust_path::last_name;
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::{Profile, StackStats};
use crate::source::Sources;
use crate::units::bytes_exactly;

/// Line tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lines {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether a filter or a choice of threads left functions or events out.
    pub filtered: bool,
    /// Number of functions that `--top` cut off.
    pub omitted: usize,
    /// One table for each function.
    pub functions: Vec<FunctionLines>,
}

/// The lines of one function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionLines {
    /// Path of the function. Without generic arguments, unless instances are split.
    pub function: String,
    /// Source file of the function. Null if it has no line tables.
    pub file: Option<String>,
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

/// The tables to make, and their order.
#[derive(Clone, Debug, Default)]
pub struct LineSelection {
    /// Whether functions of the runtime have tables as well.
    pub full: bool,
    /// At most this many tables; `None` for all.
    pub top: Option<usize>,
    /// Order of the tables; `None` for the order that [`lines`] describes.
    pub sort: Option<TableOrder>,
    /// Only functions of which some line changed the heap by at least this many bytes, up or down.
    pub min_increment: u64,
    /// Whether each instance of a generic function has a table of its own.
    pub split_generics: bool,
    /// Whether tables have the call sites of their function.
    pub callers: bool,
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
    tables.retain(|(key, rows)| {
        let lines = rows.by_line.keys().copied().filter(|line| *line > 0);
        let function = function_of(key.function);
        let Some(better) = annotated::covering(&functions, function, key.file, lines) else { return true };
        *by_stacks.entry(better).or_default() += rows.allocated();
        if selection.callers {
            add_callers(&mut functions[better], caller_rows(rows));
        }
        false
    });
    for (function, allocated) in by_stacks {
        let table = &mut functions[function];
        let note = table.note.take();
        table.note = note.or_else(|| bytes_outside_note(allocated.saturating_sub(table.allocated)));
    }
    tables.sort_by(|(a_key, a), (b_key, b)| {
        let rank = |key: &FunctionKey<'_>, rows: &FunctionTotals<'_>| {
            (is_from_package(key.file), Reverse(rows.allocated_as_site), Reverse(rows.allocated()))
        };
        rank(a_key, a).cmp(&rank(b_key, b)).then(a_key.cmp(b_key))
    });
    let top = selection.top.unwrap_or(usize::MAX);
    let mut all = functions.len() + tables.len();
    if selection.sort.is_none() && selection.min_increment == 0 {
        // Source is not needed for tables that `top` cuts off.
        tables.truncate(top.saturating_sub(functions.len()));
    }
    functions.extend(tables.iter().map(|(key, rows)| table(key, rows, sources, selection)));
    if selection.min_increment > 0 {
        let enough =
            |row: &LineRow| row.increment.is_some_and(|i| i.unsigned_abs() >= selection.min_increment);
        functions.retain(|function| function.lines.iter().any(enough));
        all = functions.len();
    }
    if let Some(sort) = selection.sort {
        order(&mut functions, sort);
    }
    functions.truncate(top);
    Lines {
        schema: "alloc-tracker/lines/1",
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads || selection.min_increment > 0,
        omitted: all - functions.len(),
        functions,
    }
}

/// Orders tables. Tables with equal keys keep their order.
fn order(functions: &mut [FunctionLines], order: TableOrder) {
    match order {
        TableOrder::Column(column) => {
            functions.sort_by_cached_key(|function| Reverse(column.sum(&function.lines)));
        }
        TableOrder::FunctionName => functions.sort_by(|a, b| a.function.cmp(&b.function)),
    }
}

/// Returns the call sites of a function. The call sites that allocated most come first.
fn caller_rows(rows: &FunctionTotals<'_>) -> Vec<CallerRow> {
    let mut callers: Vec<CallerRow> = rows
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

/// Sorts call sites by the bytes allocated, then by the bytes freed; the largest come first.
fn sort_callers(callers: &mut [CallerRow]) {
    callers.sort_by(|a, b| {
        let rank = |caller: &CallerRow| (Reverse(caller.allocated), Reverse(caller.freed));
        let line_and_events = |caller: &CallerRow| (caller.line, caller.events);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| (&a.function, &a.file).cmp(&(&b.function, &b.file)))
            .then(line_and_events(a).cmp(&line_and_events(b)))
    });
}

/// Returns the note under the table of an annotated function of which `outside` bytes were allocated
/// on its stacks and are not in its rows; `None` if there are no such bytes.
///
/// Closures of the function allocated these bytes on other threads, or after the function had
/// returned, so the bytes belong to no activation of the function.
fn bytes_outside_note(outside: u64) -> Option<String> {
    (outside > 0).then(|| {
        let outside = bytes_exactly(outside);
        format!(
            "not in these rows: {outside} that closures of it allocated on other threads, or after it had returned"
        )
    })
}

/// Adds call sites to a table, which may have some already: stacks may have several instances of
/// one annotated function.
fn add_callers(function: &mut FunctionLines, more: Vec<CallerRow>) {
    let callers = function.callers.get_or_insert_default();
    callers.extend(more);
    sort_callers(callers);
}

/// Identity of a function, with all its closures and, unless instances are split, all its
/// instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FunctionKey<'a> {
    function: &'a str,
    file: Option<&'a str>,
}

/// The figures of one function.
#[derive(Clone, Debug, Default)]
struct FunctionTotals<'a> {
    /// Figures of each line. Line 0 has the events for which the debug info has no line.
    by_line: BTreeMap<u32, LineTotals>,
    /// Bytes allocated on stacks whose site is in the function, so without the bytes that its
    /// callees allocate.
    allocated_as_site: u64,
    /// Figures by the calling function, and by the line of the call in that function.
    callers: HashMap<(FunctionKey<'a>, Option<u32>), LineTotals>,
}

/// The figures of one line, or of one call site, added up over stacks.
#[derive(Clone, Copy, Debug, Default)]
struct LineTotals {
    events: u64,
    allocated: u64,
    freed: u64,
    blocks: i64,
    /// Number of the last event, from 1; 0 without any event.
    last_event: u64,
    /// Live bytes of the process after the last event.
    mem_usage: u64,
    peak: u64,
    live: u64,
    temporary: u64,
}

impl LineTotals {
    /// Adds the figures of a stack.
    fn add(&mut self, stats: &StackStats) {
        self.events += stats.events();
        self.allocated += stats.allocated;
        self.freed += stats.freed;
        self.blocks += stats.allocations as i64 - stats.deallocations as i64;
        self.peak += stats.peak_bytes;
        self.live += stats.live_bytes;
        self.temporary += stats.temporary;
        if stats.last_event > self.last_event {
            (self.last_event, self.mem_usage) = (stats.last_event, stats.live_after_last);
        }
    }

    /// Adds the figures of another line.
    fn merge(&mut self, other: &LineTotals) {
        self.events += other.events;
        self.allocated += other.allocated;
        self.freed += other.freed;
        self.blocks += other.blocks;
        self.peak += other.peak;
        self.live += other.live;
        self.temporary += other.temporary;
        if other.last_event > self.last_event {
            (self.last_event, self.mem_usage) = (other.last_event, other.mem_usage);
        }
    }
}

impl FunctionTotals<'_> {
    fn allocated(&self) -> u64 {
        self.by_line.values().map(|row| row.allocated).sum()
    }
}

/// Adds up the stacks by function and line, for all functions that the filter and `full` select.
fn collect<'a>(
    profile: &Profile,
    stacks: &'a Stacks,
    filter: &Filter,
    full: bool,
    selection: &LineSelection,
) -> HashMap<FunctionKey<'a>, FunctionTotals<'a>> {
    // PERF: each distinct frame is matched with its function once, not once for each stack.
    let mut indices: HashMap<FunctionKey<'a>, usize> = HashMap::default();
    let functions: Vec<Option<usize>> = stacks
        .all_frames()
        .map(|frame| {
            let wanted =
                (full || !frame.is_runtime) && (filter.is_empty() || selects(filter, frame, selection));
            wanted.then(|| {
                let next = indices.len();
                *indices.entry(key_of(frame, selection)).or_insert(next)
            })
        })
        .collect();
    let mut rows = vec![FunctionTotals::default(); indices.len()];
    let is_shown = |frame: FrameId| full || !stacks.frame(frame).is_runtime;
    on_every_stack(stacks, (indices.len(), &functions), is_shown, |stack, running| {
        let stats = profile.stacks.get(stack.0 as usize).filter(|stats| stats.events() > 0);
        let Some(stats) = stats else { return };
        let site = stacks.site(stack);
        for (function, OpenCall { frame, caller }) in running.innermost() {
            let rows = &mut rows[function];
            rows.by_line.entry(stacks.frame(frame).line.unwrap_or(0)).or_default().add(stats);
            rows.allocated_as_site += if Some(frame) == site { stats.allocated } else { 0 };
            if let Some(caller) = caller.filter(|_| selection.callers).map(|caller| stacks.frame(caller)) {
                rows.callers.entry((key_of(caller, selection), caller.line)).or_default().add(stats);
            }
        }
    });
    let tables = indices.into_iter().map(|(key, index)| (key, std::mem::take(&mut rows[index])));
    tables.filter(|(_, rows)| !rows.by_line.is_empty()).collect()
}

fn key_of<'a>(frame: &'a NamedFrame, selection: &LineSelection) -> FunctionKey<'a> {
    let function = if selection.split_generics { instance_of } else { function_of };
    FunctionKey { function: function(&frame.function), file: frame.file.as_deref() }
}

/// Whether a filter selects the function of a frame. In line tables the patterns apply to the
/// function itself, not to any frame of its stacks. If instances are split, a pattern may name the
/// function or an instance of it.
fn selects(filter: &Filter, frame: &NamedFrame, selection: &LineSelection) -> bool {
    let accepts = |name: &str| filter.accepts_name(name, frame.file.as_deref());
    accepts(function_of(&frame.function)) || selection.split_generics && accepts(instance_of(&frame.function))
}

/// Makes the table of a function that was found on stacks.
fn table(
    key: &FunctionKey<'_>,
    rows: &FunctionTotals<'_>,
    sources: &dyn Sources,
    selection: &LineSelection,
) -> FunctionLines {
    let callers = selection.callers.then(|| caller_rows(rows));
    let mut rows = rows.clone();
    let lines = |rows: &FunctionTotals<'_>| {
        rows.by_line.keys().copied().filter(|line| *line > 0).collect::<Vec<u32>>()
    };
    let with_events = lines(&rows);
    let (first, last) = (with_events.first().copied().unwrap_or(0), with_events.last().copied().unwrap_or(0));
    let name = last_name(function_of(key.function));
    let source = FunctionSource::of(key.file, sources, name, (first, last));
    let extent = source.extent(name, first, last);
    let (start_line, end_line) = extent.map_or((first, last), |extent| (extent.start, extent.end));
    // Events without a line count at the first line of the function, so that the rows add up to the
    // total.
    if let Some(without_line) = rows.by_line.remove(&0) {
        rows.by_line.entry(start_line).or_default().merge(&without_line);
    }
    let sum = |figure: fn(&LineTotals) -> u64| rows.by_line.values().map(figure).sum::<u64>();
    let (allocated, freed) = (sum(|row| row.allocated), sum(|row| row.freed));
    // If the function was not found in its source, its lines may be far apart: code of a macro has
    // the lines of the macro.
    let gaps = extent.is_some() || end_line - start_line <= MAX_GUESSED_LINES;
    let numbers: Vec<u32> =
        if gaps { (start_line..=end_line).collect() } else { rows.by_line.keys().copied().collect() };
    FunctionLines {
        function: key.function.to_owned(),
        file: key.file.map(str::to_owned),
        start_line,
        end_line,
        source: "stacks",
        lines: numbers
            .into_iter()
            .map(|line| line_row(line, rows.by_line.get(&line), source.text(line)))
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
        blocks: row.map(|row| row.blocks),
        peak: row.map(|row| row.peak),
        live: row.map(|row| row.live),
        temporary: row.map(|row| row.temporary),
        text,
        ..LineRow::default()
    }
}

/// Whether a file belongs to a package from a registry or from cargo's git cache, or came with the
/// compiler. A function without file counts as one of a package.
pub(super) fn is_from_package(file: Option<&str>) -> bool {
    file.is_none_or(|file| {
        file.contains("/registry/src/") || file.contains("/git/checkouts/") || file.starts_with("/rustc/")
    })
}
