//! Why a recording cannot go on, and which recording failed last. In: failures. Out: error numbers.
//! Never locks, never allocates.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::epoch::RecordingId;
use crate::base::sys::Errno;

/// Why a recording cannot go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// The dump cannot be written.
    Write(Errno),
    /// There is no memory for the tracker's tables.
    Memory(Errno),
    /// A record does not fit into an empty dump frame. No record is that large.
    Record,
    /// No failure yet: the drain process must do this, because it alone has the files.
    NeedsDrainer,
}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Errno {
        match failure {
            Failure::Write(errno) | Failure::Memory(errno) => errno,
            Failure::Record | Failure::NeedsDrainer => Errno(libc::EOVERFLOW),
        }
    }
}

/// The recording that failed last, and its error, in one word: the id in the upper half, the error
/// number in the lower.
pub(super) struct LastFailure(AtomicU64);

impl LastFailure {
    /// Returns the value for no failure yet: no id is 0.
    pub(super) const fn none() -> LastFailure {
        LastFailure(AtomicU64::new(0))
    }

    /// Notes that this recording has failed.
    pub(super) fn set(&self, recording: RecordingId, errno: Errno) {
        let word = u64::from(recording.get()) << 32 | u64::from(errno.0.unsigned_abs());
        self.0.store(word, Ordering::Release);
    }

    /// Returns why this recording failed. `None` if it has not, or if another one has failed since.
    pub(super) fn of(&self, recording: RecordingId) -> Option<Errno> {
        let word = self.0.load(Ordering::Relaxed);
        (word >> 32 == u64::from(recording.get())).then_some(Errno(word as u32 as i32))
    }
}
