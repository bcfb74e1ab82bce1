//! Storing entries in a thread ring, and what a thread does when its ring is full. In: entries.
//! Out: these entries, with timestamps, in the ring. Takes no lock as long as there is room; never
//! allocates.

use alloc_dump::sidecar::RING_CAPACITY;
use alloc_dump::thread_ring::ENTRY_WORDS;

use super::current::{LONGEST_WORK_NS, RECORDER, with_stream};
use super::drain::EnteredRing;
use super::drainer::{self, Request};
use super::fork;
use super::lost::{count_lost, drops_when_full};
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::sys;
use crate::modules;
use crate::output::sidecar;
use crate::output::thread_ring::ThreadRing;

/// A thread's ring, and how far the ring is filled.
///
/// PERF: `due_at` is the one number that every event compares. It stands for whatever is due first:
/// the ring is full, or the thread's name is to be read.
///
/// ```text
/// entries   0 ........ released ............ stored ............ released + capacity = room_until
///           may be     |    in the ring      |     room
///           overwritten
///
/// due_at = min(room_until - 1, name_at):  the last entry with room for two, or the name's turn
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RingWriter {
    ring: ThreadRing,
    /// Entries stored in the ring, ever.
    stored: u64,
    /// The entry before which the thread has something else to do.
    due_at: u64,
    /// The timestamp of the last entry.
    last_timestamp: u64,
    /// Entries before this one have room: released ones lie there, and memory was granted.
    room_until: u64,
    /// The entry before which the thread's name is read.
    name_at: u64,
    /// The thread's first entry.
    first: u64,
    /// Index of the ring.
    index: usize,
    /// The recording that the ring belongs to.
    recording: RecordingId,
}

impl RingWriter {
    /// Returns the ring, its index, and how many entries were ever stored in it.
    ///
    /// NOTE: in a copy of the process the number never lies below the number of entries that were
    /// published when the copy was made. If a free is published, another thread may have been given
    /// the block, and its entry must not belong to the copy while that of the free does not.
    pub(super) fn position(&self) -> (ThreadRing, usize, u64) {
        (self.ring, self.index, self.stored)
    }

    /// Returns a writer for a ring that other threads may have used before.
    pub(super) fn new(recording: RecordingId, entered: &EnteredRing) -> RingWriter {
        let EnteredRing { ring, thread, index, stored, last_timestamp, .. } = *entered;
        RingWriter {
            ring,
            stored,
            due_at: 0,
            last_timestamp,
            room_until: 0,
            // The first thread's name is read when it begins.
            name_at: if thread == 1 { NEVER } else { stored + 1 },
            first: stored,
            index,
            recording,
        }
    }

    /// Gives the ring back, for the next thread.
    pub(super) fn leave(self) {
        sidecar::leave_ring(self.ring);
    }

    /// Whether something is due before the next entry: there may be no room, or it is the name's
    /// turn.
    #[inline(always)]
    pub(super) fn has_due_work(&self) -> bool {
        self.stored >= self.due_at
    }

    /// Stores an entry, whose words `entry` makes of a timestamp.
    #[inline(always)]
    pub(super) fn store(&mut self, entry: impl FnOnce(u64) -> [u64; ENTRY_WORDS]) {
        let index = self.stored;
        // Before the entry is published: see `stored`.
        self.stored = index + 1;
        self.last_timestamp = self.ring.store(index, self.last_timestamp, entry);
    }

    /// Makes sure that there is room for two entries. False in the cases of
    /// [`wait_for_room`](Self::wait_for_room).
    pub(super) fn has_room(&mut self) -> bool {
        self.stored + 2 <= self.room_until || self.wait_for_room()
    }

    /// Whether the thread's name is due to be read. If it is, notes when it will be due again:
    /// after as many entries as the thread has stored so far, up to [`LAST_NAME`]. A thread usually
    /// gets its name a few events after its first.
    ///
    /// NOTE: reading the name is a system call. A program that forbids itself system calls mostly
    /// does so in its first thread, or when a thread has begun. So the first thread's name is read
    /// once, and no name is read later.
    pub(super) fn take_name_due(&mut self) -> bool {
        let is_due = self.stored >= self.name_at;
        if is_due {
            let entries = self.stored - self.first;
            self.name_at = if entries < LAST_NAME { self.stored + entries.max(1) } else { NEVER };
        }
        is_due
    }

