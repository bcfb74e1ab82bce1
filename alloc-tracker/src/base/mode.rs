//! What the hook has to do for an event, in one byte that every event loads. In and out: bits of
//! that byte. This module only keeps the byte: it starts nothing, never locks and never allocates.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::base::sys::yield_now;

/// Events are written into a dump.
pub(crate) const RECORD: u8 = 1;
/// Events are counted for [`stats`](crate::stats) and [`Region`](crate::Region).
pub(crate) const COUNT: u8 = 2;
/// The environment asked for a recording of the whole process.
pub(crate) const WHOLE: u8 = 8;
/// The drain process has left a message for stderr.
pub(crate) const REPORT: u8 = 16;
/// The environment has not been read yet, because there was no event yet.
const UNDECIDED: u8 = 4;
/// There is a scope, so blocks are followed. Also in a forked child of a process that had one.
pub(crate) const SCOPE: u8 = 32;
/// The upper two bits count the threads that make a trial: an allocation that tells by its way
/// whether the tracker is installed.
const ONE_TRIAL: u8 = 64;

#[unsafe(link_section = "alloc_tracker_hot")]
static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);

/// Whether an event must be handled by the hook, and not by the inner allocator alone. PERF: one
/// relaxed load; a program that links the crate and is not profiled pays for nothing else.
#[inline(always)]
pub(crate) fn is_active() -> bool {
    MODE.load(Ordering::Relaxed) != 0
}

/// Returns all bits of the mode.
#[inline]
pub(crate) fn current() -> u8 {
    MODE.load(Ordering::Relaxed)
}

/// Adds these bits to the mode.
pub(crate) fn switch_on(bits: u8) {
    MODE.fetch_or(bits, Ordering::Relaxed);
}

/// Removes these bits from the mode.
pub(crate) fn switch_off(bits: u8) {
    MODE.fetch_and(!bits, Ordering::Relaxed);
}

/// Removes this bit from the mode. False if the mode did not have it, because another thread was
/// faster.
pub(crate) fn switch_off_if_on(bit: u8) -> bool {
    MODE.fetch_and(!bit, Ordering::Relaxed) & bit != 0
}

/// Whether the environment has not been read yet, or is just being read.
pub(crate) fn is_undecided() -> bool {
    current() & UNDECIDED != 0
}

/// Notes that the environment has been read.
pub(crate) fn set_decided() {
    switch_off(UNDECIDED);
}

/// Makes all events reach the hook until [`end_trial`]. Waits while three threads make trials.
///
/// NOTE: a child that is forked meanwhile keeps this count. Its events take the unusual way through
/// the hook, which is correct and slower.
pub(crate) fn begin_trial() {
    let one_more = |mode: u8| mode.checked_add(ONE_TRIAL);
    while MODE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
        yield_now();
    }
}

/// Ends what [`begin_trial`] has begun.
pub(crate) fn end_trial() {
    MODE.fetch_sub(ONE_TRIAL, Ordering::Relaxed);
}

/// Whether any thread makes a trial.
#[inline]
pub(crate) fn is_in_trial() -> bool {
    current() >= ONE_TRIAL
}

/// Whether an event must not be handled as usual, whatever is on: the environment has not been
/// read, a thread makes a trial, or there is a scope. PERF: one mask for all reasons.
#[inline]
pub(crate) fn is_unusual() -> bool {
    current() & !(RECORD | COUNT | WHOLE | REPORT) != 0
}
