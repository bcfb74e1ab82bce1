//! From events to the dump. In: events with their walks, from any thread. Out: records in the sink's frames.
//!
//! A thread stamps its events and stores them in a lane of its own, without waiting for any other (`writer`). Now and
//! then somebody drains all lanes into the one ordered stream (`stream`, `merge`): a helper thread (`helper`), or
//! whichever thread finds its lane full. A failure of ours ends the recording with one line on stderr and never
//! reaches the host.

mod helper;
mod merge;
mod session;
mod stream;
mod usage;
mod writer;

pub(crate) use session::{finish, left_behind_by_fork, start};
pub(crate) use writer::Enrolment;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc_dump::lane::{Entry, WIDE};
use alloc_dump::layout::StackId;
use alloc_dump::record::LINE_AGAIN;
use alloc_dump::tail;

use crate::capture::{self, End, Registers, Walks};
use crate::clock;
use crate::mode::{self, RECORD, WHOLE};
use crate::modules::{self, Found};
use crate::probe::{Activation, Function};
use crate::sidecar;
use crate::sys::{Errno, ErrnoGuard, FutexLock, PathBuffer, complain, describe};
use crate::thread::Local;
use crate::tree::{Parent, Refused, SidecarJournal, TREE};
use stream::Stream;

/// A stack that was walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    id: StackId,
    /// Whether it is not all of the stack.
    truncated: bool,
}

/// Something that happened to the heap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A block was handed out.
    Alloc { addr: u64, size: u64, zeroed: bool },
    /// A block is about to be given back.
    Dealloc { addr: u64, size: u64 },
    /// A block was moved; [`realloc_begins`] has recorded the first half in the recording `begun`, 0 for none.
    Realloc { old_size: u64, new: u64, size: u64, begun: u32 },
}

/// What is recorded from now on comes after what this thread has read before, as far as other threads can tell: called when
/// the inner allocator has come back.
#[inline(always)]
pub(crate) fn settle() {
    // NOTE: not before that, so that whoever was given another thread's block knows of that thread's lane.
    if sidecar::lane_count() > 1 {
        clock::settle();
    }
}

/// Walks the stack of the function that has these registers, for an event; `None` if there is no recording.
///
/// PERF: there is one for each kind of event, with all that it calls. NOTE: without optimisation there is not, because what is
/// inlined would add up on the stack of the program's thread.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn walk(local: &mut Local, registers: &Registers) -> Option<Stack> {
    if !local.enrolment.prepare() {
        return None;
    }
    let Local { walks, enrolment, .. } = local;
    if let Some(id) = walks.shortcut(registers, enrolment.epoch())
        && !capture::is_checking()
    {
        return Some(Stack { id, truncated: false });
    }
    walk_on(walks, enrolment, registers)
}

/// The same, where no shortcut leads to the stack's node, or where it is to be checked whether it does.
///
/// PERF: apart from what every event does, which needs few registers as long as this is not in it.
#[inline(never)]
fn walk_on(walks: &mut Walks, enrolment: &mut Enrolment, registers: &Registers) -> Option<Stack> {
    if capture::is_checking()
        && let Some(id) = walks.shortcut(registers, enrolment.epoch())
    {
        capture::check(walks, registers, id, enrolment.generation(), intern);
        return Some(Stack { id, truncated: false });
    }
    let mut end = capture::walk(walks, registers, enrolment.epoch());
    // The walk itself may have found out that there is other code now.
    if enrolment.look_at_modules() {
        end = walk_again(walks, registers, enrolment.epoch());
    }
    let generation = enrolment.generation();
    let stack = walks.resolve(registers, end, generation, intern);
    if capture::is_checking()
        && !walks.is_by_addresses()
        && let Ok(stack) = stack
    {
        capture::check(walks, registers, stack, generation, intern);
    }
    match stack {
        Ok(id) => Some(Stack { id, truncated: end == End::Truncated }),
        Err(Refused::Memory(errno)) => {
            stop(Failure::Memory(errno));
            None
        }
        Err(Refused::Bound | Refused::Over) => Some(Stack { id: StackId::TRUNCATED, truncated: true }),
    }
}

/// Records an event whose stack was just walked.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn event(local: &mut Local, Stack { id: stack, truncated }: Stack, event: Event) {
    let enrolment = &mut local.enrolment;
    match event {
        Event::Alloc { addr, size, zeroed } => {
            enrolment.store(size, |size| Entry::Alloc { addr, size, stack, zeroed, truncated });
        }
        Event::Dealloc { addr, size } => {
            enrolment.store(size, |size| Entry::Dealloc { addr, size, stack, truncated });
        }
        // It began before the recording: since then the old address may have become another thread's block.
        Event::Realloc { begun, .. } if !enrolment.is_of(begun) => lose(1),
        Event::Realloc { new: addr, size, .. } => {
            enrolment.store(size, |size| Entry::ReallocEnd { addr, size, stack, truncated });
        }
    }
}

