//! What the threads and the drainer share, in the mapping of the sidecar that outlives the process. In: single words,
//! nodes. Out: the same, to any thread. The layout is `alloc_dump::sidecar`'s. Never locks.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use alloc_dump::layout::StackId;
use alloc_dump::sidecar::{
    self as sidecar_format, MAX_RINGS, NODE_LEN, NODE_RING_CAPACITY, NODE_RING_OFFSET, RING_CAPACITY,
    RING_HEADER_LEN,
};
use alloc_dump::thread_ring::ENTRY_WORDS;

use crate::base::clock;
use crate::base::sys::{self, Mapping};
use crate::recorder;

/// Makes this mapping the one that threads write into.
pub(crate) fn attach(start: *mut u8) {
    NODES_TAKEN.store(0, Ordering::Relaxed);
    RING_COUNT.store(0, Ordering::Relaxed);
    SHARED.store(start, Ordering::Release);
}

/// Nobody finds the mapping from now on; whoever has found it before may still use it.
pub(crate) fn detach() {
    SHARED.store(std::ptr::null_mut(), Ordering::Release);
    RING_COUNT.store(0, Ordering::Relaxed);
}

/// A word of the sidecar's header; `None` if there is no recording.
#[inline]
pub(crate) fn word(offset: usize) -> Option<&'static AtomicU64> {
    let start = SHARED.load(Ordering::Acquire);
    if start.is_null() {
        return None;
    }
    // SAFETY: inside the mapping, which is not unmapped while a thread is in the hook; offsets are multiples of eight;
    // everybody uses these words as atomics.
    Some(unsafe { AtomicU64::from_ptr(start.add(offset).cast()) })
}

/// Stores a new node where it survives the process; waits for room if need be. Called under the tree's lock, so nodes
/// are stored in the order of their numbers. False if the recording is over.
pub(crate) fn note_node(id: StackId, parent: StackId, pc: u64) -> bool {
    let Some(stored) = word(sidecar_format::NODE_COUNT_OFFSET) else { return false };
    let index = stored.load(Ordering::Relaxed);
    while index - NODES_TAKEN.load(Ordering::Acquire) >= NODE_RING_CAPACITY as u64 {
        if !recorder::drain_nodes() {
            return false;
        }
    }
    for (place, value) in node_at(index).into_iter().zip(sidecar_format::node_words(id, parent, pc)) {
        place.store(value, Ordering::Relaxed);
    }
    stored.store(index + 1, Ordering::Release);
    true
}

/// The words of a node that is stored.
pub(crate) fn node(index: u64) -> [u64; 2] {
    node_at(index).map(|word| word.load(Ordering::Relaxed))
}

fn node_at(index: u64) -> [&'static AtomicU64; 2] {
    let at = NODE_RING_OFFSET + (index as usize % NODE_RING_CAPACITY) * NODE_LEN;
    // NOTE: callers have found the mapping just before, and it is not unmapped under them.
    [word(at).unwrap_or(&NOWHERE), word(at + 8).unwrap_or(&NOWHERE)]
}

/// These nodes are in frames: their places may be used again.
pub(crate) fn nodes_taken(count: u64) {
    NODES_TAKEN.store(count, Ordering::Release);
}

/// The memory of one ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRing(NonNull<u8>);

// SAFETY: a ring is used through atomics only.
unsafe impl Send for ThreadRing {}

