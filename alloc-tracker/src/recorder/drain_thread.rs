//! The drain thread: it moves entries from the thread rings into the dump, so that the program's
//! own threads need not. It begins with a recording and ends with it. Without a drain thread
//! (switched off, or the system gives no thread) each thread drains when its ring is full.
//!
//! In: the speed at which rings are filled. Out: calls of the recording's `tick`, with pauses
//! between. Never allocates through the global allocator and uses no thread-locals: the C library
//! may not know this thread.
//!
//! ```text
//!              start            flood: sleeps for microseconds
//! NOT_RUNNING -------> AWAKE <---------------------------------> SHORT_PAUSE
//!   ^     |            ^   |                                        |
//!   |     |            |   v  calm: sleeps for milliseconds         | a thread waits for room:
//!   |     v            ASLEEP                                       v end_short_pause()
//!   |  REPLACED                                                   AWAKE
//!   |  (a new thread begins)
//!   `---- stop(), or the recording has ended
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use super::current::with_stream;
use super::drain::Tick;
use super::samples;
use crate::base::epoch::{self, Recording};
use crate::base::sys::{self, BackgroundThread, FutexLock};
use crate::modules;

/// Starts the thread, unless it runs already.
pub(super) fn start() {
    let mut thread = THREAD.lock();
    // The drain thread of an earlier, failed recording may be about to end by itself. It would
    // continue for the new recording if it could change the state from NOT_RUNNING back to AWAKE.
    // This exchange prevents that.
    if STATE.compare_exchange(NOT_RUNNING, REPLACED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        && let Some(ended) = thread.take()
    {
        ended.join();
    }
    if thread.is_none() {
        STATE.store(AWAKE, Ordering::Relaxed);
        *thread = BackgroundThread::start(run);
        if thread.is_none() {
            STATE.store(NOT_RUNNING, Ordering::Relaxed);
        }
    }
}

/// Ends the thread and waits until it has ended, so that its code may be unmapped. Must be called
/// without the recorder's lock.
pub(super) fn stop() {
    let Some(mut guard) = THREAD.try_lock() else { return };
    let Some(thread) = guard.take() else { return };
    STATE.store(NOT_RUNNING, Ordering::Release);
    sys::futex_wake(&STATE);
    thread.join();
}

/// Whether the thread runs.
pub(super) fn is_running() -> bool {
    STATE.load(Ordering::Relaxed) != NOT_RUNNING
}

/// Whether the thread is awake, or will drain within microseconds because events pour in.
pub(super) fn is_about_to_drain() -> bool {
    matches!(STATE.load(Ordering::Relaxed), AWAKE | SHORT_PAUSE)
}

/// Ends a pause between two drainings in a flood: a thread waits until its ring is drained.
///
/// PERF: no thread wakes the drain thread from its long sleep. Waking takes the program's thread up
/// to twenty microseconds. And the kernel tends to run a woken thread on the processor of the
/// thread that woke it, in a virtual machine even if all other processors are idle. So the drain
/// thread would get its turn milliseconds later.
#[cold]
pub(super) fn end_short_pause() {
    if STATE.compare_exchange(SHORT_PAUSE, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let _errno = sys::ErrnoGuard::new();
        sys::futex_wake(&STATE);
    }
}

/// Notes that there is no drain thread, in a forked child.
///
/// # Safety
/// No other thread may use this module.
pub(super) unsafe fn reset_after_fork() {
    // SAFETY: the caller promises that no other thread uses this module, so none has the lock.
    unsafe { THREAD.reset(None) };
    STATE.store(NOT_RUNNING, Ordering::Relaxed);
}

fn run() {
    while drain_until_the_end() == DrainEnd::NoRecording {
        STATE.store(NOT_RUNNING, Ordering::SeqCst);
        // Another recording may have begun meanwhile, and count on this thread.
        let is_needed = matches!(epoch::recording(), Recording::Running(_));
        if !is_needed
            || STATE.compare_exchange(NOT_RUNNING, AWAKE, Ordering::SeqCst, Ordering::Relaxed).is_err()
        {
            return;
        }
    }
    STATE.store(NOT_RUNNING, Ordering::SeqCst);
}

/// Why the thread stops draining.
#[derive(PartialEq, Eq)]
enum DrainEnd {
    /// The thread was stopped, or the process is over.
    Stopped,
    /// There is no recording any more.
    NoRecording,
}

/// Drains until the thread is stopped, the recording has ended or the process is over.
fn drain_until_the_end() -> DrainEnd {
    let (mut quiet_ns, mut calm_ns) = (0, u64::MAX);
    while is_running() {
        let tick = with_stream(|stream| stream.tick());
        modules::notice_replaced();
        match tick {
            Some(Tick::Flooded { quarter_us }) => {
                (quiet_ns, calm_ns) = (0, 0);
                pause_in_flood(quarter_us);
                continue;
            }
            Some(Tick::Busy) => quiet_ns = 0,
            Some(Tick::Quiet) => {}
            // The process ends when its last thread does, which is this one.
            Some(Tick::ProcessOver) => return DrainEnd::Stopped,
            None => return DrainEnd::NoRecording,
        }
        let pause_ns = pause_after(quiet_ns, calm_ns);
        if pause_ns < SHORTEST_SLEEP_NS {
            pause_in_flood(pause_ns / 1000);
        } else if !sleep_in(ASLEEP, pause_ns) {
            break;
        }
        quiet_ns += pause_ns;
        calm_ns = calm_ns.saturating_add(pause_ns);
    }
    DrainEnd::Stopped
}

/// Returns how long to pause, in nanoseconds. Nothing has happened for `quiet_ns`, and no flood of
/// events for `calm_ns`.
///
/// The longer nothing has happened, the longer the pause: an eighth of that time, within bounds. So
/// events after a quiet time are drained late by an eighth of it. After a flood the pauses begin
/// short and grow in the same proportion, because events may pour in again.
fn pause_after(quiet_ns: u64, calm_ns: u64) -> u64 {
    if calm_ns < LINGERING_NS {
        return LINGERING_NS / 10;
    }
    (quiet_ns / 8).clamp((calm_ns / 8).clamp(SHORTEST_SLEEP_NS, SHORTEST_PAUSE_NS), LONGEST_PAUSE_NS)
}

/// Sleeps in this state until another thread changes the state, for at most `at_most_ns`. False if
/// the thread is to end.
fn sleep_in(state: u32, at_most_ns: u64) -> bool {
    if STATE.compare_exchange(AWAKE, state, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return false;
    }
    sys::futex_wait(&STATE, state, at_most_ns);
    // Fails if the thread was woken, or is to end.
    let _ = STATE.compare_exchange(state, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
    true
}

/// Waits until about a quarter of a ring is filled: the next draining comes before the ring can be
/// full.
fn pause_in_flood(quarter_us: u64) {
    if quarter_us > SLEEP_OVERHEAD_US {
        sleep_in(SHORT_PAUSE, ((quarter_us - SLEEP_OVERHEAD_US) * 1000).min(LONGEST_FLOOD_PAUSE_NS));
        return;
    }
    // The ring would be full before a sleep ends, so this thread stays awake, and yields the
    // processor to any thread that wants it.
    let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + quarter_us * 1000;
    loop {
        sys::yield_now();
        if sys::clock_ns(libc::CLOCK_MONOTONIC) >= until {
            return;
        }
    }
}

static THREAD: FutexLock<Option<BackgroundThread>> = FutexLock::new(None);

/// The state of the thread, see the head of this module. It is a word and not an enum, because the
/// kernel compares it when the thread sleeps.
static STATE: AtomicU32 = AtomicU32::new(NOT_RUNNING);
const NOT_RUNNING: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;
/// Asleep for microseconds only, because there will be entries to drain soon.
const SHORT_PAUSE: u32 = 3;
/// The thread has ended or is about to end, and another drain thread is about to begin.
const REPLACED: u32 = 4;

/// A sleep takes this much longer than was asked for.
const SLEEP_OVERHEAD_US: u64 = 55;
/// Shorter than the time in which a thread fills its ring.
const LONGEST_FLOOD_PAUSE_NS: u64 = 150_000;
/// For this long after a flood has ended, the thread drains as if it still went on.
const LINGERING_NS: u64 = 500_000;
/// For a shorter pause the thread can as well stay awake.
const SHORTEST_SLEEP_NS: u64 = 1_000_000;
/// While the state of the process changes, a sample is taken after every second pause of this
/// length.
///
/// PERF: until this thread looks, a thread that floods its ring drains the ring itself.
const SHORTEST_PAUSE_NS: u64 = samples::INTERVAL_US * 1000 / 2;
const LONGEST_PAUSE_NS: u64 = 32 * SHORTEST_PAUSE_NS;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> u64 {
        ms * 1_000_000
    }

    #[test]
    fn a_program_that_pauses_briefly_is_drained_as_often_as_one_that_never_does() {
        for quiet in [0, 5, 20, 40] {
            assert_eq!(pause_after(ms(quiet), u64::MAX), ms(5));
        }
        assert_eq!(pause_after(ms(400), u64::MAX), ms(50));
        assert_eq!(pause_after(ms(60_000), u64::MAX), ms(160));
    }

    #[test]
    fn after_a_flood_the_pauses_grow_slowly() {
        assert_eq!(pause_after(0, 0), 50_000);
        for (calm, pause) in [(1, 1), (8, 1), (16, 2), (40, 5), (80, 5), (400, 5)] {
            assert_eq!(pause_after(0, ms(calm)), ms(pause), "{calm} ms");
        }
        assert_eq!(pause_after(ms(400), ms(400)), ms(50));
    }
}
