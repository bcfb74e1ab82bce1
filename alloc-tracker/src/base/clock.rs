//! Timestamps: they order the events of all threads and give their times. In: the processor's
//! counter or the kernel's clock. Out: timestamps. If one event happened before another, its
//! timestamp is not the later one. Never locks, never allocates.
//!
//! On x86-64 a timestamp is the processor's time stamp counter, provided that the kernel itself
//! keeps time by that counter: the kernel has then checked that all processors count alike.
//! Everywhere else it is the kernel's monotonic clock.
//!
//! The processor may read the counter before it has finished the loads that stand before it in
//! the program. [`order_after_reads`] forbids that where it matters:
//!
//! ```text
//! thread A:  timestamp 17 for free(0x1000)       inner.dealloc(0x1000)
//! thread B:  inner.alloc() = 0x1000 (reads what A has written)
//!            order_after_reads()                 without it the counter might be read earlier,
//!            timestamp 23 for alloc(0x1000)      as 16: the block allocated before its free
//! ```

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use alloc_dump::sidecar::Commit;

use crate::base::sys;

/// Returns a timestamp. The timestamp is no later than anything that this thread writes from now
/// on. It is no earlier than anything that this thread had read before its last call of
/// [`order_after_reads`].
pub(crate) fn timestamp() -> u64 {
    // Never below zero: the counter may have been set back while the machine slept, and `adjust`
    // has not noticed yet.
    now().max(0).cast_unsigned()
}

/// Returns a timestamp that is later than `last`.
#[inline(always)]
pub(crate) fn timestamp_after(last: u64) -> u64 {
    // PERF: one comparison for this and for a counter below zero.
    now().max(last.cast_signed() + 1).cast_unsigned()
}

#[inline(always)]
fn now() -> i64 {
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        return counter::read().wrapping_sub(BASE.load(Ordering::Relaxed)).cast_signed();
    }
    kernel().cast_signed()
}

/// Makes timestamps that are taken from now on no earlier than anything that this thread has read
/// before.
///
/// PERF: the fence waits for everything that was begun before it, so callers put it as early as
/// they can, with as little as possible before it.
#[inline(always)]
pub(crate) fn order_after_reads() {
    // The kernel's clock has its own fence.
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        counter::fence();
    }
}

/// Chooses the source of timestamps, once in a process, and makes the present moment timestamp 0.
/// Called once for each recording, before its first event.
pub(crate) fn start() {
    sys::prepare_clock();
    if SOURCE.load(Ordering::Relaxed) == UNDECIDED {
        SOURCE.store(if counter::is_reliable() { COUNTER } else { KERNEL }, Ordering::Relaxed);
    }
    BASE.store(0, Ordering::Relaxed);
    order_after_reads();
    BASE.store(timestamp(), Ordering::Relaxed);
}

/// Converts timestamps into times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Timestamp and nanoseconds at the start.
    origin: (u64, u64),
    /// Timestamp and nanoseconds at the last adjustment.
    latest: (u64, u64),
    /// Microseconds for each step, times 2^32.
    rate: u64,
}

impl Scale {
    /// Makes this moment time zero. PERF: takes some tens of microseconds, to measure how fast the
    /// counter runs.
    pub(crate) fn new() -> Scale {
        let origin = moment();
        let mut scale = Scale { origin, latest: origin, rate: 0 };
        // The clock of a virtual machine may stand still, so the wait ends by count.
        let mut looks = 0;
        while sys::clock_ns(libc::CLOCK_MONOTONIC) < origin.1 + FIRST_MEASUREMENT_NS && looks < MOST_LOOKS {
            looks += 1;
        }
        scale.adjust();
        scale
    }

    /// Measures again how many timestamps there are in a microsecond. If the counter was set back,
    /// timestamps continue from the last measurement.
    pub(crate) fn adjust(&mut self) {
        let mut now = moment();
        if now.0 < self.latest.0 {
            continue_from(self.latest.0);
            now = moment();
        }
        self.latest = now;
        let steps = self.latest.0.saturating_sub(self.origin.0).max(1);
        let ns = self.latest.1.saturating_sub(self.origin.1);
        self.rate = ((u128::from(ns) << 32) / (u128::from(steps) * 1000)).try_into().unwrap_or(u64::MAX);
    }

    /// Writes the conversion into a commit, for the reader of the sidecar.
    pub(crate) fn write_to(&self, commit: &mut Commit) {
        commit.timestamp = self.latest.0;
        commit.us = self.latest.1.saturating_sub(self.origin.1) / 1000;
        commit.rate = self.rate;
    }

    /// Returns the microseconds since time zero.
    pub(crate) fn now_us(&self) -> u64 {
        sys::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(self.origin.1) / 1000
    }
}

/// Returns a timestamp and the kernel's time, taken as nearly as possible at the same moment.
fn moment() -> (u64, u64) {
    let early = timestamp();
    let ns = sys::clock_ns(libc::CLOCK_MONOTONIC);
    order_after_reads();
    let late = timestamp();
    (early + late.saturating_sub(early) / 2, ns)
}

