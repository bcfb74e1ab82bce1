//! memory_profiler's table, from functions that report their lines and from recorded stacks. In: a profile, its stacks and the sources. Out: [`Lines`].
//!
//! An event counts once for each function on its stack, at the line where the innermost activation of that function
//! stood: so the increments of a function's lines add up to what the heap changed by during its calls. Closures
//! belong to the function that they are written in, and instances of a generic function are one function.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::annotated;
use crate::analyze::column::TableOrder;
use crate::analyze::filter::Filter;
use crate::analyze::innermost::{Activation, on_every_stack};
use crate::names::function_name::{function_of, instance_of};
use crate::names::stacks::{FrameId, NamedFrame, Stacks};
use crate::profile::{Profile, StackStats};
use crate::source::{SourceText, Sources};
use crate::units::bytes_exactly;

/// Line tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lines {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether only some functions, or some threads, were asked for.
    pub filtered: bool,
    /// Functions that `--top` cut off.
    pub omitted: usize,
    /// One table for each function.
    pub functions: Vec<FunctionLines>,
}

/// The lines of one function.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionLines {
    /// Its name, without generic arguments.
    pub function: String,
    /// Its source file; null if it has no line tables.
    pub file: Option<String>,
    /// First line of the table.
    pub start_line: u32,
    /// Last line of the table.
    pub end_line: u32,
    /// Where the figures come from: `annotation`, what the function itself has reported; `stacks`, the recorded stacks of
    /// heap events.
    pub source: &'static str,
    /// What is the matter with the source text; null if nothing is.
    pub note: Option<String>,
    /// Sum of the increments of all lines.
    pub increment: i64,
    /// Sum of the bytes allocated.
    pub allocated: u64,
    /// Sum of the bytes freed.
    pub freed: u64,
    /// One row for each source line; figures are null for lines that had no heap event.
    pub lines: Vec<LineRow>,
    /// From where it was called when the heap changed, those first that allocated most; null if nobody asked.
    pub callers: Option<Vec<CallerRow>>,
}

/// One place that a function was called from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallerRow {
    /// The function that calls, without generic arguments.
    pub function: String,
    /// Its source file, if known.
    pub file: Option<String>,
    /// The line of the call, if known.
    pub line: Option<u32>,
    /// Heap events within.
    pub events: u64,
    /// Bytes allocated within.
    pub allocated: u64,
    /// Bytes freed within.
    pub freed: u64,
}

/// Which tables are made, and in which order.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Functions of the runtime as well.
    pub full: bool,
    /// At most so many.
    pub top: Option<usize>,
    /// The order of the tables.
    pub sort: Option<TableOrder>,
    /// Only functions of which a line has changed the heap by this many bytes.
    pub min_increment: u64,
    /// Each instance of a generic function by itself.
    pub split_generics: bool,
    /// Tell from where they were called.
    pub callers: bool,
}

/// One source line. Bytes are those that were asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineRow {
    /// Its number.
    pub line: u32,
    /// Live bytes of the whole process when the line was last left; from stacks, after the line's last heap event.
    pub mem_usage: Option<u64>,
    /// Bytes allocated minus bytes freed.
    pub increment: Option<i64>,
    /// How often the line was reached; from stacks, its heap events.
    pub occurrences: Option<u64>,
    /// Bytes allocated, new sizes of reallocations included.
    pub allocated: Option<u64>,
    /// Bytes freed, old sizes of reallocations included.
    pub freed: Option<u64>,
    /// Blocks allocated minus blocks freed.
    pub blocks: Option<i64>,
    /// The most live bytes of the whole process at any of the times when the line was left; null from stacks.
    pub max: Option<u64>,
    /// Wall time spent at the line, good to a microsecond for each time; null from stacks.
    pub time_ns: Option<u64>,
    /// Bytes of the blocks that got their present size there and were live at the global peak.
    pub peak: Option<u64>,
    /// Bytes of the blocks that got their present size there and are live at the end.
    pub live: Option<u64>,
    /// Blocks that were allocated there and freed by the next heap event of their thread.
    pub temporary: Option<u64>,
    /// By how much the resident memory of the process has changed meanwhile; null from stacks, or if it was not recorded.
    pub rss: Option<i64>,
    /// Minor page faults of the thread meanwhile; null likewise.
    pub minor_faults: Option<u64>,
    /// Major page faults of the thread meanwhile; null likewise.
    pub major_faults: Option<u64>,
    /// The source text; null where there is none.
    pub text: Option<String>,
}

