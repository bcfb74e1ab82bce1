//! The drain process: it moves entries from the thread rings into the dump, so that the program's
//! own threads need not. It begins with a recording and ends with it, with the host, or when the
//! host executes another program. Without it (switched off, or the system gives none) each thread
//! drains when its ring is full.
//!
//! In: the speed at which rings are filled, and requests (`drainer`). Out: calls of the recording's
//! `tick`, with pauses between. The process shares the host's memory. It is no thread of the host,
//! and it has its own descriptors and fewer rights. Never allocates through the global allocator,
//! and uses no thread-locals.
//!
//! ```text
//! host                                   drain process
//! creates the dump and the sidecar
//! starts the process, waits        -->   opens what it needs of /proc
//!                                        closes all other descriptors, drops its rights,
//!                                        forbids itself all system calls but a few
//! closes its own descriptors       <--   is ready
//! events                                 drains
//! asks for the end, waits          -->   drains everything, closes the dump,
//!                                        removes the sidecar, ends
//! ```

use std::sync::atomic::{AtomicU32, Ordering};

use alloc_dump::record::LayoutOccasion;

use super::current::{self, with_stream, with_stream_as_drainer};
use super::drain::Tick;
use super::drainer::{self, Request};
use super::host;
use super::layouts::{self, LayoutPace, LayoutReading};
use super::memory_limits;
use super::samples;
use super::session;
use super::snapshot;
use crate::base::epoch::RecordingId;
use crate::base::sys::{self, AllowedCall, Companion, Errno, File, FutexLock, Mapping};
use crate::modules;

/// Starts the process for the recording that is just being begun. If the system gives none, the
/// program's threads drain.
pub(super) fn start() {
    let mut companion = COMPANION.lock();
    // What the host opened of /proc is of no use in another process.
    with_stream(|stream| {
        stream.close_process_files();
        Ok(())
    });
    READINESS.store(PREPARING, Ordering::Relaxed);
    drainer::set_started();
    *companion = Companion::start(run);
    while companion.is_some() && READINESS.load(Ordering::Acquire) == PREPARING && sys::companion_lives() {
        sys::futex_wait(&READINESS, PREPARING, 10_000_000);
    }
    if READINESS.load(Ordering::Acquire) == READY {
        current::close_descriptors_of_host();
        return;
    }
    if let Some(ended) = companion.take() {
        ended.join();
    }
    drainer::set_ended();
}

/// Waits for the end of the drain process of an earlier recording, which has failed.
pub(super) fn join_ended() {
    if let Some(ended) = COMPANION.lock().take() {
        ended.join();
        drainer::set_ended();
    }
}

/// How a drain process has ended.
pub(super) enum DrainerEnd {
    /// It has closed the dump, with this result.
    Closed(Result<(), Errno>),
    /// It was killed before it could close the dump.
    Killed,
    /// There was none.
    NoProcess,
}

/// Has the process end the recording and close the dump, and waits until the process has ended, so
/// that its code may be unmapped. Must be called without the recorder's lock.
pub(super) fn finish() -> DrainerEnd {
    let companion = COMPANION.try_lock().and_then(|mut companion| companion.take());
    let Some(companion) = companion else { return DrainerEnd::NoProcess };
    if drainer::is_running() {
        drainer::ask(Request::Finish);
    }
    companion.join();
    drainer::set_ended();
    match drainer::outcome() {
        Some(outcome) => DrainerEnd::Closed(outcome),
        // It writes to a disk that does not answer, or was stopped.
        None if sys::companion_lives() => DrainerEnd::Closed(Err(Errno(libc::EBUSY))),
        None => DrainerEnd::Killed,
    }
}

/// Notes that there is no drain process, in a forked child.
///
/// # Safety
/// No other thread may use this module.
pub(super) unsafe fn reset_after_fork() {
    // SAFETY: the caller promises that no other thread uses this module, so none has the lock.
    unsafe { COMPANION.reset(None) };
    sys::forget_companion_after_fork();
    drainer::set_ended();
}

/// The process from its beginning to its end.
fn run() {
    let recording = prepare().ok();
    READINESS.store(if recording.is_some() { READY } else { NOT_READY }, Ordering::Release);
    sys::futex_wake_all(&READINESS);
    if let Some(recording) = recording {
        drain_until_the_end(recording);
        drainer::set_ended();
    }
}

