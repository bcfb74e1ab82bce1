//! What the hook has to do, in one word. In: the environment at the first event, a `Profiler`, or a call of the query
//! API. Out: the word that every event loads. Must never lock: it is consulted by every event of every thread.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::api::stats as counters;
use crate::base::settings::{self, Wanted};
use crate::recorder;

/// Events are written into a dump.
pub(crate) const RECORD: u8 = 1;
/// Events are counted for [`stats`](crate::stats) and [`Region`](crate::Region).
pub(crate) const COUNT: u8 = 2;
/// The recording is of the whole process, as the environment asked.
pub(crate) const WHOLE: u8 = 8;
/// No event has been seen yet, so the environment has not been read.
const UNDECIDED: u8 = 4;

#[unsafe(link_section = "alloc_tracker_hot")]
static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);
static DECIDED: AtomicU8 = AtomicU8::new(NOT_YET);

const NOT_YET: u8 = 0;
const BY_SOMEBODY: u8 = 1;
const DONE: u8 = 2;

/// Whether an event needs more than the inner allocator. PERF: one relaxed load; this is all that a program pays
/// that links the crate and is not profiled.
#[inline(always)]
pub(crate) fn active() -> bool {
    MODE.load(Ordering::Relaxed) != 0
}

#[inline]
pub(crate) fn current() -> u8 {
    MODE.load(Ordering::Relaxed)
}

pub(crate) fn switch_on(bits: u8) {
    MODE.fetch_or(bits, Ordering::Relaxed);
}

pub(crate) fn switch_off(bits: u8) {
    MODE.fetch_and(!bits, Ordering::Relaxed);
}

/// Reads the environment, if nobody has yet, and starts what it asks for. `counting` is what the allocator's own
/// declaration asks for; `first_event` tells that an event is waiting to be the first one of the recording.
#[cold]
pub(crate) fn decide(counting: bool, first_event: bool) {
    if DECIDED.compare_exchange(NOT_YET, BY_SOMEBODY, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // Another thread, or the code that a signal handler interrupted, is just doing it.
        return;
    }
    if counting {
        switch_on(COUNT);
    }
    match settings::wanted() {
        Wanted::Nothing => {}
        Wanted::Count => switch_on(COUNT),
        Wanted::Trace(settings) => {
            // What went wrong has been said on stderr; the host goes on.
            if recorder::start(&settings, first_event).is_ok() {
                switch_on(WHOLE);
            }
        }
    }
    if first_event && current() & COUNT != 0 {
        counters::counting_from_first_event();
    }
    switch_off(UNDECIDED);
    DECIDED.store(DONE, Ordering::Release);
}

/// Whether [`decide`] has still to be called, or is being called.
pub(crate) fn undecided() -> bool {
    current() & UNDECIDED != 0
}
