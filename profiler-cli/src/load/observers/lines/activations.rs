//! The running activations of annotated functions, by thread, each with its present line. In: the
//! records of probes, and the change that each heap event made. Out: figures for the lines, and the
//! times at which the functions ran.

use alloc_dump::record::{Function, LINE_AGAIN};
use foldhash::HashMap;

use super::contexts::{ContextId, LineContexts};
use super::table::LineTable;
use super::usage::UsageReading;
use crate::load::observers::spans::LongestSpans;
use crate::profile::{ActivationSpan, Annotated};

/// All annotated functions, on all threads.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations {
    table: LineTable,
    threads: HashMap<u32, ThreadActivations>,
    /// Activations that have not ended and run on no thread: futures between two polls.
    suspended: HashMap<u64, RunningActivation>,
    spans: LongestSpans,
    /// The line contexts, which know the lines that each block belongs to.
    pub(super) contexts: LineContexts,
    /// A buffer for the lines of a context.
    lines_now: Vec<u32>,
}

/// The activations that run on one thread.
#[derive(Clone, Debug, Default)]
struct ThreadActivations {
    /// Outermost first.
    stack: Vec<RunningActivation>,
    /// Index in `stack` of the innermost activation of each function.
    innermost: Vec<usize>,
    /// The line context of the thread now; `None` if no event has needed it since the last probe.
    context: Option<ContextId>,
    /// The lines and activations that the next [`UsageReading`] of this thread belongs to.
    pending: Vec<PendingReading>,
    /// Whether the thread is selected.
    is_selected: bool,
}

/// A change of lines that waits for the reading that may follow the probe. The reading ends the
/// measurement of the line that was left, and begins that of the next line.
#[derive(Clone, Copy, Debug)]
struct PendingReading {
    line: Option<usize>,
    /// The reading at which the measurement of `line` began.
    before: Option<UsageReading>,
    /// Index in the thread's stack of the activation whose next line begins with the reading.
    next: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct RunningActivation {
    number: u64,
    function: usize,
    /// The present line; `None` if the activation has reached no line yet and has had no event.
    line: Option<usize>,
    /// Index in the thread's stack of the next outer activation of the same function.
    outer: Option<usize>,
    /// When the activation began to run on this thread.
    entered_us: u64,
    /// Whether it has run before: a future that was polled again.
    is_resumed: bool,
    /// The moment from which time is still to be added to the present line.
    since_us: u64,
    /// The reading at which the measurement of the present line began.
    used: Option<UsageReading>,
}

/// The moment of a probe's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeMoment {
    /// The thread whose record it is.
    pub(super) thread_id: u32,
    /// Microseconds since time zero.
    pub(super) us: u64,
    /// Live bytes of the process.
    pub(super) live: u64,
    /// Whether the thread is selected. Probes of other threads are replayed too, without figures,
    /// because a future may continue on a selected thread later.
    pub(super) counts: bool,
}

/// The change that a heap event made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeapChange {
    /// Bytes allocated.
    pub(super) allocated: u64,
    /// Bytes freed.
    pub(super) freed: u64,
    /// Blocks allocated minus blocks freed.
    pub(super) blocks: i64,
    /// Allocations, without reallocations.
    pub(super) allocations: u64,
}

impl Activations {
    /// Whether no function is annotated, so that events need not be counted here.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Defines a function. Returns false if there are too many.
    pub(super) fn define(&mut self, function: &Function<'_>) -> bool {
        self.table.define(function)
    }

    /// Begins the interval that is counted: what the running activations did before is forgotten.
    pub(super) fn begin_interval(&mut self, us: u64, is_selected: impl Fn(u32) -> bool) {
        self.table.begin_interval();
        for (id, thread) in &mut self.threads {
            thread.is_selected = is_selected(*id);
            thread.pending.clear();
            for activation in &mut thread.stack {
                (activation.entered_us, activation.since_us, activation.used) = (us, us, None);
            }
        }
    }