/// Makes the tables: of every function of the user's that has heap events and that the filter selects. Functions of
/// the runtime are among them only with `full`, or if the filter selects no others. Functions of packages from a
/// registry come after all others; within both, those that allocate most by themselves come first.
pub fn lines(
    profile: &Profile,
    stacks: &Stacks,
    sources: &dyn Sources,
    filter: &Filter,
    selection: &Selection,
) -> Lines {
    let mut functions = annotated::tables(profile, stacks, sources, filter);
    let mut found = collect(profile, stacks, filter, selection.full, selection);
    if found.is_empty() && functions.is_empty() && !filter.is_empty() {
        found = collect(profile, stacks, filter, true, selection);
    }
    // One table for each function: the better one.
    let mut tables: Vec<(Key<'_>, Rows<'_>)> = found.into_iter().collect();
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
        note_what_is_outside(&mut functions[function], allocated);
    }
    tables.sort_by(|(a_key, a), (b_key, b)| {
        let rank = |key: &Key<'_>, rows: &Rows<'_>| {
            (is_foreign(key.file), Reverse(rows.allocated_as_site), Reverse(rows.allocated()))
        };
        rank(a_key, a).cmp(&rank(b_key, b)).then(a_key.cmp(b_key))
    });
    let top = selection.top.unwrap_or(usize::MAX);
    let mut all = functions.len() + tables.len();
    if selection.sort.is_none() && selection.min_increment == 0 {
        // Whatever will not be shown needs no source.
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
        complete: profile.trust.complete(),
        filtered: !filter.is_empty() || profile.some_threads || selection.min_increment > 0,
        omitted: all - functions.len(),
        functions,
    }
}

/// Orders tables. Tables that are equal keep their order.
fn order(functions: &mut [FunctionLines], order: TableOrder) {
    match order {
        TableOrder::Column(column) => {
            functions.sort_by_cached_key(|function| Reverse(column.sum(&function.lines)));
        }
        TableOrder::FunctionName => functions.sort_by(|a, b| a.function.cmp(&b.function)),
    }
}

/// The places that a function was called from.
fn caller_rows(rows: &Rows<'_>) -> Vec<CallerRow> {
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

/// Those first that allocated most.
fn sort_callers(callers: &mut [CallerRow]) {
    callers.sort_by(|a, b| {
        let rank = |caller: &CallerRow| (Reverse(caller.allocated), Reverse(caller.freed));
        let place = |caller: &CallerRow| (caller.line, caller.events);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| (&a.function, &a.file).cmp(&(&b.function, &b.file)))
            .then(place(a).cmp(&place(b)))
    });
}

/// What a function's closures do on other threads, or after it has returned, belongs to no activation of it.
fn note_what_is_outside(function: &mut FunctionLines, allocated_by_stacks: u64) {
    let more = allocated_by_stacks.saturating_sub(function.allocated);
    if more > 0 && function.note.is_none() {
        let more = bytes_exactly(more);
        function.note = Some(format!(
            "not in these rows: {more} that closures of it allocated on other threads, or after it had returned"
        ));
    }
}

/// Instances of one function may have been found apart.
fn add_callers(function: &mut FunctionLines, more: Vec<CallerRow>) {
    let callers = function.callers.get_or_insert_default();
    callers.extend(more);
    sort_callers(callers);
}

/// A function: all its instances and closures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key<'a> {
    function: &'a str,
    file: Option<&'a str>,
}

/// Figures by line; line 0 has what the debug info gives no line for.
#[derive(Clone, Debug, Default)]
struct Rows<'a> {
    by_line: BTreeMap<u32, Row>,
    /// Bytes allocated where the function is the site: not those of its callees.
    allocated_as_site: u64,
    /// By who called it, and at which line of theirs.
    callers: HashMap<(Key<'a>, Option<u32>), Row>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    events: u64,
    allocated: u64,
    freed: u64,
    blocks: i64,
    last_event: u64,
    mem_usage: u64,
    peak: u64,
    live: u64,
    temporary: u64,
}

impl Row {
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