/// Opens what the process needs, and gives up everything else. Returns the recording that it
/// serves.
///
/// # Errors
/// The kernel cannot tell the end of a process (before 5.3), or close all descriptors (before 5.9).
fn prepare() -> Result<RecordingId, Errno> {
    let end_of_host = File::of_process(host::id())?.move_to_high_fd();
    let watch_stack = Mapping::anonymous(WATCH_STACK_LEN)?;
    let mut kept = [i32::MAX; MAX_KEPT];
    kept[0] = end_of_host.fd();
    let maps = modules::keep_maps_open();
    let opened = with_stream_as_drainer(|stream| {
        stream.open_process_files();
        stream.record_memory_limits(memory_limits::for_each_memory_limit)?;
        let mut count = 1;
        let mut keep = |fd| {
            if let Some(slot) = kept.get_mut(count) {
                (*slot, count) = (fd, count + 1);
            }
        };
        maps.into_iter().flatten().for_each(&mut keep);
        host::open_files(&mut keep);
        layouts::open_files(&mut keep);
        stream.for_each_file(&mut keep);
        stream.for_each_process_file(&mut keep);
        Ok((count, stream.recording()))
    });
    let (count, recording) = opened.ok_or(Errno(libc::ECANCELED))?;
    let kept = kept.get_mut(..count).unwrap_or_default();
    kept.sort_unstable();
    sys::close_all_but(kept)?;
    sys::end_on_faults();
    sys::drop_rights();
    sys::watch_end(end_of_host, watch_stack, note_end_of_host)?;
    sys::forbid_calls_but(&ALLOWED_CALLS);
    Ok(recording)
}

/// Called by the thread that waits for the end of the host.
fn note_end_of_host() {
    host::set_gone();
    drainer::wake();
}

/// Drains until the recording or the host has ended.
fn drain_until_the_end(recording: RecordingId) {
    let (mut quiet_ns, mut calm_ns) = (0, u64::MAX);
    let mut pace = LayoutPace::default();
    take_layout(LayoutOccasion::Start, &mut pace);
    while !host::is_gone() {
        let requests = drainer::begin_pass();
        if requests & Request::Finish as u32 != 0 {
            take_layout(LayoutOccasion::End, &mut pace);
            drainer::set_outcome(session::close_recording(recording));
            drainer::end_pass(requests);
            return;
        }
        if requests & Request::ScanModules as u32 != 0 {
            modules::scan_now(host::has_left_program);
        }
        let tick = with_stream_as_drainer(|stream| {
            let tick = stream.tick()?;
            stream.write_full_frame(requests & Request::Drain as u32 != 0)?;
            stream.map_spare_rings();
            Ok(tick)
        });
        modules::notice_replaced();
        snapshot::serve(requests);
        drainer::end_pass(requests);
        take_layout_if_due(&mut pace);
        match tick {
            Some(Tick::Flooded { quarter_us }) => {
                (quiet_ns, calm_ns) = (0, 0);
                pause_in_flood(quarter_us);
                continue;
            }
            Some(Tick::Busy) => quiet_ns = 0,
            Some(Tick::Quiet) => {}
            Some(Tick::LimitReached(limit)) => {
                if session::end_at_limit(recording, limit) {
                    return;
                }
                // The host is just ending the recording itself.
                quiet_ns = 0;
            }
            // The host executes another program, or the recording has failed.
            Some(Tick::HostReplaced) | None => return,
        }
        let pause_ns = pause_after(quiet_ns, calm_ns);
        if pause_ns < SHORTEST_SLEEP_NS {
            pause_in_flood(pause_ns / 1000);
        } else {
            drainer::sleep(false, pause_ns);
        }
        quiet_ns += pause_ns;
        calm_ns = calm_ns.saturating_add(pause_ns);
    }
}

fn take_layout_if_due(pace: &mut LayoutPace) {
    let Some((sizes, is_marked)) = with_stream_as_drainer(|stream| Ok(stream.sizes())) else { return };
    if pace.is_due(sizes, is_marked, sys::clock_ns(libc::CLOCK_MONOTONIC)) {
        take_layout(if is_marked { LayoutOccasion::Mark } else { LayoutOccasion::Growth }, pace);
    }
}

/// Describes the address space. Between two pieces of the description the rings are drained.
fn take_layout(occasion: LayoutOccasion, pace: &mut LayoutPace) {
    let Some(mut reading) = LayoutReading::begin() else { return };
    // A machine with much to do makes a layout last longer, and not dearer.
    let used_ns = || sys::clock_ns(libc::CLOCK_THREAD_CPUTIME_ID);
    let begun_ns = used_ns();
    let mut regions = 0;
    while reading.read() {
        let recorded = with_stream_as_drainer(|stream| {
            stream.tick()?;
            reading.take_regions(|region| {
                regions += 1;
                stream.record_region(region)
            })
        });
        if recorded.is_none() {
            return;
        }
    }
    let sizes = with_stream_as_drainer(|stream| {
        stream.record_layout(occasion, regions)?;
        Ok(stream.sizes().0)
    });
    if let Some(sizes) = sizes {
        pace.note(sizes, used_ns().saturating_sub(begun_ns), sys::clock_ns(libc::CLOCK_MONOTONIC));
    }
}

