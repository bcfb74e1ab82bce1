//! The epoch: which recording runs and which generation of modules is current, in one word.
//!
//! In: beginnings and ends of recordings, new generations. Out: the current epoch. Everything that
//! a thread has learned about code addresses and call tree nodes is valid in one epoch. Every event
//! compares its thread's epoch with the current one, so both facts are checked with one load and
//! one comparison.
//!
//! ```text
//!  63                  32 31                   0
//! +----------------------+----------------------+
//! | recording            | generation           |
//! +----------------------+----------------------+
//!   0: none                never 0
//!   u32::MAX: ending       the same address may mean other code
//!   else: a RecordingId    than in the generation before
//! ```
//!
//! This module is the only one that knows this layout. It never locks and never allocates.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identity of a recording within this process, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordingId(NonZeroU32);

impl RecordingId {
    /// Returns the id of the recording after `count` earlier ones; `None` once there are no more
    /// ids.
    pub(crate) fn after(count: u32) -> Option<RecordingId> {
        count.checked_add(1).filter(|id| *id != ENDING).and_then(NonZeroU32::new).map(RecordingId)
    }

    /// Returns the id as a number, which is never 0.
    #[inline(always)]
    pub(crate) fn get(self) -> u32 {
        self.0.get()
    }
}

/// The recording of the process at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recording {
    /// Nothing.
    None,
    /// A recording has failed or has reached a limit, and its dump is just being closed. No other
    /// recording may begin meanwhile.
    Ending,
    /// This recording.
    Running(RecordingId),
}

/// A recording and a generation of modules. Two epochs are equal if both are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Epoch(u64);

impl Epoch {
    /// The epoch of a thread that takes part in no recording. It never equals the current one.
    pub(crate) const NONE: Epoch = Epoch(0);

    fn new(recording: Recording, generation: u32) -> Epoch {
        let recording = match recording {
            Recording::None => NO_RECORDING,
            Recording::Ending => ENDING,
            Recording::Running(id) => id.get(),
        };
        Epoch(u64::from(recording) << RECORDING_SHIFT | u64::from(generation))
    }

    /// Returns the recording.
    pub(crate) fn recording(self) -> Recording {
        match self.recording_bits() {
            ENDING => Recording::Ending,
            bits => NonZeroU32::new(bits).map_or(Recording::None, |id| Recording::Running(RecordingId(id))),
        }
    }

    /// Returns the recording of an epoch that a thread has adopted. A thread never adopts the epoch
    /// of an ending recording, so there is one case less than in [`recording`](Epoch::recording).
    #[inline(always)]
    pub(crate) fn recording_of_thread(self) -> Option<RecordingId> {
        debug_assert!(self.recording_bits() != ENDING);
        NonZeroU32::new(self.recording_bits()).map(RecordingId)
    }

    /// Whether the recording is this one.
    #[inline(always)]
    pub(crate) fn has_recording(self, recording: RecordingId) -> bool {
        self.recording_bits() == recording.get()
    }

    /// Returns the generation of modules.
    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        self.0 as u32
    }

    /// Returns the epoch as a word, for callers that only compare it.
    #[inline(always)]
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn recording_bits(self) -> u32 {
        (self.0 >> RECORDING_SHIFT) as u32
    }
}

/// Returns the current epoch.
#[inline(always)]
pub(crate) fn current() -> Epoch {
    Epoch(EPOCH.load(Ordering::Acquire))
}

/// Returns what the process records now.
pub(crate) fn recording() -> Recording {
    Epoch(EPOCH.load(Ordering::SeqCst)).recording()
}

/// Returns the epoch of this recording in the current generation.
pub(crate) fn now_of(recording: RecordingId) -> Epoch {
    Epoch::new(Recording::Running(recording), current().generation())
}

/// Sets what the process records from now on.
pub(crate) fn set_recording(recording: Recording) {
    update(|epoch| Some(Epoch::new(recording, epoch.generation())));
}

/// Replaces the recording `from` by `to`. Changes nothing and returns false if `from` is not the
/// current one.
pub(crate) fn replace_recording(from: Recording, to: Recording) -> bool {
    update(|epoch| (epoch.recording() == from).then(|| Epoch::new(to, epoch.generation())))
}

/// Begins another generation of modules.
pub(crate) fn next_generation() {
    update(|epoch| Some(Epoch::new(epoch.recording(), epoch.generation().wrapping_add(1).max(1))));
}

fn update(mut with: impl FnMut(Epoch) -> Option<Epoch>) -> bool {
    let with = |word| with(Epoch(word)).map(Epoch::bits);
    EPOCH.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with).is_ok()
}

const RECORDING_SHIFT: u32 = 32;
const NO_RECORDING: u32 = 0;
const ENDING: u32 = u32::MAX;

// PERF: the words that every event reads are in one section, here and in other modules, so that
// they share a cache line or two.
#[unsafe(link_section = "alloc_tracker_hot")]
static EPOCH: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::super::ALONE;
    use super::*;

    #[test]
    fn recording_and_generation_change_independently() {
        let _alone = ALONE.lock();
        let [first, second] = [6, 7].map(|count| RecordingId::after(count).unwrap());
        let generation = current().generation();
        assert!(generation != 0 && recording() == Recording::None);
        set_recording(Recording::Running(second));
        next_generation();
        assert_eq!((recording(), current().generation()), (Recording::Running(second), generation + 1));
        assert_eq!((current().recording_of_thread(), current().has_recording(first)), (Some(second), false));
        assert!(!replace_recording(Recording::Running(first), Recording::None));
        assert!(replace_recording(Recording::Running(second), Recording::Ending));
        assert!(recording() == Recording::Ending && !current().has_recording(second));
        assert_eq!(now_of(first).bits(), 7 << 32 | u64::from(generation + 1));
        update(|_| Some(Epoch::new(Recording::Running(first), u32::MAX)));
        next_generation();
        assert_eq!(current(), Epoch::new(Recording::Running(first), 1));
        set_recording(Recording::None);
    }

    #[test]
    fn ids_end_before_the_word_that_means_ending() {
        assert_eq!(RecordingId::after(0).map(RecordingId::get), Some(1));
        assert_eq!((RecordingId::after(u32::MAX - 1), RecordingId::after(u32::MAX)), (None, None));
    }
}
