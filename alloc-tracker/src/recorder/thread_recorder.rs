//! What one thread has to do with the current recording: its number, its ring, its name. In: entries. Out: the same,
//! timestamped, in the ring. Takes no lock but to begin, and when the ring is full.

use alloc_dump::sidecar::RING_CAPACITY;
use alloc_dump::thread_ring::{ENTRY_WORDS, Entry, WIDE};

use super::current::{LONGEST_WORK_NS, RECORDER, lose, notice_replaced_modules, with_stream};
use super::drain::Turned;
use super::{drain_thread as helper, session};
use crate::base::epoch;
use crate::base::sys;
use crate::output::sidecar::{self, ThreadRing};

/// What a thread is to the current recording.
///
/// PERF: what every event needs comes first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Enrolment {
    /// Which recording of this process, and which generation of modules: what the nodes of the thread's walks belong to. 0 for no
    /// recording.
    epoch: u64,
    place: Option<Place>,
    /// The thread's number in the recording.
    thread: u32,
    activations: u64,
    name: [u8; 16],
}

/// The thread's ring, and how far it is filled.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Place {
    pub(super) ring: ThreadRing,
    pub(super) stored: u64,
    /// The entry before which something is to be done: the next of the two below.
    attend_at: u64,
    /// The timestamp of the last entry.
    last: u64,
    /// Entries up to here have room.
    room_until: u64,
    /// The thread's name is looked at.
    name_at: u64,
    /// The thread's first entry.
    begun: u64,
    pub(super) index: usize,
    /// The recording that the ring is of.
    pub(super) recording: u32,
}

impl Enrolment {
    pub(crate) const fn new() -> Enrolment {
        Enrolment { epoch: 0, place: None, thread: 0, activations: 0, name: [0; 16] }
    }

    /// Brings the thread up to date before an entry; false if there is no recording.
    #[inline(always)]
    pub(super) fn prepare(&mut self) -> bool {
        self.epoch == epoch::current() || self.catch_up()
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&mut self) -> bool {
        if self.recording() != epoch::recording() && !self.begin() {
            return false;
        }
        self.look_at_modules();
        true
    }

    /// Whether code has gone since this was asked last, so that addresses may mean something else.
    #[inline(always)]
    pub(super) fn look_at_modules(&mut self) -> bool {
        self.epoch != epoch::current() && self.notice_modules()
    }

    #[cold]
    #[inline(never)]
    fn notice_modules(&mut self) -> bool {
        let before = self.epoch;
        self.epoch = epoch::now_of(self.recording());
        self.epoch != before
    }

    /// The recording that goes on, if the thread has its part in it already.
    #[inline(always)]
    pub(super) fn current(&self) -> Option<u32> {
        let recording = epoch::recording_of(epoch::current());
        (self.recording() == recording && recording != 0).then_some(recording)
    }

    /// A number for an activation that begins on this thread.
    pub(super) fn next_activation(&mut self) -> u64 {
        self.activations += 1;
        u64::from(self.thread) << 40 | self.activations
    }

    #[inline(always)]
    pub(super) fn recording(&self) -> u32 {
        epoch::recording_of(self.epoch)
    }

    /// Whether this is the recording of that number.
    #[inline(always)]
    pub(super) fn is_of(&self, recording: u32) -> bool {
        self.recording() == recording && recording != 0
    }

    #[inline(always)]
    pub(super) fn generation(&self) -> u32 {
        epoch::generation_of(self.epoch)
    }

    /// What the nodes of the thread's walks belong to.
    #[inline(always)]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Stores the entry that `entry` makes from a size. False if it could not be, which is then counted.
    #[inline(always)]
    pub(super) fn store(&mut self, size: u64, entry: impl FnOnce(u32) -> Entry) -> bool {
        self.store_words(size, |size, timestamp| entry(size).encode(timestamp))
    }

    /// The same, with the entry's words, which `entry` makes from a size and a timestamp.
    #[inline(always)]
    pub(super) fn store_words(
        &mut self,
        size: u64,
        entry: impl FnOnce(u32, u64) -> [u64; ENTRY_WORDS],
    ) -> bool {
        if self.place.as_ref().is_none_or(|place| place.stored >= place.attend_at) && !self.attend() {
            return false;
        }
        let Some(place) = &mut self.place else { return false };
        match narrow(size) {
            Some(narrow) => place.store(|timestamp| entry(narrow, timestamp)),
            None => {
                place.store(|timestamp| Entry::Size(size).encode(timestamp));
                place.store(|timestamp| entry(WIDE, timestamp));
            }
        }
        true
    }

