//! The recording that goes on, and its end. In: whatever is to be done under the lock. Out: what came of it, unless there is no
//! recording; a failure ends it.

use std::sync::atomic::{AtomicU64, Ordering};

use alloc_dump::sidecar as sidecar_format;

use super::drain::Stream;
use super::session::{is_fork, left_behind_by_fork};
use crate::base::epoch;
use crate::base::mode::{self, RECORD, WHOLE};
use crate::base::sys::{self, Errno, FutexLock, PathBuffer, describe_errno, print_to_stderr};
use crate::modules::{self, Found};
use crate::output::sidecar;
use crate::thread::Local;

pub(super) static RECORDER: FutexLock<Option<Stream>> = FutexLock::new(None);
/// The number of the recording that goes on while one that has failed is put away.
pub(super) const ENDING: u32 = u32::MAX - 1;
/// Events lost in this recording.
pub(super) static LOST: AtomicU64 = AtomicU64::new(0);

/// Runs `f` on the current recording, if there is one, under the lock. An error ends the recording.
pub(super) fn with_stream<R>(f: impl FnOnce(&mut Stream) -> Result<R, Failure>) -> Option<R> {
    if left_behind_by_fork() {
        return None;
    }
    let mut recorder = RECORDER.lock_awake_for(LONGEST_WORK_NS);
    let stream = recorder.as_mut()?;
    match f(stream) {
        Ok(result) => Some(result),
        Err(failure) => {
            let stream = recorder.take();
            // Under the lock still, so that nobody takes it for one that has ended well, or begins another one.
            if let Some(stream) = &stream {
                note_failure(stream, failure);
            }
            drop(recorder);
            if let Some(stream) = stream {
                give_up(stream, failure);
            }
            None
        }
    }
}

/// Draining a ring and writing a frame take less, unless the disk is busy, or no processor is to be had.
pub(super) const LONGEST_WORK_NS: u64 = 1_000_000;

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
    note_failure(&stream, failure);
    let path = PathBuffer::of(stream.path().as_bytes());
    let errno = Errno::from(failure);
    let what = match failure {
        Failure::Memory(_) => "no memory for its tables",
        Failure::Write(_) | Failure::Record => "the dump cannot be written",
    };
    stream.abandon(errno);
    epoch::replace_recording(ENDING, 0);
    print_to_stderr(format_args!(
        "recording into {path:.600} stops here: {what} ({}); the program goes on, and what was recorded stays readable",
        describe_errno(errno)
    ));
}

/// No other recording may begin before everything of this one is put away.
fn note_failure(stream: &Stream, failure: Failure) {
    let (number, errno) = (stream.number(), Errno::from(failure));
    LAST_FAILURE.store(u64::from(number) << 32 | u64::from(errno.0.unsigned_abs()), Ordering::Release);
    epoch::replace_recording(number, ENDING);
}

/// Why the recording of this number ended, if it failed and none has failed since. Waits until it is put away.
pub(super) fn failure_of(recording: u32) -> Option<Errno> {
    let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + PATIENCE_NS;
    while epoch::recording() == ENDING && sys::clock_ns(libc::CLOCK_MONOTONIC) < until {
        sys::yield_now();
    }
    let failure = LAST_FAILURE.load(Ordering::Relaxed);
    (failure >> 32 == u64::from(recording)).then_some(Errno(failure as u32 as i32))
}

/// Whoever puts it away may be the code that a signal handler has interrupted.
const PATIENCE_NS: u64 = 2_000_000_000;
/// The number of the recording that failed last, and the error.
static LAST_FAILURE: AtomicU64 = AtomicU64::new(0);

/// Counts events that reach the hook and cannot be recorded.
#[cold]
pub(crate) fn lose(events: u64) {
    if is_fork() {
        // The sidecar is the parent's.
        return;
    }
    LOST.fetch_add(events, Ordering::Relaxed);
    if let Some(lost) = sidecar::word(sidecar_format::LOST_OFFSET) {
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
