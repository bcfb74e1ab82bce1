//! What happens at each of the four heap events: count it, walk the stack, record it, in the order
//! that makes a dump exact. In: the allocator's calls. Out: counts and recorded events. No other
//! module decides what is done with an event.
//!
//! Runs inside the host's allocator calls: never panics, never allocates through the global
//! allocator, never unwinds, leaves `errno` as it was.
//!
//! A free is recorded **before** the inner allocator gets the block back, and an allocation
//! **after** the block was handed out. So in the dump an address is always freed before it is
//! allocated again:
//!
//! ```text
//! thread A:  record free(0x1000) at 17
//!            inner.dealloc(0x1000)
//! thread B:                               inner.alloc() = 0x1000
//!                                         record alloc(0x1000) at 23
//! ```
//!
//! A realloc does both, so it is recorded on both sides of the inner call.

use alloc_dump::thread_ring::HeapEventKind;

use crate::base::mode::{self, COUNT, RECORD, SCOPE};
use crate::base::sys::ErrnoGuard;
use crate::capture::Shim;
pub(crate) use crate::capture::{EntryFrame, entry};
use crate::recorder::{self, BeginEntry, BusyThread, HeapEvent, REENTRANT, ReallocBegin, THREADS};
use crate::scope::{self, ThreadScopes};

/// Flag: the block comes from `alloc_zeroed`.
pub(crate) const ZEROED: usize = 1;
/// Flag: the allocator was declared to count from the first event on.
pub(crate) const COUNTING: usize = 2;

/// Called before a realloc: from now on the inner allocator may give the block's address to another
/// thread. Returns what became of the first half of the event.
///
/// PERF: the result fits into two registers; [`after_realloc`] puts the old size beside it.
#[inline(never)]
pub(crate) fn before_realloc(block: *mut u8, old_size: usize, flags: usize) -> BeginEntry {
    if mode::is_unusual() && begin_unusual_realloc(block, flags) {
        return BeginEntry::NotRecorded;
    }
    if mode::current() & RECORD == 0 || recorder::is_left_behind_by_fork() {
        return BeginEntry::NotRecorded;
    }
    let begin =
        |mut busy: BusyThread<'_>| recorder::record_realloc_begin(busy.own(), block as u64, old_size as u64);
    THREADS.enter_hook(begin).unwrap_or(BeginEntry::NotRecorded)
}

/// Returns true if the realloc is part of a trial. Takes the block out of the table of scopes: from
/// now on its address may become another thread's block.
#[cold]
#[inline(never)]
fn begin_unusual_realloc(block: *mut u8, flags: usize) -> bool {
    if is_trial_or_first(flags, None) {
        return true;
    }
    if mode::current() & SCOPE != 0 {
        let begin = |scopes: &mut ThreadScopes| scope::note_realloc_begin(scopes, block as u64);
        if recorder::with_scopes(begin).is_none() {
            scope::note_missed(true);
        }
    }
    false
}

/// Called after a block was allocated. `flags` may have [`ZEROED`] and [`COUNTING`].
#[inline(always)]
pub(crate) fn after_alloc(block: *mut u8, size: usize, flags: usize, entered: &EntryFrame) {
    if !block.is_null() {
        recorder::order_after_reads();
        let kind = if flags & ZEROED != 0 { HeapEventKind::AllocZeroed } else { HeapEventKind::Alloc };
        handle(kind, block as u64, size as u64, &ReallocBegin::NONE, flags, entered);
    }
}

/// Called before a block is freed.
#[inline(always)]
pub(crate) fn before_dealloc(block: *mut u8, size: usize, flags: usize, entered: &EntryFrame) {
    handle(HeapEventKind::Dealloc, block as u64, size as u64, &ReallocBegin::NONE, flags, entered);
}

/// Called after a realloc, which has failed if `new` is null. `begun` is what [`before_realloc`]
/// returned.
#[inline(always)]
pub(crate) fn after_realloc(
    begun: BeginEntry,
    old_size: usize,
    new: *mut u8,
    size: usize,
    entered: &EntryFrame,
) {
    if new.is_null() {
        return after_failed_realloc(begun);
    }
    recorder::order_after_reads();
    let begun = ReallocBegin { old_size: old_size as u64, entry: begun };
    handle(HeapEventKind::ReallocEnd, new as u64, size as u64, &begun, 0, entered);
}

#[cold]
#[inline(never)]
fn after_failed_realloc(begun: BeginEntry) {
    if mode::current() & SCOPE != 0 {
        recorder::with_scopes(|scopes| scope::note_realloc_end(scopes, None));
    }
    if let BeginEntry::RecordedIn(recording) = begun
        && !recorder::is_left_behind_by_fork()
    {
        THREADS.enter_hook(|mut busy| recorder::record_realloc_failed(busy.own(), recording));
    }
}

