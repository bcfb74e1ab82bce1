//! Stamps: what orders the events of all threads, and what tells their times. In: nothing. Out: a number that
//! never goes back, for any two events of which one happened before the other. Never locks.
//!
//! On x86-64 it is the processor's time timestamp counter, where the kernel itself keeps time by it: it has then checked that
//! all processors count alike. Everywhere else it is the kernel's monotonic clock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use alloc_dump::sidecar::Commit;

use crate::base::sys;

/// A timestamp: no later than whatever this thread writes from now on, and no earlier than what it had read before it last called
/// [`order_after_reads`].
pub(crate) fn timestamp() -> u64 {
    // Never below zero: the counter may have been set back while the machine slept, until `adjust` notices.
    now().max(0).cast_unsigned()
}

/// The same, and later than that timestamp.
#[inline(always)]
pub(crate) fn timestamp_after(last: u64) -> u64 {
    // PERF: one comparison for that and for what may lie below zero.
    now().max(last.cast_signed() + 1).cast_unsigned()
}

#[inline(always)]
fn now() -> i64 {
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        return counter::read().wrapping_sub(BASE.load(Ordering::Relaxed)).cast_signed();
    }
    kernel().cast_signed()
}

/// Stamps that are taken from now on are no earlier than whatever this thread has read before.
///
/// PERF: a fence waits for all that was begun before it, so it stands as early as it can, with as little before it.
#[inline(always)]
pub(crate) fn order_after_reads() {
    // The kernel's clock has its own fence.
    if SOURCE.load(Ordering::Relaxed) == COUNTER {
        counter::fence();
    }
}

/// Decides what the timestamps of this process are, and begins to count them. Called once for each recording, before its
/// first event.
pub(crate) fn start() {
    if SOURCE.load(Ordering::Relaxed) == UNDECIDED {
        SOURCE.store(if counter::is_reliable() { COUNTER } else { KERNEL }, Ordering::Relaxed);
    }
    BASE.store(0, Ordering::Relaxed);
    order_after_reads();
    BASE.store(timestamp(), Ordering::Relaxed);
}

/// How timestamps become times.
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
    /// Time zero is now. PERF: takes some tens of microseconds.
    pub(crate) fn new() -> Scale {
        let origin = moment();
        let mut scale = Scale { origin, latest: origin, rate: 0 };
        while sys::clock_ns(libc::CLOCK_MONOTONIC) < origin.1 + FIRST_MEASUREMENT_NS {}
        scale.adjust();
        scale
    }

    /// Measures anew how fast timestamps pass. A counter that was set back goes on from where it was.
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

    /// The time of a timestamp, as a sidecar has to know it.
    pub(crate) fn write_to(&self, commit: &mut Commit) {
        commit.timestamp = self.latest.0;
        commit.us = self.latest.1.saturating_sub(self.origin.1) / 1000;
        commit.rate = self.rate;
    }

    /// Microseconds since time zero.
    pub(crate) fn now_us(&self) -> u64 {
        sys::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(self.origin.1) / 1000
    }
}

/// A timestamp and the kernel's time at the same moment, as nearly as can be.
fn moment() -> (u64, u64) {
    let early = timestamp();
    let ns = sys::clock_ns(libc::CLOCK_MONOTONIC);
    order_after_reads();
    let late = timestamp();
    (early + late.saturating_sub(early) / 2, ns)
}

/// The timestamp of this moment is to be this one.
#[cold]
fn continue_from(timestamp: u64) {
    let now = match SOURCE.load(Ordering::Relaxed) {
        COUNTER => counter::read(),
        _ => sys::clock_ns(libc::CLOCK_MONOTONIC),
    };
    // Below zero if the counter shows less than that; what it is taken from wraps as well.
    BASE.store(now.wrapping_sub(timestamp), Ordering::Relaxed);
}

const FIRST_MEASUREMENT_NS: u64 = 30_000;

#[unsafe(link_section = "alloc_tracker_hot")]
static SOURCE: AtomicU8 = AtomicU8::new(UNDECIDED);
const UNDECIDED: u8 = 0;
const COUNTER: u8 = 1;
const KERNEL: u8 = 2;

/// What the counter showed at the start: timestamps are small numbers.
#[unsafe(link_section = "alloc_tracker_hot")]
static BASE: AtomicU64 = AtomicU64::new(0);

#[cold]
fn kernel() -> u64 {
    // PERF: ordered by the kernel, with its own fence.
    sys::clock_ns(libc::CLOCK_MONOTONIC).wrapping_sub(BASE.load(Ordering::Relaxed))
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use crate::base::sys::File;

    #[inline(always)]
    pub(super) fn read() -> u64 {
        let (low, high): (u64, u64);
        // SAFETY: reads a counter. Not `nomem`: the compiler must not move stores of the caller's over it.
        unsafe {
            std::arch::asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags))
        };
        high << 32 | low
    }

    /// Everything that was read before has been read.
    #[inline(always)]
    pub(super) fn fence() {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { std::arch::x86_64::_mm_lfence() };
    }

    /// Whether the counter runs evenly and the kernel relies on it.
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
        // With the last two the kernel reads the counter through its hypervisor's correction, the same for all.
        let current = c"/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let from_counter = names_one(current, &[b"tsc", b"kvm-clock", b"hyperv_clocksource_tsc_page"]);
        // One that the kernel has found to differ between processors is not to be had any more.
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
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    /// The clock is the process's: whoever starts it must be alone.
    static ALONE: Mutex<()> = Mutex::new(());

    /// What one thread has read before it hands over is never later than what the next one reads after it has taken over.
    #[test]
    fn stamps_follow_what_happened_before() {
        static BATON: AtomicU64 = AtomicU64::new(0);
        static STAMP: AtomicU64 = AtomicU64::new(0);
        let _alone = ALONE.lock();
        start();
        std::thread::scope(|scope| {
            for me in 0..2 {
                scope.spawn(move || {
                    for round in 0..20_000 {
                        let mut spins = 0;
                        while BATON.load(Ordering::Acquire) != round * 2 + me {
                            spins += 1;
                            // With one processor for both, the other one waits for this one.
                            if spins % 100 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
                        }
                        order_after_reads();
                        let now = timestamp();
                        assert!(now >= STAMP.load(Ordering::Relaxed));
                        STAMP.store(timestamp(), Ordering::Relaxed);
                        BATON.store(round * 2 + me + 1, Ordering::Release);
                    }
                });
            }
        });
    }

    /// As after a sleep of the machine: the counter shows less than before, maybe less than at the start.
    #[test]
    fn a_counter_that_is_set_back_goes_on_from_where_it_was() {
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
    fn stamps_become_times() {
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
