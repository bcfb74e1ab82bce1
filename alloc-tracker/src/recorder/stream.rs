//! One recording: what has been interned, what the current frame assumes, and where it goes. Used under the lock.

use std::sync::atomic::Ordering;

use alloc_dump::layout::StackId;
use alloc_dump::record::{Process, Record};
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, Full, seal_trailer};

use super::{Enrolment, Event, Failure, LOST};
use crate::capture::{self, End, Walk};
use crate::modules::{Found, Modules};
use crate::sample;
use crate::sink::Sink;
use crate::sys::{self, Errno, Mapping, PathBuffer};
use crate::thread::Local;
use crate::tree::{Node, Refused, Tree};

/// One recording.
pub(crate) struct Stream {
    /// Which recording of this process, from 1.
    number: u32,
    path: PathBuffer,
    /// For reading /proc: threads of the host may have little stack.
    scratch: Mapping,
    sink: Sink,
    encoder: Encoder,
    tree: Tree,
    /// Which call tree of this recording, from 1.
    trees: u32,
    modules: Modules,
    totals: Totals,
    /// Whether every block that is freed was allocated in this recording, so that readers know its size.
    from_first_event: bool,
    threads: u32,
    page_size: u64,
    started_ns: u64,
    now_us: u64,
    next_sample_us: u64,
    next_scan_us: u64,
    /// Whether an address outside of all known modules was met since the last scan.
    scan_due: bool,
    frame: FrameState,
    open_realloc: Option<OpenRealloc>,
}

/// What records of the current frame have already said.
#[derive(Clone, Copy, Debug, Default)]
struct FrameState {
    thread: Option<u32>,
    us: Option<u64>,
}

/// The first half of a realloc, as long as it is the newest record: the second half then replaces it.
#[derive(Clone, Copy, Debug)]
struct OpenRealloc {
    thread: u32,
    seq: u32,
    /// Length of the frame behind the first half.
    end: usize,
    before: (Encoder, FrameState),
}

impl Stream {
    /// Begins a recording: the process and its modules are the first records.
    pub(super) fn begin(
        number: u32,
        path: &PathBuffer,
        sink: Sink,
        process: &Process<'_>,
        started_ns: u64,
    ) -> Result<Stream, Failure> {
        let mut stream = Stream {
            number,
            path: PathBuffer::of(path.as_bytes()),
            scratch: Mapping::anonymous(sample::SCRATCH).map_err(Failure::Memory)?,
            sink,
            encoder: Encoder::new(),
            tree: Tree::new(),
            trees: 1,
            modules: Modules::new(),
            totals: Totals::default(),
            from_first_event: process.from_first_event,
            threads: 0,
            page_size: process.page_size,
            started_ns,
            now_us: 0,
            next_sample_us: 0,
            next_scan_us: 0,
            scan_due: false,
            frame: FrameState::default(),
            open_realloc: None,
        };
        stream.append(None, &Record::Process(*process))?;
        stream.scan_modules()?;
        stream.sample()?;
        Ok(stream)
    }

    pub(super) fn path(&self) -> &PathBuffer {
        &self.path
    }

    /// Brings time, timeline and thread up to date before an event of this thread; the thread's number.
    pub(super) fn enter(&mut self, local: &mut Local) -> Result<u32, Failure> {
        self.advance()?;
        let enrolment = &mut local.enrolment;
        if enrolment.recording != self.number {
            self.threads += 1;
            *enrolment = Enrolment { recording: self.number, id: self.threads, ..Enrolment::new() };
            self.append(None, &Record::ThreadStart { id: enrolment.id, os_tid: sys::tid() })?;
        }
        if enrolment.tree != self.trees {
            enrolment.tree = self.trees;
            local.walk.forget_nodes();
        }
        enrolment.events += 1;
        // A thread usually gets its name a few events after its first.
        if enrolment.events.is_power_of_two() {
            self.note_name(enrolment)?;
        }
        Ok(enrolment.id)
    }

    /// The thread has ended.
    pub(super) fn leave(&mut self, enrolment: &mut Enrolment) -> Result<(), Failure> {
        if enrolment.recording != self.number {
            return Ok(());
        }
        self.advance()?;
        self.note_name(enrolment)?;
        self.append(None, &Record::ThreadEnd { id: enrolment.id })
    }

