//! What annotated functions say about their lines. In: the records of lines, and the heap events between them. Out:
//! figures for every line. Memory follows functions, lines and running activations, never events, and is bounded whatever
//! a dump says.
//!
//! An event counts once for each annotated function that its thread runs: on the innermost activation of it. So the
//! increments of a function's lines add up to what the thread's heap changed by over the outermost calls.

use std::collections::BTreeMap;

use alloc_dump::record::{Function, LINE_AGAIN};
use foldhash::HashMap;

use super::contexts::{Contexts, NO_CONTEXT};
use super::curve::Spans;
use super::usage::Used;
use crate::profile::{Annotated, AnnotatedLine, Span};

/// All annotated functions, on all threads.
#[derive(Debug, Default)]
pub(super) struct Activations {
    functions: Vec<Annotated>,
    /// Index of a function by its number.
    numbers: HashMap<u32, usize>,
    rows: Vec<Row>,
    row_of: HashMap<(usize, u32), usize>,
    threads: HashMap<u32, Running>,
    /// Activations that are not over and run nowhere.
    suspended: HashMap<u64, Activation>,
    spans: Spans,
    /// Which blocks belong to which rows.
    pub(super) contexts: Contexts,
    /// Room to work in.
    rows_now: Vec<u32>,
}

#[derive(Debug)]
struct Row {
    function: usize,
    line: u32,
    figures: AnnotatedLine,
    /// Whether a thread that counts was there.
    counts: bool,
}

/// What one thread runs, outermost first.
#[derive(Debug, Default)]
struct Running {
    stack: Vec<Activation>,
    /// Where the innermost activation of each function is.
    innermost: Vec<usize>,
    /// The context of what happens now, if it was asked for since a line was reached.
    context: Option<u32>,
    /// What the next [`Used`] is about.
    open: Vec<Open>,
    counts: bool,
}

/// The end of a stay at a line, whose cost is not told yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    row: Option<usize>,
    before: Option<Used>,
    /// Where the activation is that goes on from here.
    next: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Activation {
    number: u64,
    function: usize,
    /// The row of the line that it has reached, if it has reached one or had an event.
    row: Option<usize>,
    /// Where the next outer activation of the same function is.
    outer: Option<usize>,
    /// When it began to run here.
    entered_us: u64,
    since_us: u64,
    /// What had been used when its present line began.
    used: Option<Used>,
}

/// A moment of the replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The thread whose record it is.
    pub(super) thread: u32,
    /// Microseconds since time zero.
    pub(super) us: u64,
    /// Live bytes of the process.
    pub(super) live: u64,
    /// Whether what this thread does counts. What does not is followed all the same: a future may go on elsewhere.
    pub(super) counts: bool,
}

/// What an event has changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    pub(super) allocated: u64,
    pub(super) freed: u64,
    pub(super) blocks: i64,
}

