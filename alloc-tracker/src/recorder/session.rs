//! How a recording begins and ends, and how a forked child finds out that the recording is not its
//! own. In: settings. Out: a recording that runs, or one line on stderr that says why there is
//! none. `start` and `finish` never run while the calling thread is in the hook, because they wait
//! for locks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use alloc_dump::header::Header;
use alloc_dump::record::{Process, RecordingLimit};

use super::call_tree::TREE;
use super::current::{
    CurrentStream, KILLED, RECORDER, close_failed, forget_stream_of_killed, give_up_after_kill,
    leave_message, print_left_message, wait_for_failure_of, wait_while_ending, with_stream,
    with_stream_as_drainer,
};
use super::drain::Stream;
use super::drain_process::DrainerEnd;
use super::failure::Failure;
use super::installation::installation_of_recording;
use super::module_changes::ModuleRecorder;
use super::thread_state::THREADS;
use super::{drain_process, drainer, fork, host, lost, snapshot, usage};
use crate::base::clock;
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::limits::Limits;
use crate::base::loader;
use crate::base::mode::{self, RECORD, WHOLE};
use crate::base::settings::{self, Drainer, OnFull, Settings, Verify};
use crate::base::sys::{self, Errno, FutexLock, Mapping, PathBuffer, describe_errno, print_to_stderr};
use crate::capture;
use crate::modules;
use crate::output::dump_file::{DumpFile, OpenError};
use crate::output::membarrier;
use crate::output::sidecar;

/// Begins a recording and returns its id.
///
/// # Errors
/// The dump cannot be created, another recording runs, or this process is a fork of one that has
/// recorded. An error in creating the dump is reported on stderr, once.
pub(crate) fn start(settings: &Settings, from_first_event: bool) -> Result<RecordingId, Errno> {
    if fork::is_recorded_by_other_process() {
        // In this process the lock may be held by a thread that does not exist here.
        return Err(Errno(libc::ECHILD));
    }
    let _one_at_a_time = SESSION.lock();
    if epoch::recording() != Recording::None {
        return Err(Errno(libc::EALREADY));
    }
    drain_process::join_ended();
    if sys::companion_lives() {
        // The drain process of an earlier recording still writes to a disk that does not answer.
        return Err(Errno(libc::EBUSY));
    }
    forget_stream_of_killed();
    fork::set_recording_process();
    loader::prepare();
    capture::warm_up();
    membarrier::prepare();
    clock::start();
    let earlier = RECORDINGS.fetch_add(1, Ordering::Relaxed);
    let id = RecordingId::after(earlier).ok_or(Errno(libc::EOVERFLOW))?;
    TREE.begin_recording(id);
    match open(settings, from_first_event, id) {
        Ok(()) => {
            if settings.check {
                capture::start_checking();
            }
            FOLLOWS_FORKS.store(!settings.children.is_empty(), Ordering::Relaxed);
            if !settings.children.is_empty() {
                *CHILD_SETTINGS.lock() = Some(settings.for_children());
            }
            capture::set_compares_every_word(settings.verify == Verify::All);
            usage::set_wanted(settings.lines);
            TAKES_LAST_SNAPSHOT.store(settings.snapshot_at_end, Ordering::Relaxed);
            snapshot::set_has_run(!settings.run.as_bytes().is_empty());
            lost::set_drops_when_full(settings.on_full == OnFull::Drop);
            if settings.drainer == Drainer::Process {
                drain_process::start();
                // The drain process may have failed already, which has been reported.
                if with_stream(|_| Ok(())).is_none() {
                    return Err(Errno(libc::EIO));
                }
            }
            if settings.limits != Limits::NONE && !drainer::is_running() {
                print_to_stderr(format_args!(
                    "there is no drain process, so no limit of the recording holds"
                ));
            }
            epoch::set_recording(Recording::Running(id));
            mode::switch_on(RECORD);
            Ok(id)
        }
        Err(error) => {
            let path = &settings.path;
            let (why, errno) = match error {
                OpenError::Taken => {
                    print_to_stderr(format_args!(
                        "process {} is not profiled: {path:.600} belongs to another program of this run, or to the one that \
                         this process was before it called exec; %p in the file name gives each process a dump",
                        sys::pid()
                    ));
                    return Err(Errno(libc::EEXIST));
                }
                OpenError::Locked => ("another process is writing it", Errno(libc::EBUSY)),
                OpenError::NotADump => ("it exists and is not a dump", Errno(libc::EEXIST)),
                OpenError::Path => ("its path is too long", Errno(libc::ENAMETOOLONG)),
                OpenError::System(Errno(libc::ELOOP)) => ("it is a symbolic link", Errno(libc::ELOOP)),
                OpenError::System(errno) => ("", errno),
            };
            if why.is_empty() {
                print_to_stderr(format_args!(
                    "not profiling: cannot create {path:.600}: {}",
                    describe_errno(errno)
                ));
            } else {
                print_to_stderr(format_args!("not profiling: cannot create {path:.600}: {why}"));
            }
            Err(errno)
        }
    }
}

