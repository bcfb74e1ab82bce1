//! A thread's part in the recording: its number, its ring, its name. In: entries. Out: these
//! entries, with timestamps, in the thread's ring. Takes a lock only at the thread's begin and end,
//! and when the ring is full; never allocates through the global allocator.

use alloc_dump::exchange::CopiedThread;
use alloc_dump::thread_ring::{ENTRY_WORDS, Entry, WIDE};

use super::current;
use super::drain::EnterError;
use super::lost::count_lost;
use super::ring_writer::RingWriter;
use crate::base::epoch::{self, Epoch, Recording, RecordingId};
use crate::base::sys;

/// A thread's part in the recording.
///
/// PERF: the fields that every event needs come first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ThreadRecorder {
    /// The recording that the thread takes part in, and the generation that the nodes of its
    /// recorded walks belong to. [`Epoch::NONE`] if the thread takes part in no recording.
    epoch: Epoch,
    writer: Option<RingWriter>,
    /// The thread's number in the recording.
    thread: u32,
    /// Activations that have begun on this thread.
    activations: u64,
    name: [u8; 16],
    /// The system's id of the thread.
    tid: u32,
    /// The thread pointer of the thread, near which its thread-locals lie.
    thread_pointer: u64,
}

impl ThreadRecorder {
    pub(crate) const fn new() -> ThreadRecorder {
        ThreadRecorder {
            epoch: Epoch::NONE,
            writer: None,
            thread: 0,
            activations: 0,
            name: [0; 16],
            tid: 0,
            thread_pointer: 0,
        }
    }

    /// Makes the thread take part in the recording that runs, and notices new generations of
    /// modules. False if there is no recording. Called before every entry.
    #[inline(always)]
    pub(super) fn prepare(&mut self) -> bool {
        self.epoch == epoch::current() || self.catch_up()
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&mut self) -> bool {
        let takes_part = matches!(epoch::recording(), Recording::Running(recording) if self.is_in(recording));
        if !takes_part && !self.begin() {
            return false;
        }
        self.notice_generation();
        true
    }

    /// Adopts the current generation of modules. True if it is a new one, so that addresses may
    /// mean other code.
    #[inline(always)]
    pub(super) fn notice_generation(&mut self) -> bool {
        self.epoch != epoch::current() && self.adopt_generation()
    }

    #[cold]
    #[inline(never)]
    fn adopt_generation(&mut self) -> bool {
        let Some(recording) = self.recording() else { return false };
        let before = self.epoch;
        self.epoch = epoch::now_of(recording);
        self.epoch != before
    }

    /// Returns the recording that runs, if the thread takes part in it already.
    #[inline(always)]
    pub(super) fn current(&self) -> Option<RecordingId> {
        self.recording().filter(|recording| epoch::current().has_recording(*recording))
    }

    /// Returns a number for an activation that begins on this thread.
    pub(super) fn next_activation(&mut self) -> u64 {
        self.activations += 1;
        u64::from(self.thread) << 40 | self.activations
    }

    /// Returns the recording that the thread takes part in, which may be over by now.
    #[inline(always)]
    pub(super) fn recording(&self) -> Option<RecordingId> {
        self.epoch.recording_of_thread()
    }

    /// Whether the thread takes part in this recording.
    #[inline(always)]
    pub(super) fn is_in(&self, recording: RecordingId) -> bool {
        self.epoch.has_recording(recording)
    }

    /// Returns the epoch that the nodes of the thread's recorded walks belong to.
    #[inline(always)]
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Stores the entry that `entry` makes of a size. False if the recording is over, or if there
    /// is no room and the user prefers losing events to waiting; the loss is counted then.
    #[inline(always)]
    pub(super) fn store(&mut self, size: u64, entry: impl FnOnce(u32) -> Entry) -> bool {
        self.store_words(size, |size, timestamp| entry(size).encode(timestamp))
    }