    /// Computes before which entry the thread has something else to do.
    pub(super) fn schedule_due_work(&mut self) {
        self.due_at = (self.room_until - 1).min(self.name_at);
    }

    /// Waits for the drain process, or drains the rings itself, until there is room for two
    /// entries. False if the recording is over. Also false if the user prefers losing events to
    /// waiting: then one event is counted as lost.
    #[cold]
    fn wait_for_room(&mut self) -> bool {
        let mut has_spun = false;
        loop {
            // A signal handler that has interrupted the hook may have forked: in the child nobody
            // drains.
            if epoch::recording() != Recording::Running(self.recording) || !fork::is_recorders_process() {
                return false;
            }
            let (released, granted) = (self.ring.released(), self.ring.granted());
            self.room_until = granted.min(released + RING_CAPACITY as u64);
            if self.stored + 2 <= self.room_until {
                return true;
            }
            if granted < self.stored + 2 {
                if !self.extend_ring() {
                    return false;
                }
                continue;
            }
            if !drops_when_full() && RECORDER.is_locked() && !std::mem::replace(&mut has_spun, true) {
                // PERF: the thread that has the lock is most likely draining, and releases entries
                // of this ring long before it has drained all rings.
                self.ring.spin_for_release(released, LONGEST_WORK_NS, || RECORDER.is_locked());
                continue;
            }
            if drainer::is_running() && sidecar::ring_count() > 1 {
                // The order of several rings needs a fence of the kernel, so the drain process
                // drains. PERF: the other threads of the program need the processor more than a
                // second drainer does. A thread that is alone can as well drain by itself.
                drainer::request_soon(Request::MakeRoom);
                if drops_when_full() {
                    count_lost(1);
                    return false;
                }
                self.ring.wait_for_release(released, LONGEST_WAIT_NS);
                if drainer::was_killed() {
                    // Ends the recording.
                    with_stream(|_| Ok(()));
                }
                continue;
            }
            if drops_when_full() && RECORDER.is_locked() {
                count_lost(1);
                return false;
            }
            match self.drain_all_rings() {
                Drained::RecordingOver => return false,
                Drained::Entries(0) if self.ring.released() + (RING_CAPACITY as u64) < self.stored + 2 => {
                    // Another thread is storing an entry, which holds up the draining of all rings.
                    // That thread must get the processor.
                    sys::nap(NAP_NS);
                }
                Drained::Entries(_) => {}
            }
            if !drainer::is_running() {
                modules::notice_replaced();
            }
        }
    }

    /// Has more memory granted to the ring; false if the recording is over.
    fn extend_ring(&self) -> bool {
        let needed = self.stored + 2;
        with_stream(|stream| stream.extend_ring(self.recording, self.index, needed)).unwrap_or(false)
    }

    fn drain_all_rings(&self) -> Drained {
        let drained = with_stream(|stream| {
            if stream.recording() != self.recording {
                return Ok(Drained::RecordingOver);
            }
            // Another thread may have drained this ring while this one waited for the lock.
            if self.ring.released() + RING_CAPACITY as u64 >= self.stored + 2 {
                Ok(Drained::Entries(0))
            } else {
                stream.drain(false).map(Drained::Entries)
            }
        });
        drained.unwrap_or(Drained::RecordingOver)
    }
}

/// The outcome of draining.
enum Drained {
    /// The ring's recording has ended.
    RecordingOver,
    /// How many entries were taken, from all rings together.
    Entries(u64),
}

/// How long a thread waits for the drain process, which gets the processor late if there are more
/// threads than processors.
const LONGEST_WAIT_NS: u64 = 20_000_000;
/// How long a thread sleeps so that another one may have the processor.
const NAP_NS: u64 = 20_000;
/// The thread's name is not read any more after this many entries.
const LAST_NAME: u64 = 64;
const NEVER: u64 = u64::MAX;
