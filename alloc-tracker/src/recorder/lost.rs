//! Events that reached the hook and could not be recorded, and whether a full thread ring loses
//! them. Also the events whose stacks are partly verified.
//!
//! In: numbers of events that were lost. Out: their sum. The sum is kept twice: in this process for
//! the drainer, and in the sidecar, where it survives the process. Never locks, never allocates.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc_dump::sidecar as sidecar_format;

use super::fork;
use crate::output::sidecar;

/// Counts events that reached the hook and cannot be recorded.
#[cold]
pub(crate) fn count_lost(events: u64) {
    if fork::is_fork() {
        // The sidecar is the parent's.
        return;
    }
    LOST.fetch_add(events, Ordering::Relaxed);
    if let Some(lost) = sidecar::word(sidecar_format::LOST_OFFSET) {
        lost.fetch_add(events, Ordering::Relaxed);
    }
}

/// Returns how many events were lost in this recording.
pub(super) fn lost_events() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Sets the count to 0, for a recording that did not begin with the first event of the process:
/// events that were lost before are not lost in this recording.
pub(super) fn reset_lost_events() {
    LOST.store(0, Ordering::Relaxed);
}

/// Counts an event of a very deep stack, of which the walk has compared some words only. The count
/// is in the sidecar alone, where it survives the process.
#[cold]
pub(super) fn count_partly_verified() {
    if let Some(count) = sidecar::word(sidecar_format::PARTLY_VERIFIED_OFFSET).filter(|_| !fork::is_fork()) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns how many stacks were partly verified in this recording.
pub(super) fn partly_verified_stacks() -> u64 {
    sidecar::word(sidecar_format::PARTLY_VERIFIED_OFFSET).map_or(0, |count| count.load(Ordering::Relaxed))
}

/// Whether a thread whose ring is full loses its event instead of waiting for room.
pub(super) fn drops_when_full() -> bool {
    DROPS_WHEN_FULL.load(Ordering::Relaxed)
}

/// Sets what [`drops_when_full`] returns, for the recording that begins.
pub(super) fn set_drops_when_full(drops: bool) {
    DROPS_WHEN_FULL.store(drops, Ordering::Relaxed);
}

static LOST: AtomicU64 = AtomicU64::new(0);
static DROPS_WHEN_FULL: AtomicBool = AtomicBool::new(false);
