//! One recording: the one stream of records, into which the rings are drained. Used under the recorder's lock.

use std::sync::atomic::{Ordering, fence};

use alloc_dump::record::{MAX_HOT_LEN, Process, Record, Sample};
use alloc_dump::sidecar::{
    self as sidecar_format, Commit, MAX_RINGS, RING_LEN, RING_TAKEN_OFFSET, RING_THREADS_OFFSET,
};
use alloc_dump::thread_ring::Entry;
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, FrameFull, seal_trailer};

use super::super::current::{Failure, LOST};
use super::super::samples::{self, Life};
use super::super::thread_recorder::Place;
use super::merge::Candidate;
use super::pace::Pace;
use super::ring_state::{AWAY, EMPTY, FREE, RingState};
use crate::api::probe::Function;
use crate::base::clock::Scale;
use crate::base::epoch;
use crate::base::sys::{self, Errno, Mapping, PathBuffer};
use crate::capture;
use crate::modules::Found;
use crate::output::dump_file::Sink;
use crate::output::sidecar::{self, ThreadRing};
use crate::thread;

/// One recording.
pub(crate) struct Stream {
    /// Which recording of this process, from 1.
    pub(super) number: u32,
    pub(super) path: PathBuffer,
    /// For reading /proc: threads of the host may have little stack.
    pub(super) scratch: Mapping,
    pub(super) sources: samples::Sources,
    pub(super) sink: Sink,
    pub(super) encoder: Encoder,
    pub(super) totals: Totals,
    /// Whether readers may not know the sizes of freed blocks.
    pub(super) partial: bool,
    pub(super) threads: u32,
    pub(super) page_size: u64,
    pub(super) scale: Scale,
    /// How the timestamps of this draining become times.
    pub(super) time: Commit,
    pub(super) now_us: u64,
    /// Entries that were taken since the helper looked last.
    pub(super) taken: u64,
    pub(super) pace: Pace,
    pub(super) next_sample_us: u64,
    pub(super) next_quiet_sample_us: u64,
    pub(super) latest: Sample,
    pub(super) said: Said,
    pub(super) nodes: u64,
    pub(super) lost: u64,
    pub(super) functions: u32,
    pub(super) marks: u32,
    pub(super) rings: Mapping,
    pub(super) candidates: Mapping,
}

/// What a look at the recording has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recorder) enum Tick {
    /// So much happens that a quarter of a ring is filled in so many microseconds.
    Flooded(u64),
    /// Something has happened since the last one.
    Busy,
    /// Nothing has.
    Quiet,
    /// The program has ended all of its threads.
    Over,
}

/// Why a thread has no ring.
#[derive(Clone, Copy, Debug)]
pub(in crate::recorder) enum Turned {
    /// The recording is just being finished.
    TooLate,
    /// There is no memory for one.
    NoMemory,
}

/// What records of the current frame have already said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    thread: Option<u32>,
    us: Option<u64>,
}

impl Stream {
    /// Begins a recording: the process is its first record. `begin_modules` has to say what is mapped.
    pub(in crate::recorder) fn begin(
        number: u32,
        path: &PathBuffer,
        sink: Sink,
        process: &Process<'_>,
    ) -> Result<Stream, Failure> {
        let mapping = |len| Mapping::anonymous(len).map_err(Failure::Memory);
        let mut stream = Stream {
            number,
            path: PathBuffer::of(path.as_bytes()),
            scratch: mapping(samples::SCRATCH)?,
            sources: samples::Sources::new(),
            sink,
            encoder: Encoder::new(),
            totals: Totals::default(),
            partial: !process.from_first_event,
            threads: 0,
            page_size: process.page_size,
            scale: Scale::new(),
            time: Commit::default(),
            now_us: 0,
            taken: 0,
            pace: Pace::new(),
            next_sample_us: 0,
            next_quiet_sample_us: 0,
            latest: Sample::default(),
            said: Said::default(),
            nodes: 0,
            lost: 0,
            functions: 0,
            marks: 0,
            rings: mapping(MAX_RINGS * size_of::<RingState>())?,
            candidates: mapping(MAX_RINGS * size_of::<Candidate>())?,
        };
        if stream.partial {
            stream.sink.set_partial();
        }
        stream.append(None, &Record::Process(*process))?;
        Ok(stream)
    }

