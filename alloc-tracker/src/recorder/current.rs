//! The recording that goes on, and its end. In: whatever is to be done under the lock. Out: what came of it, unless there is no
//! recording; a failure ends it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc_dump::tail;

use super::session::left_behind_by_fork;
use super::stream::Stream;
use crate::mode::{self, RECORD, WHOLE};
use crate::modules::{self, Found};
use crate::sidecar;
use crate::sys::{Errno, FutexLock, PathBuffer, complain, describe};
use crate::thread::Local;

pub(super) static RECORDER: FutexLock<Option<Stream>> = FutexLock::new(None);
/// Which recording of this process is going on, from 1; 0 for none.
pub(super) static RECORDING: AtomicU32 = AtomicU32::new(0);
/// Events lost in this recording.
pub(super) static LOST: AtomicU64 = AtomicU64::new(0);

/// Runs `f` on the current recording, if there is one, under the lock. An error ends the recording.
pub(super) fn with_stream<R>(f: impl FnOnce(&mut Stream) -> Result<R, Failure>) -> Option<R> {
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

/// Why a recording cannot go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
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

/// Ends the recording because of something that a thread met outside of the lock.
#[cold]
pub(super) fn stop(failure: Failure) {
    with_stream(|_| Err::<(), Failure>(failure));
}

/// Ends the recording; the dump so far stays readable and says that it is not complete.
#[cold]
pub(super) fn give_up(stream: Stream, failure: Failure) {
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

/// Records that a thread has ended, if it had any event in this recording.
pub(crate) fn thread_ends(local: &mut Local) {
    if mode::current() & RECORD != 0 && !left_behind_by_fork() {
        local.enrolment.end();
    }
}

/// Looks for libraries that have gone. Called from time to time, without any lock held.
pub(super) fn notice_replaced_modules() {
    modules::notice_replaced();
}
