//! The recording that runs, and how it ends when it fails. In: work to do on the recording, under
//! its lock. Out: the result, unless there is no recording. A failure ends the recording; it never
//! reaches the host.

use std::fmt::Write;

use super::drain::{EnterError, EnteredRing, Stream};
use super::drainer::{self, Request};
use super::failure::{Failure, LastFailure};
use super::{fork, host};
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::mode::{self, RECORD, REPORT, WHOLE};
use crate::base::sys::{
    self, Errno, FutexGuard, FutexLock, PathBuffer, Text, describe_errno, print_to_stderr,
};
use crate::modules;
use crate::output::dump_file::DumpFile;

/// The recording that runs, or one that is just being begun or ended.
pub(super) static RECORDER: FutexLock<Option<CurrentStream>> = FutexLock::new(None);

/// The stream of a recording into a file.
pub(super) type CurrentStream = Stream<DumpFile>;

/// Runs `f` on the current recording, under the lock. An error ends the recording. `None` if there
/// is no recording, or if `f` has failed.
///
/// If `f` needs the drain process ([`Failure::NeedsDrainer`]), this thread waits for it and calls
/// `f` again.
pub(super) fn with_stream<R>(f: impl FnMut(&mut CurrentStream) -> Result<R, Failure>) -> Option<R> {
    run_on_stream(f, lock, || !drainer::is_running())
}

/// Runs `f` as [`with_stream`] does, for the drain process, which has the recording's files.
pub(super) fn with_stream_as_drainer<R>(
    f: impl FnMut(&mut CurrentStream) -> Result<R, Failure>,
) -> Option<R> {
    run_on_stream(f, |ns| RECORDER.lock_awake_for(ns, host::has_left_program), || true)
}

fn run_on_stream<R>(
    mut f: impl FnMut(&mut CurrentStream) -> Result<R, Failure>,
    lock: impl Fn(u64) -> Option<FutexGuard<'static, Option<CurrentStream>>>,
    has_files: impl Fn() -> bool,
) -> Option<R> {
    loop {
        let mut recorder = lock(LONGEST_WORK_NS)?;
        let stream = recorder.as_mut()?;
        stream.set_has_files(has_files());
        match f(stream) {
            Ok(result) => return Some(result),
            Err(Failure::NeedsDrainer) => {
                stream.commit();
                drop(recorder);
                drainer::ask(Request::Drain);
            }
            Err(failure) => {
                let stream = recorder.take();
                // Published under the lock. Otherwise another thread could take the recording for
                // one that has ended without an error, or begin another one.
                if let Some(stream) = &stream {
                    publish_failure(stream, failure);
                }
                drop(recorder);
                if let Some(stream) = stream {
                    close_failed(stream, failure);
                }
                return None;
            }
        }
    }
}

/// Makes the calling thread take part in the current recording.
pub(super) fn enter_thread() -> Result<EnteredRing, EnterError> {
    loop {
        // PERF: a thread that begins sleeps at once while the lock is taken. Thousands of threads
        // that begin at the same time and wait awake would take the processors from the drainer.
        let mut recorder = lock(0).ok_or(EnterError::RecordingOver)?;
        let stream = recorder.as_mut().ok_or(EnterError::RecordingOver)?;
        stream.set_has_files(!drainer::is_running());
        let entered = stream.enter_thread();
        let is_short_of_rings = stream.is_short_of_rings();
        drop(recorder);
        if is_short_of_rings {
            drainer::wake();
        }
        match entered {
            Err(EnterError::NeedsDrainer) => _ = drainer::ask(Request::MapRings),
            entered => return entered,
        }
    }
}

/// Takes the recorder's lock, and waits awake for at most `awake_ns`. Returns `None` in a forked
/// child. Returns `None` if the drain process was killed, because the lock may then stay taken.
fn lock(awake_ns: u64) -> Option<FutexGuard<'static, Option<CurrentStream>>> {
    if !fork::is_recorders_process() {
        return None;
    }
    if !drainer::was_killed() {
        let guard = RECORDER.lock_awake_for(awake_ns, drainer::was_killed);
        if guard.is_some() && !drainer::was_killed() {
            return guard;
        }
    }
    if let Recording::Running(recording) = epoch::recording() {
        give_up_after_kill(recording);
    }
    None
}