/// Ends this recording, if it still runs, and closes its dump.
///
/// # Errors
/// The dump could not be written, now or earlier in this recording. The error has been reported on
/// stderr.
pub(crate) fn finish(recording: RecordingId) -> Result<(), Errno> {
    if !fork::is_recorders_process() {
        return Ok(());
    }
    let _one_at_a_time = SESSION.lock();
    finish_locked(recording)
}

/// Ends a recording as [`finish`] does, for a caller that holds the session's lock.
fn finish_locked(recording: RecordingId) -> Result<(), Errno> {
    if TAKES_LAST_SNAPSHOT.load(Ordering::Relaxed) && epoch::recording() == Recording::Running(recording) {
        snapshot::take_at_end();
    }
    if epoch::replace_recording(Recording::Running(recording), Recording::None) {
        mode::switch_off(RECORD | WHOLE);
        return match drain_process::finish() {
            DrainerEnd::Closed(outcome) => outcome,
            DrainerEnd::Killed => {
                give_up_after_kill(recording);
                Err(KILLED)
            }
            DrainerEnd::NoProcess => close_recording(recording),
        };
    }
    // The recording has failed, maybe just now, and another thread or the drain process may be
    // closing its dump.
    wait_for_failure_of(recording).map_or(Ok(()), Err)
}

/// Ends a recording that has reached a limit, and closes its dump. The program goes on. Called by
/// the drain process. False if the host is ending the recording at this moment.
pub(super) fn end_at_limit(recording: RecordingId, limit: RecordingLimit) -> bool {
    if !epoch::replace_recording(Recording::Running(recording), Recording::Ending) {
        return false;
    }
    mode::switch_off(RECORD | WHOLE);
    // If one of these fails, the dump is closed as that of a recording that has failed.
    let recorded = with_stream_as_drainer(|stream| {
        stream.record_limit(limit)?;
        Ok(PathBuffer::of(stream.path().as_bytes()))
    });
    if let Some(path) = recorded
        && close_recording(recording).is_ok()
    {
        leave_message(format_args!(
            "recording into {path:.600} ends here: it has reached its limit of {}; the program goes on",
            ShownLimit(limit)
        ));
    }
    epoch::replace_recording(Recording::Ending, Recording::None);
    true
}

/// A limit as a text.
struct ShownLimit(RecordingLimit);

impl fmt::Display for ShownLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RecordingLimit::DumpSize { bytes } => write!(f, "{bytes} bytes"),
            RecordingLimit::Duration { us } => write!(f, "{} ms", us / 1000),
            _ => Ok(()),
        }
    }
}