    /// Does what is due now and then before an entry. False if it cannot be stored, which is then counted.
    #[cold]
    #[inline(never)]
    fn attend(&mut self) -> bool {
        let Some(place) = &mut self.place else { return false };
        if place.stored + 2 > place.room_until && !place.make_room() {
            return false;
        }
        let name_due = place.stored >= place.name_at;
        if name_due {
            // A thread usually gets its name a few events after its first.
            place.name_at = place.stored + (place.stored - place.begun).max(1);
        }
        place.attend();
        if name_due {
            self.note_name();
        }
        // The name may have taken the room for one of the two.
        self.place.as_mut().is_some_and(|place| {
            let has_room = place.stored + 2 <= place.room_until || place.make_room();
            place.attend();
            has_room
        })
    }

    /// The thread has ended: its ring is for the next one.
    pub(super) fn end(&mut self) {
        if self.current().is_some() {
            self.note_name();
            self.store(0, |_| Entry::ThreadEnd);
            if let Some(place) = self.place.take() {
                with_stream(|stream| stream.leave(&place));
            }
        }
        *self = Enrolment::new();
    }

    #[cold]
    fn begin(&mut self) -> bool {
        let _errno = sys::ErrnoGuard::new();
        if epoch::recording() == 0 {
            return false;
        }
        let (id, place) = match with_stream(|stream| stream.enter()) {
            Some(Ok(entered)) => entered,
            // There may be memory at its next event.
            Some(Err(Turned::NoMemory)) => {
                lose(1);
                return false;
            }
            Some(Err(Turned::TooLate)) | None => return false,
        };
        *self = Enrolment {
            epoch: epoch::now_of(place.recording),
            thread: id,
            place: Some(place),
            ..Enrolment::new()
        };
        self.store(0, |_| Entry::ThreadStart { id, os_tid: sys::tid() })
    }

    #[cold]
    fn note_name(&mut self) {
        let _errno = sys::ErrnoGuard::new();
        let name = sys::thread_name();
        if name != self.name {
            self.name = name;
            self.store(0, |_| Entry::ThreadName(name));
        }
    }
}

impl Place {
    /// For a thread that begins: of a ring in which so many entries have been stored, the last one with this timestamp.
    pub(super) fn new(recording: u32, ring: ThreadRing, index: usize, stored: u64, last: u64) -> Place {
        Place {
            recording,
            ring,
            index,
            stored,
            attend_at: 0,
            room_until: 0,
            name_at: stored + 1,
            begun: stored,
            last,
        }
    }

    #[inline(always)]
    fn store(&mut self, entry: impl FnOnce(u64) -> [u64; ENTRY_WORDS]) {
        self.last = self.ring.store(self.stored, self.last, entry);
        self.stored += 1;
    }

    /// Notes when something is to be done next.
    fn attend(&mut self) {
        self.attend_at = (self.room_until - 1).min(self.name_at);
    }

    /// Waits for the helper, or does the draining itself, until there is room for two entries. False if the recording is over, or
    /// if the user would rather lose events than wait: then one is counted as lost.
    #[cold]
    fn make_room(&mut self) -> bool {
        let _errno = sys::ErrnoGuard::new();
        let (mut waited, mut spun) = (false, false);
        loop {
            if epoch::recording() != self.recording {
                return false;
            }
            let released = self.ring.released();
            self.room_until = released + RING_CAPACITY as u64;
            if self.stored + 2 <= self.room_until {
                return true;
            }
            if !session::rather_loses() && RECORDER.is_locked() && !std::mem::replace(&mut spun, true) {
                // PERF: whoever holds it is mostly just draining, and gives this thread room long before it has ended.
                self.ring.spin_for_release(released, LONGEST_WORK_NS, || RECORDER.is_locked());
                continue;
            }
            if sidecar::ring_count() > 1
                && helper::looks_soon()
                && !session::rather_loses()
                && !std::mem::replace(&mut waited, true)
            {
                // PERF: who else has a processor for this is the program. Alone, or while the helper sleeps, a thread can as well do it itself.
                helper::hurry();
                self.ring.wait_for_release(released, LONGEST_WAIT_NS);
                continue;
            }
            if session::rather_loses() && RECORDER.is_locked() {
                lose(1);
                return false;
            }
            let ring = self.ring;
            let drained = with_stream(|stream| {
                if stream.number() != self.recording {
                    return Ok(None);
                }
                // Somebody else may have drained it while this thread waited for the lock.
                if ring.released() + RING_CAPACITY as u64 >= self.stored + 2 {
                    Ok(Some(0))
                } else {
                    stream.drain(false).map(Some)
                }
            });
            match drained.flatten() {
                None => return false,
                Some(0) if ring.released() + (RING_CAPACITY as u64) < self.stored + 2 => {
                    // A thread that is just storing an entry holds all others up; it must get the processor.
                    sys::yield_now();
                }
                Some(_) => {}
            }
            if !helper::is_running() {
                notice_replaced_modules();
            }
        }
    }
}

/// Whether this size has room in an entry.
#[inline]
fn narrow(size: u64) -> Option<u32> {
    u32::try_from(size).ok().filter(|size| *size != WIDE)
}

/// For the helper, which gets the processor late if there are more threads than processors.
const LONGEST_WAIT_NS: u64 = 20_000_000;
