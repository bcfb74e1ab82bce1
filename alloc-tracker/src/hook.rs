//! The four events, in the order of steps that makes a dump exact: count, walk the stack, record. Runs inside the
//! host's allocator calls: never panics, never allocates, never unwinds, leaves `errno` as it was.
//!
//! A free is recorded **before** the inner allocator gets the block back and an allocation **after** it was handed
//! out, so that in the dump a reused address is always freed before it is allocated again.

use std::hint::black_box;

use crate::capture;
use crate::counters;
use crate::mode::{self, COUNT, RECORD};
use crate::recorder::{self, Event};
use crate::sys::ErrnoGuard;
use crate::thread::{self, Busy};

/// After a block was handed out.
#[inline(never)]
pub(crate) fn allocated(block: *mut u8, size: usize, zeroed: bool, counting: bool) {
    let frame = 0u8;
    if !block.is_null() {
        let event = Event::Alloc { addr: block as u64, size: size as u64, zeroed };
        handle(event, counting, black_box(&raw const frame) as usize);
    }
}

/// Before a block is given back.
#[inline(never)]
pub(crate) fn freeing(block: *mut u8, size: usize, counting: bool) {
    let frame = 0u8;
    let event = Event::Dealloc { addr: block as u64, size: size as u64 };
    handle(event, counting, black_box(&raw const frame) as usize);
}

/// Before a block is moved: from now on its address may be given to another thread. Tells [`reallocated`] whether
/// this half was recorded.
#[inline(never)]
pub(crate) fn reallocating(block: *mut u8, size: usize, counting: bool) -> bool {
    let _errno = ErrnoGuard::new();
    settle(counting);
    if mode::current() & RECORD == 0 {
        return false;
    }
    thread::with(|mut busy| recorder::realloc_begins(busy.local(), block as u64, size as u64))
        .unwrap_or(false)
}

/// After a block was moved, or could not be.
#[inline(never)]
pub(crate) fn reallocated(begun: bool, old: *mut u8, old_size: usize, new: *mut u8, size: usize) {
    let frame = 0u8;
    if new.is_null() {
        if begun {
            let _errno = ErrnoGuard::new();
            thread::with(|mut busy| recorder::realloc_failed(busy.local()));
        }
        return;
    }
    let event = Event::Realloc {
        old: old as u64,
        old_size: old_size as u64,
        new: new as u64,
        size: size as u64,
        begun,
    };
    handle(event, false, black_box(&raw const frame) as usize);
}

/// `above` is an address in the stack frame of the caller: what lies at or below it is ours, not the host's.
fn handle(event: Event, counting: bool, above: usize) {
    let _errno = ErrnoGuard::new();
    settle(counting);
    if mode::undecided() {
        // Another thread is deciding just now; if it decides to record, this event came before its first.
        recorder::lose(1);
    }
    if mode::current() & (RECORD | COUNT) == 0 {
        return;
    }
    let seen = thread::with(|busy| {
        if mode::current() & COUNT != 0 {
            busy.counters().count(&event);
        }
        if mode::current() & RECORD != 0 && !recorder::left_behind_by_fork() {
            record(busy, &event, above);
        }
    });
    if seen.is_none() {
        // A signal handler that allocates while its thread is in here.
        if mode::current() & COUNT != 0 {
            counters::REENTRANT.count_shared(&event);
        }
        if mode::current() & RECORD != 0 {
            recorder::lose(1);
        }
    }
}

/// Reads the environment if this is the first event of the process.
#[inline]
fn settle(counting: bool) {
    if mode::undecided() {
        mode::decide(counting, true);
    }
}

fn record(mut busy: Busy<'_>, event: &Event, above: usize) {
    let local = busy.local();
    let end = capture::walk(&mut local.walk, above);
    recorder::event(local, end, event);
}
