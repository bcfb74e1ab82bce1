//! What the drainer knows of each lane.

use alloc_dump::lane::Owner;

use crate::sidecar::Lane;
use crate::sys::Plain;

/// What the drainer knows of a lane.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct LaneState {
    /// Where its memory is.
    pub(super) start: u64,
    /// Entries that are in frames.
    pub(super) taken: u64,
    /// Entries that this draining may take.
    pub(super) until: u64,
    /// Entries that it had when its pace was measured last.
    pub(super) measured: u64,
    /// What the lane says of `taken` and of its thread, for either commit.
    pub(super) tails: [u64; 2],
    pub(super) threads: [u64; 2],
    /// What the lane's thread has been told of `taken`.
    pub(super) released: u64,
    /// Whether it may be waiting for that.
    pub(super) wake: u64,
    pub(super) free: u64,
    /// Whether its memory is that of a file, which keeps what is not resident.
    pub(super) shared: u64,
    pub(super) owner: Owner,
}

// SAFETY: integers without padding; so are the fields of `Owner`.
unsafe impl Plain for LaneState {}

impl LaneState {
    /// Whether nothing will be read from its memory, or written to it, until it has another thread.
    pub(super) fn is_settled(&self, lane: Lane) -> bool {
        let thread = u64::from(self.owner.thread);
        self.tails == [self.taken; 2] && self.threads == [thread; 2] && lane.stored() == self.taken
    }
}

/// Of a lane: no thread has it.
pub(super) const FREE: u64 = 1;
/// Of a lane: no thread has it, and its memory is not resident.
pub(super) const AWAY: u64 = 2;

pub(super) const EMPTY: LaneState = LaneState {
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
    owner: Owner::of(0),
};
