//! The stream of records of one recording. In: records and thread rings. Out: dump frames, and
//! commits. Used under the recorder's lock; never allocates.

use std::sync::atomic::Ordering;

use alloc_dump::record::{MAX_HOT_LEN, Process, Record, RecordingLimit, Sample, SlowReason};
use alloc_dump::sidecar::{self as sidecar_format, Commit, FRAME_CAPACITY, MAX_RINGS, RING_LEN};
use alloc_dump::thread_ring::Entry;
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, FrameFull, seal_trailer};

use super::super::failure::Failure;
use super::super::functions::AnnotatedFunction;
use super::super::lost;
use super::super::samples::{self, ProcessLife, SampleSources};
use super::merge::Candidate;
use super::pace::Pace;
use super::ring_state::{RingState, RingUsage};
use crate::base::clock::Scale;
use crate::base::epoch::{self, Recording, RecordingId};
use crate::base::limits::Limits;
use crate::base::loader;
use crate::base::sys::{self, Errno, Mapping, PathBuffer};
use crate::capture;
use crate::modules::ModuleChange;
use crate::output::membarrier;
use crate::output::sidecar;
use crate::output::thread_ring::{FIRST_GRANT, ThreadRing, entries_in, next_grant};
use crate::output::{RingMemory, Sink};

/// The stream of records of one recording, into a sink.
pub(in crate::recorder) struct Stream<S> {
    recording: RecordingId,
    path: PathBuffer,
    /// For reading /proc: threads of the host may have little stack.
    scratch: Mapping,
    sample_sources: SampleSources,
    pub(super) sink: S,
    pub(super) encoder: Encoder,
    pub(super) totals: Totals,
    /// Whether readers may not know the sizes of freed blocks, because they have not seen every
    /// allocation.
    pub(super) partial: bool,
    /// Threads that have ever taken part.
    threads: u32,
    pub(super) scale: Scale,
    /// The conversion of the timestamps of this draining into times.
    pub(super) time: Commit,
    /// Time of the newest record.
    pub(super) now_us: u64,
    /// Entries that were taken since the last tick.
    pub(super) taken_since_tick: u64,
    pace: Pace,
    next_sample_us: u64,
    next_quiet_sample_us: u64,
    pub(super) latest_sample: Sample,
    /// Whether the program has set a mark that no layout stands behind.
    pub(super) is_marked: bool,
    context: FrameContext,
    /// Nodes that are in dump frames.
    pub(super) nodes: u64,
    /// Lost events that are in dump frames.
    pub(super) lost: u64,
    /// How many of the partly verified stacks are in the stream.
    pub(super) partly_verified: u64,
    /// Annotated functions that have a number.
    functions: u32,
    /// Names of marks that have a number.
    mark_names: u32,
    /// Snapshots that have a number.
    pub(super) snapshots: u32,
    /// The index of a ring that no thread uses, plus 1; 0 if there is none.
    first_free: u64,
    /// An array with a [`RingState`] for each ring.
    pub(super) ring_states: Mapping,
    /// Memory for the merge: a [`Candidate`] for each ring.
    pub(super) candidates: Mapping,
    /// Returns whether no thread is inside the hook, where it may use the rings.
    no_thread_in_hook: fn() -> bool,
    /// Whether the calling process has the descriptors of the recording's files.
    pub(super) has_files: bool,
    /// Rings that are mapped for the next threads, in the order of their indices.
    spare_rings: [Option<RingMemory>; MAX_SPARE_RINGS],
    /// Whether the last attempt to map a ring has failed.
    lacks_memory: bool,
    /// Bytes of all dump frames that were written.
    pub(super) written: u64,
    pub(super) limits: Limits,
}

/// What a thread gets when it begins to take part in the recording.
#[derive(Clone, Copy, Debug)]
pub(in crate::recorder) struct EnteredRing {
    pub(in crate::recorder) recording: RecordingId,
    /// The thread's number in the recording.
    pub(in crate::recorder) thread: u32,
    /// The thread's ring, which other threads may have used before.
    pub(in crate::recorder) ring: ThreadRing,
    /// Index of the ring among all rings.
    pub(in crate::recorder) index: usize,
    /// Entries that were ever stored in the ring.
    pub(in crate::recorder) stored: u64,
    /// Timestamp of the last of them; 0 if there is none.
    pub(in crate::recorder) last_timestamp: u64,
}

