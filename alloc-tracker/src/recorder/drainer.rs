//! The host's side of the drain process: its state, and requests. The host asks the process for
//! work that needs its files.
//!
//! In: requests of the program's threads. Out: the outcome, once the drain process has done the
//! work. The words here are in memory that both processes share. Never allocates; a thread that
//! asks for work waits for it, as long as the drain process lives.
//!
//! Only the drain process has the descriptors of the dump and the sidecar, so only it writes a full
//! dump frame, maps a ring of the sidecar's file, or reads `/proc`. The program's threads make no
//! system call for that but `futex`.
//!
//! ```text
//!              start            flood: sleeps for microseconds
//! NOT_RUNNING -------> AWAKE <---------------------------------> SHORT_PAUSE
//!      ^               ^   |                                        |
//!      |               |   v  calm: sleeps for milliseconds         | a thread waits for room:
//!      |               ASLEEP                                       v wake()
//!      |               (a request wakes it)                       AWAKE
//!      `---- finish(), or the recording has ended
//! ```

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{fork, host};
use crate::base::sys::{self, Errno};

/// Work that only the drain process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    /// Drain all rings, and write the current dump frame if it is nearly full.
    Drain = 1,
    /// Map rings for threads that begin to take part.
    MapRings = 2,
    /// Read the mappings of the process again.
    ScanModules = 4,
    /// End the recording and close the dump.
    Finish = 8,
    /// Drain: a thread waits for room in its ring.
    MakeRoom = 16,
    /// Make a copy of the process for a snapshot.
    Snapshot = 32,
}

/// Whether a drain process serves this recording.
#[inline]
pub(super) fn is_running() -> bool {
    STATE.load(Ordering::Relaxed) != NOT_RUNNING
}

/// Whether the drain process was killed while it served the recording.
pub(super) fn was_killed() -> bool {
    is_running() && !sys::companion_lives()
}

