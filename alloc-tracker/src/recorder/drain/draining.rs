//! Draining: moves the entries of all rings, in the order of their timestamps, into the stream. In:
//! thread rings. Out: records, then a commit. Runs under the recorder's lock; never allocates,
//! never waits for a thread.
//!
//! # Which entries may be taken
//! The stream must be in order, so an entry may be taken only when no earlier one can still come
//! from any ring. A thread stores an entry in this order (`output::ring_protocol`):
//!
//! ```text
//! thread:    INTENT = n + 1      timestamp = clock      the entry's words      STORED = n + 1
//! ```
//!
//! The drainer takes a timestamp of its own, the *horizon*. Then it makes everything visible that
//! threads had stored by then (`membarrier`), and looks at every ring. For each ring there are
//! three cases:
//!
//! ```text
//! 1. INTENT == STORED      Every entry that this ring gets from now on has a timestamp that is not
//!                          below the horizon: the thread sets INTENT first, and takes the
//!                          timestamp after that. All entries below the horizon may be taken.
//! 2. INTENT != STORED      The thread is storing an entry. It may have the timestamp already, and
//!                          that may lie below the horizon. But it is later than the ring's last
//!                          entry, so the horizon is lowered to the last timestamp + 1.
//! 3. no such ring yet      The thread takes its first timestamp after it has added the ring,
//!                          hence after the horizon.
//! ```
//!
//! An example with two rings. A has entries at 10, 14 and 30, B has one at 12 and is storing
//! another. The horizon was 25:
//!
//! ```text
//! A:  10      14        30           horizon = min(25, 12 + 1) = 13
//! B:      12   ?                     taken: 10, 12.   14 waits: B's next entry may be a 13.
//! ```
//!
//! With a single ring no horizon is needed: its entries are in order. A ring that is added
//! meanwhile has later timestamps than all entries that were just seen.
//!
//! # Equal timestamps
//! Entries with equal timestamps in different rings did not happen one before the other, except
//! through an address: thread B cannot be given a block before thread A has given it back. So
//! entries that give an address back sort before others.
//!
//! # Pairs of entries
//! The size of a very large block is an entry of its own before that of the event. A pair is taken
//! together, so that no commit comes between. The two halves of a realloc become one record if
//! nothing else came between them.

use alloc_dump::record::Record;
use alloc_dump::sidecar::RING_CAPACITY;
use alloc_dump::thread_ring::{ContextFreeEntry, DecodedEntry, Entry, RingDecoder};
use alloc_dump::write::FrameFull;

use super::super::failure::Failure;
use super::merge::{Candidate, Candidates};
use super::ring_state::{RingState, RingUsage};
use super::stream::{ROOM_FOR_THREE, Stream};
use crate::base::clock;
use crate::base::sys::Mapping;
use crate::output::Sink;
use crate::output::membarrier;
use crate::output::sidecar;
use crate::output::thread_ring::ThreadRing;

impl<S: Sink> Stream<S> {
    /// Takes all entries of the rings before which no other entry can still come; with
    /// `everything`, all entries that are stored. Returns how many entries were taken.
    pub(in crate::recorder) fn drain(&mut self, everything: bool) -> Result<u64, Failure> {
        self.scale.adjust();
        self.scale.write_to(&mut self.time);
        let (count, horizon) = self.find_horizon(everything)?;
        self.take_entries(count, horizon, everything)
    }

    /// Takes the entries of the first `count` rings that lie before the horizon, with everything
    /// that must come before them, and commits. Returns how many entries were taken. The rings were
    /// looked at already.
    pub(super) fn take_entries(
        &mut self,
        count: usize,
        horizon: u64,
        everything: bool,
    ) -> Result<u64, Failure> {
        // Only now, after the rings were looked at: all nodes of their entries are in the sidecar,
        // and all events that were lost before these entries are counted.
        self.write_nodes()?;
        self.write_lost()?;
        self.write_partly_verified()?;
        let taken = self.merge(count, horizon, everything)?;
        self.taken_since_tick += taken;
        self.free_rings_of_ended_threads(count);
        self.commit();
        Ok(taken)
    }

    /// Frees the rings whose threads have ended, once everything in them is taken.
    fn free_rings_of_ended_threads(&mut self, count: usize) {
        for index in 0..count {
            let state = &self.states()[index];
            if state.usage() == RingUsage::Thread {
                let ring = sidecar::ring(index);
                if ring.has_no_thread() && ring.stored() == state.taken {
                    sidecar::free_ring(ring);
                    self.add_free_ring(index);
                }
            }
        }
    }

