//! Draining: the entries of all lanes, in the order of their stamps, into the stream.

use alloc_dump::lane::{Entry, Lone, Meaning, Owner};
use alloc_dump::record::Record;
use alloc_dump::tail::LANE_ROOM;
use alloc_dump::write::Full;

use super::super::current::Failure;
use super::super::merge::{Candidate, Candidates};
use super::lane_state::{AWAY, LaneState};
use super::{ROOM_FOR_THREE, Stream};
use crate::clock;
use crate::sidecar::{self, Lane};
use crate::sys::Mapping;

impl Stream {
    /// Takes what the lanes hold, as far as nothing earlier can still come; with `everything` all that is stored. Returns
    /// how many entries that were.
    pub(in crate::recorder) fn drain(&mut self, everything: bool) -> Result<u64, Failure> {
        self.scale.adjust();
        self.scale.note(&mut self.time);
        let (count, horizon) = self.look(everything);
        // After the lanes: all nodes that their entries have are there by now, and all events that were lost before.
        self.write_nodes()?;
        self.note_lost()?;
        let taken = self.merge(count, horizon, everything)?;
        self.taken += taken;
        self.commit();
        Ok(taken)
    }

    /// Notes how far each lane may be drained: the number of lanes, and the stamp before which nothing more can come.
    fn look(&mut self, everything: bool) -> (usize, u64) {
        let until = |stream: &mut Stream, count: usize| {
            for (index, state) in stream.states().iter_mut().enumerate().take(count) {
                state.until = sidecar::lane(index).stored();
            }
        };
        if sidecar::lane_count() <= 1 {
            until(self, 1.min(sidecar::lane_count()));
            // One lane is in order. Another one that comes now has later stamps than what was just seen.
            if sidecar::lane_count() <= 1 {
                return (sidecar::lane_count().min(1), u64::MAX);
            }
        }
        clock::settle();
        let mut horizon = clock::stamp();
        sidecar::synchronize();
        let count = sidecar::lane_count();
        for (index, state) in self.states().iter_mut().enumerate().take(count) {
            if state.free == AWAY {
                state.until = state.taken;
                continue;
            }
            let lane = sidecar::lane(index);
            state.until = lane.stored();
            if lane.is_storing(state.until) {
                let last = state.until.checked_sub(1).map_or(0, |last| Entry::stamp(lane.first_word(last)));
                horizon = horizon.min(last + 1);
            }
        }
        (count, if everything { u64::MAX } else { horizon })
    }