/// Wakes the drain process, if it sleeps.
#[cold]
pub(super) fn wake() {
    let state = STATE.load(Ordering::SeqCst);
    if matches!(state, ASLEEP | SHORT_PAUSE)
        && STATE.compare_exchange(state, AWAKE, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    {
        sys::futex_wake(&STATE);
    }
}

/// Asks the drain process for work, and waits until it is done: until a pass of the drain process
/// has ended that began after this call. False if the process has ended before. Must be called
/// without the recorder's lock, and outside of the drain process.
///
/// A pass takes all open requests when it begins. So a request belongs to the pass that follows it:
///
/// ```text
/// drain process   pass 7 takes {scan}  reads the mappings           ends
/// host                                          asks for a scan: open until pass 8 takes it
/// ```
#[cold]
#[inline(never)]
pub(super) fn ask(request: Request) -> bool {
    let bit = request as u32;
    let before = PASSES_ENDED.load(Ordering::SeqCst);
    request_soon(request);
    let mut looks = 0;
    loop {
        let ended = PASSES_ENDED.load(Ordering::SeqCst);
        let is_open = REQUESTS.load(Ordering::SeqCst) & bit != 0;
        let is_under_way = PASSES_BEGUN.load(Ordering::SeqCst) != ended;
        match ended.wrapping_sub(before) {
            0 => {}
            1 if is_open || is_under_way => {}
            // One pass was under way at most when this thread asked, so the second began
            // afterwards.
            _ => return true,
        }
        // In a forked child of a signal handler nobody serves requests. At its end the program
        // waits for a limited time: the drain process may have been stopped.
        looks += 1;
        let is_over = request == Request::Finish && looks > MOST_LOOKS_AT_END;
        if is_over || !is_running() || !sys::companion_lives() || !fork::is_recorders_process() {
            return false;
        }
        sys::futex_wait(&PASSES_ENDED, ended, REQUEST_NS);
        // The process may have gone to sleep before it saw the request.
        wake();
    }
}

/// Asks the drain process for work without waiting for it.
pub(super) fn request_soon(request: Request) {
    REQUESTS.fetch_or(request as u32, Ordering::SeqCst);
    wake();
}

/// Whether any request is open. For the drain process.
pub(super) fn has_requests() -> bool {
    REQUESTS.load(Ordering::SeqCst) != 0
}

/// Begins a pass, and returns the requests that belong to it, as bits. For the drain process.
pub(super) fn begin_pass() -> u32 {
    PASSES_BEGUN.fetch_add(1, Ordering::SeqCst);
    REQUESTS.swap(0, Ordering::SeqCst)
}

/// Ends a pass that has served these requests, and wakes the threads that wait for them.
pub(super) fn end_pass(served: u32) {
    PASSES_ENDED.fetch_add(1, Ordering::SeqCst);
    if served != 0 {
        sys::futex_wake_all(&PASSES_ENDED);
    }
}

/// Whether the calling process is the host, and not its drain process.
pub(super) fn is_host() -> bool {
    !is_running() || sys::pid() == host::id()
}

/// Makes the state that of a drain process which begins. The calling process is its host.
pub(super) fn set_started() {
    host::set_host();
    [&REQUESTS, &PASSES_BEGUN, &PASSES_ENDED].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    OUTCOME.store(NO_OUTCOME, Ordering::Relaxed);
    STATE.store(AWAKE, Ordering::SeqCst);
}

/// Makes the state that of no drain process, and wakes all threads that wait for one.
pub(super) fn set_ended() {
    host::forget_files();
    STATE.store(NOT_RUNNING, Ordering::SeqCst);
    sys::futex_wake_all(&PASSES_ENDED);
}

/// Notes how the recording was closed.
pub(super) fn set_outcome(outcome: Result<(), Errno>) {
    OUTCOME.store(outcome.map_or_else(|errno| u64::from(errno.0.unsigned_abs()), |()| 0), Ordering::Release);
}

/// Returns how the recording was closed; `None` if the drain process was killed before.
pub(super) fn outcome() -> Option<Result<(), Errno>> {
    match OUTCOME.load(Ordering::Acquire) {
        NO_OUTCOME => None,
        0 => Some(Ok(())),
        errno => Some(Err(Errno(errno as i32))),
    }
}

/// Sleeps for at most `at_most_ns`, in a flood or not, until the process is woken. Returns at once
/// if a request is open. For the drain process.
pub(super) fn sleep(in_flood: bool, at_most_ns: u64) {
    let state = if in_flood { SHORT_PAUSE } else { ASLEEP };
    if STATE.compare_exchange(AWAKE, state, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        return;
    }
    // The sleeper stores its state first and reads requests afterwards. A thread that asks does it
    // the other way round. So the thread sees the state, or the sleeper sees the request.
    if !has_requests() {
        sys::futex_wait(&STATE, state, at_most_ns);
    }
    // Fails if the process was woken.
    let _ = STATE.compare_exchange(state, AWAKE, Ordering::SeqCst, Ordering::Relaxed);
}

/// The state of the process, see the head of this module. It is a word and not an enum, because the
/// kernel compares it when the process sleeps.
static STATE: AtomicU32 = AtomicU32::new(NOT_RUNNING);
const NOT_RUNNING: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;
/// Asleep for microseconds only, because there will be entries to drain soon.
const SHORT_PAUSE: u32 = 3;

/// The bits of all requests that no pass has taken yet.
static REQUESTS: AtomicU32 = AtomicU32::new(0);
/// How many passes of the drain process have begun and ended. The kernel compares the second word.
static PASSES_BEGUN: AtomicU32 = AtomicU32::new(0);
static PASSES_ENDED: AtomicU32 = AtomicU32::new(0);
/// How the recording was closed: 0 if without an error, else the error number.
static OUTCOME: AtomicU64 = AtomicU64::new(NO_OUTCOME);
const NO_OUTCOME: u64 = u64::MAX;
/// How long a thread that has asked sleeps before it looks whether the process still lives.
const REQUEST_NS: u64 = 10_000_000;
/// Ten seconds.
const MOST_LOOKS_AT_END: u32 = 1000;