/// Handles an event of any kind.
///
/// PERF: one function for all kinds of events. It stores the kind as a number and never branches on
/// it, because the processor cannot predict which kind comes next. One copy of the code stays in
/// the first-level cache. All arguments fit into registers.
#[inline(never)]
fn handle(
    kind: HeapEventKind,
    addr: u64,
    size: u64,
    begun: &ReallocBegin,
    flags: usize,
    entered: &EntryFrame,
) {
    // PERF: a recording without counting is the usual case. Here every callee that may change
    // `errno` restores it itself.
    if mode::current() & !mode::WHOLE == RECORD
        && !recorder::is_left_behind_by_fork()
        && let Some(thread) = THREADS.own()
    {
        let event = HeapEvent { kind, addr, size, begun: *begun };
        if thread.enter_hook(|busy| record(busy, &event, entered)).is_none() {
            recorder::count_lost(1);
        }
        return;
    }
    handle_unusual(&HeapEvent { kind, addr, size, begun: *begun }, flags, entered);
}

#[cold]
#[inline(never)]
fn handle_unusual(event: &HeapEvent, flags: usize, entered: &EntryFrame) {
    if mode::is_unusual() {
        if is_trial_or_first(flags, Some(entered)) {
            return;
        }
        if mode::is_undecided() {
            // Another thread is reading the environment just now. If it starts a recording, this
            // event came before the first event of the recording, so it is lost.
            recorder::count_lost(1);
        }
        if mode::current() & SCOPE != 0 {
            return handle_beside_scopes(event, entered);
        }
    }
    count_and_record::<false>(event, entered);
}

/// Handles an event while there is a scope. PERF: a function of its own, so that counting without a
/// scope is not slower.
#[cold]
#[inline(never)]
fn handle_beside_scopes(event: &HeapEvent, entered: &EntryFrame) {
    count_and_record::<true>(event, entered);
}

/// Counts the event, records it, and notes it for scopes, as far as these are on. `SCOPES`: there
/// is a scope.
#[inline(always)]
fn count_and_record<const SCOPES: bool>(event: &HeapEvent, entered: &EntryFrame) {
    recorder::print_left_message();
    if mode::current() & RECORD != 0 {
        // Before `enter_hook`: in a forked child this call may begin a recording of the child's
        // own, which is not possible while the thread is in the hook.
        recorder::is_left_behind_by_fork();
    }
    if !SCOPES && mode::current() & (RECORD | COUNT) == 0 {
        return;
    }
    let entered_hook = THREADS.enter_hook(|mut busy| {
        if mode::current() & COUNT != 0 {
            busy.shared().count(event.kind, event.size, event.begun.old_size);
        }
        if SCOPES {
            note_for_scopes(&mut busy, event, entered);
        }
        if mode::current() & RECORD != 0 && !recorder::is_left_behind_by_fork() {
            record(busy, event, entered);
        }
    });
    if entered_hook.is_none() {
        // A signal handler allocates while its thread is in the hook.
        if mode::current() & COUNT != 0 {
            REENTRANT.count_shared(event.kind, event.size, event.begun.old_size);
        }
        if mode::current() & RECORD != 0 {
            recorder::count_lost(1);
        }
        if SCOPES {
            scope::note_missed(event.kind == HeapEventKind::Dealloc);
        }
    }
}

fn note_for_scopes(busy: &mut BusyThread<'_>, event: &HeapEvent, entered: &EntryFrame) {
    let (scopes, walker) = busy.own().scopes();
    match event.kind {
        HeapEventKind::Alloc | HeapEventKind::AllocZeroed => {
            scope::note_alloc(scopes, walker, (event.addr, event.size), Shim::of(event.kind), entered);
        }
        HeapEventKind::Dealloc => scope::note_dealloc(scopes, event.addr),
        HeapEventKind::ReallocEnd => {
            scope::note_realloc(scopes, walker, event.size, Shim::of(event.kind), entered);
            scope::note_realloc_end(scopes, Some((event.addr, event.size)));
        }
    }
}

/// Returns true if the event is part of a trial, which is neither counted nor recorded. If the
/// event is the first one of the process, notes where it came from and reads the environment.
#[cold]
#[inline(never)]
fn is_trial_or_first(flags: usize, entered: Option<&EntryFrame>) -> bool {
    let _errno = ErrnoGuard::new();
    if mode::is_in_trial() && recorder::take_trial() {
        return true;
    }
    if mode::is_undecided() {
        if let Some(entered) = entered {
            recorder::note_first_event(entered.caller());
        }
        recorder::decide(flags & COUNTING != 0, true);
    }
    false
}

#[inline(always)]
fn record(mut busy: BusyThread<'_>, event: &HeapEvent, entered: &EntryFrame) {
    let local = busy.own();
    if let Some(stack) = recorder::walk(local, &Shim::of(event.kind).skip(entered.registers())) {
        recorder::record_event(local, stack, event);
    }
}