    fn merge(&mut self, count: usize, horizon: u64, everything: bool) -> Result<u64, Failure> {
        let mut room = std::mem::replace(&mut self.candidates, Mapping::empty());
        let mut candidates = Candidates::new(room.slice_mut());
        for (index, state) in self.states().iter().enumerate().take(count) {
            if let Some(key) = key_of(state, sidecar::lane(index), horizon) {
                candidates.push(Candidate { key, lane: index as u64 });
            }
        }
        let (mut taken, mut committed) = (0, 0);
        let mut outcome = Ok(());
        while let Some(candidate) = candidates.pop() {
            let index = candidate.lane as usize;
            let others = candidates.first_key();
            match self.take_run(index, others, horizon, everything) {
                Ok((run, next)) => {
                    taken += run;
                    if taken - committed >= LONGEST_RUN {
                        // PERF: a thread whose lane is full can go on.
                        committed = taken;
                        self.commit();
                    }
                    if let Some(key) = next {
                        candidates.push(Candidate { key, lane: candidate.lane });
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

    /// Takes entries of one lane until another lane has an earlier one, whose key is `others`: how many, and the key of this
    /// lane's next one if it has any.
    fn take_run(
        &mut self,
        index: usize,
        others: Option<u64>,
        horizon: u64,
        everything: bool,
    ) -> Result<(u64, Option<u64>), Failure> {
        let lane = sidecar::lane(index);
        // PERF: no copy of all of it: where threads take turns a run is an entry or two.
        let LaneState { taken: begun, until, owner: Owner { mut thread, .. }, .. } = self.states()[index];
        let mut taken = begun;
        let next = loop {
            // First, so that what is taken also has room.
            if self.encoder.room(self.sink.frame()) < ROOM_FOR_THREE {
                self.states()[index].taken = taken;
                self.write_frame()?;
            }
            let words = lane.entry(taken);
            if let Some(lone) = Lone::of(words) {
                self.take_lone(&lone, thread, Entry::stamp(words[0]))?;
                taken += 1;
                match key_at(taken, until, lane, horizon) {
                    Some(key) if others.is_some_and(|others| others < key) => break Some(key),
                    Some(key) if taken - begun >= LONGEST_RUN => break Some(key),
                    Some(_) => continue,
                    None => break None,
                }
            }
            let mut at = taken;
            let following = key_at(at + 1, until, lane, horizon);
            if Entry::begins_realloc(words[0]) && following.is_none() && others.is_none() && !everything {
                // Its second half is likely to be the very next entry.
                break None;
            }
            let followed = Entry::begins_realloc(words[0])
                && following.is_some_and(|key| others.is_none_or(|others| key < others))
                && Entry::ends_realloc(lane.first_word(at + 1));
            if (followed || Entry::is_size(words[0])) && following.is_none() {
                break None;
            }
            let entry = Entry::decode(words).unwrap_or(Entry::ReallocFailed);
            let mut stamp = Entry::stamp(words[0]);
            let sized = self.partial;
            let mut meaning = self.states()[index].owner.take(&entry, followed, sized);
            let second;
            if meaning == Meaning::Nothing {
                // With the entry that it belongs to, so that no commit comes between.
                at += 1;
                let words = lane.entry(at);
                stamp = Entry::stamp(words[0]);
                second = Entry::decode(words).unwrap_or(Entry::ReallocFailed);
                meaning = self.states()[index].owner.take(&second, false, sized);
            }
            taken = at + 1;
            thread = self.states()[index].owner.thread;
            let pushed = match &meaning {
                Meaning::Nothing => Ok(()),
                Meaning::About(record) => self.push(None, record),
                Meaning::Event { record, freed, truncated } => {
                    self.now_us = self.now_us.max(self.time.time_of(stamp));
                    self.count(record, *freed, *truncated);
                    self.push(Some(thread), record)
                }
            };
            pushed.map_err(|Full| Failure::Record)?;
            match key_at(taken, until, lane, horizon) {
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
    fn take_lone(&mut self, lone: &Lone, thread: u32, stamp: u64) -> Result<(), Failure> {
        self.now_us = self.now_us.max(self.time.time_of(stamp));
        self.say(Some(thread)).map_err(|Full| Failure::Record)?;
        let (frame, totals) = (self.sink.frame(), &mut self.totals);
        let pushed = match *lone {
            Lone::Alloc { addr, size, stack, zeroed } => {
                totals.allocations += 1;
                totals.allocated_bytes += u64::from(size);
                self.encoder.push_alloc(frame, addr, size.into(), stack, zeroed)
            }
            Lone::Dealloc { addr, size, stack } => {
                totals.deallocations += 1;
                totals.freed_bytes += u64::from(size);
                self.encoder.push_dealloc(frame, addr, self.partial.then_some(size.into()), stack)
            }
            Lone::Line { activation, line } => self.encoder.push_line(frame, activation, line),
        };
        pushed.map_err(|Full| Failure::Record)
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
const LONGEST_RUN: u64 = LANE_ROOM as u64 / 8;

#[inline]
fn key_of(state: &LaneState, lane: Lane, horizon: u64) -> Option<u64> {
    key_at(state.taken, state.until, lane, horizon)
}

/// What an entry is sorted by, if it may be taken. Of equal stamps those come first that give an address back.
#[inline]
fn key_at(at: u64, until: u64, lane: Lane, horizon: u64) -> Option<u64> {
    if at >= until {
        return None;
    }
    let word = lane.first_word(at);
    let stamp = Entry::stamp(word);
    (stamp < horizon).then(|| stamp << 1 | u64::from(!Entry::releases(word)))
}