    /// Which recording of this process it is.
    pub(in crate::recorder) fn number(&self) -> u32 {
        self.number
    }

    pub(in crate::recorder) fn path(&self) -> &PathBuffer {
        &self.path
    }

    /// A thread begins: its number, and its ring, for which there may be no memory.
    pub(in crate::recorder) fn enter(&mut self) -> Result<Result<(u32, Place), Turned>, Failure> {
        if epoch::recording() != self.number {
            return Ok(Err(Turned::TooLate));
        }
        let count = sidecar::ring_count();
        let free = self.states().iter().take(count).position(|ring| ring.free != 0);
        let index = match free {
            Some(index) => index,
            None if count == MAX_RINGS => return Ok(Err(Turned::NoMemory)),
            None => {
                let Ok((memory, shared)) = self.sink.map_ring(count) else {
                    return Ok(Err(Turned::NoMemory));
                };
                let (ring, shared) = (ThreadRing::new(memory), u64::from(shared));
                self.states()[count] = RingState { start: ring.address(), shared, ..EMPTY };
                sidecar::add_ring(ring);
                count
            }
        };
        self.threads += 1;
        self.states()[index].free = 0;
        let ring = sidecar::ring(index);
        let stored = ring.stored();
        let last = stored.checked_sub(1).map_or(0, |last| Entry::timestamp(ring.first_word(last)));
        Ok(Ok((self.threads, Place::new(self.number, ring, index, stored, last))))
    }

    /// The thread that had this ring has ended: what it holds is taken, so that it need not stay resident.
    pub(in crate::recorder) fn leave(&mut self, place: &Place) -> Result<(), Failure> {
        if place.recording != self.number {
            // It was stopped while another recording ended and this one began.
            return Ok(());
        }
        self.states()[place.index].free = FREE;
        self.drain(false)?;
        // For the other of the two commits.
        self.commit();
        Ok(())
    }

    /// A module appeared or vanished. Nodes that are waiting belong to what was there before.
    pub(in crate::recorder) fn module_changed(&mut self, found: &Found<'_>) -> Result<(), Failure> {
        self.write_nodes()?;
        self.append(
            None,
            &match found {
                Found::Appeared(module) => Record::Module(*module),
                Found::Vanished(id) => Record::ModuleEnd { id: *id },
            },
        )?;
        self.commit();
        Ok(())
    }

    /// Defines an annotated function, unless another thread has: its number.
    pub(in crate::recorder) fn define(&mut self, function: &Function) -> Result<u32, Failure> {
        if let Some(number) = function.number_in(self.number) {
            return Ok(number);
        }
        self.functions += 1;
        self.append(None, &Record::Function(function.record(self.functions)))?;
        self.commit();
        function.set_number(self.number, self.functions);
        Ok(self.functions)
    }

    /// Defines a name for a mark: its number.
    pub(in crate::recorder) fn name_mark(&mut self, name: &[u8]) -> Result<u32, Failure> {
        self.marks += 1;
        self.append(None, &Record::MarkName { id: self.marks, name })?;
        self.commit();
        Ok(self.marks)
    }

    /// Makes room for new nodes.
    pub(in crate::recorder) fn drain_nodes(&mut self) -> Result<(), Failure> {
        self.write_nodes()?;
        self.commit();
        Ok(())
    }

    /// Drains, and samples the state of the process if that is due.
    pub(in crate::recorder) fn tick(&mut self) -> Result<Tick, Failure> {
        self.drain(false)?;
        let now_us = self.scale.now_us();
        let held = self.look_at_pace(now_us);
        // With what threads have drained themselves.
        let taken = std::mem::take(&mut self.taken);
        let mut tick = match self.pace.quarter_us(held) {
            Some(quarter_us) => Tick::Flooded(quarter_us),
            None if taken == 0 => Tick::Quiet,
            None => Tick::Busy,
        };
        if now_us >= self.next_sample_us {
            self.now_us = self.now_us.max(now_us);
            match self.sample()? {
                Tick::Over => tick = Tick::Over,
                Tick::Busy if tick == Tick::Quiet => tick = Tick::Busy,
                _ => {}
            }
            self.commit();
        }
        Ok(tick)
    }

