//! Lines of annotated functions, and marks: what a thread is at. In: what probes say. Out: entries.

use alloc_dump::record::LINE_AGAIN;
use alloc_dump::thread_ring::Entry;

use super::current::{lose, with_stream};
use super::event::settle;
use super::usage;
use crate::api::probe::{Activation, Function};
use crate::base::sys::ErrnoGuard;
use crate::thread::Local;

/// Records that a function begins on this thread, or goes on there.
pub(crate) fn enter(local: &mut Local, function: &Function, again: &Activation) -> Activation {
    let Some(recording) = prepare_for_line(local) else { return Activation::NONE };
    let Some(number) = function.number_in(recording).or_else(|| define(function)) else {
        return Activation::NONE;
    };
    let goes_on = again.recording == recording;
    let activation = if goes_on { again.number } else { local.enrolment.next_activation() };
    let entry = Entry::Enter { function: number, activation };
    if !local.running.push(number, activation) {
        lose(1);
        return Activation::NONE;
    }
    if goes_on {
        // It was left before, maybe by another thread: its timestamp must be the later one.
        settle();
    }
    if !local.enrolment.store(0, |_| entry) {
        local.running.pop(activation);
        return Activation::NONE;
    }
    usage::note(&mut local.enrolment);
    Activation { recording, number: activation }
}

/// Records that the innermost activation of a function on this thread reaches a line.
#[inline(always)]
pub(crate) fn reach(local: &mut Local, function: &Function, line: u32) {
    // Nothing else to be prepared: an activation that runs here has been entered by this thread, in this recording.
    if let Some(recording) = local.enrolment.current()
        && let Some(number) = function.number_in(recording)
        && let Some((activation, place)) = local.running.of(recording, number)
    {
        *place = line & !LINE_AGAIN;
        local.enrolment.store(0, |_| Entry::Line { activation, line });
        usage::note(&mut local.enrolment);
    }
}

/// The line that the innermost activation of a function on this thread has reached, 0 if there is none.
pub(crate) fn line_now(local: &mut Local, function: &Function) -> u32 {
    let current = local.enrolment.current();
    let number = current.and_then(|recording| Some((recording, function.number_in(recording)?)));
    number.and_then(|(recording, number)| local.running.of(recording, number)).map_or(0, |(_, line)| *line)
}

/// Records that an activation no longer runs on this thread.
pub(crate) fn leave(local: &mut Local, activation: &Activation, ended: bool) {
    if prepare_for_line(local) == Some(activation.recording) && local.running.pop(activation.number) {
        let activation = activation.number;
        local.enrolment.store(0, |_| Entry::Leave { activation, ended });
        usage::note(&mut local.enrolment);
    }
}

/// Records a mark of the program's.
pub(crate) fn mark(local: &mut Local, name: &[u8]) {
    let _errno = ErrnoGuard::new();
    if prepare_for_line(local).is_some()
        && let Some(id) = with_stream(|stream| stream.name_mark(name))
    {
        local.enrolment.store(0, |_| Entry::Mark { id });
    }
}

/// The number of the recording, with the thread ready for an entry that has no stack.
#[inline]
fn prepare_for_line(local: &mut Local) -> Option<u32> {
    if !local.enrolment.prepare() {
        return None;
    }
    let recording = local.enrolment.recording();
    local.running.belong_to(recording);
    Some(recording)
}

#[cold]
fn define(function: &Function) -> Option<u32> {
    let _errno = ErrnoGuard::new();
    with_stream(|stream| stream.define(function))
}