/// Why a thread cannot take part in a recording.
#[derive(Clone, Copy, Debug)]
pub(in crate::recorder) enum EnterError {
    /// The recording has ended, or is just being finished.
    RecordingOver,
    /// There is no memory for a ring.
    NoMemory,
    /// The drain process must map a ring first.
    NeedsDrainer,
}

/// The state of the program as [`Stream::tick`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::recorder) enum Tick {
    /// Events pour in: the fullest ring will be a quarter full in `quarter_us` microseconds.
    Flooded { quarter_us: u64 },
    /// Something has happened since the last tick.
    Busy,
    /// Nothing has happened since the last tick.
    Quiet,
    /// The host executes another program.
    HostReplaced,
    /// The recording has reached a limit that the user has set.
    LimitReached(RecordingLimit),
}

/// The thread and the time that records of the current dump frame have stated last. A frame is
/// decoded without any other frame, so a new one begins with nothing stated.
#[derive(Clone, Copy, Debug, Default)]
struct FrameContext {
    thread: Option<u32>,
    us: Option<u64>,
}

impl<S: Sink> Stream<S> {
    /// Begins a recording. Its first record describes the process; the modules must be reported
    /// next.
    pub(in crate::recorder) fn begin(
        recording: RecordingId,
        path: &PathBuffer,
        sink: S,
        process: &Process<'_>,
        no_thread_in_hook: fn() -> bool,
    ) -> Result<Stream<S>, Failure> {
        let mapping = |len| Mapping::anonymous(len).map_err(Failure::Memory);
        let mut stream = Stream {
            recording,
            path: PathBuffer::of(path.as_bytes()),
            scratch: mapping(samples::SCRATCH)?,
            sample_sources: SampleSources::new(),
            sink,
            encoder: Encoder::new(),
            totals: Totals::default(),
            partial: !process.from_first_event,
            threads: 0,
            scale: Scale::new(),
            time: Commit::default(),
            now_us: 0,
            taken_since_tick: 0,
            pace: Pace::new(),
            next_sample_us: 0,
            next_quiet_sample_us: 0,
            latest_sample: Sample::default(),
            is_marked: false,
            context: FrameContext::default(),
            nodes: 0,
            lost: 0,
            partly_verified: 0,
            functions: 0,
            mark_names: 0,
            snapshots: 0,
            first_free: 0,
            ring_states: mapping(MAX_RINGS * size_of::<RingState>())?,
            candidates: mapping(MAX_RINGS * size_of::<Candidate>())?,
            no_thread_in_hook,
            has_files: true,
            spare_rings: [const { None }; MAX_SPARE_RINGS],
            lacks_memory: false,
            written: 0,
            limits: Limits::NONE,
        };
        if stream.partial {
            stream.sink.set_partial();
        }
        stream.map_spare_rings();
        stream.append(None, &Record::Process(*process))?;
        for (is_so, reason) in [
            (!loader::is_answering(), SlowReason::NoLoaderLookup),
            (membarrier::is_missing(), SlowReason::NoMembarrier),
        ] {
            if is_so {
                stream.append(None, &Record::Slow(reason))?;
            }
        }
        Ok(stream)
    }

    /// Returns the id of this recording.
    pub(in crate::recorder) fn recording(&self) -> RecordingId {
        self.recording
    }

    /// Returns the path of the dump.
    pub(in crate::recorder) fn path(&self) -> &PathBuffer {
        &self.path
    }

    /// Makes the calling thread take part: gives it a number and a ring.
    pub(in crate::recorder) fn enter_thread(&mut self) -> Result<EnteredRing, EnterError> {
        if epoch::recording() != Recording::Running(self.recording) {
            return Err(EnterError::RecordingOver);
        }
        let index = match self.take_free_ring() {
            Some(index) => index,
            None => self.add_ring()?,
        };
        self.threads += 1;
        self.states()[index].set_usage(RingUsage::Thread);
        let ring = sidecar::ring(index);
        let stored = ring.stored();
        let last_timestamp = stored.checked_sub(1).map_or(0, |last| Entry::timestamp(ring.first_word(last)));
        let (recording, thread) = (self.recording, self.threads);
        Ok(EnteredRing { recording, thread, ring, index, stored, last_timestamp })
    }