    /// Measures how fast rings are filled: the entries that the fullest one holds.
    fn look_at_pace(&mut self, now_us: u64) -> u64 {
        let is_due = self.pace.is_due(now_us);
        let (mut held, mut most) = (0, 0);
        let rings = self.rings.slice_mut::<RingState>().iter_mut().enumerate().take(sidecar::ring_count());
        for (index, state) in rings.filter(|(_, state)| state.free != AWAY) {
            let stored = sidecar::ring(index).stored();
            held = held.max(stored - state.taken);
            if is_due {
                most = most.max(stored - std::mem::replace(&mut state.measured, stored));
            }
        }
        if is_due {
            self.pace.measure(now_us, most);
        }
        held
    }

    /// The state of the process, now. Quiet if it is the same as before.
    pub(in crate::recorder) fn sample(&mut self) -> Result<Tick, Failure> {
        self.next_sample_us = self.now_us + samples::INTERVAL_US;
        let (stacks, different) = capture::take_check_counts();
        if stacks > 0 {
            self.append(None, &Record::Checked { stacks, different })?;
        }
        let (sample, life) = samples::take(&mut self.sources, self.page_size, self.scratch.bytes_mut());
        let before = std::mem::replace(&mut self.latest, sample);
        let same = before.rss == sample.rss && before.vsz == sample.vsz && before.swap == sample.swap;
        if !same || self.next_quiet_sample_us <= self.now_us {
            self.next_quiet_sample_us = self.now_us + QUIET_SAMPLE_US;
            self.append(None, &Record::Sample(sample))?;
        }
        Ok(match life {
            Life::Over => Tick::Over,
            Life::GoesOn if same => Tick::Quiet,
            Life::GoesOn => Tick::Busy,
        })
    }

    /// Writes everything that is still to be said, and the trailer.
    pub(in crate::recorder) fn finish(&mut self) -> Result<(), Failure> {
        self.drain(true)?;
        self.now_us = self.now_us.max(self.scale.now_us());
        self.next_quiet_sample_us = 0;
        self.sample()?;
        self.write_frame()?;
        let trailer =
            Trailer { end: EndReason::Finished, duration_us: self.now_us, totals: Some(self.totals) };
        let seq = self.sink.seq();
        let len = seal_trailer(self.sink.frame(), seq, &trailer).ok_or(Failure::Record)?;
        self.sink.write_frame(len).map_err(Failure::Write)
    }

    /// Closes a dump that is finished.
    pub(in crate::recorder) fn close(mut self) {
        let rings = self.take_lanes();
        release(self.sink.finish(), rings);
    }

    /// Closes the dump as it is.
    pub(in crate::recorder) fn abandon(mut self, errno: Errno) {
        let rings = self.take_lanes();
        release(self.sink.abandon(errno), rings);
    }

    pub(super) fn states(&mut self) -> &mut [RingState] {
        self.rings.slice_mut()
    }

    fn take_lanes(&mut self) -> Mapping {
        let count = sidecar::ring_count();
        let mut rings = std::mem::replace(&mut self.rings, Mapping::empty());
        if let Some(end) = rings.slice_mut::<RingState>().get_mut(count) {
            end.start = 0;
        }
        rings
    }

    pub(super) fn write_nodes(&mut self) -> Result<(), Failure> {
        let Some(stored) = sidecar::word(sidecar_format::NODE_COUNT_OFFSET) else { return Ok(()) };
        let stored = stored.load(Ordering::Acquire);
        while self.nodes < stored {
            self.append(None, &sidecar_format::node_record(sidecar::node(self.nodes)))?;
            self.nodes += 1;
        }
        Ok(())
    }

    pub(super) fn note_lost(&mut self) -> Result<(), Failure> {
        let lost = LOST.load(Ordering::Relaxed);
        if lost > self.lost {
            let events = lost - self.lost;
            self.append(None, &Record::Lost { events })?;
            self.lost = lost;
            self.totals.lost_events += events;
            self.partial = true;
        }
        Ok(())
    }

