//! Heap events: walks their stacks and stores the events in the thread's ring. In: events, from the
//! hook. Out: entries.
//!
//! Runs inside the host's allocator calls: never panics, never allocates through the global
//! allocator, waits only for room in the thread's ring.

use alloc_dump::layout::StackId;
use alloc_dump::thread_ring::{Entry, HeapEventKind};

use super::call_tree::interner;
use super::current::fail;
use super::failure::Failure;
use super::lost::{count_lost, count_partly_verified};
use super::thread_recorder::ThreadRecorder;
use super::thread_state::ThreadLocal;
use crate::base::clock;
use crate::base::epoch::{Epoch, RecordingId};
use crate::capture::{self, Registers, ReturnAddress, StackWalker, WalkEnd};
use crate::output::sidecar;
use crate::tree::InternError;

/// A stack that was walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalkedStack {
    id: StackId,
    /// Whether the walk did not reach a known root.
    truncated: bool,
}

/// A heap event: a block was allocated, is about to be freed, or was moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeapEvent {
    pub(crate) kind: HeapEventKind,
    /// Address of the block now.
    pub(crate) addr: u64,
    /// Size of the block now.
    pub(crate) size: u64,
    /// The first half of a realloc.
    pub(crate) begun: ReallocBegin,
}

/// The first half of a realloc, which happens before the inner allocator moves the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReallocBegin {
    /// Size of the block before.
    pub(crate) old_size: u64,
    pub(crate) entry: BeginEntry,
}

/// The fate of the entry for the first half of a realloc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeginEntry {
    /// The event has no first half: it is no realloc.
    NoRealloc,
    /// There was no recording.
    NotRecorded,
    /// There was no room; the event has been counted as lost.
    Lost,
    /// The entry is in this recording.
    RecordedIn(RecordingId),
}

impl ReallocBegin {
    /// For events that are no realloc.
    pub(crate) const NONE: ReallocBegin = ReallocBegin { old_size: 0, entry: BeginEntry::NoRealloc };
}

impl BeginEntry {
    /// Whether the second half of the event may be recorded by this thread.
    #[inline(always)]
    fn allows(self, recorder: &ThreadRecorder) -> bool {
        match self {
            BeginEntry::NoRealloc => true,
            BeginEntry::RecordedIn(recording) => recorder.is_in(recording),
            BeginEntry::NotRecorded | BeginEntry::Lost => false,
        }
    }
}

/// Makes the timestamps that this thread takes from now on no earlier than everything that it has
/// read before, if another thread records as well. Called when the inner allocator has returned.
#[inline(always)]
pub(crate) fn order_after_reads() {
    // NOTE: the count of rings is read here and not before the inner call. A thread that was given
    // another thread's block must know of that thread's ring.
    if sidecar::ring_count() > 1 {
        clock::order_after_reads();
    }
}

/// Walks the stack of the function that has these registers, for an event; `None` if there is no
/// recording.
///
/// Not inlined in debug builds: the inlined frames would enlarge the stack that an event needs on
/// the host's thread.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn walk(local: &mut ThreadLocal, registers: &Registers) -> Option<WalkedStack> {
    if !local.recorder.prepare() {
        return None;
    }
    if let Some(id) = local.walker.node_by_shortcut(registers, local.recorder.epoch().bits())
        && !capture::is_checking()
    {
        return Some(WalkedStack { id, truncated: false });
    }
    let Registers { pc, sp, fp } = *registers;
    walk_in_full(local, pc, sp, fp)
}

/// Walks the stack where no shortcut leads to its node, or where the shortcut is to be
/// checked.
///
/// PERF: not inlined into the code that every event runs. So that code needs few registers, and the
/// three registers that are passed here need not be in memory.
#[inline(never)]
fn walk_in_full(local: &mut ThreadLocal, pc: ReturnAddress, sp: u64, fp: u64) -> Option<WalkedStack> {
    let (ThreadLocal { walker, recorder, .. }, registers) = (local, &Registers { pc, sp, fp });
    let intern = interner(recorder.recording()?);
    if capture::is_checking()
        && let Some(id) = shortcut(walker, registers, recorder.epoch())
    {
        capture::check_node(walker, registers, id, recorder.epoch().generation(), intern);
        return Some(WalkedStack { id, truncated: false });
    }
    let mut end = capture::walk(walker, registers, recorder.epoch().bits());
    // The walk may have met unknown code and scanned the modules, which may have begun another
    // generation.
    if recorder.notice_generation() {
        end = capture::walk(walker, registers, recorder.epoch().bits());
    }
    let generation = recorder.epoch().generation();
    let stack = walker.intern_new_frames(registers, end, generation, intern);
    if capture::is_checking()
        && !walker.last_walk_was_portable()
        && let Ok(stack) = stack
    {
        if end == WalkEnd::Truncated && walker.is_cut() {
            capture::check_cut_walk(walker, registers);
        } else {
            capture::check_node(walker, registers, stack, generation, intern);
        }
    }
    if walker.ends_partly_verified() {
        count_partly_verified();
    }
    match stack {
        Ok(id) => Some(WalkedStack { id, truncated: end == WalkEnd::Truncated }),
        Err(InternError::Memory(errno)) => {
            fail(Failure::Memory(errno));
            None
        }
        Err(InternError::TreeFull) => Some(WalkedStack { id: StackId::TRUNCATED, truncated: true }),
        Err(InternError::RecordingOver) => None,
    }
}

#[cold]
#[inline(never)]
fn shortcut(walker: &mut StackWalker, registers: &Registers, epoch: Epoch) -> Option<StackId> {
    walker.node_by_shortcut(registers, epoch.bits())
}

/// Records an event whose stack was just walked.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn record_event(
    local: &mut ThreadLocal,
    WalkedStack { id: stack, truncated }: WalkedStack,
    event: &HeapEvent,
) {
    let (recorder, &HeapEvent { kind, addr, size, begun }) = (&mut local.recorder, event);
    if !begun.entry.allows(recorder) {
        // The realloc did not begin in this recording, or its first half was lost and counted
        // already. Since then its old address may have become another thread's block.
        count_lost(u64::from(begun.entry != BeginEntry::Lost));
        return;
    }
    recorder.store_words(size, |size, timestamp| kind.encode(addr, size, (stack, truncated), timestamp));
}

/// Records that a block is about to be moved.
pub(crate) fn record_realloc_begin(local: &mut ThreadLocal, addr: u64, size: u64) -> BeginEntry {
    let recorder = &mut local.recorder;
    if !recorder.prepare() {
        return BeginEntry::NotRecorded;
    }
    if !recorder.store(size, |size| Entry::ReallocBegin { addr, size }) {
        return BeginEntry::Lost;
    }
    recorder.recording().map_or(BeginEntry::NotRecorded, BeginEntry::RecordedIn)
}

/// Records that a realloc which this thread began in the recording `begun` has failed: the block is
/// unchanged.
pub(crate) fn record_realloc_failed(local: &mut ThreadLocal, begun: RecordingId) {
    if local.recorder.prepare() && local.recorder.is_in(begun) {
        order_after_reads();
        local.recorder.store(0, |_| Entry::ReallocFailed);
    }
}
