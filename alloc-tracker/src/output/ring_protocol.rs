//! The protocol of a thread ring: which side may store, read and overwrite which entry. In: the
//! words of a ring. Out: the order of loads and stores that both sides keep to. Never locks, never
//! allocates.
//!
//! A ring has one writer, its thread, and one reader, the drainer. Three words of its header tell
//! them what they need; each word is written by one of them:
//!
//! | word | writer | meaning |
//! | --- | --- | --- |
//! | `INTENT` | thread | the entry that it stores or has stored last, counted from 1 |
//! | `STORED` | thread | number of entries whose words are in the ring |
//! | `RELEASED` | drainer | number of entries that may be overwritten |
//!
//! ```text
//!             entries 0 .. RELEASED      RELEASED .. STORED       STORED .. RELEASED + capacity
//!             may be overwritten         in the ring              room
//!
//! thread, storing entry n:               drainer:
//!   INTENT = n + 1                         horizon = clock
//!   (fence)                                (membarrier or fence)
//!   timestamp = clock                      read STORED, then INTENT
//!   words of entry n                       INTENT == STORED: no entry below the horizon can come
//!   STORED = n + 1  (release)              else: none below the last stored entry's timestamp + 1
//! ```
//!
//! Without the fences the drainer could read an old `INTENT` although the thread has its timestamp
//! already. Example: the thread's store of `INTENT` waits in its processor's store buffer, the
//! thread reads the clock as 10, the drainer takes 11 as its horizon and sees no pending store. It
//! would take all entries below 11 of the other rings, and the entry of 10 would come too late.
//!
//! The fence of the thread is paid at every entry. So where the kernel has `membarrier`, the thread
//! executes none, and the drainer has the kernel execute one on every processor that runs a thread
//! of the process. The models of the package `alloc-tracker-models` run these very functions with
//! fences on both sides. So they prove nothing about the system call itself.

use crate::base::primitive::{AtomicU64, Ordering, fence};

/// Words of an entry; the first holds its timestamp.
pub(crate) use alloc_dump::thread_ring::ENTRY_WORDS;

/// The memory of a ring.
pub(crate) trait RingWords {
    /// Entries that the ring has room for; a power of two.
    const CAPACITY: u64;

    /// Returns a word of the header.
    fn header(&self, word: HeaderWord) -> &AtomicU64;

    /// Returns a word of the entry with this index, which is taken modulo the capacity.
    fn entry_word(&self, index: u64, word: usize) -> &AtomicU64;
}

/// The words of a ring's header that the protocol uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderWord {
    /// Number of entries whose words are in the ring. The only one of these words that readers of a
    /// sidecar use.
    Stored,
    /// Number of entries that are stored or just being stored.
    Intent,
    /// Number of entries that may be overwritten.
    Released,
}

/// Stores the entry with this index: takes a timestamp, makes the entry's words of it, and
/// publishes them. Returns the timestamp. For the ring's own thread, which has made sure that there
/// is room: `index < released(ring) + CAPACITY`.
#[inline(always)]
pub(crate) fn store(
    ring: &impl RingWords,
    index: u64,
    needs_fence: bool,
    timestamp: impl FnOnce() -> u64,
    words: impl FnOnce(u64) -> [u64; ENTRY_WORDS],
) -> u64 {
    // The drainer relies on this order: if it takes a horizon later than this store and then sees
    // no pending store, this thread will never publish an entry below that horizon.
    ring.header(HeaderWord::Intent).store(index + 1, Ordering::Relaxed);
    if needs_fence {
        fence(Ordering::SeqCst);
    }
    let timestamp = timestamp();
    for (word, value) in words(timestamp).into_iter().enumerate() {
        ring.entry_word(index, word).store(value, Ordering::Relaxed);
    }
    ring.header(HeaderWord::Stored).store(index + 1, Ordering::Release);
    timestamp
}

/// Returns how many entries the thread has stored. The words of all of them may be read.
#[inline(always)]
pub(crate) fn stored(ring: &impl RingWords) -> u64 {
    ring.header(HeaderWord::Stored).load(Ordering::Acquire)
}

/// Returns the words of an entry. For the drainer: the entry is below [`stored`] and not released.
#[inline(always)]
pub(crate) fn entry(ring: &impl RingWords, index: u64) -> [u64; ENTRY_WORDS] {
    std::array::from_fn(|word| ring.entry_word(index, word).load(Ordering::Relaxed))
}

/// Returns how many entries the drainer may take of this ring, and the horizon, lowered if the
/// ring's thread is storing an entry: no entry that the ring gets from now on has a timestamp below
/// the returned horizon. `timestamp_of` returns the timestamp of an entry from its first word.
///
/// For the drainer, which has taken `horizon` from the clock and has synchronized all threads
/// since.
#[inline]
pub(crate) fn limit(ring: &impl RingWords, horizon: u64, timestamp_of: impl Fn(u64) -> u64) -> (u64, u64) {
    let stored = stored(ring);
    // `STORED` is loaded first, and the Acquire of that load keeps this one behind it. In the other
    // order the two words could be equal although the thread has begun an entry between the loads.
    // The words of entries need no Acquire here.
    if ring.header(HeaderWord::Intent).load(Ordering::Acquire) == stored {
        return (stored, horizon);
    }
    let last = stored.checked_sub(1).map(|last| ring.entry_word(last, 0).load(Ordering::Relaxed));
    (stored, horizon.min(last.map_or(0, timestamp_of) + 1))
}

/// Allows the first `count` entries to be overwritten. For the drainer, after it has read their
/// words.
#[inline]
pub(crate) fn release(ring: &impl RingWords, count: u64) {
    ring.header(HeaderWord::Released).store(count, Ordering::Release);
}

/// Returns how many entries may be overwritten: the thread may store entries with an index below
/// that plus the capacity.
#[inline(always)]
pub(crate) fn released(ring: &impl RingWords) -> u64 {
    ring.header(HeaderWord::Released).load(Ordering::Acquire)
}