    /// Notes how far each ring may be drained. Returns the number of rings, and the timestamp
    /// before which no more entry can come.
    fn find_horizon(&mut self, everything: bool) -> Result<(usize, u64), Failure> {
        let take_all_stored = |stream: &mut Stream<S>, count: usize| {
            for (index, state) in stream.states().iter_mut().enumerate().take(count) {
                state.until = sidecar::ring(index).stored();
            }
        };
        if sidecar::ring_count() <= 1 {
            take_all_stored(self, 1.min(sidecar::ring_count()));
            // If there still is one ring, its entries are in order, and a ring that is added from
            // now on has later timestamps.
            if sidecar::ring_count() <= 1 {
                return Ok((sidecar::ring_count().min(1), u64::MAX));
            }
        }
        if !self.has_files {
            // The host's threads make no system call for a fence.
            return Err(Failure::NeedsDrainer);
        }
        clock::order_after_reads();
        let mut horizon = clock::timestamp();
        membarrier::synchronize();
        let count = sidecar::ring_count();
        for (index, state) in self.states().iter_mut().enumerate().take(count) {
            if state.usage() == RingUsage::Discarded {
                state.until = state.taken;
                continue;
            }
            let ring = sidecar::ring(index);
            (state.until, horizon) = ring.limit(horizon);
        }
        Ok((count, if everything { u64::MAX } else { horizon }))
    }

    /// Takes the entries of the first `count` rings that lie before the horizon, oldest first.
    /// Returns how many entries were taken.
    fn merge(&mut self, count: usize, horizon: u64, everything: bool) -> Result<u64, Failure> {
        let mut memory = std::mem::replace(&mut self.candidates, Mapping::empty());
        let mut candidates = Candidates::new(memory.slice_mut());
        for (index, state) in self.states().iter().enumerate().take(count) {
            if let Some(key) = key_of(state, sidecar::ring(index), horizon) {
                candidates.push(Candidate { key, ring: index as u64 });
            }
        }
        let (mut taken, mut committed) = (0, 0);
        let mut outcome = Ok(());
        while let Some(candidate) = candidates.pop() {
            let index = candidate.ring as usize;
            let others = candidates.first_key();
            match self.take_run(index, others, horizon, everything) {
                Ok((run, next)) => {
                    taken += run;
                    if taken - committed >= LONGEST_RUN {
                        // PERF: a thread whose ring is full can go on meanwhile.
                        committed = taken;
                        self.commit();
                    }
                    if let Some(key) = next {
                        candidates.push(Candidate { key, ring: candidate.ring });
                    }
                }
                Err(failure) => {
                    outcome = Err(failure);
                    break;
                }
            }
        }
        self.candidates = memory;
        outcome.map(|()| taken)
    }

    /// Takes entries of one ring until another ring has an earlier one; `others` is the key of the
    /// earliest. Returns how many entries were taken, and the key of this ring's next entry if it
    /// has any.
    fn take_run(
        &mut self,
        index: usize,
        others: Option<u64>,
        horizon: u64,
        everything: bool,
    ) -> Result<(u64, Option<u64>), Failure> {
        let ring = sidecar::ring(index);
        // PERF: does not copy the whole state, because a run is an entry or two where threads take
        // turns.
        let RingState { taken: begun, until, decoder: RingDecoder { mut thread, .. }, .. } =
            self.states()[index];
        let mut taken = begun;
        let next = loop {
            // Checked before an entry is taken, so that every taken entry has room in the dump
            // frame.
            if self.encoder.room(self.sink.frame()) < ROOM_FOR_THREE {
                self.states()[index].taken = taken;
                self.write_frame()?;
            }
            let words = ring.entry(taken);
            if let Some(plain) = ContextFreeEntry::decode(words) {
                self.append_plain(&plain, thread, Entry::timestamp(words[0]))?;
                taken += 1;
                match key_at(taken, until, ring, horizon) {
                    Some(key) if others.is_some_and(|others| others < key) => break Some(key),
                    Some(key) if taken - begun >= LONGEST_RUN => break Some(key),
                    Some(_) => continue,
                    None => break None,
                }
            }
            let mut at = taken;
            let following = key_at(at + 1, until, ring, horizon);
            if Entry::begins_realloc(words[0]) && following.is_none() && others.is_none() && !everything {
                // The second half is most likely the next entry of this ring, so wait for it.
                break None;
            }
            let followed = Entry::begins_realloc(words[0])
                && following.is_some_and(|key| others.is_none_or(|others| key < others))
                && Entry::ends_realloc(ring.first_word(at + 1));
            if (followed || Entry::is_size(words[0])) && following.is_none() {
                break None;
            }
            let entry = Entry::decode(words).unwrap_or(Entry::ReallocFailed);
            let mut timestamp = Entry::timestamp(words[0]);
            let sized = self.partial;
            let mut decoded = self.states()[index].decoder.decode_next(&entry, followed, sized);
            let second;
            if decoded == DecodedEntry::Pending {
                // This is the first entry of a pair. Both are taken together, so that no commit
                // comes between.
                at += 1;
                let words = ring.entry(at);
                timestamp = Entry::timestamp(words[0]);
                second = Entry::decode(words).unwrap_or(Entry::ReallocFailed);
                decoded = self.states()[index].decoder.decode_next(&second, false, sized);
            }
            taken = at + 1;
            thread = self.states()[index].decoder.thread;
            let pushed = match &decoded {
                DecodedEntry::Pending => Ok(()),
                DecodedEntry::ThreadFact(record) => self.push(None, record),
                DecodedEntry::Timed { record, freed, truncated } => {
                    self.now_us = self.now_us.max(self.time.time_of(timestamp));
                    self.count(record, *freed, *truncated);
                    self.push(Some(thread), record)
                }
            };
            pushed.map_err(|FrameFull| Failure::Record)?;
            match key_at(taken, until, ring, horizon) {
                Some(key) if others.is_some_and(|others| others < key) => break Some(key),
                Some(key) if taken - begun >= LONGEST_RUN => break Some(key),
                Some(_) => {}
                None => break None,
            }
        };
        self.states()[index].taken = taken;
        Ok((taken - begun, next))
    }

