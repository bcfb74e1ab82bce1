//! The ring buffer of one thread, in the sidecar: where its words are, and how its thread waits for
//! room. In: entries, from the thread. Out: these entries, to the drainer. Never locks, never
//! allocates; a thread waits here only if its caller asks for that.
//!
//! [`ring_protocol`](super::ring_protocol) defines the order of loads and stores that both sides
//! keep to. One more word, `WAITS`, is for sleeping: the thread sets it and sleeps until `RELEASED`
//! grows; either side clears it. Another one, `GRANTED`, counts the entries that have memory so
//! far.
//!
//! # Grants
//! A thread that records little needs a few entries only. So a new ring has addresses for all of
//! its entries, but memory for its header and the first few:
//!
//! ```text
//! entries of the ring     0 ........ granted ........................ capacity
//!                         |  in the file  |  neither in the file nor ever touched  |
//! ```
//!
//! When the thread comes to the end of the granted part, that part is doubled, until the ring is
//! whole. Before a part is granted, zeros are written into the file, so that the file system has
//! room for it. Readers of a sidecar look at stored entries only, and those have been granted.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc_dump::sidecar::{RING_CAPACITY, RING_HEADER_LEN, RING_LEN};
use alloc_dump::thread_ring::{ENTRY_LEN, ENTRY_WORDS, Entry};

use super::membarrier;
use super::ring_protocol::{self, HeaderWord, RingWords};
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

    /// Returns the ring that begins at `start`.
    ///
    /// # Safety
    /// `start` must be the start of a ring that is not unmapped while a thread is in the hook.
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

    /// Returns how many entries were ever stored.
    #[inline(always)]
    pub(crate) fn stored(&self) -> u64 {
        ring_protocol::stored(self)
    }

    /// Returns how many entries the drainer may take, and the horizon, lowered if the ring's thread
    /// is storing an entry. See [`ring_protocol::limit`].
    pub(crate) fn limit(&self, horizon: u64) -> (u64, u64) {
        ring_protocol::limit(self, horizon, Entry::timestamp)
    }

    /// Returns how many entries may be overwritten.
    #[inline(always)]
    pub(crate) fn released(&self) -> u64 {
        ring_protocol::released(self)
    }

    /// Allows the first `count` entries to be overwritten. Does not wake the ring's thread.
    pub(crate) fn release(&self, count: u64) {
        ring_protocol::release(self, count);
    }

    /// Returns how many entries have memory: the thread may store entries with an index below that.
    /// If all have memory, the number is larger than any index.
    #[inline(always)]
    pub(crate) fn granted(&self) -> u64 {
        self.word(GRANTED).load(Ordering::Acquire)
    }

    /// Grants the entries that lie in the first `len` bytes of the ring, which have memory.
    pub(crate) fn grant(&self, len: usize) {
        self.word(GRANTED).store(entries_in(len), Ordering::Release);
    }

    /// Wakes the ring's thread if it waits for room. To be called after a
    /// [`release`](ThreadRing::release) and a full fence.
    pub(crate) fn wake(&self) {
        if self.word(WAITS).load(Ordering::Relaxed) != 0 && self.word(WAITS).swap(0, Ordering::Relaxed) != 0 {
            sys::futex_wake(self.released_half());
        }
    }

    /// Waits, awake or in short sleeps, until more entries are released than `released`. Gives up
    /// after about `at_most_ns`, and as soon as `is_draining` returns false.
    pub(crate) fn spin_for_release(&self, released: u64, at_most_ns: u64, is_draining: impl Fn() -> bool) {
        for _ in 0..at_most_ns / NAP_NS {
            for _ in 0..SPINS {
                if self.word(RELEASED).load(Ordering::Acquire) != released {
                    return;
                }
                std::hint::spin_loop();
            }
            if !is_draining() {
                return;
            }
            // The drainer may be waiting for this very processor. It does not wake this thread.
            sys::nap(NAP_NS);
        }
    }

    /// Sleeps until more entries are released than `released`, for at most `at_most_ns`.
    pub(crate) fn wait_for_release(&self, released: u64, at_most_ns: u64) {
        self.word(WAITS).store(1, Ordering::SeqCst);
        if self.word(RELEASED).load(Ordering::SeqCst) == released {
            sys::futex_wait(self.released_half(), released as u32, at_most_ns);
        }
        self.word(WAITS).store(0, Ordering::Relaxed);
    }

    /// Notes whether the ring's thread has ended, after its last entry.
    pub(super) fn set_has_no_thread(&self, none: bool) {
        self.word(NO_THREAD).store(u64::from(none), Ordering::Release);
    }

    /// Whether the ring's thread has ended. Then its last entry is stored.
    pub(crate) fn has_no_thread(&self) -> bool {
        self.word(NO_THREAD).load(Ordering::Acquire) != 0
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
        ring_protocol::entry(self, index)
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
        let needs_fence = membarrier::needs_fence();
        let timestamp =
            ring_protocol::store(self, index, needs_fence, || clock::timestamp_after(last), entry);
        prefetch_for_writing(self.entry_word(index + AHEAD, 0));
        timestamp
    }
}

impl RingWords for ThreadRing {
    const CAPACITY: u64 = RING_CAPACITY as u64;

    #[inline(always)]
    fn header(&self, word: HeaderWord) -> &AtomicU64 {
        self.word(match word {
            HeaderWord::Stored => STORED,
            HeaderWord::Intent => INTENT,
            HeaderWord::Released => RELEASED,
        })
    }

    #[inline(always)]
    fn entry_word(&self, index: u64, word: usize) -> &AtomicU64 {
        self.word(RING_HEADER_LEN + ((index % Self::CAPACITY) as usize * ENTRY_WORDS + word) * 8)
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

/// How many entries ahead of the stored one a cache line is requested.
///
/// PERF: the drainer has the ring's lines in another cache, maybe a distant one, and a store that
/// waits for its line holds up all stores that follow. Where the two processors share no cache, the
/// transfer adds 62 ns to an event of a JSON parser without these requests, and 26 ns with them.
/// Where the processors share a cache there is no difference.
const AHEAD: u64 = 64;

/// How often the released entries are checked between two naps: this takes tens of microseconds.
const SPINS: u32 = 1000;
/// How long a waiting thread sleeps so that another one may have its processor.
const NAP_NS: u64 = 20_000;

/// How many bytes of a new ring have memory: the header and the first entries.
pub(crate) const FIRST_GRANT: usize = 2 * RING_HEADER_LEN;

/// Returns how many bytes of a ring have memory after the next grant.
pub(crate) fn next_grant(len: usize) -> usize {
    (2 * len).min(RING_LEN)
}

/// Returns how many entries lie in the first `len` bytes of a ring; more than any index if these
/// are all of its bytes.
pub(crate) fn entries_in(len: usize) -> u64 {
    if len < RING_LEN { (len.saturating_sub(RING_HEADER_LEN) / ENTRY_LEN) as u64 } else { u64::MAX }
}

/// Offsets in a ring's header. Readers of a sidecar use `STORED` alone of these words.
const STORED: usize = 0;
const INTENT: usize = 8;
const RELEASED: usize = 64;
const WAITS: usize = 72;
const GRANTED: usize = 80;
const NO_THREAD: usize = 88;
