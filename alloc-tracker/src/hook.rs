//! The four events, in the order of steps that makes a dump exact: count, walk the stack, record. Runs inside the
//! host's allocator calls: never panics, never allocates, never unwinds, leaves `errno` as it was.
//!
//! A free is recorded **before** the inner allocator gets the block back and an allocation **after** it was handed
//! out, so that in the dump a reused address is always freed before it is allocated again.

use alloc_dump::thread_ring::HeapEventKind;

use crate::api::stats as counters;
use crate::base::mode::{self, COUNT, RECORD};
use crate::base::sys::ErrnoGuard;
use crate::capture::{EntryFrame, Shim};
use crate::recorder::{self, Begun, Event};
use crate::thread;

/// The block comes from `alloc_zeroed`.
pub(crate) const ZEROED: usize = 1;
/// The allocator was declared to count from the first event on.
pub(crate) const COUNTING: usize = 2;

/// Before a block is moved: from now on its address may be given to another thread.
#[inline(never)]
pub(crate) fn reallocating(block: *mut u8, old_size: usize, flags: usize) -> Begun {
    let old_size = old_size as u64;
    if mode::undecided() {
        settle(flags);
    }
    if mode::current() & RECORD == 0 || recorder::left_behind_by_fork() {
        return Begun { old_size, recording: 0 };
    }
    let recording = thread::with(|mut busy| recorder::realloc_begins(busy.local(), block as u64, old_size));
    Begun { old_size, recording: recording.unwrap_or(0) }
}

/// After a block was handed out. Of `flags` see [`ZEROED`] and [`COUNTING`].
#[inline(always)]
pub(crate) fn allocated(block: *mut u8, size: usize, flags: usize, entered: &EntryFrame) {
    if !block.is_null() {
        recorder::settle();
        let kind = if flags & ZEROED != 0 { HeapEventKind::AllocZeroed } else { HeapEventKind::Alloc };
        handle(kind, block as u64, size as u64, &Begun::NOT_AT_ALL, flags, entered);
    }
}

/// Before a block is given back.
#[inline(always)]
pub(crate) fn freeing(block: *mut u8, size: usize, flags: usize, entered: &EntryFrame) {
    handle(HeapEventKind::Dealloc, block as u64, size as u64, &Begun::NOT_AT_ALL, flags, entered);
}

/// After a block was moved, or could not be.
#[inline(always)]
pub(crate) fn reallocated(begun: &Begun, new: *mut u8, size: usize, entered: &EntryFrame) {
    if new.is_null() {
        return could_not_be_moved(begun.recording);
    }
    recorder::settle();
    handle(HeapEventKind::ReallocEnd, new as u64, size as u64, begun, 0, entered);
}

#[cold]
#[inline(never)]
fn could_not_be_moved(recording: u32) {
    if recording != 0 && !recorder::left_behind_by_fork() {
        thread::with(|mut busy| recorder::realloc_failed(busy.local(), recording));
    }
}

/// PERF: one function for all kinds of events, in which the kind is a number that is stored, and no branch: which one comes next
/// cannot be foreseen, and code that is there once is in the nearest cache. Its arguments are those that fit into registers.
#[inline(never)]
fn handle(kind: HeapEventKind, addr: u64, size: u64, begun: &Begun, flags: usize, entered: &EntryFrame) {
    // PERF: a recording and nothing else is the usual case; whatever may change `errno` in there guards it itself.
    if mode::current() & !mode::WHOLE == RECORD
        && !recorder::left_behind_by_fork()
        && let Some(thread) = thread::own()
    {
        if thread.enter(|busy| record(busy, &Event { kind, addr, size, begun: *begun }, entered)).is_none() {
            recorder::lose(1);
        }
        return;
    }
    handle_others(&Event { kind, addr, size, begun: *begun }, flags, entered);
}

#[cold]
#[inline(never)]
fn handle_others(event: &Event, flags: usize, entered: &EntryFrame) {
    let _errno = ErrnoGuard::new();
    settle(flags);
    if mode::undecided() {
        // Another thread is deciding just now; if it decides to record, this event came before its first.
        recorder::lose(1);
    }
    if mode::current() & RECORD != 0 {
        // Out here: a child that is to record for itself cannot begin to while its thread is in the hook.
        recorder::left_behind_by_fork();
    }
    if mode::current() & (RECORD | COUNT) == 0 {
        return;
    }
    let seen = thread::with(|busy| {
        if mode::current() & COUNT != 0 {
            busy.counters().count(event);
        }
        if mode::current() & RECORD != 0 && !recorder::left_behind_by_fork() {
            record(busy, event, entered);
        }
    });
    if seen.is_none() {
        // A signal handler that allocates while its thread is in here.
        if mode::current() & COUNT != 0 {
            counters::REENTRANT.count_shared(event);
        }
        if mode::current() & RECORD != 0 {
            recorder::lose(1);
        }
    }
}

/// Reads the environment if this is the first event of the process.
#[cold]
fn settle(flags: usize) {
    let _errno = ErrnoGuard::new();
    if mode::undecided() {
        mode::decide(flags & COUNTING != 0, true);
    }
}

#[inline(always)]
fn record(mut busy: thread::Busy<'_>, event: &Event, entered: &EntryFrame) {
    let local = busy.local();
    if let Some(stack) = recorder::walk(local, &Shim::of(event.kind).skip(entered.registers())) {
        recorder::event(local, stack, event);
    }
}
