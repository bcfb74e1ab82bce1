//! The ring buffer of one thread, in the sidecar. In: entries, from the thread. Out: the same
//! entries, to the drainer. Never locks, never allocates; a thread waits here only if its caller
//! asks for that.
//!
//! # Protocol
//! The ring has one writer, its thread, and one reader, the drainer. Four words of its header tell
//! them what they need:
//!
//! | word | writer | meaning |
//! | --- | --- | --- |
//! | `INTENT` | thread | the entry that it stores or has stored last, counted from 1 |
//! | `STORED` | thread | entries whose words are in the ring |
//! | `RELEASED` | drainer | entries that may be overwritten |
//! | `WAITS` | thread sets, either clears | the thread sleeps until `RELEASED` grows |
//!
//! ```text
//!             entries 0 .. RELEASED      RELEASED .. STORED       STORED .. RELEASED + capacity
//!             may be overwritten         in the ring              room
//!
//! thread, storing entry n:       drainer:
//!   INTENT = n + 1                 horizon = clock
//!   timestamp = clock              membarrier: all threads' stores up to here become visible
//!   words of entry n               read STORED, then INTENT
//!   STORED = n + 1  (release)      INTENT == STORED: no entry below the horizon can come any more
//! ```
//!
//! `INTENT` is a plain store: the `membarrier` of the drainer replaces the fence that would stand
//! behind it at every entry. Where the kernel has no such call, the thread executes the fence.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use alloc_dump::sidecar::{RING_CAPACITY, RING_HEADER_LEN};
use alloc_dump::thread_ring::ENTRY_WORDS;

use super::membarrier;
use crate::base::clock;
use crate::base::sys::{self, Mapping};

/// The ring buffer of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRing(NonNull<u8>);

// SAFETY: the ring's memory is used through atomics only.
unsafe impl Send for ThreadRing {}

impl ThreadRing {
    /// Makes a ring of this memory, which is large enough for one. It is not unmapped while a
    /// thread is in the hook.
    pub(crate) fn new(memory: Mapping) -> ThreadRing {
        // SAFETY: mappings are not at null.
        ThreadRing(unsafe { NonNull::new_unchecked(memory.leak()) })
    }

    /// Returns the ring that begins here.
    ///
    /// # Safety
    /// `start` must be that of a ring which is not unmapped while a thread is in the hook.
    #[inline(always)]
    pub(super) unsafe fn at(start: *mut u8) -> ThreadRing {
        // SAFETY: rings are not at null.
        ThreadRing(unsafe { NonNull::new_unchecked(start) })
    }

