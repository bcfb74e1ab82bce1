//! What the drainer knows of each ring.

use alloc_dump::thread_ring::RingDecoder;

use crate::base::sys::Plain;
use crate::output::sidecar::ThreadRing;

/// What the drainer knows of a ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RingState {
    /// Where its memory is.
    pub(super) start: u64,
    /// Entries that are in frames.
    pub(super) taken: u64,
    /// Entries that this draining may take.
    pub(super) until: u64,
    /// Entries that it had when its pace was measured last.
    pub(super) measured: u64,
    /// What the ring says of `taken` and of its thread, for either commit.
    pub(super) tails: [u64; 2],
    pub(super) threads: [u64; 2],
    /// What the ring's thread has been told of `taken`.
    pub(super) released: u64,
    /// Whether it may be waiting for that.
    pub(super) wake: u64,
    pub(super) free: u64,
    /// Whether its memory is that of a file, which keeps what is not resident.
    pub(super) shared: u64,
    pub(super) owner: RingDecoder,
}

// SAFETY: integers without padding; so are the fields of `RingDecoder`.
unsafe impl Plain for RingState {}

impl RingState {
    /// Whether nothing will be read from its memory, or written to it, until it has another thread.
    pub(super) fn is_settled(&self, ring: ThreadRing) -> bool {
        let thread = u64::from(self.owner.thread);
        self.tails == [self.taken; 2] && self.threads == [thread; 2] && ring.stored() == self.taken
    }
}

/// Of a ring: no thread has it.
pub(super) const FREE: u64 = 1;
/// Of a ring: no thread has it, and its memory is not resident.
pub(super) const AWAY: u64 = 2;

pub(super) const EMPTY: RingState = RingState {
    start: 0,
    taken: 0,
    until: 0,
    measured: 0,
    tails: [0; 2],
    threads: [0; 2],
    released: 0,
    wake: 0,
    free: 0,
    shared: 0,
    owner: RingDecoder::for_thread(0),
};