    /// Begins an activation, or continues a suspended one, on this thread. Returns false if the
    /// function is not known or if too many activations run.
    pub(super) fn enter(&mut self, now: ProbeMoment, function: u32, number: u64) -> bool {
        let Some(function) = self.table.function(function) else { return false };
        let thread = self.threads.entry(now.thread_id).or_default();
        thread.is_selected = now.counts;
        if thread.stack.len() == MAX_ACTIVATIONS {
            return false;
        }
        let suspended = self.suspended.remove(&number).filter(|before| before.function == function);
        let line = suspended.and_then(|before| before.line);
        let is_resumed = suspended.is_some();
        let at = thread.stack.len();
        let same = thread.innermost.iter_mut().find(|at| thread.stack[**at].function == function);
        let outer = match same {
            Some(innermost) => Some(std::mem::replace(innermost, at)),
            None => {
                thread.innermost.push(at);
                None
            }
        };
        let (entered_us, since_us) = (now.us, now.us);
        thread.stack.push(RunningActivation {
            number,
            function,
            line,
            outer,
            entered_us,
            is_resumed,
            since_us,
            used: None,
        });
        thread.context = None;
        thread.pending.clear();
        thread.pending.push(PendingReading { line: None, before: None, next: Some(at) });
        if let Some(outer) = outer {
            // While the inner activation runs, no time counts for the outer one.
            let outer = &mut thread.stack[outer];
            spend_time(&mut self.table, outer, now);
            thread.pending.push(PendingReading { line: outer.line, before: outer.used, next: None });
        }
        true
    }

    /// Moves an activation to a line. Returns false if it does not run on this thread, or if there
    /// are too many lines.
    pub(super) fn reach(&mut self, now: ProbeMoment, number: u64, line: u32) -> bool {
        let Some(thread) = self.threads.get_mut(&now.thread_id) else { return false };
        let Some(at) = thread.stack.iter().rposition(|activation| activation.number == number) else {
            return false;
        };
        let activation = &mut thread.stack[at];
        leave_line(&mut self.table, activation, now, thread.innermost.contains(&at));
        thread.context = None;
        thread.pending.clear();
        thread.pending.push(PendingReading {
            line: activation.line,
            before: activation.used,
            next: Some(at),
        });
        let is_again = line & LINE_AGAIN != 0;
        let Some(line) = self.table.line(activation.function, line & !LINE_AGAIN) else { return false };
        activation.line = Some(line);
        if now.counts {
            self.table.count(line).occurrences += u64::from(!is_again);
        }
        true
    }

    /// Ends or suspends an activation, and ends all activations that it contains, on this thread.
    /// Returns false if it did not run here.
    pub(super) fn leave(&mut self, now: ProbeMoment, number: u64, ended: bool) -> bool {
        let Some(thread) = self.threads.get_mut(&now.thread_id) else { return false };
        let Some(last) = thread.stack.iter().rposition(|activation| activation.number == number) else {
            return false;
        };
        thread.context = None;
        thread.pending.clear();
        while thread.stack.len() > last {
            let at = thread.stack.len() - 1;
            let Some(slot) = thread.innermost.iter().position(|innermost| *innermost == at) else { break };
            let activation = &mut thread.stack[at];
            leave_line(&mut self.table, activation, now, true);
            let left = *activation;
            thread.stack.pop();
            thread.pending.push(PendingReading { line: left.line, before: left.used, next: left.outer });
            match left.outer {
                Some(outer) => {
                    thread.innermost[slot] = outer;
                    thread.stack[outer].since_us = now.us;
                }
                None => {
                    if now.counts {
                        self.spans.add(span_of(&left, now.thread_id, now.us));
                    }
                    thread.innermost.swap_remove(slot);
                }
            }
            if at == last && !ended && self.suspended.len() < MAX_ACTIVATIONS {
                self.suspended.insert(number, left);
            }
        }
        true
    }

    /// Counts a heap event of a thread. It counts once for each function that the thread runs, at
    /// the line of the innermost activation of that function.
    pub(super) fn count_event(&mut self, thread_id: u32, change: HeapChange) {
        let Some(thread) = self.threads.get_mut(&thread_id) else { return };
        for at in &thread.innermost {
            let Some(line) = line_now(&mut thread.stack[*at], &mut self.table) else { continue };
            let figures = self.table.count(line);
            figures.allocated = figures.allocated.saturating_add(change.allocated);
            figures.freed = figures.freed.saturating_add(change.freed);
            figures.blocks += change.blocks;
            figures.allocations += change.allocations;
        }
    }

    /// Adds a block to what the lines of its context hold.
    pub(super) fn hold(&mut self, context: ContextId, bytes: u64) {
        for line in self.contexts.lines_of(context) {
            self.table.hold(*line as usize, bytes);
        }
    }

    /// Removes a block from what the lines of its context hold.
    pub(super) fn release(&mut self, context: ContextId, bytes: u64) {
        for line in self.contexts.lines_of(context) {
            self.table.release(*line as usize, bytes);
        }
    }

