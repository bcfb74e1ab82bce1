//! The order of events. In: events with their walks, from any thread. Out: records in the sink's current frame.
//!
//! One lock makes the order: an event's place in the dump is the moment at which its thread held it. Stacks are
//! walked before the lock is taken; under it, frames that are new are interned and records are appended. A failure
//! of ours ends the recording with one line on stderr and never reaches the host.

mod session;
mod stream;

pub(crate) use session::{finish, left_behind_by_fork, start};

use std::sync::atomic::{AtomicU64, Ordering};

use crate::capture::End;
use crate::mode::{self, RECORD, WHOLE};
use crate::sys::{Errno, FutexLock, PathBuffer, complain, describe};
use crate::thread::Local;
use stream::Stream;

/// Something that happened to the heap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A block was handed out.
    Alloc { addr: u64, size: u64, zeroed: bool },
    /// A block is about to be given back.
    Dealloc { addr: u64, size: u64 },
    /// A block was moved; [`realloc_begins`] has recorded the first half in the recording `begun`, 0 for none.
    Realloc { old: u64, old_size: u64, new: u64, size: u64, begun: u32 },
}

/// What a thread is to the current recording.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enrolment {
    /// Which recording of this process; 0 for none.
    recording: u32,
    /// The thread's number in it.
    id: u32,
    /// Which call tree the nodes of the thread's walk belong to; 0 for none.
    tree: u32,
    events: u64,
    name: [u8; 16],
}

impl Enrolment {
    pub(crate) const fn new() -> Enrolment {
        Enrolment { recording: 0, id: 0, tree: 0, events: 0, name: [0; 16] }
    }
}

/// Records an event whose stack has been walked into the thread's buffers.
pub(crate) fn event(local: &mut Local, end: End, event: &Event) {
    with_stream(|stream| {
        let thread = stream.enter(local)?;
        let stack = stream.intern(&mut local.walk, end)?;
        stream.heap_event(thread, event, stack)
    });
}

/// Records that a block is about to be moved. The number of the recording, or 0 if there is none.
pub(crate) fn realloc_begins(local: &mut Local, old: u64, old_size: u64) -> u32 {
    let begun = with_stream(|stream| {
        let thread = stream.enter(local)?;
        stream.realloc_begins(thread, old, old_size)
    });
    begun.unwrap_or(0)
}

/// Records that the block which this thread began to move, in the recording `begun`, stays what it was.
pub(crate) fn realloc_failed(local: &mut Local, begun: u32) {
    with_stream(|stream| {
        let thread = stream.enter(local)?;
        stream.realloc_failed(thread, begun)
    });
}

/// Records that a thread has ended, if it had any event in this recording.
pub(crate) fn thread_ends(local: &mut Local) {
    if mode::current() & RECORD != 0 {
        with_stream(|stream| stream.leave(&mut local.enrolment));
    }
}

/// Counts events that reach the hook and cannot be recorded.
pub(crate) fn lose(events: u64) {
    LOST.fetch_add(events, Ordering::Relaxed);
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

static RECORDER: FutexLock<Option<Stream>> = FutexLock::new(None);
/// Events lost since the last [`Record::Lost`].
static LOST: AtomicU64 = AtomicU64::new(0);

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
            if let Some(stream) = recorder.take() {
                give_up(stream, failure);
            }
            None
        }
    }
}

/// Ends the recording; the dump so far stays readable and says that it is not complete.
#[cold]
fn give_up(stream: Stream, failure: Failure) {
    mode::switch_off(RECORD | WHOLE);
    let path = PathBuffer::of(stream.path().as_bytes());
    let errno = match failure {
        Failure::Write(errno) | Failure::Memory(errno) => errno,
        Failure::Record => Errno(libc::EOVERFLOW),
    };
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