    /// The number of the stack that was just walked.
    pub(super) fn intern(&mut self, walk: &mut Walk, end: End) -> Result<StackId, Failure> {
        let root = match end {
            End::Root => StackId::ROOT,
            End::Truncated => StackId::TRUNCATED,
        };
        let mut failure = None;
        let stack = walk.resolve(root, |parent, pc| match self.node(parent, pc) {
            Ok(node) => node,
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        match (stack, failure) {
            (_, Some(failure)) => Err(failure),
            (Some(stack), None) => {
                self.totals.truncated_stacks += u64::from(end == End::Truncated);
                Ok(stack)
            }
            (None, None) => {
                self.totals.truncated_stacks += 1;
                Ok(StackId::TRUNCATED)
            }
        }
    }

    /// Records what happened to the heap.
    pub(super) fn heap_event(&mut self, thread: u32, event: &Event, stack: StackId) -> Result<(), Failure> {
        let partial = !self.from_first_event || self.totals.lost_events > 0;
        let known = |size: u64| partial.then_some(size);
        let totals = &mut self.totals;
        let record = match *event {
            Event::Alloc { addr, size, zeroed } => {
                totals.allocations += 1;
                totals.allocated_bytes += size;
                Record::Alloc { addr, size, stack, zeroed }
            }
            Event::Dealloc { addr, size } => {
                totals.deallocations += 1;
                totals.freed_bytes += size;
                Record::Dealloc { addr, size: known(size), stack }
            }
            Event::Realloc { begun, .. } if begun != self.number => {
                // It began before the recording: since then the old address may have become another thread's block.
                super::lose(1);
                return Ok(());
            }
            Event::Realloc { old, old_size, new, size, .. } => {
                totals.reallocations += 1;
                totals.allocated_bytes += size;
                totals.freed_bytes += old_size;
                if self.take_back(thread) {
                    Record::Realloc { old, old_size: known(old_size), new, size, stack }
                } else {
                    Record::ReallocEnd { new, size, stack }
                }
            }
        };
        self.append(Some(thread), &record)
    }

    /// Records the first half of a realloc; the number of this recording.
    pub(super) fn realloc_begins(&mut self, thread: u32, old: u64, old_size: u64) -> Result<u32, Failure> {
        let partial = !self.from_first_event || self.totals.lost_events > 0;
        let before = (self.encoder, self.frame);
        let seq = self.sink.seq();
        self.append(Some(thread), &Record::ReallocBegin { old, old_size: partial.then_some(old_size) })?;
        let end = self.encoder.len();
        self.open_realloc = (self.sink.seq() == seq).then_some(OpenRealloc { thread, seq, end, before });
        Ok(self.number)
    }

    /// The realloc that this thread began, in the recording of this number, has failed.
    pub(super) fn realloc_failed(&mut self, thread: u32, begun: u32) -> Result<(), Failure> {
        if begun != self.number || self.take_back(thread) {
            return Ok(());
        }
        self.append(Some(thread), &Record::ReallocFailed)
    }

    /// Writes everything that is still to be said, and the trailer.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.next_sample_us = 0;
        self.advance()?;
        if self.scan_due {
            self.scan_modules()?;
        }
        self.write_frame()?;
        let trailer =
            Trailer { end: EndReason::Finished, duration_us: self.now_us, totals: Some(self.totals) };
        let seq = self.sink.seq();
        let len = seal_trailer(self.sink.frame(), seq, &trailer).ok_or(Failure::Record)?;
        self.sink.write_frame(len).map_err(Failure::Write)
    }

    /// Closes a dump that is finished.
    pub(super) fn close(self) {
        self.sink.finish();
    }

    /// Closes the dump as it is.
    pub(super) fn abandon(self, errno: Errno) {
        self.sink.abandon(errno);
    }

    /// Moves time on, and says what is due: lost events, the state of the process.
    fn advance(&mut self) -> Result<(), Failure> {
        let elapsed = sys::clock_ns(libc::CLOCK_MONOTONIC).saturating_sub(self.started_ns);
        self.now_us = self.now_us.max(elapsed / 1000);
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.totals.lost_events += lost;
            self.append(None, &Record::Lost { events: lost })?;
        }
        if self.now_us >= self.next_sample_us {
            self.sample()?;
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<(), Failure> {
        self.next_sample_us = self.now_us + sample::INTERVAL_US;
        let (stacks, different) = capture::take_checked();
        if stacks > 0 {
            self.append(None, &Record::Checked { stacks, different })?;
        }
        let sample = sample::take(self.page_size, self.scratch.bytes_mut());
        self.append(None, &Record::Sample(sample))?;
        // Code at known addresses may be another library's by now.
        capture::notice_replaced_modules();
        if self.modules.any_replaced() { self.scan_modules() } else { Ok(()) }
    }

    fn note_name(&mut self, enrolment: &mut Enrolment) -> Result<(), Failure> {
        let name = sys::thread_name();
        if name == enrolment.name {
            return Ok(());
        }
        enrolment.name = name;
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        self.append(None, &Record::ThreadName { id: enrolment.id, name: name.get(..len).unwrap_or_default() })
    }

    /// The node of a frame; a new one is recorded, after the module that it lies in. `None` at the bound of the tree.
    fn node(&mut self, parent: StackId, pc: u64) -> Result<Option<StackId>, Failure> {
        match self.tree.intern(parent, pc) {
            Ok(Node::Known(id)) => Ok(Some(id)),
            Ok(Node::New(id)) => {
                if !self.modules.covers(pc) {
                    self.find_module(pc)?;
                }
                self.append(None, &Record::Node { id, parent, pc })?;
                Ok(Some(id))
            }
            Err(Refused::Bound) => Ok(None),
            Err(Refused::Memory(errno)) => Err(Failure::Memory(errno)),
        }
    }

    /// Looks for the module of an address outside of all that are known. Code that is in no file (a JIT's) must not
    /// cost a scan for each of its frames: after a scan in vain the next one waits, if need be until the end.
    fn find_module(&mut self, pc: u64) -> Result<(), Failure> {
        self.scan_due = self.now_us < self.next_scan_us;
        if self.scan_due {
            return Ok(());
        }
        self.scan_modules()?;
        if !self.modules.covers(pc) {
            self.next_scan_us = self.now_us + SCAN_INTERVAL_US;
        }
        Ok(())
    }

    fn scan_modules(&mut self) -> Result<(), Failure> {
        let mut modules = std::mem::replace(&mut self.modules, Modules::new());
        let (mut outcome, mut vanished) = (Ok(()), false);
        let scanned = modules.scan(&mut |found| {
            let record = match found {
                Found::Appeared(module) => Record::Module(module),
                Found::Vanished(id) => Record::ModuleEnd { id },
            };
            vanished |= matches!(record, Record::ModuleEnd { .. });
            if outcome.is_ok() {
                outcome = self.append(None, &record);
            }
        });
        self.modules = modules;
        if vanished {
            // From now on the same addresses may be other code, so they get other nodes.
            self.tree.begin_anew();
            self.trees += 1;
        }
        if scanned.is_err() {
            // Where /proc cannot be read frames stay unresolved, which the reader counts.
            self.next_scan_us = self.now_us + SCAN_INTERVAL_US;
        }
        outcome
    }

    /// Takes the first half of this thread's realloc back, if no record has followed it.
    fn take_back(&mut self, thread: u32) -> bool {
        let Some(open) = self.open_realloc.take() else { return false };
        let newest = open.thread == thread && open.seq == self.sink.seq() && open.end == self.encoder.len();
        if newest {
            (self.encoder, self.frame) = open.before;
            self.sink.publish(self.encoder.len());
        }
        newest
    }

    /// Appends a record. For a heap event of `thread` it first says whose it is and when.
    fn append(&mut self, thread: Option<u32>, record: &Record<'_>) -> Result<(), Failure> {
        if self.push(thread, record).is_err() {
            self.write_frame()?;
            self.push(thread, record).map_err(|Full| Failure::Record)?;
        }
        self.sink.publish(self.encoder.len());
        Ok(())
    }

    fn push(&mut self, thread: Option<u32>, record: &Record<'_>) -> Result<(), Full> {
        // Copies, so that a frame never ends with half of what belongs together.
        let (mut encoder, mut state) = (self.encoder, self.frame);
        let frame = self.sink.frame();
        if thread.is_some() && state.thread != thread {
            state.thread = thread;
            encoder.push(frame, &Record::Thread { id: thread.unwrap_or_default() })?;
        }
        if state.us != Some(self.now_us) {
            state.us = Some(self.now_us);
            encoder.push(frame, &Record::Time { us: self.now_us })?;
        }
        encoder.push(frame, record)?;
        (self.encoder, self.frame) = (encoder, state);
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), Failure> {
        self.frame = FrameState::default();
        self.open_realloc = None;
        let seq = self.sink.seq();
        if self.encoder.is_empty() {
            return Ok(());
        }
        let len = self.encoder.seal(self.sink.frame(), seq);
        self.sink.write_frame(len).map_err(Failure::Write)
    }
}

const SCAN_INTERVAL_US: u64 = 100_000;