    /// Makes all that was appended and taken so far hold together.
    pub(super) fn commit(&mut self) {
        let which = self.sink.next_commit();
        let count = sidecar::ring_count();
        for (index, state) in self.rings.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            let thread = u64::from(state.owner.thread);
            if state.tails[which] != state.taken || state.threads[which] != thread {
                let ring = sidecar::ring(index);
                ring.word(RING_TAKEN_OFFSET + 8 * which).store(state.taken, Ordering::Relaxed);
                ring.word(RING_THREADS_OFFSET + 8 * which).store(thread, Ordering::Relaxed);
                (state.tails[which], state.threads[which]) = (state.taken, thread);
            }
        }
        let len = self.encoder.len() as u64;
        self.sink.commit(Commit { len, nodes: self.nodes, lost: self.lost, ..self.time });
        sidecar::nodes_taken(self.nodes);
        for (index, state) in self.rings.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            if state.released != state.taken {
                state.released = state.taken;
                sidecar::ring(index).release(state.taken);
                state.wake = 1;
            }
            if state.free == FREE && state.shared != 0 && state.is_settled(sidecar::ring(index)) {
                (state.free, state.wake) = (AWAY, 0);
                sys::discard_resident(state.start, RING_LEN);
            }
        }
        // Either this sees that a thread waits, or that thread what has been released. NOTE: other rings are not touched: the memory
        // of those that nobody has is not resident.
        fence(Ordering::SeqCst);
        for (index, state) in self.rings.slice_mut::<RingState>().iter_mut().enumerate().take(count) {
            if std::mem::take(&mut state.wake) != 0 {
                sidecar::ring(index).wake();
            }
        }
    }

    /// Appends a record. For a heap event of `thread` it first says whose it is.
    pub(super) fn append(&mut self, thread: Option<u32>, record: &Record<'_>) -> Result<(), Failure> {
        if self.push(thread, record).is_err() {
            self.write_frame()?;
            self.push(thread, record).map_err(|FrameFull| Failure::Record)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn push(&mut self, thread: Option<u32>, record: &Record<'_>) -> Result<(), FrameFull> {
        let frame = self.sink.frame();
        // So that a frame never ends with half of what belongs together.
        if self.encoder.room(frame) < ROOM_FOR_THREE && !self.encoder.is_empty() {
            return Err(FrameFull);
        }
        self.say(thread)?;
        self.encoder.push(self.sink.frame(), record)
    }

    /// Says whose the next record is, and its time, if that has changed.
    #[inline(always)]
    pub(super) fn say(&mut self, thread: Option<u32>) -> Result<(), FrameFull> {
        if thread.is_some() && self.said.thread != thread {
            self.said.thread = thread;
            let id = thread.unwrap_or_default();
            self.encoder.push(self.sink.frame(), &Record::Thread { id })?;
        }
        if self.said.us != Some(self.now_us) {
            self.said.us = Some(self.now_us);
            self.encoder.push(self.sink.frame(), &Record::Time { us: self.now_us })?;
        }
        Ok(())
    }

    pub(super) fn write_frame(&mut self) -> Result<(), Failure> {
        self.said = Said::default();
        if self.encoder.is_empty() {
            return Ok(());
        }
        // First: if the process is killed while the frame is being written, or just after, the frame in the dump is this one.
        self.commit();
        let seq = self.sink.seq();
        let len = self.encoder.seal(self.sink.frame(), seq);
        self.sink.write_frame(len).map_err(Failure::Write)?;
        self.commit();
        Ok(())
    }
}

/// A program in which nothing changes is sampled all the same.
const QUIET_SAMPLE_US: u64 = 1_000_000;

/// A thread, a time and a heap event.
pub(super) const ROOM_FOR_THREE: usize = 3 * MAX_HOT_LEN;

/// Unmaps the memory of a recording that is over, unless a thread may still be using it: maybe this very one, which has met what
/// ends the recording on its way to storing an event.
fn release(sidecar_memory: Mapping, mut rings: Mapping) {
    sidecar::detach();
    sidecar::synchronize();
    if !thread::all_are_outside() {
        sidecar_memory.leak();
        return;
    }
    for ring in rings.slice_mut::<RingState>().iter().take_while(|ring| ring.start != 0) {
        sys::unmap_leaked(ring.start, RING_LEN);
    }
}
