//! The four events, in the order of steps that makes a dump exact: count, walk the stack, record. Runs inside the
//! host's allocator calls: never panics, never allocates, never unwinds, leaves `errno` as it was.
//!
//! A free is recorded **before** the inner allocator gets the block back and an allocation **after** it was handed
//! out, so that in the dump a reused address is always freed before it is allocated again.

use crate::capture::{self, Registers};
use crate::counters;
use crate::mode::{self, COUNT, RECORD};
use crate::recorder::{self, Event};
use crate::sys::ErrnoGuard;
use crate::thread::{self, Busy};

/// After a block was handed out.
#[inline(never)]
pub(crate) fn allocated(block: *mut u8, size: usize, zeroed: bool, counting: bool) {
    if !block.is_null() {
        let event = Event::Alloc { addr: block as u64, size: size as u64, zeroed };
        handle(event, counting, &Registers::here());
    }
}

/// Before a block is given back.
#[inline(never)]
pub(crate) fn freeing(block: *mut u8, size: usize, counting: bool) {
    let event = Event::Dealloc { addr: block as u64, size: size as u64 };
    handle(event, counting, &Registers::here());
}

/// Before a block is moved: from now on its address may be given to another thread. Tells [`reallocated`] in
/// which recording this half was recorded, 0 for none.
#[inline(never)]
pub(crate) fn reallocating(block: *mut u8, size: usize, counting: bool) -> u32 {
    let _errno = ErrnoGuard::new();
    settle(counting);
    if mode::current() & RECORD == 0 {
        return 0;
    }
    thread::with(|mut busy| recorder::realloc_begins(busy.local(), block as u64, size as u64)).unwrap_or(0)
}

/// After a block was moved, or could not be.
#[inline(never)]
pub(crate) fn reallocated(begun: u32, old: *mut u8, old_size: usize, new: *mut u8, size: usize) {
    if new.is_null() {
        if begun != 0 {
            let _errno = ErrnoGuard::new();
            thread::with(|mut busy| recorder::realloc_failed(busy.local(), begun));
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
    handle(event, false, &Registers::here());
}

/// `registers` are those of the caller: its frame and what it calls are ours, not the host's.
fn handle(event: Event, counting: bool, registers: &Registers) {
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
            record(busy, &event, registers);
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

fn record(mut busy: Busy<'_>, event: &Event, registers: &Registers) {
    let local = busy.local();
    let end = capture::walk(&mut local.walk, registers);
    recorder::event(local, end, event);
}