impl ThreadRing {
    /// The ring in this memory, which has room for one and is never unmapped while a thread is in the hook.
    pub(crate) fn new(memory: Mapping) -> ThreadRing {
        // SAFETY: mappings are not at null.
        ThreadRing(unsafe { NonNull::new_unchecked(memory.leak()) })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside the ring; a multiple of eight; always used as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.add(offset).cast().as_ptr()) }
    }

    #[inline(always)]
    fn entry_word(&self, index: u64, word: usize) -> &AtomicU64 {
        let at = RING_HEADER_LEN + ((index as usize % RING_CAPACITY) * ENTRY_WORDS + word) * 8;
        self.word(at)
    }

    /// Entries ever stored.
    #[inline(always)]
    pub(crate) fn stored(&self) -> u64 {
        self.word(STORED).load(Ordering::Acquire)
    }

    /// Whether an entry may have a timestamp already and is not stored yet. Asked after [`stored`](ThreadRing::stored).
    pub(crate) fn is_storing(&self, stored: u64) -> bool {
        self.word(INTENT).load(Ordering::Acquire) != stored
    }

    /// Entries whose places may be used again.
    #[inline(always)]
    pub(crate) fn released(&self) -> u64 {
        self.word(RELEASED).load(Ordering::Acquire)
    }

    /// Lets the places of the first `count` entries be used again, without waking anybody.
    pub(crate) fn release(&self, count: u64) {
        self.word(RELEASED).store(count, Ordering::Release);
    }

    /// Wakes the ring's thread if it waits for room, after a [`release`](ThreadRing::release) and a full fence.
    pub(crate) fn wake(&self) {
        if self.word(WAITS).load(Ordering::Relaxed) != 0 && self.word(WAITS).swap(0, Ordering::Relaxed) != 0 {
            sys::futex_wake(self.released_half());
        }
    }

    /// Waits without sleeping until more entries are released than these, or for some time, as long as somebody is at work on it.
    pub(crate) fn spin_for_release(&self, released: u64, at_most_ns: u64, at_work: impl Fn() -> bool) {
        let until = sys::clock_ns(libc::CLOCK_MONOTONIC) + at_most_ns;
        loop {
            for _ in 0..SPINS {
                if self.word(RELEASED).load(Ordering::Acquire) != released {
                    return;
                }
                std::hint::spin_loop();
            }
            if !at_work() || sys::clock_ns(libc::CLOCK_MONOTONIC) >= until {
                return;
            }
            // It may be this processor that whoever is at work waits for.
            sys::yield_now();
        }
    }

    /// Waits until more entries are released than these, or for some time.
    pub(crate) fn wait_for_release(&self, released: u64, at_most_ns: u64) {
        self.word(WAITS).store(1, Ordering::SeqCst);
        if self.word(RELEASED).load(Ordering::SeqCst) == released {
            sys::futex_wait(self.released_half(), released as u32, at_most_ns);
        }
        self.word(WAITS).store(0, Ordering::Relaxed);
    }

    /// The lower half of the word that says what is released: as much as the kernel compares.
    fn released_half(&self) -> &AtomicU32 {
        let half = RELEASED + if cfg!(target_endian = "big") { 4 } else { 0 };
        // SAFETY: inside the ring; a multiple of four. Only the kernel looks at it as such.
        unsafe { AtomicU32::from_ptr(self.0.add(half).cast().as_ptr()) }
    }

    /// The words of an entry that is stored.
    #[inline(always)]
    pub(crate) fn entry(&self, index: u64) -> [u64; ENTRY_WORDS] {
        [0, 1, 2].map(|word| self.entry_word(index, word).load(Ordering::Relaxed))
    }

    /// The first word of an entry that is stored.
    #[inline(always)]
    pub(crate) fn first_word(&self, index: u64) -> u64 {
        self.entry_word(index, 0).load(Ordering::Relaxed)
    }

    /// Stamps and stores the entry of this number, whose words `entry` makes of the timestamp: for the thread that the ring belongs to.
    /// The timestamp is later than `last`, and returned.
    #[inline(always)]
    pub(crate) fn store(&self, index: u64, last: u64, entry: impl FnOnce(u64) -> [u64; ENTRY_WORDS]) -> u64 {
        // Whoever sees the timestamp passed and no intent may rely on there being no earlier entry to come.
        self.word(INTENT).store(index + 1, Ordering::Relaxed);
        if NEEDS_FENCE.load(Ordering::Relaxed) {
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

/// Asks for the cache line of a word that will soon be written.
#[inline(always)]
fn prefetch_for_writing(word: &AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which changes nothing. Processors that do not know it take it for no operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}

/// PERF: whoever drains the ring has its lines in another cache, maybe one that is far away, and a store that has to wait for
/// its line holds up all that follow: an event of JSON took 62 ns more without this where the two processors share no cache, and 26
/// with it; where they share one there is no difference.
const AHEAD: u64 = 64;

/// Some microseconds.
const SPINS: u32 = 100;

/// Lanes that there are.
#[inline]
pub(crate) fn ring_count() -> usize {
    RING_COUNT.load(Ordering::SeqCst)
}

/// The ring of this number, below [`ring_count`].
#[inline]
pub(crate) fn ring(index: usize) -> ThreadRing {
    let start = RINGS[index % MAX_RINGS].load(Ordering::Acquire);
    // SAFETY: a ring is stored there before it is counted, and never taken away.
    ThreadRing(unsafe { NonNull::new_unchecked(start) })
}

/// One ring more. Called under the recorder's lock.
pub(crate) fn add_ring(ring: ThreadRing) {
    let index = RING_COUNT.load(Ordering::Relaxed);
    if let Some(place) = RINGS.get(index) {
        place.store(ring.0.as_ptr(), Ordering::Release);
        if let Some(count) = word(sidecar_format::RING_COUNT_OFFSET) {
            count.store(index as u64 + 1, Ordering::Release);
        }
        // A full barrier: what this thread does from now on is later than what anybody saw who did not see the ring.
        RING_COUNT.store(index + 1, Ordering::SeqCst);
    }
}

/// After this, whatever another thread had stored before any moment that lies before the call is seen by this one.
pub(crate) fn synchronize() {
    if NEEDS_FENCE.load(Ordering::Relaxed) {
        fence(Ordering::SeqCst);
    } else if membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 {
        // Never seen to happen after the registration; from now on threads do it themselves.
        NEEDS_FENCE.store(true, Ordering::SeqCst);
    }
}

/// Asks the kernel for [`synchronize`]. Where it has none, every entry of every thread costs a fence.
pub(crate) fn prepare() {
    let registered = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
    NEEDS_FENCE.store(!registered, Ordering::SeqCst);
}

fn membarrier(command: i32) -> i64 {
    // SAFETY: a system call on plain numbers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

const MEMBARRIER_CMD_PRIVATE_EXPEDITED: i32 = 1 << 3;
const MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

/// Offsets in a ring. The first is the format's; the others mean nothing to a reader.
const STORED: usize = 0;
const INTENT: usize = 8;
const RELEASED: usize = 64;
const WAITS: usize = 72;

static SHARED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static NODES_TAKEN: AtomicU64 = AtomicU64::new(0);
#[unsafe(link_section = "alloc_tracker_hot")]
static NEEDS_FENCE: AtomicBool = AtomicBool::new(true);
static RINGS: [AtomicPtr<u8>; MAX_RINGS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_RINGS];
#[unsafe(link_section = "alloc_tracker_hot")]
static RING_COUNT: AtomicUsize = AtomicUsize::new(0);
static NOWHERE: AtomicU64 = AtomicU64::new(0);