impl Activations {
    /// Whether no function is annotated: then there is nothing to do for events.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// A function is defined; false if there are too many.
    pub(super) fn define(&mut self, function: &Function<'_>) -> bool {
        if self.functions.len() == MOST_FUNCTIONS {
            return false;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.numbers.entry(function.id).or_insert(self.functions.len());
        self.functions.push(Annotated {
            name: text(function.name),
            file: text(function.file),
            start_line: function.start_line,
            end_line: function.end_line.max(function.start_line),
            lines: BTreeMap::new(),
        });
        true
    }

    /// An activation begins, or goes on; false if the function is not known or there are too many.
    pub(super) fn enter(&mut self, now: Now, function: u32, number: u64) -> bool {
        let Some(function) = self.numbers.get(&function).copied() else { return false };
        let running = self.threads.entry(now.thread).or_default();
        running.counts = now.counts;
        if running.stack.len() == MOST_ACTIVATIONS {
            return false;
        }
        let row = self.suspended.remove(&number).filter(|before| before.function == function);
        let at = running.stack.len();
        let same = running.innermost.iter_mut().find(|at| running.stack[**at].function == function);
        let outer = match same {
            Some(innermost) => Some(std::mem::replace(innermost, at)),
            None => {
                running.innermost.push(at);
                None
            }
        };
        let row = row.and_then(|before| before.row);
        let (entered_us, since_us) = (now.us, now.us);
        running.stack.push(Activation { number, function, row, outer, entered_us, since_us, used: None });
        running.context = None;
        running.open.clear();
        running.open.push(Open { row: None, before: None, next: Some(at) });
        if let Some(outer) = outer {
            // Its time goes on when this one is over.
            let outer = &mut running.stack[outer];
            spend(&mut self.rows, outer, now);
            running.open.push(Open { row: outer.row, before: outer.used, next: None });
        }
        true
    }

    /// An activation reaches a line; false if it does not run here.
    pub(super) fn reach(&mut self, now: Now, number: u64, line: u32) -> bool {
        let Some(running) = self.threads.get_mut(&now.thread) else { return false };
        let Some(at) = running.stack.iter().rposition(|activation| activation.number == number) else {
            return false;
        };
        let activation = &mut running.stack[at];
        leave_line(&mut self.rows, activation, now, running.innermost.contains(&at));
        running.context = None;
        running.open.clear();
        running.open.push(Open { row: activation.row, before: activation.used, next: Some(at) });
        let function = activation.function;
        let again = line & LINE_AGAIN != 0;
        let line = line & !LINE_AGAIN;
        let Some(row) = row_of(&mut self.row_of, &mut self.rows, function, line) else { return false };
        running.stack[at].row = Some(row);
        if now.counts {
            self.rows[row].counts = true;
            self.rows[row].figures.occurrences += u64::from(!again);
        }
        true
    }

    /// An activation, and all within it, run here no more; false if it did not.
    pub(super) fn leave(&mut self, now: Now, number: u64, ended: bool) -> bool {
        let Some(running) = self.threads.get_mut(&now.thread) else { return false };
        let Some(last) = running.stack.iter().rposition(|activation| activation.number == number) else {
            return false;
        };
        running.context = None;
        running.open.clear();
        while running.stack.len() > last {
            let at = running.stack.len() - 1;
            let Some(place) = running.innermost.iter().position(|innermost| *innermost == at) else { break };
            let activation = &mut running.stack[at];
            leave_line(&mut self.rows, activation, now, true);
            let left = *activation;
            running.stack.pop();
            running.open.push(Open { row: left.row, before: left.used, next: left.outer });
            match left.outer {
                Some(outer) => {
                    running.innermost[place] = outer;
                    running.stack[outer].since_us = now.us;
                }
                None => {
                    if now.counts {
                        self.spans.add(span_of(&left, now.thread, now.us));
                    }
                    running.innermost.swap_remove(place);
                }
            }
            if at == last && !ended && self.suspended.len() < MOST_ACTIVATIONS {
                self.suspended.insert(number, left);
            }
        }
        true
    }

    /// A heap event of a thread.
    pub(super) fn event(&mut self, thread: u32, change: Change) {
        let Some(running) = self.threads.get_mut(&thread) else { return };
        for at in &running.innermost {
            let activation = &mut running.stack[*at];
            let Some(row) = row_now(activation, &self.functions, &mut self.row_of, &mut self.rows) else {
                continue;
            };
            self.rows[row].counts = true;
            let figures = &mut self.rows[row].figures;
            figures.allocated = figures.allocated.saturating_add(change.allocated);
            figures.freed = figures.freed.saturating_add(change.freed);
            figures.blocks += change.blocks;
        }
    }

    /// The context of what a thread allocates now.
    #[inline]
    pub(super) fn context(&mut self, thread: u32) -> u32 {
        if self.is_empty() { NO_CONTEXT } else { self.look_for_context(thread) }
    }

    fn look_for_context(&mut self, thread: u32) -> u32 {
        let Some(running) = self.threads.get_mut(&thread) else { return NO_CONTEXT };
        if let Some(context) = running.context {
            return context;
        }
        self.rows_now.clear();
        for at in &running.innermost {
            let activation = &mut running.stack[*at];
            let row = row_now(activation, &self.functions, &mut self.row_of, &mut self.rows);
            self.rows_now.extend(row.map(|row| row as u32));
        }
        self.rows_now.sort_unstable();
        let context = self.contexts.number(&self.rows_now);
        running.context = Some(context);
        context
    }

    /// What the kernel said at the probe of a thread that has just been told of; false if there was none.
    pub(super) fn used(&mut self, thread: u32, used: Used) -> bool {
        let Some(running) = self.threads.get_mut(&thread) else { return false };
        let known = !running.open.is_empty();
        for open in running.open.drain(..) {
            if let (Some(row), Some(before), true) = (open.row, open.before, running.counts) {
                used.since(&before, &mut self.rows[row].figures);
            }
            if let Some(next) = open.next.and_then(|next| running.stack.get_mut(next)) {
                next.used = Some(used);
            }
        }
        known
    }

    /// When the functions ran, and how often that is not told. What still runs does so until now.
    pub(super) fn take_spans(&mut self, us: u64) -> (Vec<Span>, u64) {
        let mut threads: Vec<_> = self.threads.iter().filter(|(_, running)| running.counts).collect();
        threads.sort_unstable_by_key(|(thread, _)| **thread);
        for (thread, running) in threads {
            for activation in running.stack.iter().filter(|activation| activation.outer.is_none()) {
                self.spans.add(span_of(activation, *thread, us));
            }
        }
        std::mem::take(&mut self.spans).finish()
    }

    /// The functions and their lines.
    pub(super) fn finish(mut self, us: u64, live: u64) -> Vec<Annotated> {
        // What still runs is at its line until the end.
        let mut threads: Vec<_> = std::mem::take(&mut self.threads).into_iter().collect();
        threads.sort_unstable_by_key(|(thread, _)| *thread);
        for (thread, running) in threads {
            let now = Now { thread, us, live, counts: running.counts };
            for (at, mut activation) in running.stack.into_iter().enumerate() {
                leave_line(&mut self.rows, &mut activation, now, running.innermost.contains(&at));
            }
        }
        if let Some(contexts) = self.contexts.finish() {
            for row in &mut self.rows {
                let figures = &mut row.figures;
                (figures.peak, figures.live, figures.temporary) = (Some(0), Some(0), Some(0));
            }
            for (rows, stats) in contexts {
                for row in rows {
                    let figures = &mut self.rows[row as usize].figures;
                    let add = |sum: &mut Option<u64>, more| *sum = sum.map(|sum| sum.saturating_add(more));
                    add(&mut figures.peak, stats.peak_bytes);
                    add(&mut figures.live, stats.live_bytes);
                    add(&mut figures.temporary, stats.temporary);
                }
            }
        }
        for row in self.rows.into_iter().filter(|row| row.counts) {
            self.functions[row.function].lines.insert(row.line, row.figures);
        }
        self.functions
    }
}

fn span_of(activation: &Activation, thread: u32, end_us: u64) -> Span {
    Span { function: activation.function, thread, start_us: activation.entered_us, end_us }
}

/// The line that an activation is at ends now.
fn leave_line(rows: &mut [Row], activation: &mut Activation, now: Now, innermost: bool) {
    if innermost {
        spend(rows, activation, now);
    }
    activation.since_us = now.us;
    if let Some(row) = activation.row.filter(|_| now.counts) {
        rows[row].counts = true;
        let figures = &mut rows[row].figures;
        (figures.mem_usage, figures.max) = (now.live, figures.max.max(now.live));
    }
}

fn spend(rows: &mut [Row], activation: &mut Activation, now: Now) {
    if let Some(row) = activation.row.filter(|_| now.counts) {
        rows[row].figures.time_us += now.us.saturating_sub(activation.since_us);
    }
    activation.since_us = now.us;
}

/// The row that an activation is at; before its first line that is the function's first.
#[inline]
fn row_now(
    activation: &mut Activation,
    functions: &[Annotated],
    known: &mut HashMap<(usize, u32), usize>,
    rows: &mut Vec<Row>,
) -> Option<usize> {
    if activation.row.is_none() {
        let start = functions[activation.function].start_line;
        activation.row = row_of(known, rows, activation.function, start);
    }
    activation.row
}

fn row_of(
    known: &mut HashMap<(usize, u32), usize>,
    rows: &mut Vec<Row>,
    function: usize,
    line: u32,
) -> Option<usize> {
    if let Some(row) = known.get(&(function, line)) {
        return Some(*row);
    }
    if rows.len() == MOST_ROWS {
        return None;
    }
    known.insert((function, line), rows.len());
    rows.push(Row { function, line, figures: AnnotatedLine::default(), counts: false });
    Some(rows.len() - 1)
}

const MOST_FUNCTIONS: usize = 1 << 16;
const MOST_ROWS: usize = 1 << 20;
/// That run on one thread, or nowhere.
const MOST_ACTIVATIONS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use alloc_dump::record::{PageFaults, ResidentBytes};