    /// Stores the entry whose words `entry` makes of a size and a timestamp. Returns what
    /// [`store`](ThreadRecorder::store) returns.
    #[inline(always)]
    pub(super) fn store_words(
        &mut self,
        size: u64,
        entry: impl FnOnce(u32, u64) -> [u64; ENTRY_WORDS],
    ) -> bool {
        if self.writer.as_ref().is_none_or(RingWriter::has_due_work) && !self.do_due_work() {
            return false;
        }
        let Some(writer) = &mut self.writer else { return false };
        match size_in_entry(size) {
            Some(size) => writer.store(|timestamp| entry(size, timestamp)),
            None => {
                // Two entries: the size, and the event that has no room for it.
                writer.store(|timestamp| Entry::Size(size).encode(timestamp));
                writer.store(|timestamp| entry(WIDE, timestamp));
            }
        }
        true
    }

    /// Does what is due between two entries: waits for room, reads the thread's name. False if the
    /// next entry cannot be stored, see [`store`](ThreadRecorder::store).
    #[cold]
    #[inline(never)]
    fn do_due_work(&mut self) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        if !writer.has_room() {
            return false;
        }
        let name_due = writer.take_name_due();
        writer.schedule_due_work();
        if name_due {
            self.record_name();
        }
        // The name may have taken the room for one of the two entries.
        self.writer.as_mut().is_some_and(|writer| {
            let has_room = writer.has_room();
            writer.schedule_due_work();
            has_room
        })
    }

    /// Returns what a copy of the process reports about this thread; `None` if the thread has no
    /// ring.
    pub(super) fn in_copy(&self) -> Option<CopiedThread> {
        let (ring, index, stored) = self.writer.as_ref()?.position();
        Some(CopiedThread {
            id: self.thread,
            tid: self.tid,
            ring: index as u32,
            stored,
            ring_address: ring.address(),
            thread_pointer: self.thread_pointer,
        })
    }

    /// Records that the thread has ended, and gives its ring to the next thread.
    pub(super) fn end(&mut self) {
        if self.current().is_some() {
            self.store(0, |_| Entry::ThreadEnd);
            if let Some(writer) = self.writer.take() {
                writer.leave();
            }
        }
        *self = ThreadRecorder::new();
    }

    #[cold]
    fn begin(&mut self) -> bool {
        if epoch::recording() == Recording::None {
            return false;
        }
        let entered = match current::enter_thread() {
            Ok(entered) => entered,
            // There may be memory at the thread's next event.
            Err(EnterError::NoMemory) => {
                count_lost(1);
                return false;
            }
            Err(EnterError::RecordingOver | EnterError::NeedsDrainer) => return false,
        };
        let id = entered.thread;
        *self = ThreadRecorder {
            epoch: epoch::now_of(entered.recording),
            thread: id,
            writer: Some(RingWriter::new(entered.recording, &entered)),
            tid: sys::tid(),
            thread_pointer: sys::thread_pointer(),
            ..ThreadRecorder::new()
        };
        let os_tid = self.tid;
        let stored = self.store(0, |_| Entry::ThreadStart { id, os_tid });
        if stored {
            self.record_stack();
        }
        if id == 1 {
            self.record_name();
        }
        stored
    }

    /// Records where the thread's stack is. There is room: an entry leaves room for another one.
    ///
    /// NOTE: this must not need more of the thread's stack than its other entries do, so it stores
    /// the entry without the steps that they take.
    #[cold]
    fn record_stack(&mut self) {
        let local = 0u8;
        let address = (&raw const local).addr() as u64;
        if let Some(writer) = &mut self.writer {
            writer.store(|timestamp| Entry::ThreadStack { address }.encode(timestamp));
        }
    }

    #[cold]
    fn record_name(&mut self) {
        let name = sys::thread_name();
        if name != self.name {
            self.name = name;
            self.store(0, |_| Entry::ThreadName(name));
        }
    }
}

/// Returns the size as an entry holds it; `None` if the entry has no room for it.
#[inline]
fn size_in_entry(size: u64) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| *size != WIDE)
}