    /// Adds a ring, and returns its index.
    fn add_ring(&mut self) -> Result<usize, EnterError> {
        let count = sidecar::ring_count();
        if count == MAX_RINGS {
            return Err(EnterError::NoMemory);
        }
        // Rings that threads have left are freed before more rings are added, or a program that
        // starts one thread after the other would add rings for ever. PERF: some at a time, because
        // the drain process has to be woken for it.
        if !self.has_files && sidecar::left_rings() > MOST_LEFT_RINGS {
            return Err(EnterError::NeedsDrainer);
        }
        if self.has_files && (self.spare_rings[0].is_none() || sidecar::left_rings() > MOST_LEFT_RINGS) {
            if sidecar::left_rings() > 0
                && self.drain(false).is_ok()
                && let Some(index) = self.take_free_ring()
            {
                return Ok(index);
            }
            self.map_spare_rings();
        }
        let Some(RingMemory { memory, in_file, granted }) = self.spare_rings[0].take() else {
            return Err(if self.has_files || self.lacks_memory {
                EnterError::NoMemory
            } else {
                EnterError::NeedsDrainer
            });
        };
        self.spare_rings.rotate_left(1);
        let ring = ThreadRing::new(memory);
        ring.grant(granted);
        self.states()[count] = RingState::new(ring, in_file, granted);
        sidecar::add_ring(ring);
        Ok(count)
    }

    /// Maps rings for threads that will take part, so that none of them has to wait: a quarter as
    /// many as there are rings, and at least one. Only for a process that has the files.
    pub(in crate::recorder) fn map_spare_rings(&mut self) {
        let count = sidecar::ring_count();
        for index in 0..self.wanted_spare_rings() {
            if self.spare_rings[index].is_none() {
                // The first thread's ring is whole at once: a program with one thread need not ask
                // for more.
                let is_first = count + index == 0;
                let len = if is_first { RING_LEN } else { FIRST_GRANT.max(sys::page_size() as usize) };
                self.spare_rings[index] = self.sink.map_ring(count + index, len).ok();
                self.lacks_memory = self.spare_rings[index].is_none();
                if self.lacks_memory {
                    return;
                }
            }
        }
    }

    /// Whether less than half of the rings that threads to come need are mapped.
    pub(in crate::recorder) fn is_short_of_rings(&self) -> bool {
        self.spare_rings[self.wanted_spare_rings() / 2].is_none()
    }

    /// A program with one thread needs one ring more at the most, and one that starts many threads
    /// starts more.
    fn wanted_spare_rings(&self) -> usize {
        let count = sidecar::ring_count();
        (count / 4).clamp(1, MAX_SPARE_RINGS).min(MAX_RINGS - count)
    }

    /// Notes whether the calling process has the descriptors of the recording's files.
    pub(in crate::recorder) fn set_has_files(&mut self, has_files: bool) {
        self.has_files = has_files;
    }

    /// Closes the files of /proc, before another process opens its own.
    pub(in crate::recorder) fn close_process_files(&mut self) {
        self.sample_sources.close();
    }

    /// Opens the files of /proc, in the drain process.
    pub(in crate::recorder) fn open_process_files(&mut self) {
        self.sample_sources.open();
    }

    /// Calls `f` with each descriptor of the dump and its sidecar.
    pub(in crate::recorder) fn for_each_file(&self, f: &mut dyn FnMut(i32)) {
        self.sink.for_each_descriptor(f);
    }

    /// Calls `f` with each descriptor of a file of /proc.
    pub(in crate::recorder) fn for_each_process_file(&self, f: &mut dyn FnMut(i32)) {
        self.sample_sources.for_each_descriptor(f);
    }

    /// Writes the current dump frame if little room is left in it, so that the program's threads
    /// need not wait for that later. With `at_once`, writes it however full it is.
    pub(in crate::recorder) fn write_full_frame(&mut self, at_once: bool) -> Result<(), Failure> {
        if at_once || self.encoder.room(self.sink.frame()) < FRAME_CAPACITY / 4 {
            self.write_frame()?;
        }
        Ok(())
    }

