//! What the drainer notes of each thread ring. In: the steps of the drainer. Out: its notes. Only
//! the thread that has the recorder's lock uses them; never allocates.

use alloc_dump::sidecar::RING_LEN;
use alloc_dump::thread_ring::RingDecoder;

use crate::base::sys::{self, Plain};
use crate::output::thread_ring::ThreadRing;

/// The drainer's notes of one ring. They live in mapped memory, so they are integers only, and
/// zeros mean an empty ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RingState {
    /// Address of the ring's memory.
    pub(super) start: u64,
    /// How many entries are in dump frames.
    pub(super) taken: u64,
    /// The drainer may take entries with an index below this one.
    pub(super) until: u64,
    /// How many entries were stored when the pace was measured last.
    pub(super) measured: u64,
    /// The values of `taken` and of the thread's number in the ring's header, for each of the two
    /// commits.
    pub(super) committed_taken: [u64; 2],
    pub(super) committed_threads: [u64; 2],
    /// The value of `taken` that the ring's thread has been told: entries below it may be
    /// overwritten.
    pub(super) released: u64,
    /// 1 if the ring's thread may be waiting for what was released, else 0.
    pub(super) must_wake: u64,
    /// Whether a thread uses the ring: see [`RingUsage`].
    usage: u64,
    /// 1 if the ring is in the sidecar's file, which keeps memory that is not resident, else 0.
    in_file: u64,
    /// While no thread uses the ring: the index of the next such ring, plus 1; 0 if there is none.
    pub(super) next_free: u64,
    /// How many bytes of the ring have memory: see [`thread_ring`](crate::output::thread_ring).
    pub(super) granted: u64,
    /// The thread that the ring belongs to, and what its next entry continues.
    pub(super) decoder: RingDecoder,
}

// SAFETY: integers without padding; so are the fields of `RingDecoder`.
unsafe impl Plain for RingState {}

/// Whether a thread uses a ring, and whether its memory is resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingUsage {
    /// A thread.
    Thread,
    /// No thread. The ring may hold entries of the last one.
    Free,
    /// No thread, and the ring's memory is not resident.
    Discarded,
}

impl RingState {
    /// Returns the state of a ring that a thread begins to use, and that no thread has used before.
    pub(super) fn new(ring: ThreadRing, in_file: bool, granted: usize) -> RingState {
        RingState {
            start: ring.address(),
            taken: 0,
            until: 0,
            measured: 0,
            committed_taken: [0; 2],
            committed_threads: [0; 2],
            released: 0,
            must_wake: 0,
            usage: USED_BY_THREAD,
            in_file: u64::from(in_file),
            next_free: 0,
            granted: granted as u64,
            decoder: RingDecoder::for_thread(0),
        }
    }

    /// Returns the usage of the ring.
    #[inline]
    pub(super) fn usage(&self) -> RingUsage {
        match self.usage {
            USED_BY_THREAD => RingUsage::Thread,
            FREE => RingUsage::Free,
            _ => RingUsage::Discarded,
        }
    }

    /// Sets the usage of the ring.
    pub(super) fn set_usage(&mut self, usage: RingUsage) {
        self.usage = match usage {
            RingUsage::Thread => USED_BY_THREAD,
            RingUsage::Free => FREE,
            RingUsage::Discarded => DISCARDED,
        };
    }

    /// Takes a free ring's memory out of the resident set, if that loses nothing and the memory
    /// will not be touched before the ring has another thread: it is in a file, and both commits
    /// say that everything is taken.
    pub(super) fn discard_if_idle(&mut self, ring: ThreadRing) {
        if self.usage() == RingUsage::Free && self.in_file != 0 && self.is_idle(ring) {
            self.set_usage(RingUsage::Discarded);
            self.must_wake = 0;
            sys::discard_resident(self.start, RING_LEN);
        }
    }

    fn is_idle(&self, ring: ThreadRing) -> bool {
        let thread = u64::from(self.decoder.thread);
        self.committed_taken == [self.taken; 2]
            && self.committed_threads == [thread; 2]
            && ring.stored() == self.taken
    }
}

const USED_BY_THREAD: u64 = 0;
const FREE: u64 = 1;
const DISCARDED: u64 = 2;
