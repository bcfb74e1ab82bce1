//! Draining: the entries of all rings, in the order of their timestamps, into the stream.

use alloc_dump::record::Record;
use alloc_dump::sidecar::RING_CAPACITY;
use alloc_dump::thread_ring::{ContextFreeEntry, DecodedEntry, Entry, RingDecoder};
use alloc_dump::write::FrameFull;

use super::super::current::Failure;
use super::merge::{Candidate, Candidates};
use super::ring_state::{AWAY, RingState};
use super::stream::{ROOM_FOR_THREE, Stream};
use crate::base::clock;
use crate::base::sys::Mapping;
use crate::output::sidecar::{self, ThreadRing};

impl Stream {
    /// Takes what the rings hold, as far as nothing earlier can still come; with `everything` all that is stored. Returns
    /// how many entries that were.
    pub(in crate::recorder) fn drain(&mut self, everything: bool) -> Result<u64, Failure> {
        self.scale.adjust();
        self.scale.note(&mut self.time);
        let (count, horizon) = self.look(everything);
        // After the rings: all nodes that their entries have are there by now, and all events that were lost before.
        self.write_nodes()?;
        self.note_lost()?;
        let taken = self.merge(count, horizon, everything)?;
        self.taken += taken;
        self.commit();
        Ok(taken)
    }

    /// Notes how far each ring may be drained: the number of rings, and the timestamp before which nothing more can come.
    fn look(&mut self, everything: bool) -> (usize, u64) {
        let until = |stream: &mut Stream, count: usize| {
            for (index, state) in stream.states().iter_mut().enumerate().take(count) {
                state.until = sidecar::ring(index).stored();
            }
        };
        if sidecar::ring_count() <= 1 {
            until(self, 1.min(sidecar::ring_count()));
            // One ring is in order. Another one that comes now has later timestamps than what was just seen.
            if sidecar::ring_count() <= 1 {
                return (sidecar::ring_count().min(1), u64::MAX);
            }
        }
        clock::settle();
        let mut horizon = clock::timestamp();
        sidecar::synchronize();
        let count = sidecar::ring_count();
        for (index, state) in self.states().iter_mut().enumerate().take(count) {
            if state.free == AWAY {
                state.until = state.taken;
                continue;
            }
            let ring = sidecar::ring(index);
            state.until = ring.stored();
            if ring.is_storing(state.until) {
                let last =
                    state.until.checked_sub(1).map_or(0, |last| Entry::timestamp(ring.first_word(last)));
                horizon = horizon.min(last + 1);
            }
        }
        (count, if everything { u64::MAX } else { horizon })
    }

    fn merge(&mut self, count: usize, horizon: u64, everything: bool) -> Result<u64, Failure> {
        let mut room = std::mem::replace(&mut self.candidates, Mapping::empty());
        let mut candidates = Candidates::new(room.slice_mut());
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
                        // PERF: a thread whose ring is full can go on.
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
        self.candidates = room;
        outcome.map(|()| taken)
    }

    /// Takes entries of one ring until another ring has an earlier one, whose key is `others`: how many, and the key of this
    /// ring's next one if it has any.
    fn take_run(
        &mut self,
        index: usize,
        others: Option<u64>,
        horizon: u64,
        everything: bool,
    ) -> Result<(u64, Option<u64>), Failure> {
        let ring = sidecar::ring(index);
        // PERF: no copy of all of it: where threads take turns a run is an entry or two.
        let RingState { taken: begun, until, owner: RingDecoder { mut thread, .. }, .. } =
            self.states()[index];
        let mut taken = begun;
        let next = loop {
            // First, so that what is taken also has room.
            if self.encoder.room(self.sink.frame()) < ROOM_FOR_THREE {
                self.states()[index].taken = taken;
                self.write_frame()?;
            }
            let words = ring.entry(taken);
            if let Some(plain) = ContextFreeEntry::decode(words) {
                self.take_plain(&plain, thread, Entry::timestamp(words[0]))?;
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
                // Its second half is likely to be the very next entry.
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
            let mut meaning = self.states()[index].owner.decode_next(&entry, followed, sized);
            let second;
            if meaning == DecodedEntry::Pending {
                // With the entry that it belongs to, so that no commit comes between.
                at += 1;
                let words = ring.entry(at);
                timestamp = Entry::timestamp(words[0]);
                second = Entry::decode(words).unwrap_or(Entry::ReallocFailed);
                meaning = self.states()[index].owner.decode_next(&second, false, sized);
            }
            taken = at + 1;
            thread = self.states()[index].owner.thread;
            let pushed = match &meaning {
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

    /// Appends what is said by an entry that stands alone. There is room.
    #[inline(always)]
    fn take_plain(&mut self, plain: &ContextFreeEntry, thread: u32, timestamp: u64) -> Result<(), Failure> {
        self.now_us = self.now_us.max(self.time.time_of(timestamp));
        self.say(Some(thread)).map_err(|FrameFull| Failure::Record)?;
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
            _ => {}
        }
    }
}

/// Entries after which it is said that they are taken.
const LONGEST_RUN: u64 = RING_CAPACITY as u64 / 8;

#[inline]
fn key_of(state: &RingState, ring: ThreadRing, horizon: u64) -> Option<u64> {
    key_at(state.taken, state.until, ring, horizon)
}

/// What an entry is sorted by, if it may be taken. Of equal timestamps those come first that give an address back.
#[inline]
fn key_at(at: u64, until: u64, ring: ThreadRing, horizon: u64) -> Option<u64> {
    if at >= until {
        return None;
    }
    let word = ring.first_word(at);
    let timestamp = Entry::timestamp(word);
    (timestamp < horizon).then(|| timestamp << 1 | u64::from(!Entry::releases(word)))
}