    /// Notes that no thread uses this ring any more, and that everything in it is taken.
    pub(super) fn add_free_ring(&mut self, index: usize) {
        let next_free = std::mem::replace(&mut self.first_free, index as u64 + 1);
        let state = &mut self.states()[index];
        state.set_usage(RingUsage::Free);
        state.next_free = next_free;
    }

    /// Takes a ring that no thread uses, the one that was freed last.
    ///
    /// PERF: a list, so that a new thread does not look at the rings of all others.
    fn take_free_ring(&mut self) -> Option<usize> {
        let index = usize::try_from(self.first_free.checked_sub(1)?).ok()?;
        self.first_free = std::mem::take(&mut self.states()[index].next_free);
        Some(index)
    }

    /// Makes a ring have memory for at least `entries` entries. False if the recording is over.
    pub(in crate::recorder) fn extend_ring(
        &mut self,
        recording: RecordingId,
        index: usize,
        entries: u64,
    ) -> Result<bool, Failure> {
        if recording != self.recording {
            return Ok(false);
        }
        let RingState { start, granted, .. } = self.states()[index];
        let mut granted = granted as usize;
        if entries_in(granted) < entries && !self.has_files {
            return Err(Failure::NeedsDrainer);
        }
        while entries_in(granted) < entries {
            let extended = self.sink.extend_ring(index, start, granted..next_grant(granted));
            granted = extended.map_err(Failure::Memory)?;
        }
        self.states()[index].granted = granted as u64;
        sidecar::ring(index).grant(granted);
        Ok(true)
    }

    /// Extends the rings that are half full, so that their threads need not do it.
    fn extend_rings(&mut self) -> Result<(), Failure> {
        for index in 0..sidecar::ring_count() {
            let RingState { taken, granted, .. } = self.states()[index];
            if (granted as usize) < RING_LEN && taken >= entries_in(granted as usize) / 2 {
                let next = entries_in(next_grant(granted as usize));
                self.extend_ring(self.recording, index, next)?;
            }
        }
        Ok(())
    }

    /// Records that a module appeared or vanished. First writes the nodes that are only in the
    /// sidecar, because they belong to the modules before the change.
    pub(in crate::recorder) fn record_module_change(
        &mut self,
        change: &ModuleChange<'_>,
    ) -> Result<(), Failure> {
        self.write_nodes()?;
        match change {
            ModuleChange::Appeared { module, code, lacks_unwind_tables } => {
                self.append(None, &Record::Module(*module))?;
                if let Some(code) = code {
                    self.append(None, &Record::ModuleCode { id: module.id, code: *code })?;
                }
                if *lacks_unwind_tables {
                    let reason = SlowReason::NoUnwindTables { module: module.id };
                    self.append(None, &Record::Slow(reason))?;
                }
            }
            ModuleChange::Vanished { id } => self.append(None, &Record::ModuleEnd { id: *id })?,
        }
        self.commit();
        Ok(())
    }

    /// Defines an annotated function, unless another thread has defined it meanwhile. Returns the
    /// function's number.
    pub(in crate::recorder) fn define_function(
        &mut self,
        function: &AnnotatedFunction,
    ) -> Result<u32, Failure> {
        if let Some(number) = function.number_in(self.recording) {
            return Ok(number);
        }
        let number = self.functions + 1;
        self.append(None, &Record::Function(function.record(number)))?;
        self.functions = number;
        self.commit();
        function.set_number(self.recording, number);
        Ok(number)
    }

    /// Defines a name for marks. Returns the name's number.
    pub(in crate::recorder) fn define_mark_name(&mut self, name: &[u8]) -> Result<u32, Failure> {
        let number = self.mark_names + 1;
        self.append(None, &Record::MarkName { id: number, name })?;
        self.mark_names = number;
        self.commit();
        Ok(number)
    }

    /// Writes the nodes that are only in the sidecar, so that there is room for new ones.
    pub(in crate::recorder) fn drain_nodes(&mut self) -> Result<(), Failure> {
        self.write_nodes()?;
        self.commit();
        Ok(())
    }