/// Writes the rest of a recording that has ended, and closes its dump. Called by the process that
/// has the recording's files.
///
/// # Errors
/// As for [`finish`].
pub(super) fn close_recording(recording: RecordingId) -> Result<(), Errno> {
    modules::scan_if_due(host::has_left_program);
    let Some(mut recorder) = RECORDER.lock_awake_for(0, host::has_left_program) else {
        return Err(Errno(libc::ESRCH));
    };
    let Some(mut stream) = recorder.take_if(|stream| stream.recording() == recording) else {
        drop(recorder);
        return wait_for_failure_of(recording).map_or(Ok(()), Err);
    };
    drop(recorder);
    stream.set_has_files(true);
    match stream.finish() {
        Ok(()) => {
            stream.close();
            Ok(())
        }
        Err(failure) => {
            close_failed(stream, failure);
            Err(Errno(libc::EIO))
        }
    }
}

/// Whether this process is a fork of the one that records: it must not touch the parent's dump. The
/// first call in a child that is made outside of the hook switches recording off there, or begins a
/// recording of the child's own if the user wants that.
#[inline(always)]
pub(crate) fn is_left_behind_by_fork() -> bool {
    !fork::is_recorders_process() && react_to_fork()
}

#[cold]
#[inline(never)]
fn react_to_fork() -> bool {
    // No recording can begin while the thread is inside the hook; its next event asks again. If the
    // first events of several threads coincide, one thread reacts: a second one would switch off
    // the recording that the first has begun.
    if !THREADS.is_busy() && fork::is_first_to_notice() {
        mode::switch_off(RECORD | WHOLE);
        if FOLLOWS_FORKS.load(Ordering::Relaxed) {
            record_child();
        }
    }
    true
}

/// Begins the own recording of a forked child.
fn record_child() {
    let _errno = sys::ErrnoGuard::new();
    FOLLOWS_FORKS.store(false, Ordering::Relaxed);
    // The rings are the parent's, so they must be gone before anything is looked up in them.
    sidecar::detach();
    epoch::set_recording(Recording::None);
    fork::clear_recording_process();
    // SAFETY: this is the only thread of the process, and it is not in the hook, so it holds none
    // of these locks. The kernel has not copied the threads that may have held them.
    let settings = unsafe {
        RECORDER.reset(None);
        SESSION.reset(());
        TREE.reset_after_fork();
        modules::reset_after_fork();
        capture::renew_after_fork();
        drain_process::reset_after_fork();
        snapshot::reset_after_fork();
        CHILD_SETTINGS.force_unlock();
        CHILD_SETTINGS.lock().as_ref().map(Settings::of_child)
    };
    THREADS.reset_after_fork();
    if let Some(settings) = settings
        && start(&settings, false).is_ok()
    {
        mode::switch_on(WHOLE);
    }
}

/// How many recordings have begun in this process.
static RECORDINGS: AtomicU32 = AtomicU32::new(0);
/// Whether a snapshot is taken before the recording ends.
static TAKES_LAST_SNAPSHOT: AtomicBool = AtomicBool::new(false);
/// Whether forked children record as well.
static FOLLOWS_FORKS: AtomicBool = AtomicBool::new(false);
/// How forked children record.
static CHILD_SETTINGS: FutexLock<Option<Settings>> = FutexLock::new(None);
/// Held by the thread that begins or ends a recording, and by no thread in between.
static SESSION: FutexLock<()> = FutexLock::new(());