    use super::*;

    fn two_functions() -> Activations {
        let mut all = Activations::default();
        for id in [1, 2] {
            let function =
                Function { id, name: b"f", file: b"f.rs", start_line: 10 * id, end_line: 10 * id + 9 };
            assert!(all.define(&function));
        }
        all
    }

    fn at(us: u64, live: u64) -> Now {
        Now { thread: 1, us, live, counts: true }
    }

    fn change(allocated: u64, freed: u64) -> Change {
        Change { allocated, freed, blocks: i64::from(allocated > 0) - i64::from(freed > 0) }
    }

    #[test]
    fn an_event_counts_once_for_each_function_on_its_innermost_activation() {
        let mut all = two_functions();
        assert!(all.enter(at(0, 0), 1, 100) && all.reach(at(0, 0), 100, 11));
        all.event(1, change(5, 0));
        // The same function within itself, and the other one within that.
        assert!(all.enter(at(10, 5), 1, 101) && all.reach(at(10, 5), 101, 12));
        assert!(all.enter(at(20, 5), 2, 102) && all.reach(at(20, 5), 102, 21));
        all.event(1, change(7, 0));
        all.event(9, change(1000, 0));
        assert!(all.leave(at(50, 12), 102, true) && all.leave(at(60, 12), 101, true));
        all.event(1, change(0, 5));
        assert!(all.reach(at(70, 7), 100, 13) && all.leave(at(75, 7), 100, true));
        assert!(!all.reach(at(75, 7), 100, 13), "it is over");
        // The inner call of the first function is within its outer one.
        let span = |function, start_us, end_us| Span { function, thread: 1, start_us, end_us };
        assert_eq!(all.take_spans(80), (vec![span(0, 0, 75), span(1, 20, 50)], 0));
        let functions = all.finish(80, 7);
        let rows = |at: usize| -> Vec<(u32, u64, u64, u64, u64, u64)> {
            let rows = functions[at].lines.iter();
            rows.map(|(n, l)| (*n, l.occurrences, l.allocated, l.freed, l.time_us, l.mem_usage)).collect()
        };
        // Line 11 has 0 to 10 and, when the inner call is over, 60 to 70.
        assert_eq!(rows(0), [(11, 1, 5, 5, 20, 7), (12, 1, 7, 0, 50, 12), (13, 1, 0, 0, 5, 7)]);
        assert_eq!(rows(1), [(21, 1, 7, 0, 30, 12)]);
    }

