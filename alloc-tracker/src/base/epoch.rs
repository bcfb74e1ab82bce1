//! Which recording goes on, and which generation of modules it is, in one word. Whatever a thread has found out about code
//! addresses and nodes holds for as long as this word is the same; every event compares it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The word: the number of the recording in the upper half, 0 for none, below it the generation, never 0.
#[inline(always)]
pub(crate) fn current() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// The recording that goes on; 0 for none.
pub(crate) fn recording() -> u32 {
    recording_of(EPOCH.load(Ordering::SeqCst))
}

/// The recording of an epoch.
#[inline(always)]
pub(crate) fn recording_of(epoch: u64) -> u32 {
    (epoch >> RECORDING_SHIFT) as u32
}

/// The generation of an epoch: addresses may mean other code than they did in the one before.
#[inline(always)]
pub(crate) fn generation_of(epoch: u64) -> u32 {
    epoch as u32
}

/// This recording, in the generation that it is now.
pub(crate) fn now_of(recording: u32) -> u64 {
    of(recording, generation_of(current()))
}

/// From now on this recording goes on.
pub(crate) fn set_recording(recording: u32) {
    update(|epoch| Some(of(recording, generation_of(epoch))));
}

/// From now on this recording goes on, if it was that one until now; else false.
pub(crate) fn replace_recording(from: u32, to: u32) -> bool {
    update(|epoch| (recording_of(epoch) == from).then_some(of(to, generation_of(epoch))))
}

/// Another generation begins.
pub(crate) fn next_generation() {
    update(|epoch| Some(of(recording_of(epoch), generation_of(epoch).wrapping_add(1).max(1))));
}

fn update(with: impl FnMut(u64) -> Option<u64>) -> bool {
    EPOCH.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with).is_ok()
}

fn of(recording: u32, generation: u32) -> u64 {
    u64::from(recording) << RECORDING_SHIFT | u64::from(generation)
}

const RECORDING_SHIFT: u32 = 32;

// PERF: here and elsewhere: what every event reads is in one section, so that it is in a cache line or two.
#[unsafe(link_section = "alloc_tracker_hot")]
static EPOCH: AtomicU64 = AtomicU64::new(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_change_apart() {
        let generation = generation_of(current());
        assert!(generation != 0 && recording() == 0);
        set_recording(7);
        next_generation();
        assert_eq!((recording(), generation_of(current())), (7, generation + 1));
        assert!(!replace_recording(6, 8) && replace_recording(7, u32::MAX));
        assert_eq!(now_of(3), 3 << 32 | u64::from(generation + 1));
        update(|_| Some(of(7, u32::MAX)));
        next_generation();
        assert_eq!(current(), of(7, 1));
        set_recording(0);
    }
}