    /// Appends the record of an entry that belongs to no pair. There is room in the dump frame.
    #[inline(always)]
    fn append_plain(&mut self, plain: &ContextFreeEntry, thread: u32, timestamp: u64) -> Result<(), Failure> {
        self.now_us = self.now_us.max(self.time.time_of(timestamp));
        self.state_context(Some(thread)).map_err(|FrameFull| Failure::Record)?;
        let (frame, totals) = (self.sink.frame(), &mut self.totals);
        let pushed = match *plain {
            ContextFreeEntry::Alloc { addr, size, stack, zeroed } => {
                totals.allocations += 1;
                totals.allocated_bytes += u64::from(size);
                self.encoder.push_alloc(frame, addr, size.into(), stack, zeroed)
            }
            ContextFreeEntry::Dealloc { addr, size, stack } => {
                totals.deallocations += 1;
                totals.freed_bytes += u64::from(size);
                self.encoder.push_dealloc(frame, addr, self.partial.then_some(size.into()), stack)
            }
            ContextFreeEntry::Line { activation, line } => self.encoder.push_line(frame, activation, line),
        };
        pushed.map_err(|FrameFull| Failure::Record)
    }

    /// Adds a record to the recorder's own totals.
    #[inline]
    fn count(&mut self, record: &Record<'_>, freed: u64, truncated: bool) {
        let totals = &mut self.totals;
        totals.truncated_stacks += u64::from(truncated);
        totals.freed_bytes += freed;
        match *record {
            Record::Alloc { size, .. } => {
                totals.allocations += 1;
                totals.allocated_bytes += size;
            }
            Record::Dealloc { .. } => totals.deallocations += 1,
            Record::Realloc { size, .. } | Record::ReallocEnd { size, .. } => {
                totals.reallocations += 1;
                totals.allocated_bytes += size;
            }
            Record::Mark { .. } => self.is_marked = true,
            _ => {}
        }
    }
}

/// After this many entries of one ring the drainer commits, and looks at the other rings.
const LONGEST_RUN: u64 = RING_CAPACITY as u64 / 8;

/// Returns the key of the ring's oldest entry that is not taken.
#[inline]
fn key_of(state: &RingState, ring: ThreadRing, horizon: u64) -> Option<u64> {
    key_at(state.taken, state.until, ring, horizon)
}

/// Returns the key that the entry is sorted by, if the entry may be taken: its timestamp above one
/// bit, which is 0 if the entry gives an address back.
#[inline]
fn key_at(at: u64, until: u64, ring: ThreadRing, horizon: u64) -> Option<u64> {
    if at >= until {
        return None;
    }
    let word = ring.first_word(at);
    let timestamp = Entry::timestamp(word);
    (timestamp < horizon).then(|| timestamp << 1 | u64::from(!Entry::releases(word)))
}