/// Moves the clock, so that the present moment has this timestamp.
#[cold]
fn continue_from(timestamp: u64) {
    let now = match SOURCE.load(Ordering::Relaxed) {
        COUNTER => counter::read(),
        _ => sys::clock_ns(libc::CLOCK_MONOTONIC),
    };
    // The difference wraps below zero if the counter shows less than the timestamp. The subtraction
    // in `now` wraps as well, so the result is right.
    BASE.store(now.wrapping_sub(timestamp), Ordering::Relaxed);
}

const FIRST_MEASUREMENT_NS: u64 = 30_000;
/// A look takes tens of nanoseconds.
const MOST_LOOKS: u32 = 10_000;

#[unsafe(link_section = "alloc_tracker_hot")]
static SOURCE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const COUNTER: u8 = 1;
const KERNEL: u8 = 2;

/// The value of the counter or of the kernel's clock that is timestamp 0: the one at the start of
/// the recording, so that timestamps are small numbers.
#[unsafe(link_section = "alloc_tracker_hot")]
static BASE: AtomicU64 = AtomicU64::new(0);

#[cold]
fn kernel() -> u64 {
    // Needs no fence: the kernel orders its clock itself.
    sys::clock_ns(libc::CLOCK_MONOTONIC).wrapping_sub(BASE.load(Ordering::Relaxed))
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use crate::base::sys::File;

    #[inline(always)]
    pub(super) fn read() -> u64 {
        let (low, high): (u64, u64);
        // SAFETY: reads a counter. Not `nomem`: the compiler must not move the caller's stores
        // across it.
        unsafe {
            std::arch::asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags))
        };
        high << 32 | low
    }

    /// Waits until all earlier reads are done.
    #[inline(always)]
    pub(super) fn fence() {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { std::arch::x86_64::_mm_lfence() };
    }

    /// Whether the counter runs evenly, and the kernel keeps time by it.
    pub(super) fn is_reliable() -> bool {
        const INVARIANT: u32 = 1 << 8;
        let leaf = std::arch::x86_64::__cpuid(0x8000_0000);
        if leaf.eax < 0x8000_0007 || std::arch::x86_64::__cpuid(0x8000_0007).edx & INVARIANT == 0 {
            return false;
        }
        let names_one = |path, clocks: &[&[u8]]| {
            let mut buffer = [0; 128];
            let file = File::open(path, libc::O_RDONLY, 0).ok();
            let len = file.and_then(|file| file.read(&mut buffer).ok()).unwrap_or(0);
            let mut names = buffer.get(..len).unwrap_or_default().split(u8::is_ascii_whitespace);
            names.any(|name| clocks.contains(&name))
        };
        // The last two are the same counter with a correction by the hypervisor, which is equal on
        // all processors.
        let current = c"/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let from_counter = names_one(current, &[b"tsc", b"kvm-clock", b"hyperv_clocksource_tsc_page"]);
        // The kernel takes the counter off this list if it differs between processors.
        let available = c"/sys/devices/system/clocksource/clocksource0/available_clocksource";
        from_counter && names_one(available, &[b"tsc"])
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    pub(super) fn read() -> u64 {
        0
    }

    pub(super) fn fence() {}

    pub(super) fn is_reliable() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::ALONE;
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Two threads hand a baton to each other. No timestamp after a handover is earlier than one
    /// before the handover.
    #[test]
    fn timestamps_are_in_the_order_of_what_happened() {
        static BATON: AtomicU64 = AtomicU64::new(0);
        static LATEST: AtomicU64 = AtomicU64::new(0);
        let _alone = ALONE.lock();
        start();
        std::thread::scope(|scope| {
            for me in 0..2 {
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let mut spins = 0;
                        while BATON.load(Ordering::Acquire) != round * 2 + me {
                            spins += 1;
                            // If both threads share one processor, the other thread cannot run
                            // before this one yields.
                            if spins % 100 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
                        }
                        order_after_reads();
                        let now = timestamp();
                        assert!(now >= LATEST.load(Ordering::Relaxed));
                        LATEST.store(timestamp(), Ordering::Relaxed);
                        BATON.store(round * 2 + me + 1, Ordering::Release);
                    }
                });
            }
        });
    }

    /// After a sleep of the machine the counter may show less than before, even less than at the
    /// start.
    #[test]
    fn timestamps_continue_when_the_counter_is_set_back() {
        let _alone = ALONE.lock();
        start();
        let mut scale = Scale::new();
        for back in [1 << 20, 1 << 50] {
            std::thread::sleep(std::time::Duration::from_millis(5));
            scale.adjust();
            let before = scale.latest;
            BASE.store(BASE.load(Ordering::Relaxed).wrapping_add(back), Ordering::Relaxed);
            assert!(timestamp() < before.0);
            scale.adjust();
            assert!(scale.latest.0 >= before.0 && timestamp() >= before.0);
            assert!(timestamp() - before.0 < 1 << 32, "{} {}", timestamp(), before.0);
        }
    }

    #[test]
    fn timestamps_become_times() {
        let _alone = ALONE.lock();
        start();
        let mut scale = Scale::new();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (before, timestamp, after) = (scale.now_us(), timestamp(), scale.now_us());
        scale.adjust();
        let mut commit = Commit::default();
        scale.write_to(&mut commit);
        let time = commit.time_of(timestamp);
        assert!(before < time + 50 && time < after + 50, "{before} {time} {after}");
    }
}