    /// Returns where the ring begins.
    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// Returns the address of the ring.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    /// Returns a word of the ring's header or entries.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the offset lies inside the ring and is a multiple of eight, and every thread uses
        // the word as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.add(offset).cast().as_ptr()) }
    }

    #[inline(always)]
    fn entry_word(&self, index: u64, word: usize) -> &AtomicU64 {
        let at = RING_HEADER_LEN + ((index as usize % RING_CAPACITY) * ENTRY_WORDS + word) * 8;
        self.word(at)
    }

    /// Returns how many entries were ever stored.
    #[inline(always)]
    pub(crate) fn stored(&self) -> u64 {
        self.word(STORED).load(Ordering::Acquire)
    }

    /// Whether an entry may have a timestamp already and is not stored yet. To be called after
    /// [`stored`](ThreadRing::stored), with its result.
    pub(crate) fn is_storing(&self, stored: u64) -> bool {
        self.word(INTENT).load(Ordering::Acquire) != stored
    }

    /// Returns how many entries may be overwritten.
    #[inline(always)]
    pub(crate) fn released(&self) -> u64 {
        self.word(RELEASED).load(Ordering::Acquire)
    }

    /// Lets the first `count` entries be overwritten. Does not wake the ring's thread.
    pub(crate) fn release(&self, count: u64) {
        self.word(RELEASED).store(count, Ordering::Release);
    }

    /// Wakes the ring's thread if it waits for room. To be called after a
    /// [`release`](ThreadRing::release) and a full fence.
    pub(crate) fn wake(&self) {
        if self.word(WAITS).load(Ordering::Relaxed) != 0 && self.word(WAITS).swap(0, Ordering::Relaxed) != 0 {
            sys::futex_wake(self.released_half());
        }
    }

    /// Waits, without sleeping, until more entries are released than `released`. Gives up after
    /// some time, and when `is_draining` says that no thread drains.
    pub(crate) fn spin_for_release(&self, released: u64, at_most_ns: u64, is_draining: impl Fn() -> bool) {
        let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + at_most_ns;
        loop {
            for _ in 0..SPINS {
                if self.word(RELEASED).load(Ordering::Acquire) != released {
                    return;
                }
                std::hint::spin_loop();
            }
            if !is_draining() || sys::clock_ns(libc::CLOCK_MONOTONIC) >= until {
                return;
            }
            // The draining thread may be waiting for this very processor.
            sys::yield_now();
        }
    }

    /// Sleeps until more entries are released than `released`, or for some time.
    pub(crate) fn wait_for_release(&self, released: u64, at_most_ns: u64) {
        self.word(WAITS).store(1, Ordering::SeqCst);
        if self.word(RELEASED).load(Ordering::SeqCst) == released {
            sys::futex_wait(self.released_half(), released as u32, at_most_ns);
        }
        self.word(WAITS).store(0, Ordering::Relaxed);
    }

    /// Returns the lower half of the word that counts released entries: the kernel compares 32
    /// bits.
    fn released_half(&self) -> &AtomicU32 {
        let half = RELEASED + if cfg!(target_endian = "big") { 4 } else { 0 };
        // SAFETY: inside the ring, and a multiple of four. Only the kernel reads it as 32 bits.
        unsafe { AtomicU32::from_ptr(self.0.add(half).cast().as_ptr()) }
    }

    /// Returns the words of an entry that is stored.
    #[inline(always)]
    pub(crate) fn entry(&self, index: u64) -> [u64; ENTRY_WORDS] {
        [0, 1, 2].map(|word| self.entry_word(index, word).load(Ordering::Relaxed))
    }

    /// Returns the first word of an entry that is stored.
    #[inline(always)]
    pub(crate) fn first_word(&self, index: u64) -> u64 {
        self.entry_word(index, 0).load(Ordering::Relaxed)
    }

    /// Takes a timestamp later than `last` and stores the entry with this index, whose words
    /// `entry` makes of the timestamp. Returns the timestamp. Only the ring's own thread may call
    /// this.
    #[inline(always)]
    pub(crate) fn store(&self, index: u64, last: u64, entry: impl FnOnce(u64) -> [u64; ENTRY_WORDS]) -> u64 {
        // The drainer relies on this order: if it reads a timestamp later than T and sees no
        // pending store, this thread will never publish an entry older than T.
        self.word(INTENT).store(index + 1, Ordering::Relaxed);
        if membarrier::needs_fence() {
            fence(Ordering::SeqCst);
        }
        let timestamp = clock::timestamp_after(last);
        for (word, value) in entry(timestamp).into_iter().enumerate() {
            self.entry_word(index, word).store(value, Ordering::Relaxed);
        }
        self.word(STORED).store(index + 1, Ordering::Release);
        prefetch_for_writing(self.entry_word(index + AHEAD, 0));
        timestamp
    }
}

/// Asks the processor for the cache line of a word that will soon be written.
#[inline(always)]
fn prefetch_for_writing(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which changes nothing. Processors that do not know it treat it as no
    // operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

/// How many entries ahead cache lines are asked for.
///
/// PERF: the drainer has the ring's lines in another cache, maybe a distant one, and a store that
/// waits for its line holds up all stores that follow. Where the two processors share no cache, an
/// event of a JSON parser took 62 ns more without this, and 26 ns more with it. Where they share
/// one there is no difference.
const AHEAD: u64 = 64;

/// Takes some microseconds.
const SPINS: u32 = 100;

/// Offsets in a ring's header. The first is the format's; the others mean nothing to a reader.
const STORED: usize = 0;
const INTENT: usize = 8;
const RELEASED: usize = 64;
const WAITS: usize = 72;