    #[test]
    fn a_future_goes_on_where_it_was_on_whatever_thread() {
        let mut all = two_functions();
        assert!(all.enter(at(0, 0), 1, 7) && all.reach(at(0, 0), 7, 12) && all.leave(at(4, 0), 7, false));
        all.event(1, change(100, 0));
        let other = |us| Now { thread: 2, us, live: 0, counts: true };
        assert!(all.enter(other(50), 1, 7));
        all.event(2, change(3, 0));
        assert!(all.leave(other(56), 7, true));
        let line = &all.finish(60, 0)[0].lines[&12];
        assert_eq!((line.occurrences, line.allocated, line.time_us), (1, 3, 4 + 6));
    }

    #[test]
    fn what_the_kernel_says_adds_up_through_recursion() {
        let mut all = two_functions();
        let used =
            |rss, minor| Used::new(ResidentBytes::new(rss), PageFaults::new(minor), PageFaults::new(0));
        assert!(!all.used(1, used(1, 1)), "about nothing");
        assert!(all.enter(at(0, 0), 1, 100) && all.used(1, used(1000, 7)));
        assert!(all.reach(at(0, 0), 100, 11) && all.used(1, used(1000, 7)));
        assert!(all.reach(at(0, 0), 100, 12) && all.used(1, used(1500, 9)));
        // Within itself: what the inner one uses is not the outer one's.
        assert!(all.enter(at(0, 0), 1, 101) && all.used(1, used(1600, 9)));
        assert!(all.reach(at(0, 0), 101, 11) && all.used(1, used(1600, 9)));
        assert!(all.leave(at(0, 0), 101, true) && all.used(1, used(900, 19)));
        assert!(all.reach(at(0, 0), 100, 13) && all.used(1, used(1000, 20)));
        assert!(all.leave(at(0, 0), 100, true) && all.used(1, used(1000, 20)));
        let functions = all.finish(0, 0);
        let rows: Vec<_> =
            functions[0].lines.iter().map(|(n, l)| (*n, l.rss, l.minor_faults, l.major_faults)).collect();
        let row = |line, rss, minor| (line, Some(rss), Some(minor), Some(0));
        // 500 and -700; 100 and 100; nothing: together nothing, as from the first probe to the last.
        assert_eq!(rows, [row(11, -200, 12), row(12, 200, 1), row(13, 0, 0)]);
    }