/// Ends a recording whose drain process was killed. The sidecar has everything that is not in the
/// dump, and stays.
#[cold]
pub(super) fn give_up_after_kill(recording: RecordingId) {
    // The first thread that notices the kill reports it.
    if LAST_FAILURE.of(recording).is_none() {
        LAST_FAILURE.set(recording, KILLED);
        epoch::replace_recording(Recording::Running(recording), Recording::None);
        mode::switch_off(RECORD | WHOLE);
        print_to_stderr(format_args!(
            "recording stops here: its drain process was killed; the program goes on, and what was recorded stays readable"
        ));
    }
}

/// The error of a recording whose drain process was killed.
pub(super) const KILLED: Errno = Errno(libc::ECHILD);

/// Forgets the stream of an earlier recording whose drain process was killed. Called before a
/// recording begins, when no drain process lives.
pub(super) fn forget_stream_of_killed() {
    modules::replace_if_abandoned();
    match RECORDER.try_lock_for(PATIENCE_NS) {
        // The files were open in the killed process alone, so nothing must be closed.
        Some(mut recorder) => std::mem::forget(recorder.take()),
        // SAFETY: no thread works on the stream for so long, so the killed process had the lock.
        // Nothing runs that waits for it: waiting threads have given up.
        None => unsafe { RECORDER.reset(None) },
    }
}

/// Closes the host's descriptors of the recording's files, because the drain process has its own.
pub(super) fn close_descriptors_of_host() {
    if let Some(mut recorder) = lock(LONGEST_WORK_NS)
        && let Some(stream) = recorder.as_mut()
    {
        stream.for_each_file(&mut sys::close_descriptor);
    }
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
        Failure::Write(_) | Failure::Record | Failure::NeedsDrainer => "the dump cannot be written",
    };
    stream.abandon(errno);
    let message = format_args!(
        "recording into {path:.600} stops here: {what} ({}); the program goes on, and what was recorded stays readable",
        describe_errno(errno)
    );
    // The drain process has no descriptor of the host's stderr.
    if drainer::is_host() {
        print_to_stderr(message);
    } else {
        leave_message(message);
    }
    epoch::replace_recording(Recording::Ending, Recording::None);
}

/// Leaves a message that the host's next thread with an event prints.
pub(super) fn leave_message(message: std::fmt::Arguments<'_>) {
    let mut left = MESSAGE.lock();
    *left = Text::new();
    // A message that is too long is cut.
    let _ = left.write_fmt(message);
    mode::switch_on(REPORT);
}

/// Prints the message that the drain process has left, if there is one.
#[cold]
pub(crate) fn print_left_message() {
    if mode::current() & REPORT != 0
        && let Some(left) = MESSAGE.try_lock()
        && mode::switch_off_if_on(REPORT)
    {
        print_to_stderr(format_args!("{}", *left));
    }
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
    for _ in 0..PATIENCE_NS / NAP_NS {
        if epoch::recording() != Recording::Ending {
            return;
        }
        sys::nap(NAP_NS);
    }
}

/// Writes all nodes that are only in the sidecar into dump frames; false if the recording is over.
#[cold]
pub(super) fn drain_nodes() -> bool {
    with_stream(CurrentStream::drain_nodes).is_some()
}

/// Bounds the wait: the caller may be a signal handler that has interrupted the code which closes
/// the dump.
const PATIENCE_NS: u64 = 2_000_000_000;
const NAP_NS: u64 = 1_000_000;
/// See [`leave_message`].
static MESSAGE: FutexLock<Text<1000>> = FutexLock::new(Text::new());
static LAST_FAILURE: LastFailure = LastFailure::none();
