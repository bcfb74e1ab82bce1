//! The parts of the sidecar's mapping that the threads and the drainer share: single words, the
//! ring of new nodes, the list of thread rings. Their contents outlive the process. In: stores of
//! any thread. Out: the stored values, to any thread. `alloc_dump::sidecar` defines the layout.
//! Never locks, never allocates.

use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use alloc_dump::layout::StackId;
use alloc_dump::sidecar::{
    self as sidecar_format, MAX_RINGS, NODE_LEN, NODE_RING_CAPACITY, NODE_RING_OFFSET,
};

use super::thread_ring::ThreadRing;

/// Makes this mapping the one that threads write into.
pub(crate) fn attach(start: *mut u8) {
    NODES_RELEASED.store(0, Ordering::Relaxed);
    RING_COUNT.store(0, Ordering::Relaxed);
    LEFT_RINGS.store(0, Ordering::Relaxed);
    SHARED.store(start, Ordering::Release);
}

/// Makes the mapping unreachable from now on. A thread that has got the mapping before may still
/// use it.
pub(crate) fn detach() {
    SHARED.store(std::ptr::null_mut(), Ordering::Release);
    RING_COUNT.store(0, Ordering::Relaxed);
}

/// Returns a word of the sidecar's header; `None` if there is no recording.
#[inline]
pub(crate) fn word(offset: usize) -> Option<&'static AtomicU64> {
    let start = SHARED.load(Ordering::Acquire);
    if start.is_null() {
        return None;
    }
    // SAFETY: inside the mapping, which is not unmapped while a thread is in the hook. Offsets are
    // multiples of eight, and every thread uses these words as atomics.
    Some(unsafe { AtomicU64::from_ptr(start.add(offset).cast()) })
}

/// Appends a new node to the node ring, where it survives the process. Calls `make_room` while the
/// ring is full. Returns false if `make_room` does, because the recording is over. Called under the
/// tree's lock, so nodes are stored in the order of their ids.
pub(crate) fn append_node(
    id: StackId,
    parent: StackId,
    pc: u64,
    mut make_room: impl FnMut() -> bool,
) -> bool {
    let Some(stored) = word(sidecar_format::NODE_COUNT_OFFSET) else { return false };
    let index = stored.load(Ordering::Relaxed);
    while index - NODES_RELEASED.load(Ordering::Acquire) >= NODE_RING_CAPACITY as u64 {
        if !make_room() {
            return false;
        }
    }
    for (word, value) in node_at(index).into_iter().zip(sidecar_format::node_words(id, parent, pc)) {
        word.store(value, Ordering::Relaxed);
    }
    stored.store(index + 1, Ordering::Release);
    true
}

/// Returns the words of a node that is stored.
pub(crate) fn node(index: u64) -> [u64; 2] {
    node_at(index).map(|word| word.load(Ordering::Relaxed))
}

fn node_at(index: u64) -> [&'static AtomicU64; 2] {
    let at = NODE_RING_OFFSET + (index as usize % NODE_RING_CAPACITY) * NODE_LEN;
    // NOTE: callers have got the mapping just before, and it is not unmapped while they use it. If
    // it was detached meanwhile, they use `NOWHERE`, a word that nobody evaluates.
    [word(at).unwrap_or(&NOWHERE), word(at + 8).unwrap_or(&NOWHERE)]
}

/// Allows the first `count` nodes to be overwritten, because they are in dump frames.
pub(crate) fn release_nodes(count: u64) {
    NODES_RELEASED.store(count, Ordering::Release);
}

/// Returns how many rings there are.
#[inline]
pub(crate) fn ring_count() -> usize {
    RING_COUNT.load(Ordering::SeqCst)
}

/// Returns the ring with this index, which is below [`ring_count`].
#[inline]
pub(crate) fn ring(index: usize) -> ThreadRing {
    let start = RINGS[index % MAX_RINGS].load(Ordering::Acquire);
    // SAFETY: a ring is stored there before it is counted, and never taken away.
    unsafe { ThreadRing::at(start) }
}

/// Adds a ring. Called under the recorder's lock.
pub(crate) fn add_ring(ring: ThreadRing) {
    let index = RING_COUNT.load(Ordering::Relaxed);
    if let Some(slot) = RINGS.get(index) {
        slot.store(ring.start(), Ordering::Release);
        if let Some(count) = word(sidecar_format::RING_COUNT_OFFSET) {
            count.store(index as u64 + 1, Ordering::Release);
        }
        // A full barrier. If another thread does not see the ring yet, everything that it has read
        // so far is earlier than everything that this thread does from now on.
        RING_COUNT.store(index + 1, Ordering::SeqCst);
    }
}

/// Returns how many rings a thread has left and no drain has freed yet.
pub(crate) fn left_rings() -> usize {
    LEFT_RINGS.load(Ordering::Relaxed)
}

/// Notes that a thread has left its ring, after its last entry.
pub(crate) fn leave_ring(ring: ThreadRing) {
    ring.set_has_no_thread(true);
    LEFT_RINGS.fetch_add(1, Ordering::Relaxed);
}

/// Notes that a ring which a thread has left is free for another one.
pub(crate) fn free_ring(ring: ThreadRing) {
    ring.set_has_no_thread(false);
    LEFT_RINGS.fetch_sub(1, Ordering::Relaxed);
}

/// The mapping; null if there is no recording.
static SHARED: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
/// How many nodes may be overwritten.
static NODES_RELEASED: AtomicU64 = AtomicU64::new(0);
static RINGS: [AtomicPtr<u8>; MAX_RINGS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_RINGS];
#[unsafe(link_section = "alloc_tracker_hot")]
static RING_COUNT: AtomicUsize = AtomicUsize::new(0);
static LEFT_RINGS: AtomicUsize = AtomicUsize::new(0);
/// Stands in for a word of a mapping that was detached meanwhile.
static NOWHERE: AtomicU64 = AtomicU64::new(0);
