//! Heap events: their stacks are walked and they are stored in the thread's ring. In: what the hook has seen. Out: entries.

use alloc_dump::layout::StackId;
use alloc_dump::thread_ring::{Entry, HeapEventKind};

use super::current::{Failure, lose, stop};
use crate::base::clock;
use crate::base::sys::ErrnoGuard;
use crate::capture::{self, Registers, ReturnAddress, StackWalker, WalkEnd};
use crate::output::sidecar;
use crate::thread::Local;
use crate::tree::{Parent, Refused, SidecarJournal, TREE};

/// A stack that was walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    id: StackId,
    /// Whether it is not all of the stack.
    truncated: bool,
}

/// Something that happened to the heap: a block was handed out, is about to be given back, or was moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) kind: HeapEventKind,
    /// Where the block is now.
    pub(crate) addr: u64,
    /// Its size now.
    pub(crate) size: u64,
    pub(crate) begun: Begun,
}

/// The first half of a realloc.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// The block's size before.
    pub(crate) old_size: u64,
    /// In which recording [`realloc_begins`] has recorded it, 0 for none, [`COUNTED`] if it could not and has counted it as lost.
    pub(crate) recording: u32,
}

impl Begun {
    /// Of events that have no first half.
    pub(crate) const NOT_AT_ALL: Begun = Begun { old_size: 0, recording: u32::MAX - 2 };
}

/// What is recorded from now on comes after what this thread has read before, as far as other threads can tell: called when
/// the inner allocator has come back.
#[inline(always)]
pub(crate) fn settle() {
    // NOTE: not before that, so that whoever was given another thread's block knows of that thread's ring.
    if sidecar::ring_count() > 1 {
        clock::settle();
    }
}

/// Walks the stack of the function that has these registers, for an event; `None` if there is no recording.
///
/// NOTE: not inlined without optimisation: what is would add up on the stack of the program's thread.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn walk(local: &mut Local, registers: &Registers) -> Option<Stack> {
    if !local.enrolment.prepare() {
        return None;
    }
    if let Some(id) = local.walker.node_by_shortcut(registers, local.enrolment.epoch())
        && !capture::is_checking()
    {
        return Some(Stack { id, truncated: false });
    }
    let Registers { pc, sp, fp } = *registers;
    walk_on(local, pc, sp, fp)
}

/// The same, where no shortcut leads to the stack's node, or where it is to be checked whether it does.
///
/// PERF: apart from what every event does, which needs few registers as long as this is not in it, and none of these in memory.
#[inline(never)]
fn walk_on(local: &mut Local, pc: ReturnAddress, sp: u64, fp: u64) -> Option<Stack> {
    let (Local { walker, enrolment, .. }, registers) = (local, &Registers { pc, sp, fp });
    let intern = interner(enrolment.recording());
    if capture::is_checking()
        && let Some(id) = shortcut(walker, registers, enrolment.epoch())
    {
        capture::check_node(walker, registers, id, enrolment.generation(), intern);
        return Some(Stack { id, truncated: false });
    }
    let mut end = capture::walk(walker, registers, enrolment.epoch());
    // The walk itself may have found out that there is other code now.
    if enrolment.look_at_modules() {
        end = capture::walk(walker, registers, enrolment.epoch());
    }
    let generation = enrolment.generation();
    let stack = walker.intern_new_frames(registers, end, generation, intern);
    if capture::is_checking()
        && !walker.last_walk_was_portable()
        && let Ok(stack) = stack
    {
        capture::check_node(walker, registers, stack, generation, intern);
    }
    match stack {
        Ok(id) => Some(Stack { id, truncated: end == WalkEnd::Truncated }),
        Err(Refused::Memory(errno)) => {
            let _errno = ErrnoGuard::new();
            stop(Failure::Memory(errno));
            None
        }
        Err(Refused::Bound) => Some(Stack { id: StackId::TRUNCATED, truncated: true }),
        Err(Refused::Over) => None,
    }
}

#[cold]
#[inline(never)]
fn shortcut(walker: &mut StackWalker, registers: &Registers, epoch: u64) -> Option<StackId> {
    walker.node_by_shortcut(registers, epoch)
}

/// Records an event whose stack was just walked.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn event(local: &mut Local, Stack { id: stack, truncated }: Stack, event: &Event) {
    let (enrolment, &Event { kind, addr, size, begun }) = (&mut local.enrolment, event);
    if begun.recording != Begun::NOT_AT_ALL.recording && !enrolment.is_of(begun.recording) {
        // It began before the recording: since then the old address may have become another thread's block.
        lose(u64::from(begun.recording != COUNTED));
        return;
    }
    enrolment.store_words(size, |size, timestamp| kind.encode(addr, size, (stack, truncated), timestamp));
}

/// Records that a block is about to be moved. The number of the recording, 0 if there is none, [`COUNTED`] if the event is lost
/// and has been counted as such.
pub(crate) fn realloc_begins(local: &mut Local, addr: u64, size: u64) -> u32 {
    let enrolment = &mut local.enrolment;
    if !enrolment.prepare() {
        return 0;
    }
    match enrolment.store(size, |size| Entry::ReallocBegin { addr, size }) {
        true => enrolment.recording(),
        false => COUNTED,
    }
}

/// Not the number of any recording.
pub(crate) const COUNTED: u32 = u32::MAX;

/// Records that the block which this thread began to move, in the recording `begun`, stays what it was.
pub(crate) fn realloc_failed(local: &mut Local, begun: u32) {
    if local.enrolment.prepare() && local.enrolment.is_of(begun) {
        settle();
        local.enrolment.store(0, |_| Entry::ReallocFailed);
    }
}

/// Gives nodes their numbers, for a thread that has its part in this recording.
#[inline(always)]
fn interner(recording: u32) -> impl Fn(Parent, u64) -> Result<StackId, Refused> + Copy {
    move |parent, pc| TREE.intern(parent, pc, &SidecarJournal { recording })
}