    /// Drains the rings, and samples the state of the process if that is due.
    pub(in crate::recorder) fn tick(&mut self) -> Result<Tick, Failure> {
        self.drain(false)?;
        self.extend_rings()?;
        let now_us = self.scale.now_us();
        let held = self.measure_pace(now_us);
        // Includes the entries that the program's own threads have drained.
        let taken = std::mem::take(&mut self.taken_since_tick);
        let mut tick = match self.pace.quarter_us(held) {
            Some(quarter_us) => Tick::Flooded { quarter_us },
            None if taken == 0 => Tick::Quiet,
            None => Tick::Busy,
        };
        if let Some(limit) = self.reached_limit(now_us) {
            return Ok(Tick::LimitReached(limit));
        }
        if now_us >= self.next_sample_us {
            self.now_us = self.now_us.max(now_us);
            match self.sample()? {
                Tick::HostReplaced => tick = Tick::HostReplaced,
                Tick::Busy if tick == Tick::Quiet => tick = Tick::Busy,
                _ => {}
            }
            self.commit();
        }
        Ok(tick)
    }

    /// Measures how fast rings are filled, if that is due. Returns how many entries the fullest
    /// ring holds.
    fn measure_pace(&mut self, now_us: u64) -> u64 {
        let is_due = self.pace.is_due(now_us);
        let (mut held, mut most) = (0, 0);
        let states = self.ring_states.slice_mut::<RingState>().iter_mut().enumerate();
        let states = states.take(sidecar::ring_count());
        for (index, state) in states.filter(|(_, state)| state.usage() != RingUsage::Discarded) {
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

    /// Samples the state of the process now. Returns [`Tick::Quiet`] if its memory sizes are those
    /// of the last sample.
    pub(in crate::recorder) fn sample(&mut self) -> Result<Tick, Failure> {
        self.next_sample_us = self.now_us + samples::INTERVAL_US;
        let (stacks, different) = capture::take_check_counts();
        if stacks > 0 {
            self.append(None, &Record::Checked { stacks, different })?;
        }
        let stacks = capture::take_portable_walks();
        if stacks > 0 {
            self.append(None, &Record::Slow(SlowReason::PortableWalks { stacks }))?;
        }
        let (sample, life) =
            samples::take(&mut self.sample_sources, capture::RULE_TABLE_BYTES, self.scratch.bytes_mut());
        let before = std::mem::replace(&mut self.latest_sample, sample);
        let same = before.rss == sample.rss && before.vsz == sample.vsz && before.swap == sample.swap;
        if !same || self.next_quiet_sample_us <= self.now_us {
            self.next_quiet_sample_us = self.now_us + QUIET_SAMPLE_US;
            self.append(None, &Record::Sample(sample))?;
        }
        Ok(match life {
            ProcessLife::Replaced => Tick::HostReplaced,
            ProcessLife::Running if same => Tick::Quiet,
            ProcessLife::Running => Tick::Busy,
        })
    }

    /// Drains everything, and writes the last sample, the last dump frame and the trailer.
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
        let rings = self.take_ring_states();
        let no_thread_in_hook = self.no_thread_in_hook;
        unmap_if_unused(self.sink.finish(), rings, no_thread_in_hook);
    }

    /// Closes the dump as it is, because of this error.
    pub(in crate::recorder) fn abandon(mut self, errno: Errno) {
        let rings = self.take_ring_states();
        let no_thread_in_hook = self.no_thread_in_hook;
        unmap_if_unused(self.sink.abandon(errno), rings, no_thread_in_hook);
    }

    pub(super) fn states(&mut self) -> &mut [RingState] {
        self.ring_states.slice_mut()
    }

    /// Takes the states of all rings out of the stream. A state with the start address 0 marks the
    /// end.
    fn take_ring_states(&mut self) -> Mapping {
        let count = sidecar::ring_count();
        let mut states = std::mem::replace(&mut self.ring_states, Mapping::empty());
        if let Some(end) = states.slice_mut::<RingState>().get_mut(count) {
            end.start = 0;
        }
        states
    }

    /// Appends the nodes that are only in the sidecar.
    pub(super) fn write_nodes(&mut self) -> Result<(), Failure> {
        let Some(stored) = sidecar::word(sidecar_format::NODE_COUNT_OFFSET) else { return Ok(()) };
        let stored = stored.load(Ordering::Acquire);
        while self.nodes < stored {
            self.append(None, &sidecar_format::node_record(sidecar::node(self.nodes)))?;
            self.nodes += 1;
        }
        Ok(())
    }

    /// Appends how many events were lost since the last call.
    pub(super) fn write_lost(&mut self) -> Result<(), Failure> {
        let lost = lost::lost_events();
        if lost > self.lost {
            let events = lost - self.lost;
            self.append(None, &Record::Lost { events })?;
            self.lost = lost;
            self.totals.lost_events += events;
            self.partial = true;
        }
        Ok(())
    }

    /// Appends how many stacks were partly verified since the last call.
    pub(super) fn write_partly_verified(&mut self) -> Result<(), Failure> {
        let all = lost::partly_verified_stacks();
        if let stacks @ 1.. = all.saturating_sub(self.partly_verified) {
            self.append(None, &Record::PartlyVerified { stacks })?;
            self.partly_verified = all;
        }
        Ok(())
    }

    /// Appends a record, preceded by its time and, if it belongs to a thread, by its thread, where
    /// these have changed. Writes the current dump frame first if there is no room.
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
        // A dump frame must not end between a thread, a time and the event that they belong to.
        if self.encoder.room(frame) < ROOM_FOR_THREE && !self.encoder.is_empty() {
            return Err(FrameFull);
        }
        self.state_context(thread)?;
        self.encoder.push(self.sink.frame(), record)
    }

