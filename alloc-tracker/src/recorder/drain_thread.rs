//! The thread that drains the rings, so that the program's own threads need not. It begins with the first recording and
//! ends with it. Without it (switched off, or the system gives no thread) each thread drains when its ring is full.

use std::sync::atomic::{AtomicU32, Ordering};

use super::current::{ENDING, notice_replaced_modules, with_stream};
use super::drain::Tick;
use crate::base::epoch;
use crate::base::sys::{self, BackgroundThread, FutexLock};

/// Begins the thread.
pub(super) fn start() {
    let mut thread = THREAD.lock();
    // One that has ended by itself, when an earlier recording failed. Whoever has this word has decided that it does not go on.
    if STATE.compare_exchange(NONE, REPLACED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        && let Some(ended) = thread.take()
    {
        ended.join();
    }
    if thread.is_none() {
        STATE.store(AWAKE, Ordering::Relaxed);
        *thread = BackgroundThread::start(run);
        if thread.is_none() {
            STATE.store(NONE, Ordering::Relaxed);
        }
    }
}

/// Ends the thread and waits until it has, so that its code may be unmapped. Must be called without the recorder's lock.
pub(super) fn stop() {
    let Some(mut guard) = THREAD.try_lock() else { return };
    let Some(thread) = guard.take() else { return };
    STATE.store(NONE, Ordering::Release);
    sys::futex_wake(&STATE);
    thread.join();
}

/// Whether there is one.
pub(super) fn is_running() -> bool {
    STATE.load(Ordering::Relaxed) != NONE
}

/// Whether it looks at the rings within microseconds, because events pour in.
pub(super) fn looks_soon() -> bool {
    matches!(STATE.load(Ordering::Relaxed), AWAKE | PAUSING)
}

/// A thread waits until its ring is drained.
///
/// PERF: nobody wakes it from its long sleep. That takes the program's thread up to twenty microseconds; and the kernel likes to run who is
/// woken where it is woken from, in a virtual machine even if all other processors are idle, so that it gets its turn milliseconds later.
#[cold]
pub(super) fn hurry() {
    if STATE.compare_exchange(PAUSING, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let _errno = sys::ErrnoGuard::new();
        sys::futex_wake(&STATE);
    }
}

/// In a forked child there is no such thread.
///
/// # Safety
/// No other thread may be in here.
pub(super) unsafe fn renew() {
    // SAFETY: the caller's promise.
    unsafe { THREAD.reset(None) };
    STATE.store(NONE, Ordering::Relaxed);
}

fn run() {
    while attend() == Outcome::NoRecording {
        STATE.store(NONE, Ordering::SeqCst);
        // Unless the next one has begun meanwhile, and counts on this thread.
        if matches!(epoch::recording(), 0 | ENDING)
            || STATE.compare_exchange(NONE, AWAKE, Ordering::SeqCst, Ordering::Relaxed).is_err()
        {
            return;
        }
    }
    STATE.store(NONE, Ordering::SeqCst);
}

#[derive(PartialEq, Eq)]
enum Outcome {
    /// The thread is to end.
    Told,
    /// The recording has ended.
    NoRecording,
}

/// Drains as long as there is something to record.
fn attend() -> Outcome {
    let (mut quiet_ns, mut calm_ns) = (0, u64::MAX);
    while is_running() {
        let tick = with_stream(|stream| stream.tick());
        notice_replaced_modules();
        match tick {
            Some(Tick::Flooded(quarter_us)) => {
                (quiet_ns, calm_ns) = (0, 0);
                pause_in_flood(quarter_us);
                continue;
            }
            Some(Tick::Busy) => quiet_ns = 0,
            Some(Tick::Quiet) => {}
            // The process ends when its last thread does: this one.
            Some(Tick::Over) => return Outcome::Told,
            None => return Outcome::NoRecording,
        }
        let pause_ns = pause_after(quiet_ns, calm_ns);
        if pause_ns < SHORTEST_SLEEP_NS {
            pause_in_flood(pause_ns / 1000);
        } else if !rest(ASLEEP, pause_ns) {
            break;
        }
        quiet_ns += pause_ns;
        calm_ns = calm_ns.saturating_add(pause_ns);
    }
    Outcome::Told
}

/// A program in which nothing happened for some time is looked at less often: what it does next is seen late by an
/// eighth of that time. So is one in which events have ceased to pour in: they may begin to again.
fn pause_after(quiet_ns: u64, calm_ns: u64) -> u64 {
    if calm_ns < LINGERING_NS {
        return LINGERING_NS / 10;
    }
    (quiet_ns / 8).clamp((calm_ns / 8).clamp(SHORTEST_SLEEP_NS, SHORTEST_PAUSE_NS), LONGEST_PAUSE_NS)
}

/// Waits in this state until somebody changes it, or for some time. False if the thread is to end.
fn rest(state: u32, at_most_ns: u64) -> bool {
    if STATE.compare_exchange(AWAKE, state, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return false;
    }
    sys::futex_wait(&STATE, state, at_most_ns);
    // Fails if it was woken, or is to end.
    let _ = STATE.compare_exchange(state, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
    true
}

/// Waits until about a quarter of a ring is filled: the next look comes before it can be full.
fn pause_in_flood(quarter_us: u64) {
    if quarter_us > SLEEP_TAKES_US {
        rest(PAUSING, ((quarter_us - SLEEP_TAKES_US) * 1000).min(FLOODED_PAUSE_NS));
        return;
    }
    // Sleeping takes longer than the ring has room for; whoever else wants the processor has it.
    let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + quarter_us * 1000;
    loop {
        sys::yield_now();
        if sys::clock_ns(libc::CLOCK_MONOTONIC) >= until {
            return;
        }
    }
}

static THREAD: FutexLock<Option<BackgroundThread>> = FutexLock::new(None);
static STATE: AtomicU32 = AtomicU32::new(NONE);
const NONE: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;
/// As asleep, but there will be something to drain soon without anybody saying so.
const PAUSING: u32 = 3;
/// It has ended, and another one is about to begin.
const REPLACED: u32 = 4;

/// A sleep takes so much more than it should.
const SLEEP_TAKES_US: u64 = 55;
/// Shorter than the time in which a thread fills its ring.
const FLOODED_PAUSE_NS: u64 = 150_000;
/// After events have ceased to pour in they are still looked for as if they did.
const LINGERING_NS: u64 = 500_000;
/// Below that a thread can as well stay awake.
const SHORTEST_SLEEP_NS: u64 = 1_000_000;
/// The state of the process is sampled at every second of them while it changes.
///
/// PERF: until this thread looks, the program drains the ring that it floods.
const SHORTEST_PAUSE_NS: u64 = super::samples::INTERVAL_US * 1000 / 2;
const LONGEST_PAUSE_NS: u64 = 32 * SHORTEST_PAUSE_NS;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> u64 {
        ms * 1_000_000
    }

    #[test]
    fn who_does_something_now_and_then_is_looked_at_as_often_as_who_always_does() {
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
