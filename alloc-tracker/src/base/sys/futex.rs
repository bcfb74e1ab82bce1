//! A lock of one word, on the kernel's futex.
//!
//! In: a value. Out: access to the value for one thread at a time. Application code can never hold
//! such a lock; the lock allocates nothing, and shares no table with any other lock. The locks of
//! `parking_lot` share a table, which in the hook would hang the process:
//!
//! ```text
//! host thread     parks; its parking table has to grow, so it locks all buckets
//! host thread       allocates the larger table
//! host thread         the hook locks a parking_lot mutex, finds it taken, and parks
//! host thread         parking locks a bucket: the one that it holds itself
//! ```

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use super::system_call::system_call;

/// No thread has the lock.
const FREE: u32 = 0;
/// A thread has the lock, and no thread sleeps on it.
const HELD: u32 = 1;
/// A thread has the lock, and others may sleep on it. Releasing the lock wakes one of them.
const CONTENDED: u32 = 2;

/// Mutual exclusion for `T`, without poisoning.
#[derive(Debug)]
pub(crate) struct FutexLock<T> {
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and one thread at a time has a guard. So
// sharing the lock moves the value between threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for FutexLock<T> {}

impl<T> FutexLock<T> {
    pub(crate) const fn new(value: T) -> FutexLock<T> {
        FutexLock { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock, waiting as long as need be.
    #[inline]
    pub(crate) fn lock(&self) -> FutexGuard<'_, T> {
        if self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
        FutexGuard(self)
    }

    /// Takes the lock. Waits awake for up to `ns` nanoseconds, then asleep. Gives up, with `None`,
    /// once `is_hopeless` returns true: the process that has the lock may have been killed.
    ///
    /// PERF: the kernel tends to run a woken thread on the processor of the thread that woke it, in
    /// a virtual machine even if all other processors are idle. The two threads may then share that
    /// processor for milliseconds. So a waiting thread wakes by itself, after short sleeps.
    pub(crate) fn lock_awake_for(
        &self,
        ns: u64,
        is_hopeless: impl Fn() -> bool,
    ) -> Option<FutexGuard<'_, T>> {
        if let Some(guard) = self.try_lock() {
            return Some(guard);
        }
        for _ in 0..ns / NAP_NS {
            for _ in 0..SPINS_AWAKE {
                if let Some(guard) = (!self.is_locked()).then(|| self.try_lock()).flatten() {
                    return Some(guard);
                }
                std::hint::spin_loop();
            }
            // The thread that has the lock may be waiting for this very processor. The nap is not
            // on the word of the lock, where it could take the wake that another thread waits for.
            super::nap(NAP_NS);
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            if is_hopeless() {
                return None;
            }
            futex_wait(&self.word, CONTENDED, RETRY_NS);
        }
        Some(FutexGuard(self))
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<FutexGuard<'_, T>> {
        self.word
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| FutexGuard(self))
    }

    /// Takes the lock, waiting for at most `ns` nanoseconds.
    pub(crate) fn try_lock_for(&self, ns: u64) -> Option<FutexGuard<'_, T>> {
        for _ in 0..ns / RETRY_NS {
            if let Some(guard) = self.try_lock() {
                return Some(guard);
            }
            super::nap(RETRY_NS);
        }
        self.try_lock()
    }

    /// Replaces the lock by a free one with this value. The previous value is forgotten, not
    /// dropped.
    ///
    /// A forked child needs this. Only the thread that forked exists there, so a lock that another
    /// thread held would stay locked forever, with a value that may be half changed:
    ///
    /// ```text
    /// parent, thread A    takes the lock, changes the value
    /// parent, thread B    forks
    /// child,  thread B    finds the lock held by a thread A that does not exist here
    /// ```
    ///
    /// # Safety
    /// No other thread may have the lock or wait for it.
    pub(crate) unsafe fn reset(&self, value: T) {
        // SAFETY: the caller promises that no other thread has a guard, so nothing else refers to
        // the value.
        unsafe { self.value.get().write(value) };
        self.word.store(FREE, Ordering::Release);
    }

    /// Makes the lock free, whichever thread has it. The value stays as it is.
    ///
    /// # Safety
    /// No other thread may have the lock or sleep on it, and the last thread that had it must have
    /// left the value whole.
    pub(crate) unsafe fn force_unlock(&self) {
        self.word.store(FREE, Ordering::Release);
    }

    /// Whether a thread has the lock just now.
    pub(crate) fn is_locked(&self) -> bool {
        self.word.load(Ordering::Relaxed) != FREE
    }

    /// Takes a lock that was not free a moment ago.
    ///
    /// A thread that has slept takes the lock as [`CONTENDED`], because it does not know whether
    /// others still sleep. The worst case is one needless wake.
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

/// Sleeps until the thread is woken or the time is over. Returns at once if the word has another
/// value than `value`, and may return for no reason.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32, at_most_ns: u64) {
    futex(word, libc::FUTEX_WAIT, value, Some(at_most_ns));
}

/// Wakes one thread that sleeps on the word.
pub(crate) fn futex_wake(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, 1, None);
}

/// Wakes all threads that sleep on the word.
pub(crate) fn futex_wake_all(word: &AtomicU32) {
    futex(word, libc::FUTEX_WAKE, i32::MAX as u32, None);
}

fn futex(word: &AtomicU32, operation: i32, value: u32, at_most_ns: Option<u64>) {
    let time = at_most_ns.map(|ns| libc::timespec {
        // The types of these fields differ between C libraries.
        tv_sec: (ns / 1_000_000_000) as _,
        tv_nsec: (ns % 1_000_000_000) as _,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time are valid for reads during the call; a null time means no
    // limit. Callers look at the word again after every outcome: woken, changed, interrupted, over.
    let _ = unsafe {
        let operation = operation | libc::FUTEX_PRIVATE_FLAG;
        system_call!(libc::SYS_futex, word.as_ptr(), operation, value, time)
    };
}

/// Access to the value of a locked [`FutexLock`]; releases the lock when dropped.
pub(crate) struct FutexGuard<'a, T>(&'a FutexLock<T>);

impl<T> Deref for FutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard exists only while its thread has the lock, so no other thread refers to
        // the value.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for FutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the guard is borrowed mutably for as long as the reference
        // lives.
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

/// How often a lock is tried between two naps of a thread that waits awake: for tens of
/// microseconds.
const SPINS_AWAKE: u32 = 1000;
/// How long a thread sleeps that waits awake, so that another thread may have its processor.
const NAP_NS: u64 = 20_000;
/// How long a limited wait sleeps before it tries to take the lock again.
const RETRY_NS: u64 = 1_000_000;
/// How often a lock is tried before the thread sleeps.
///
/// PERF: the lock is held for about a tenth of the time of an event, so a short spin mostly saves
/// the system call.
const SPINS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_lost_under_contention() {
        static SUM: FutexLock<u64> = FutexLock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| *SUM.lock() += 1));
            }
        });
        assert_eq!(*SUM.lock(), 80_000);
        let held = SUM.lock();
        assert!(SUM.try_lock().is_none() && SUM.try_lock_for(3 * RETRY_NS).is_none());
        drop(held);
        assert!(SUM.try_lock_for(3 * RETRY_NS).is_some());
        assert!(SUM.try_lock().is_some());
    }
}
