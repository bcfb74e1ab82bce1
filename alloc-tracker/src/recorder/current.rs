//! The recording that runs, and how it ends when it fails. In: work to do on the recording, under
//! its lock. Out: the result, unless there is no recording. A failure ends the recording; it never
//! reaches the host.

use super::drain::{EnterError, EnteredRing, Stream};
use super::failure::{Failure, LastFailure};
use super::fork;
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::mode::{self, RECORD, WHOLE};
use crate::base::sys::{self, Errno, FutexLock, PathBuffer, describe_errno, print_to_stderr};
use crate::output::dump_file::DumpFile;

/// The recording that runs, or one that is just being begun or ended.
pub(super) static RECORDER: FutexLock<Option<CurrentStream>> = FutexLock::new(None);

/// The stream of a recording into a file.
pub(super) type CurrentStream = Stream<DumpFile>;

/// Runs `f` on the current recording, under the lock. An error ends the recording. `None` if there
/// is no recording, or if `f` has failed.
pub(super) fn with_stream<R>(f: impl FnOnce(&mut CurrentStream) -> Result<R, Failure>) -> Option<R> {
    if !fork::is_recorders_process() {
        return None;
    }
    let mut recorder = RECORDER.lock_awake_for(LONGEST_WORK_NS);
    let stream = recorder.as_mut()?;
    match f(stream) {
        Ok(result) => Some(result),
        Err(failure) => {
            let stream = recorder.take();
            // Published under the lock. Otherwise another thread could take the recording for one
            // that has ended without an error, or begin another one.
            if let Some(stream) = &stream {
                publish_failure(stream, failure);
            }
            drop(recorder);
            if let Some(stream) = stream {
                close_failed(stream, failure);
            }
            None
        }
    }
}

/// Makes the calling thread take part in the current recording.
pub(super) fn enter_thread() -> Result<EnteredRing, EnterError> {
    if !fork::is_recorders_process() {
        return Err(EnterError::RecordingOver);
    }
    let mut recorder = RECORDER.lock_awake_for(LONGEST_WORK_NS);
    recorder.as_mut().ok_or(EnterError::RecordingOver)?.enter_thread()
}

/// How long a thread waits awake for the recorder's lock, or for the thread that has it. Draining a
/// ring and writing a dump frame take less time, unless the disk is busy or no processor is free.
pub(super) const LONGEST_WORK_NS: u64 = 1_000_000;

/// Ends the recording because of a failure outside of the lock.
#[cold]
pub(super) fn fail(failure: Failure) {
    with_stream(|_| Err::<(), Failure>(failure));
}

/// Closes the dump of a recording that has failed. What was recorded so far stays readable, and the
/// dump says that it is not complete.
#[cold]
pub(super) fn close_failed(stream: CurrentStream, failure: Failure) {
    mode::switch_off(RECORD | WHOLE);
    publish_failure(&stream, failure);
    let path = PathBuffer::of(stream.path().as_bytes());
    let errno = Errno::from(failure);
    let what = match failure {
        Failure::Memory(_) => "no memory for its tables",
        Failure::Write(_) | Failure::Record => "the dump cannot be written",
    };
    stream.abandon(errno);
    epoch::replace_recording(Recording::Ending, Recording::None);
    print_to_stderr(format_args!(
        "recording into {path:.600} stops here: {what} ({}); the program goes on, and what was recorded stays readable",
        describe_errno(errno)
    ));
}

/// Notes the failure, and keeps any other recording from beginning before this one's dump is
/// closed.
fn publish_failure(stream: &CurrentStream, failure: Failure) {
    let recording = stream.recording();
    LAST_FAILURE.set(recording, Errno::from(failure));
    epoch::replace_recording(Recording::Running(recording), Recording::Ending);
}

/// Returns why this recording ended, if it failed and none has failed since. Waits until its dump
/// is closed.
pub(super) fn wait_for_failure_of(recording: RecordingId) -> Option<Errno> {
    wait_while_ending();
    LAST_FAILURE.of(recording)
}

/// Waits while the dump of a recording that has failed is being closed.
pub(super) fn wait_while_ending() {
    let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + PATIENCE_NS;
    while epoch::recording() == Recording::Ending && sys::clock_ns(libc::CLOCK_MONOTONIC) < until {
        sys::yield_now();
    }
}

/// Writes all nodes that are only in the sidecar into dump frames; false if the recording is over.
#[cold]
pub(super) fn drain_nodes() -> bool {
    with_stream(Stream::drain_nodes).is_some()
}

/// Bounds the wait: the caller may be a signal handler that has interrupted the code which closes
/// the dump.
const PATIENCE_NS: u64 = 2_000_000_000;
static LAST_FAILURE: LastFailure = LastFailure::none();
