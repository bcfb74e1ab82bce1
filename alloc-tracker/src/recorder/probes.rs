//! Records probes and marks. In: calls of the probes, on the thread that runs the annotated
//! function. Out: entries in the thread's ring, in order with the thread's heap events, but without
//! stacks.
//!
//! Nothing here allocates through the global allocator or panics. A probe waits only for room in
//! the ring, as an event does; a function's first probe and a mark also take the recorder's lock.
//! All functions may be called by a signal handler that has interrupted the hook; the probe is then
//! counted as lost.

use alloc_dump::record::LINE_AGAIN;
use alloc_dump::thread_ring::Entry;

use super::activations::ActivationId;
use super::current::with_stream;
use super::functions::AnnotatedFunction;
use super::heap_event::order_after_reads;
use super::lost::count_lost;
use super::thread_state::{THREADS, ThreadLocal};
use super::{session, usage};
use crate::base::epoch::RecordingId;

/// Records that an activation of a function begins on this thread, or that the activation `resumed`
/// continues there. `None` if nothing was recorded.
pub(crate) fn enter_function(
    function: &AnnotatedFunction,
    resumed: Option<ActivationId>,
) -> Option<ActivationId> {
    if session::is_left_behind_by_fork() {
        return None;
    }
    match THREADS.enter_hook(|mut busy| enter_on(busy.own(), function, resumed)) {
        Some(activation) => activation,
        None => {
            count_lost(1);
            None
        }
    }
}

/// Records that the innermost activation of a function on this thread reaches a line.
#[inline(always)]
pub(crate) fn reach_line(function: &AnnotatedFunction, line: u32) {
    if !session::is_left_behind_by_fork()
        && THREADS.enter_hook(|mut busy| reach_on(busy.own(), function, line)).is_none()
    {
        count_lost(1);
    }
}

/// Returns the line that the innermost activation of a function on this thread has reached; `None`
/// if it has reached none.
pub(crate) fn line_now(function: &AnnotatedFunction) -> Option<u32> {
    if session::is_left_behind_by_fork() {
        return None;
    }
    THREADS.enter_hook(|mut busy| line_on(busy.own(), function)).flatten()
}

/// Records that an activation no longer runs on this thread. `ended` is false if the activation
/// will continue later.
pub(crate) fn leave_function(activation: ActivationId, ended: bool) {
    if !session::is_left_behind_by_fork()
        && THREADS.enter_hook(|mut busy| leave_on(busy.own(), activation, ended)).is_none()
    {
        count_lost(1);
    }
}

/// Records a mark of the program.
pub(crate) fn mark(name: &[u8]) {
    if !session::is_left_behind_by_fork()
        && THREADS.enter_hook(|mut busy| mark_on(busy.own(), name)).is_none()
    {
        count_lost(1);
    }
}

fn enter_on(
    local: &mut ThreadLocal,
    function: &AnnotatedFunction,
    resumed: Option<ActivationId>,
) -> Option<ActivationId> {
    let recording = prepare(local)?;
    let function = function.number_in(recording).or_else(|| define(function))?;
    let resumed = resumed.filter(|activation| activation.recording == recording);
    let number = match resumed {
        Some(activation) => activation.number,
        None => local.recorder.next_activation(),
    };
    let entry = Entry::Enter { function, activation: number };
    if !local.running.push(function, number) {
        count_lost(1);
        return None;
    }
    if resumed.is_some() {
        // The activation was left before, maybe by another thread: the timestamp of this entry must
        // be later than that of leaving.
        order_after_reads();
    }
    if !local.recorder.store(0, |_| entry) {
        local.running.pop(number);
        return None;
    }
    usage::record_if_wanted(&mut local.recorder);
    Some(ActivationId { recording, number })
}

#[inline(always)]
fn reach_on(local: &mut ThreadLocal, function: &AnnotatedFunction, line: u32) {
    // No call of `prepare` is needed: each activation that runs on this thread has entered it in
    // this recording.
    if let Some(recording) = local.recorder.current()
        && let Some(function) = function.number_in(recording)
        && let Some((activation, reached)) = local.running.innermost_of(recording, function)
    {
        *reached = line & !LINE_AGAIN;
        local.recorder.store(0, |_| Entry::Line { activation, line });
        usage::record_if_wanted(&mut local.recorder);
    }
}

fn line_on(local: &mut ThreadLocal, function: &AnnotatedFunction) -> Option<u32> {
    let recording = local.recorder.current()?;
    let (_, line) = local.running.innermost_of(recording, function.number_in(recording)?)?;
    Some(*line).filter(|line| *line != 0)
}

fn leave_on(local: &mut ThreadLocal, activation: ActivationId, ended: bool) {
    if prepare(local) == Some(activation.recording) && local.running.pop(activation.number) {
        let activation = activation.number;
        local.recorder.store(0, |_| Entry::Leave { activation, ended });
        usage::record_if_wanted(&mut local.recorder);
    }
}

fn mark_on(local: &mut ThreadLocal, name: &[u8]) {
    if prepare(local).is_some()
        && let Some(id) = with_stream(|stream| stream.define_mark_name(name))
    {
        local.recorder.store(0, |_| Entry::Mark { id });
    }
}

/// Makes the thread ready for an entry that has no stack, and returns the recording that it takes
/// part in.
#[inline]
fn prepare(local: &mut ThreadLocal) -> Option<RecordingId> {
    if !local.recorder.prepare() {
        return None;
    }
    let recording = local.recorder.recording()?;
    local.running.keep_only(recording);
    Some(recording)
}

#[cold]
fn define(function: &AnnotatedFunction) -> Option<u32> {
    with_stream(|stream| stream.define_function(function))
}