/// Returns how long to pause, in nanoseconds. Nothing has happened for `quiet_ns`, and no flood of
/// events for `calm_ns`.
///
/// A pause lasts an eighth of the quiet time, but 5 ms at least and 160 ms at most. So events after
/// a quiet time are drained late by an eighth of it. After a flood the pauses begin
/// short and grow in the same proportion, because events may pour in again.
fn pause_after(quiet_ns: u64, calm_ns: u64) -> u64 {
    if calm_ns < LINGERING_NS {
        return LINGERING_NS / 10;
    }
    (quiet_ns / 8).clamp((calm_ns / 8).clamp(SHORTEST_SLEEP_NS, SHORTEST_PAUSE_NS), LONGEST_PAUSE_NS)
}

/// Waits until about a quarter of a ring is filled: the next draining comes before the ring can be
/// full.
fn pause_in_flood(quarter_us: u64) {
    if quarter_us > SLEEP_OVERHEAD_US {
        let ns = ((quarter_us - SLEEP_OVERHEAD_US) * 1000).min(LONGEST_FLOOD_PAUSE_NS);
        drainer::sleep(true, ns);
        return;
    }
    // The ring would be full before a sleep ends, so this process stays awake, and yields the
    // processor to any thread that wants it.
    let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + quarter_us * 1000;
    for _ in 0..MOST_YIELDS {
        sys::yield_now();
        if drainer::has_requests() || sys::clock_ns(libc::CLOCK_MONOTONIC) >= until {
            return;
        }
    }
}

static COMPANION: FutexLock<Option<Companion>> = FutexLock::new(None);
/// Whether the process is ready: a word, because the kernel compares it when the host waits.
static READINESS: AtomicU32 = AtomicU32::new(PREPARING);
const PREPARING: u32 = 0;
const READY: u32 = 1;
const NOT_READY: u32 = 2;

/// The system calls that the process makes once it is ready. None opens a file. The last two make a
/// copy of the process and let `profiler-cli` read it.
const ALLOWED_CALLS: [AllowedCall; 31] = [
    AllowedCall::any(libc::SYS_read),
    AllowedCall::any(libc::SYS_pread64),
    AllowedCall::any(libc::SYS_write),
    AllowedCall::any(libc::SYS_pwrite64),
    AllowedCall::any(libc::SYS_fstat),
    AllowedCall::any(libc::SYS_newfstatat),
    AllowedCall::any(libc::SYS_ftruncate),
    AllowedCall::any(libc::SYS_flock),
    AllowedCall::any(libc::SYS_close),
    AllowedCall::any(libc::SYS_close_range),
    AllowedCall::any(libc::SYS_unlinkat),
    AllowedCall::any(libc::SYS_mmap),
    AllowedCall::any(libc::SYS_munmap),
    AllowedCall::any(libc::SYS_madvise),
    AllowedCall::any(libc::SYS_mincore),
    AllowedCall::any(libc::SYS_futex),
    AllowedCall::any(libc::SYS_sched_yield),
    AllowedCall::any(libc::SYS_clock_gettime),
    AllowedCall::any(libc::SYS_membarrier),
    AllowedCall::any(libc::SYS_ppoll),
    AllowedCall::any(libc::SYS_restart_syscall),
    AllowedCall::any(libc::SYS_rt_sigprocmask),
    AllowedCall::any(libc::SYS_rt_sigtimedwait),
    AllowedCall::any(libc::SYS_rt_sigreturn),
    AllowedCall::any(libc::SYS_getpid),
    AllowedCall::any(libc::SYS_process_vm_readv),
    AllowedCall::any(libc::SYS_wait4),
    AllowedCall::any(libc::SYS_exit),
    AllowedCall::any(libc::SYS_exit_group),
    AllowedCall::with(libc::SYS_clone, 0),
    AllowedCall::with(libc::SYS_prctl, libc::PR_SET_PTRACER as u32),
];
/// The most descriptors that the process keeps.
const MAX_KEPT: usize = 16;
const WATCH_STACK_LEN: usize = 16 << 10;

/// A sleep takes this much longer than was asked for.
const SLEEP_OVERHEAD_US: u64 = 55;
/// Shorter than the time in which a thread fills its ring.
const LONGEST_FLOOD_PAUSE_NS: u64 = 150_000;
/// Ends a pause whose clock stands still.
const MOST_YIELDS: u32 = 10_000;
/// For this long after a flood, the process keeps the short pauses of the flood.
const LINGERING_NS: u64 = 500_000;
/// For a shorter pause the process can as well stay awake.
const SHORTEST_SLEEP_NS: u64 = 1_000_000;
/// A busy host is sampled after every second pause of this length.
///
/// PERF: until this process looks, a thread that floods its ring drains the ring itself.
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