    #[test]
    fn blocks_belong_to_every_function_that_ran_where_they_came_from() {
        let mut all = two_functions();
        assert_eq!(all.context(1), NO_CONTEXT);
        assert!(all.enter(at(0, 0), 1, 100) && all.reach(at(0, 0), 100, 11));
        let outer = all.context(1);
        assert!(all.enter(at(0, 0), 2, 101) && all.reach(at(0, 0), 101, 21));
        let both = all.context(1);
        all.contexts.add(outer, 100);
        all.contexts.add(both, 10);
        all.contexts.peak();
        all.contexts.remove(outer, 100);
        assert_eq!(all.context(9), NO_CONTEXT, "another thread");
        let functions = all.finish(0, 0);
        let held = |function: usize, line| {
            let line: &AnnotatedLine = &functions[function].lines[&line];
            (line.peak, line.live)
        };
        assert_eq!((held(0, 11), held(1, 21)), ((Some(110), Some(10)), (Some(10), Some(10))));
    }

    #[test]
    fn what_was_never_left_is_over_with_its_caller_and_nonsense_is_refused() {
        let mut all = two_functions();
        assert!(!all.enter(at(0, 0), 3, 1) && !all.reach(at(0, 0), 1, 1) && !all.leave(at(0, 0), 1, true));
        assert!(all.enter(at(0, 0), 1, 1) && all.enter(at(0, 0), 2, 2) && all.enter(at(0, 0), 2, 3));
        assert!(all.leave(at(9, 0), 1, true));
        assert!(!all.leave(at(9, 0), 3, true) && !all.leave(at(9, 0), 2, true));
        all.event(1, change(1, 0));
        assert!(all.finish(9, 0).iter().all(|function| function.lines.is_empty()));
    }
}
