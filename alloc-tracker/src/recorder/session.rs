//! How a recording begins and ends, and how a forked child finds out that it is not its own.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use alloc_dump::header::Header;
use alloc_dump::record::Process;

use super::current::{ENDING, Failure, LOST, RECORDER, failure_of, give_up, with_stream};
use super::drain::Stream;
use super::{drain_thread as helper, usage};
use crate::base::clock;
use crate::base::epoch;
use crate::base::loader;
use crate::base::mode::{self, RECORD, WHOLE};
use crate::base::settings::{self, Drainer, OnFull, Settings};
use crate::base::sys::{self, Errno, FutexLock, Mapping, PathBuffer, describe_errno, print_to_stderr};
use crate::capture;
use crate::modules;
use crate::output::dump_file::{OpenError, Sink};
use crate::output::sidecar;
use crate::thread;
use crate::tree::TREE;

/// Begins a recording: its number. What goes wrong is said on stderr, once, and returned.
pub(crate) fn start(settings: &Settings, from_first_event: bool) -> Result<u32, Errno> {
    let owner = PID.load(Ordering::Relaxed);
    if owner != 0 && owner != sys::pid() {
        // A fork: the lock may have been held by a thread that does not exist here.
        return Err(Errno(libc::ECHILD));
    }
    let _one_at_a_time = SESSION.lock();
    if epoch::recording() != 0 {
        return Err(Errno(libc::EALREADY));
    }
    remember_process();
    loader::prepare();
    capture::warm_up();
    sidecar::prepare();
    clock::start();
    let number = RECORDINGS.fetch_add(1, Ordering::Relaxed) + 1;
    TREE.begin_anew(number);
    match open(settings, from_first_event, number) {
        Ok(()) => {
            if settings.check {
                capture::start_checking();
            }
            FOLLOWING.store(!settings.children.is_empty(), Ordering::Relaxed);
            if !settings.children.is_empty() {
                *SETTINGS.lock() = Some(settings.remembered());
            }
            usage::ask_for(settings.lines);
            RATHER_LOSES.store(settings.on_full == OnFull::Drop, Ordering::Relaxed);
            // Before the helper is looked for: see its end.
            epoch::set_recording(number);
            mode::switch_on(RECORD);
            if settings.drainer == Drainer::Thread {
                helper::start();
            }
            Ok(number)
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

/// Ends the recording of this number, if it still goes on, and closes its dump. What goes wrong is said on stderr and returned, also
/// if it ended before because of that.
pub(crate) fn finish(number: u32) -> Result<(), Errno> {
    if !is_recorders_process() {
        return Ok(());
    }
    let _one_at_a_time = SESSION.lock();
    finish_locked(number)
}

/// The same, called under the session's lock.
fn finish_locked(number: u32) -> Result<(), Errno> {
    if epoch::replace_recording(number, 0) {
        mode::switch_off(RECORD | WHOLE);
        helper::stop();
        modules::catch_up();
    }
    // It may have failed just now, and be another thread's to put away.
    let Some(mut stream) = RECORDER.lock().take_if(|stream| stream.number() == number) else {
        return failure_of(number).map_or(Ok(()), Err);
    };
    match stream.finish() {
        Ok(()) => {
            stream.close();
            Ok(())
        }
        Err(failure) => {
            give_up(stream, failure);
            Err(Errno(libc::EIO))
        }
    }
}

/// Whether a full ring costs events instead of time.
pub(super) fn rather_loses() -> bool {
    RATHER_LOSES.load(Ordering::Relaxed)
}

/// Whether this process is a fork of the one that records: it must not touch the parent's dump. Switches itself off
/// the first time that it says so, or begins a recording of its own if that is wanted.
#[inline(always)]
pub(crate) fn left_behind_by_fork() -> bool {
    !is_recorders_process() && is_left_behind()
}

/// Whether a recording was begun by another process, of which this one is a fork.
pub(super) fn is_fork() -> bool {
    PID.load(Ordering::Relaxed) != 0 && !is_recorders_process()
}

#[inline(always)]
fn is_recorders_process() -> bool {
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return PID.load(Ordering::Relaxed) == sys::pid();
    }
    // SAFETY: the mark is never unmapped; in a forked child the kernel replaces its page with zeros.
    let mark = unsafe { &*mark };
    mark.load(Ordering::Relaxed) != 0
}

#[cold]
#[inline(never)]
fn is_left_behind() -> bool {
    // In the hook nothing can begin; the thread's next event asks again. Of several threads whose first events coincide one does it:
    // whoever came later would switch off what that one has begun.
    if !thread::is_busy() && NOTICED.swap(sys::pid(), Ordering::AcqRel) != sys::pid() {
        mode::switch_off(RECORD | WHOLE);
        if FOLLOWING.load(Ordering::Relaxed) {
            follow();
        }
    }
    true
}

/// Begins a recording of its own in a forked child.
fn follow() {
    let _errno = sys::ErrnoGuard::new();
    FOLLOWING.store(false, Ordering::Relaxed);
    // Before anything is looked up in them: they are the parent's.
    sidecar::detach();
    epoch::set_recording(0);
    PID.store(0, Ordering::Relaxed);
    // SAFETY: this is the only thread of the process, and it is not in the hook, so it holds none of these; the kernel has
    // not copied the threads that may have held them.
    let settings = unsafe {
        RECORDER.reset(None);
        SESSION.reset(());
        TREE.renew();
        modules::renew();
        capture::renew_after_fork();
        helper::renew();
        SETTINGS.force_unlock();
        SETTINGS.lock().as_ref().map(Settings::of_child)
    };
    thread::forget_others();
    if let Some(settings) = settings
        && start(&settings, false).is_ok()
    {
        mode::switch_on(WHOLE);
    }
}

/// A page that is not inherited: PERF: one load tells a child from its parent, where asking for the pid is a system
/// call.
#[unsafe(link_section = "alloc_tracker_hot")]
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// The process that has noticed last that it is a fork.
static NOTICED: AtomicU32 = AtomicU32::new(0);
/// The process that records, 0 before the first recording. Stands in for the mark where the kernel cannot wipe pages.
static PID: AtomicU32 = AtomicU32::new(0);
static RECORDINGS: AtomicU32 = AtomicU32::new(0);
/// Whether forked children record as well, and how.
static FOLLOWING: AtomicBool = AtomicBool::new(false);
static SETTINGS: FutexLock<Option<Settings>> = FutexLock::new(None);
static RATHER_LOSES: AtomicBool = AtomicBool::new(false);
/// Held by whoever begins or ends a recording, and by nobody in between.
static SESSION: FutexLock<()> = FutexLock::new(());

/// Called under the session's lock.
fn remember_process() {
    PID.store(sys::pid(), Ordering::Relaxed);
    let mark = MARK.load(Ordering::Relaxed);
    if !mark.is_null() {
        // SAFETY: never unmapped; zero in a child that is about to record.
        unsafe { (*mark).store(1, Ordering::Relaxed) };
        return;
    }
    if let Some(page) = Mapping::anonymous(sys::page_size() as usize).ok().filter(Mapping::wipe_on_fork) {
        let mark = page.leak().cast::<AtomicU32>();
        // SAFETY: a zeroed page, aligned and large enough; zero is a valid value.
        unsafe { (*mark).store(1, Ordering::Relaxed) };
        MARK.store(mark, Ordering::Release);
    }
}

fn open(settings: &Settings, from_first_event: bool, number: u32) -> Result<(), OpenError> {
    let mut session = [0; 16];
    sys::fill_random(&mut session);
    let header = Header { session, created_unix_ns: sys::clock_ns(libc::CLOCK_REALTIME) };
    let sink = Sink::create(&settings.path, !settings.run.as_bytes().is_empty(), settings.sidecar, &header)?;
    let mut exe = PathBuffer::new();
    settings::executable(&mut exe);
    let mut cwd = PathBuffer::new();
    settings::working_directory(&mut cwd);
    let mut memory = Mapping::anonymous(MAX_ARGUMENTS).map_err(OpenError::System)?;
    let process = Process {
        pid: sys::pid(),
        page_size: sys::page_size(),
        from_first_event,
        exe: exe.as_bytes(),
        args: sys::read_file(c"/proc/self/cmdline", memory.bytes_mut()).unwrap_or_default(),
        cwd: cwd.as_bytes(),
        run: settings.run.as_bytes(),
        debug_assertions: cfg!(debug_assertions),
    };
    let failed = |failure: Failure| OpenError::System(failure.into());
    if !from_first_event {
        // What was lost before this recording is no loss of its.
        LOST.store(0, Ordering::Relaxed);
    }
    let stream = Stream::begin(number, &settings.path, sink, &process).map_err(failed)?;
    *RECORDER.lock() = Some(stream);
    modules::report_all();
    let sampled = with_stream(|stream| stream.sample());
    // What went wrong has been said, and the recording is over.
    if sampled.is_some() { Ok(()) } else { Err(OpenError::System(Errno(libc::EIO))) }
}

/// A longer command line is cut.
const MAX_ARGUMENTS: usize = alloc_dump::layout::MAX_TEXT;

/// Ends the recording when the process exits, after every handler that the program has registered itself.
pub(crate) extern "C" fn finish_at_exit() {
    // `exit` called by a signal handler that interrupted the hook: the lock may be this thread's own. The sidecar has
    // everything.
    // The same if it interrupted the beginning of the recording.
    if !thread::is_busy() && !mode::undecided() && is_recorders_process() {
        // It may have interrupted the beginning or the end of a recording: then nobody gives the lock back.
        if let Some(_one_at_a_time) = SESSION.try_lock_for(PATIENCE_AT_EXIT_NS) {
            match epoch::recording() {
                0 => {}
                // It is put away just now.
                ENDING => _ = failure_of(ENDING),
                // Said on stderr already.
                number => _ = finish_locked(number),
            }
            // One that has failed has left it.
            helper::stop();
        }
    }
    thread::forget_key();
}

/// Another thread begins or ends a recording in less.
const PATIENCE_AT_EXIT_NS: u64 = 2_000_000_000;

// NOTE: `.fini_array` and not `atexit`: its functions run after all handlers, for a library also when it is unloaded.
#[used]
#[unsafe(link_section = ".fini_array")]
static FINISH_AT_EXIT: extern "C" fn() = finish_at_exit;