    fn merge(&mut self, other: &Row) {
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

impl Rows<'_> {
    fn allocated(&self) -> u64 {
        self.by_line.values().map(|row| row.allocated).sum()
    }
}

fn collect<'a>(
    profile: &Profile,
    stacks: &'a Stacks,
    filter: &Filter,
    full: bool,
    selection: &Selection,
) -> HashMap<Key<'a>, Rows<'a>> {
    // Frames to functions once, then stacks to rows.
    let mut numbers: HashMap<Key<'a>, usize> = HashMap::default();
    let functions: Vec<Option<usize>> = stacks
        .all_frames()
        .map(|frame| {
            let wanted = (full || !frame.runtime) && (filter.is_empty() || selects(filter, frame, selection));
            wanted.then(|| {
                let next = numbers.len();
                *numbers.entry(key_of(frame, selection)).or_insert(next)
            })
        })
        .collect();
    let mut rows = vec![Rows::default(); numbers.len()];
    let is_own = |frame: FrameId| full || !stacks.frame(frame).runtime;
    on_every_stack(stacks, (numbers.len(), &functions), is_own, |stack, running| {
        let stats = profile.stacks.get(stack.0 as usize).filter(|stats| stats.events() > 0);
        let Some(stats) = stats else { return };
        let site = stacks.site(stack);
        for (function, Activation { frame, caller }) in running.innermost() {
            let rows = &mut rows[function];
            rows.by_line.entry(stacks.frame(frame).line.unwrap_or(0)).or_default().add(stats);
            rows.allocated_as_site += if Some(frame) == site { stats.allocated } else { 0 };
            if let Some(caller) = caller.filter(|_| selection.callers).map(|caller| stacks.frame(caller)) {
                rows.callers.entry((key_of(caller, selection), caller.line)).or_default().add(stats);
            }
        }
    });
    let tables = numbers.into_iter().map(|(key, number)| (key, std::mem::take(&mut rows[number])));
    tables.filter(|(_, rows)| !rows.by_line.is_empty()).collect()
}

fn key_of<'a>(frame: &'a NamedFrame, selection: &Selection) -> Key<'a> {
    let function = if selection.split_generics { instance_of } else { function_of };
    Key { function: function(&frame.function), file: frame.file.as_deref() }
}

/// Here the patterns name the functions themselves and not something on their stacks. With instances apart a pattern may name one of
/// them, or the function.
fn selects(filter: &Filter, frame: &NamedFrame, selection: &Selection) -> bool {
    let accepts = |name: &str| filter.accepts_name(name, frame.file.as_deref());
    accepts(function_of(&frame.function)) || selection.split_generics && accepts(instance_of(&frame.function))
}

fn table(key: &Key<'_>, rows: &Rows<'_>, sources: &dyn Sources, selection: &Selection) -> FunctionLines {
    let callers = selection.callers.then(|| caller_rows(rows));
    let mut rows = rows.clone();
    let lines = |rows: &Rows<'_>| rows.by_line.keys().copied().filter(|line| *line > 0).collect::<Vec<u32>>();
    let with_events = lines(&rows);
    let (first, last) = (with_events.first().copied().unwrap_or(0), with_events.last().copied().unwrap_or(0));
    let name = function_of(key.function).rsplit("::").next().unwrap_or_default();
    let source = Source::of(key.file, sources, name, (first, last));
    let extent = source.file.as_ref().and_then(|file| file.function(name, first, last));
    let (start_line, end_line) = extent.map_or((first, last), |extent| (extent.start, extent.end));
    // What has no line of its own stands at the function's first, so that the sum holds.
    if let Some(unplaced) = rows.by_line.remove(&0) {
        rows.by_line.entry(start_line).or_default().merge(&unplaced);
    }
    let sum = |figure: fn(&Row) -> u64| rows.by_line.values().map(figure).sum::<u64>();
    let (allocated, freed) = (sum(|row| row.allocated), sum(|row| row.freed));
    // A table of a function that cannot be found in its source may be long: a macro's lines lie far apart.
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

/// The source text of a function, and what is the matter with it.
pub(super) struct Source {
    file: Option<Arc<SourceText>>,
    pub(super) note: Option<String>,
}

impl Source {
    /// That of the function `name`, of which the lines from the first to the last are known.
    pub(super) fn of(
        path: Option<&str>,
        sources: &dyn Sources,
        name: &str,
        (first, last): (u32, u32),
    ) -> Source {
        let file = path.map(|path| sources.file(path));
        let note = match file.as_deref() {
            None => Some("no line tables: build with debug info to see lines"),
            Some(file) if file.is_missing() => Some("the source file is not here"),
            Some(file) if file.is_another(name, first, last) => {
                let note = "a file of this name is here, but these lines of it are something else";
                return Source { file: None, note: Some(note.to_owned()) };
            }
            Some(file) if file.is_newer_than_program() => {
                Some("the source file was changed after the program was built; lines may have moved")
            }
            Some(file) if file.is_shorter_than(last) => {
                Some("the source file is shorter than the one that the program was built from")
            }
            Some(_) => None,
        };
        Source { file, note: note.map(str::to_owned) }
    }

    /// The text of a line.
    pub(super) fn text(&self, line: u32) -> Option<String> {
        self.file.as_ref()?.line(line).map(str::to_owned)
    }
}

const MAX_GUESSED_LINES: u32 = 500;

fn line_row(line: u32, row: Option<&Row>, text: Option<String>) -> LineRow {
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

/// Whether a file belongs to a package that came from a registry or a git cache.
fn is_foreign(file: Option<&str>) -> bool {
    file.is_none_or(|file| {
        file.contains("/registry/src/") || file.contains("/git/checkouts/") || file.starts_with("/rustc/")
    })
}
