//! A snapshot's place in the stream: before the first entry that the copy of the process lacks.
//!
//! In: a way to make the copy, and what the copy reports. Out: records, then a commit. Runs under
//! the recorder's lock, in the drain process; never allocates.
//!
//! # The cut
//! Threads store entries while the copy is made. The copy tells, for each thread, how many entries
//! the thread had stored by then: the number is in the thread's private memory, so the copy has the
//! number of its own moment. The thread sets the number before it publishes the entry. So if thread
//! B was given a block that thread A has freed, and the copy has B's entry, it has A's as well:
//!
//! ```text
//! A:  stored = 7   publishes 7: free X    inner free of X
//! B:                                      inner alloc = X   stored = 4   publishes 4: alloc X
//!                                                                      ^ copy: A 7, B 4
//! ```
//!
//! A thread may not have published its last entry yet. The drain process waits for that.
//!
//! The kernel copies the pages one after another while threads go on. So the copy may have the page
//! with B's number as it was some microseconds after the page with A's, and lack an entry that
//! comes before one that it has. Then all entries from the first missing one on come after the
//! record: the order of events holds, and the copy is that much younger than the record. The record
//! says when copying began: the page with the only pointer to a block that was allocated since may
//! have been copied before.

use alloc_dump::exchange::CopiedThread;
use alloc_dump::record::Record;
use alloc_dump::thread_ring::{DecodedEntry, Entry, RingDecoder};

use super::super::failure::Failure;
use super::ring_state::RingState;
use super::stream::Stream;
use crate::base::sys::{self, Errno};
use crate::output::Sink;
use crate::output::sidecar;
use crate::output::thread_ring::ThreadRing;

impl<S: Sink> Stream<S> {
    /// Has a copy of the process made, and writes the record of the snapshot. `make_copy` calls its
    /// argument with each thread that the copy reports. Returns the number of the snapshot.
    ///
    /// # Errors
    /// The inner error is that of `make_copy`; the recording goes on.
    pub(in crate::recorder) fn snapshot(
        &mut self,
        name: &[u8],
        mut make_copy: impl FnMut(&mut dyn FnMut(CopiedThread)) -> Result<(), Errno>,
    ) -> Result<Result<u32, Errno>, Failure> {
        // Most entries are taken before the copy is made, while no thread has to wait.
        self.drain(false)?;
        let count = sidecar::ring_count();
        for state in self.states().iter_mut().take(count) {
            state.until = NOT_REPORTED;
        }
        let begun_us = self.scale.now_us();
        let states = self.states();
        let outcome = make_copy(&mut |thread| {
            if let Some(state) = states.get_mut(thread.ring as usize)
                && state.start == thread.ring_address
            {
                state.until = thread.stored.max(state.taken);
            }
        });
        if let Err(errno) = outcome {
            return Ok(Err(errno));
        }
        for (index, state) in self.states().iter_mut().enumerate().take(count) {
            let ring = sidecar::ring(index);
            if state.until == NOT_REPORTED {
                state.until = end_without_thread(state, ring);
            }
            wait_for_entries(ring, state.until);
            // If the thread was stopped in the middle of an entry, the rest is missing here and
            // comes later.
            state.until = state.until.min(ring.stored());
        }
        self.scale.adjust();
        self.scale.write_to(&mut self.time);
        // The kernel copies the pages one after another while threads go on, so the copy may have a
        // later entry without an earlier one of another thread. The order of events comes first.
        let mut horizon = u64::MAX;
        for (index, state) in self.states().iter().enumerate().take(count) {
            let ring = sidecar::ring(index);
            if ring.stored() > state.until {
                horizon = horizon.min(Entry::timestamp(ring.entry(state.until)[0]));
            }
        }
        self.take_entries(count, horizon, true)?;
        self.now_us = self.now_us.max(self.scale.now_us());
        let id = self.snapshots + 1;
        let copying_us = self.now_us.saturating_sub(begun_us);
        self.append(None, &Record::Snapshot { id, copying_us, name })?;
        self.snapshots = id;
        self.commit();
        Ok(Ok(id))
    }
}

/// Marks a ring that no thread of the copy has.
const NOT_REPORTED: u64 = u64::MAX;

/// Returns up to which entry a ring belongs to the copy although no thread of the copy has the
/// ring.
///
/// Either its thread had ended, and all its entries belong to the copy. Or a thread had just been
/// given the ring: that thread has stored its first entry, of kind `ThreadStart`, after the copy
/// was made. A ring has a new thread only when all entries of the last one are taken.
fn end_without_thread(state: &RingState, ring: ThreadRing) -> u64 {
    let stored = ring.stored();
    if stored <= state.taken {
        return state.taken;
    }
    let next = Entry::decode(ring.entry(state.taken)).unwrap_or(Entry::ReallocFailed);
    let mut decoder = RingDecoder::for_thread(0);
    match decoder.decode_next(&next, false, false) {
        DecodedEntry::ThreadFact(Record::ThreadStart { .. }) => state.taken,
        _ => stored,
    }
}

/// Waits until the ring has this many entries, for a limited time.
fn wait_for_entries(ring: ThreadRing, count: u64) {
    for _ in 0..MOST_NAPS {
        if ring.stored() >= count {
            return;
        }
        sys::nap(NAP_NS);
    }
}

const NAP_NS: u64 = 20_000;
/// A second. A thread needs microseconds between the two stores, unless it is stopped.
const MOST_NAPS: u32 = 50_000;