/// Records that a block is about to be moved. The number of the recording, or 0 if there is none.
pub(crate) fn realloc_begins(local: &mut Local, addr: u64, size: u64) -> u32 {
    let enrolment = &mut local.enrolment;
    if !enrolment.prepare() {
        return 0;
    }
    if enrolment.store(size, |size| Entry::ReallocBegin { addr, size }) { enrolment.recording() } else { 0 }
}

/// Records that the block which this thread began to move, in the recording `begun`, stays what it was.
pub(crate) fn realloc_failed(local: &mut Local, begun: u32) {
    if local.enrolment.prepare() && local.enrolment.is_of(begun) {
        settle();
        local.enrolment.store(0, |_| Entry::ReallocFailed);
    }
}

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
        // It was left before, maybe by another thread: its stamp must be the later one.
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

/// Records that a thread has ended, if it had any event in this recording.
pub(crate) fn thread_ends(local: &mut Local) {
    if mode::current() & RECORD != 0 && !left_behind_by_fork() {
        local.enrolment.end();
    }
}

/// Counts events that reach the hook and cannot be recorded.
#[cold]
pub(crate) fn lose(events: u64) {
    LOST.fetch_add(events, Ordering::Relaxed);
    if let Some(lost) = sidecar::word(tail::LOST_OFFSET) {
        lost.fetch_add(events, Ordering::Relaxed);
    }
}

/// Puts all nodes that wait in the sidecar into frames; false if the recording is over.
#[cold]
pub(crate) fn drain_nodes() -> bool {
    with_stream(Stream::drain_nodes).is_some()
}

/// A module appeared or vanished. Called under the lock of the modules.
pub(crate) fn module_changed(found: &Found<'_>) {
    with_stream(|stream| stream.module_changed(found));
}

/// Why a recording cannot go on.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The dump cannot be written.
    Write(Errno),
    /// There is no memory for the tracker's tables.
    Memory(Errno),
    /// A record that does not fit into an empty frame; no record is that large.
    Record,
}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Errno {
        match failure {
            Failure::Write(errno) | Failure::Memory(errno) => errno,
            Failure::Record => Errno(libc::EOVERFLOW),
        }
    }
}

static RECORDER: FutexLock<Option<Stream>> = FutexLock::new(None);
/// Which recording of this process is going on, from 1; 0 for none.
static RECORDING: AtomicU32 = AtomicU32::new(0);
/// Events lost in this recording.
static LOST: AtomicU64 = AtomicU64::new(0);

#[cold]
#[inline(never)]
fn walk_again(walks: &mut Walks, registers: &Registers, epoch: u64) -> End {
    capture::walk(walks, registers, epoch)
}

#[inline(always)]
fn intern(parent: Parent, pc: u64) -> Result<StackId, Refused> {
    TREE.intern(parent, pc, &SidecarJournal)
}

/// Whether this size has room in an entry.
#[inline]
fn narrow(size: u64) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| *size != WIDE)
}

/// Runs `f` on the current recording, if there is one, under the lock. An error ends the recording.
fn with_stream<R>(f: impl FnOnce(&mut Stream) -> Result<R, Failure>) -> Option<R> {
    if left_behind_by_fork() {
        return None;
    }
    let mut recorder = RECORDER.lock();
    let stream = recorder.as_mut()?;
    match f(stream) {
        Ok(result) => Some(result),
        Err(failure) => {
            let stream = recorder.take();
            drop(recorder);
            if let Some(stream) = stream {
                give_up(stream, failure);
            }
            None
        }
    }
}

/// Ends the recording because of something that a thread met outside of the lock.
#[cold]
fn stop(failure: Failure) {
    with_stream(|_| Err::<(), Failure>(failure));
}

/// Ends the recording; the dump so far stays readable and says that it is not complete.
#[cold]
fn give_up(stream: Stream, failure: Failure) {
    mode::switch_off(RECORD | WHOLE);
    RECORDING.store(0, Ordering::Release);
    let path = PathBuffer::of(stream.path().as_bytes());
    let errno = Errno::from(failure);
    let what = match failure {
        Failure::Memory(_) => "no memory for its tables",
        Failure::Write(_) | Failure::Record => "the dump cannot be written",
    };
    stream.abandon(errno);
    complain(format_args!(
        "recording into {path:.600} stops here: {what} ({}); the program goes on, and what was recorded stays readable",
        describe(errno)
    ));
}

/// Looks for libraries that have gone. Called from time to time, without any lock held.
fn notice_replaced_modules() {
    modules::notice_replaced();
}