fn open(settings: &Settings, from_first_event: bool, id: RecordingId) -> Result<(), OpenError> {
    let mut session = [0; 16];
    sys::fill_random(&mut session);
    let header = Header { session, created_unix_ns: sys::clock_ns(libc::CLOCK_REALTIME) };
    let sink =
        DumpFile::create(&settings.path, !settings.run.as_bytes().is_empty(), settings.sidecar, &header)?;
    let mut exe = PathBuffer::new();
    settings::executable(&mut exe);
    let mut cwd = PathBuffer::new();
    sys::working_directory(&mut cwd);
    let mut memory = Mapping::anonymous(MAX_ARGUMENTS).map_err(OpenError::System)?;
    let process = Process {
        pid: sys::pid(),
        page_size: sys::page_size(),
        from_first_event,
        exe: exe.as_bytes(),
        args: match settings.hides_arguments {
            true => &[],
            false => sys::read_file(c"/proc/self/cmdline", memory.bytes_mut()).unwrap_or_default(),
        },
        cwd: cwd.as_bytes(),
        run: settings.run.as_bytes(),
        debug_assertions: cfg!(debug_assertions),
    };
    let failed = |failure: Failure| OpenError::System(failure.into());
    if !from_first_event {
        lost::reset_lost_events();
    }
    let no_thread_in_hook = || THREADS.all_are_outside();
    let mut stream = Stream::begin(id, &settings.path, sink, &process, no_thread_in_hook).map_err(failed)?;
    stream.record_installation(installation_of_recording()).map_err(failed)?;
    record_labels(&mut stream, settings.labels.as_bytes()).map_err(failed)?;
    stream.set_limits(settings.limits);
    *RECORDER.lock() = Some(stream);
    modules::report_all(&ModuleRecorder);
    let sampled = with_stream(|stream| stream.sample());
    // If there is no sample, the recording has failed. That has been reported, and the recording is
    // over.
    if sampled.is_some() { Ok(()) } else { Err(OpenError::System(Errno(libc::EIO))) }
}

/// Records the name of the machine, and the labels that the user has given: lines `name=value`.
fn record_labels(stream: &mut CurrentStream, labels: &[u8]) -> Result<(), Failure> {
    let mut room = [0; MAX_HOST_NAME];
    let host = sys::read_file(c"/proc/sys/kernel/hostname", &mut room).unwrap_or_default().trim_ascii_end();
    if !host.is_empty() {
        stream.record_label(b"host", host)?;
    }
    for line in labels.split(|byte| *byte == b'\n') {
        if let Some(at) = line.iter().position(|byte| *byte == b'=')
            && at > 0
        {
            stream.record_label(&line[..at], &line[at + 1..])?;
        }
    }
    Ok(())
}

/// Longer than the kernel's own limit.
const MAX_HOST_NAME: usize = 128;

/// A longer command line is cut.
const MAX_ARGUMENTS: usize = alloc_dump::layout::MAX_TEXT;

/// Ends the recording when the process exits, after every handler that the program has registered
/// itself.
///
/// A signal handler may have called `exit`. If that handler has interrupted the hook or the
/// beginning of the recording, this very thread may hold the locks. Then the recording is left as
/// it is, and the sidecar has everything.
extern "C" fn finish_at_exit() {
    // A program that never records makes no system call here.
    if RECORDINGS.load(Ordering::Relaxed) == 0 {
        return THREADS.stop_watching();
    }
    if !THREADS.is_busy() && !mode::is_undecided() && fork::is_recorders_process() {
        // The handler may also have interrupted the beginning or the end of a `Profiler`'s
        // recording. Then the lock is never released, so the wait is bounded.
        if let Some(_one_at_a_time) = SESSION.try_lock_for(PATIENCE_AT_EXIT_NS) {
            match epoch::recording() {
                Recording::None => {}
                Recording::Ending => wait_while_ending(),
                // An error has been reported on stderr already.
                Recording::Running(recording) => _ = finish_locked(recording),
            }
            // A recording that has failed has left its drain process to be waited for.
            drain_process::finish();
        }
    }
    print_left_message();
    THREADS.stop_watching();
}

/// Another thread needs less time to begin or end a recording.
const PATIENCE_AT_EXIT_NS: u64 = 2_000_000_000;

// NOTE: `.fini_array` and not `atexit`: its functions run after all `atexit` handlers, and in a
// library also when the library is unloaded.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH_AT_EXIT: extern "C" fn() = finish_at_exit;