    /// Appends the thread and the time of the next record, where they have changed.
    #[inline(always)]
    pub(super) fn state_context(&mut self, thread: Option<u32>) -> Result<(), FrameFull> {
        if thread.is_some() && self.context.thread != thread {
            self.context.thread = thread;
            let id = thread.unwrap_or_default();
            self.encoder.push(self.sink.frame(), &Record::Thread { id })?;
        }
        if self.context.us != Some(self.now_us) {
            self.context.us = Some(self.now_us);
            self.encoder.push(self.sink.frame(), &Record::Time { us: self.now_us })?;
        }
        Ok(())
    }

    /// Writes the current dump frame to the dump and begins the next one.
    ///
    /// # Errors
    /// [`Failure::NeedsDrainer`] if the calling process does not have the dump's descriptor.
    /// Nothing has changed then, so the caller may try again once the drain process has written the
    /// frame.
    pub(super) fn write_frame(&mut self) -> Result<(), Failure> {
        if !self.has_files {
            return Err(Failure::NeedsDrainer);
        }
        self.context = FrameContext::default();
        if self.encoder.is_empty() {
            return Ok(());
        }
        // Committed before the frame is written. If the process is killed meanwhile or just
        // afterwards, the number in the commit tells the reader that the dump has this frame.
        self.commit();
        let seq = self.sink.seq();
        let len = self.encoder.seal(self.sink.frame(), seq);
        self.sink.write_frame(len).map_err(Failure::Write)?;
        self.written += len as u64;
        self.commit();
        Ok(())
    }
}

/// With more rings than this left by their threads, rings are drained before one is added.
const MOST_LEFT_RINGS: usize = 1;
/// The most rings that are mapped for threads to come.
const MAX_SPARE_RINGS: usize = 64;

/// The time between two samples of a program whose memory sizes do not change.
const QUIET_SAMPLE_US: u64 = 1_000_000;

/// The most bytes that three records take: a thread, a time and a heap event.
pub(super) const ROOM_FOR_THREE: usize = 3 * MAX_HOT_LEN;

/// Unmaps the memory of a recording that is over, unless a thread may still be using it. That
/// thread may even be the calling one: it may have met the failure that ends the recording while it
/// was recording an event.
fn unmap_if_unused(sidecar_memory: Mapping, mut rings: Mapping, no_thread_in_hook: fn() -> bool) {
    sidecar::detach();
    membarrier::synchronize();
    if !no_thread_in_hook() {
        sidecar_memory.leak();
        return;
    }
    for ring in rings.slice_mut::<RingState>().iter().take_while(|ring| ring.start != 0) {
        sys::unmap_leaked(ring.start, RING_LEN);
    }
}