    /// Returns the present line context of a thread.
    pub(super) fn context_of(&mut self, thread_id: u32) -> ContextId {
        let Some(thread) = self.threads.get_mut(&thread_id) else { return ContextId::NONE };
        if let Some(context) = thread.context {
            return context;
        }
        self.lines_now.clear();
        for at in &thread.innermost {
            let line = line_now(&mut thread.stack[*at], &mut self.table);
            self.lines_now.extend(line.map(|line| line as u32));
        }
        self.lines_now.sort_unstable();
        let context = self.contexts.id_of(&self.lines_now);
        thread.context = Some(context);
        context
    }

    /// Takes the kernel's figures at the last probe of the thread. Returns false if the thread had
    /// no probe before, or a reading already.
    pub(super) fn read_usage(&mut self, thread_id: u32, reading: UsageReading) -> bool {
        let Some(thread) = self.threads.get_mut(&thread_id) else { return false };
        let is_expected = !thread.pending.is_empty();
        for pending in thread.pending.drain(..) {
            if let (Some(line), Some(before), true) = (pending.line, pending.before, thread.is_selected) {
                reading.add_difference(&before, self.table.figures(line));
            }
            if let Some(next) = pending.next.and_then(|next| thread.stack.get_mut(next)) {
                next.used = Some(reading);
            }
        }
        is_expected
    }

    /// Returns when the functions ran, and the number of calls that were dropped. The calls that
    /// still run end at `us`.
    pub(super) fn take_spans(&mut self, us: u64) -> (Vec<ActivationSpan>, u64) {
        let mut threads: Vec<_> = self.threads.iter().filter(|(_, thread)| thread.is_selected).collect();
        threads.sort_unstable_by_key(|(id, _)| **id);
        for (id, thread) in threads {
            for activation in thread.stack.iter().filter(|activation| activation.outer.is_none()) {
                self.spans.add(span_of(activation, *id, us));
            }
        }
        std::mem::take(&mut self.spans).finish()
    }

    /// Returns the functions and their lines. The activations that still run leave their lines at
    /// `us`.
    pub(super) fn finish(mut self, us: u64, live: u64, has_lifetimes: bool) -> Vec<Annotated> {
        let mut threads: Vec<_> = std::mem::take(&mut self.threads).into_iter().collect();
        threads.sort_unstable_by_key(|(id, _)| *id);
        for (thread_id, thread) in threads {
            let now = ProbeMoment { thread_id, us, live, counts: thread.is_selected };
            for (at, mut activation) in thread.stack.into_iter().enumerate() {
                leave_line(&mut self.table, &mut activation, now, thread.innermost.contains(&at));
            }
        }
        self.table.add_contexts(self.contexts.finish(), has_lifetimes);
        self.table.finish()
    }
}

fn span_of(activation: &RunningActivation, thread: u32, end_us: u64) -> ActivationSpan {
    let RunningActivation { function, entered_us, is_resumed, .. } = *activation;
    ActivationSpan { function, thread, start_us: entered_us, end_us, is_resumed }
}

/// Ends the time of an activation at its present line. The time counts only if the activation is
/// the innermost one of its function.
fn leave_line(
    table: &mut LineTable,
    activation: &mut RunningActivation,
    now: ProbeMoment,
    is_innermost: bool,
) {
    if is_innermost {
        spend_time(table, activation, now);
    }
    activation.since_us = now.us;
    if let Some(line) = activation.line.filter(|_| now.counts) {
        let figures = table.count(line);
        (figures.mem_usage, figures.max) = (now.live, figures.max.max(now.live));
    }
}

/// Adds the time that has passed since `since_us` to the activation's present line.
fn spend_time(table: &mut LineTable, activation: &mut RunningActivation, now: ProbeMoment) {
    if let Some(line) = activation.line.filter(|_| now.counts) {
        table.figures(line).time_us += now.us.saturating_sub(activation.since_us);
    }
    activation.since_us = now.us;
}

/// Returns the present line of an activation. Before it has reached any line, that is the first
/// line of its function.
#[inline]
fn line_now(activation: &mut RunningActivation, table: &mut LineTable) -> Option<usize> {
    if activation.line.is_none() {
        activation.line = table.first_line(activation.function);
    }
    activation.line
}

/// The most activations that run on one thread, and the most that are suspended.
const MAX_ACTIVATIONS: usize = 1 << 20;

#[cfg(test)]
mod tests;
