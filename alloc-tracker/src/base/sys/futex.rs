//! A lock of one word. Application code can never hold it, it allocates nothing and it shares no table with any
//! other lock: the parking table of `parking_lot` would (a host thread that grows it holds its buckets while it
//! allocates, and a hook that then parks on the same buckets hangs the process).

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const CONTENDED: u32 = 2;

/// Mutual exclusion for `T`, without poisoning.
#[derive(Debug)]
pub(crate) struct FutexLock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands the value to one thread at a time.
unsafe impl<T: Send> Sync for FutexLock<T> {}

impl<T> FutexLock<T> {
    pub(crate) const fn new(value: T) -> FutexLock<T> {
        FutexLock { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub(crate) fn lock(&self) -> FutexGuard<'_, T> {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
        FutexGuard(self)
    }

    /// Takes the lock, and stays awake for up to so long before it sleeps.
    ///
    /// PERF: the kernel likes to run who is woken where it is woken from, in a virtual machine even if all other processors are idle. Two
    /// threads of which one has woken the other may then share a processor for milliseconds.
    pub(crate) fn lock_awake_for(&self, ns: u64) -> FutexGuard<'_, T> {
        if let Some(guard) = self.try_lock() {
            return guard;
        }
        let until = super::clock_ns(libc::CLOCK_MONOTONIC) + ns;
        loop {
            for _ in 0..SPINS {
                if let Some(guard) = (!self.is_locked()).then(|| self.try_lock()).flatten() {
                    return guard;
                }
                std::hint::spin_loop();
            }
            if super::clock_ns(libc::CLOCK_MONOTONIC) >= until {
                return self.lock();
            }
            super::yield_now();
        }
    }

    /// Takes the lock if that needs no waiting.
    pub(crate) fn try_lock(&self) -> Option<FutexGuard<'_, T>> {
        self.word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| FutexGuard(self))
    }

    /// Takes the lock unless that takes longer.
    pub(crate) fn try_lock_for(&self, ns: u64) -> Option<FutexGuard<'_, T>> {
        for _ in 0..ns / STEP_NS {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            futex_wait(&self.word, self.word.load(Ordering::Relaxed), STEP_NS);
        }
        self.try_lock()
    }

    /// Makes the lock a new one with this value; what it held before is forgotten, not dropped.
    ///
    /// # Safety
    /// No other thread may have the lock or wait for it, as in a child that was just forked: whoever had it is not there.
    pub(crate) unsafe fn reset(&self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.value.get().write(value) };
        self.word.store(FREE, Ordering::Release);
    }

    /// Takes the lock from whoever had it; what it protects stays as it is.
    ///
    /// # Safety
    /// As [`reset`](FutexLock::reset), and whoever had the lock must have left the value whole.
    pub(crate) unsafe fn force_unlock(&self) {
        self.word.store(FREE, Ordering::Release);
    }

    /// Whether somebody has the lock just now.
    pub(crate) fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    #[cold]
    fn lock_contended(&self) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == FREE
                && self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            std::hint::spin_loop();
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            futex(&self.word, libc::FUTEX_WAIT, CONTENDED, None);
        }
    }
}

/// Sleeps while the word has this value, until it is woken or the time is over.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, at_most_ns: u64) {
    futex(word, libc::FUTEX_WAIT, value, Some(at_most_ns));
}

/// Wakes one thread that sleeps on the word.
pub(crate) fn futex_wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, 1, None);
}

fn futex(word: &AtomicU32, operation: i32, value: u32, at_most_ns: Option<u64>) {
    let time = at_most_ns.map(|ns| libc::timespec {
        // Of types that differ from one C library to the other.
        tv_sec: (ns / 1_000_000_000) as _,
        tv_nsec: (ns % 1_000_000_000) as _,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: word and time outlive the call; every outcome (woken, changed, interrupted, over) is handled by the
    // callers.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, value, time);
    }
}

/// The right to use the value; gives the lock back when dropped.
pub(crate) struct FutexGuard<'a, T>(&'a FutexLock<T>);

impl<T> Deref for FutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while its thread holds the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for FutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed for as long as the reference lives.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for FutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.0.word.swap(FREE, Ordering::Release) == CONTENDED {
            futex_wake(&self.0.word);
        }
    }
}

/// How long a wait is before it looks again.
const STEP_NS: u64 = 1_000_000;
/// PERF: the lock is held for about a tenth of the cost of an event, so a short spin mostly saves the system call.
const SPINS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_under_contention() {
        static SUM: FutexLock<u64> = FutexLock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| *SUM.lock() += 1));
            }
        });
        assert_eq!(*SUM.lock(), 80_000);
        let held = SUM.lock();
        assert!(SUM.try_lock().is_none() && SUM.try_lock_for(3 * STEP_NS).is_none());
        drop(held);
        assert!(SUM.try_lock_for(3 * STEP_NS).is_some());
        assert!(SUM.try_lock().is_some());
    }
}
