//! The trailer: the last frame of a complete dump. It says how the recording ended, and has totals
//! to check a replay against. In: fields or bytes. Out: the other. Never allocates, never panics.

use crate::varint;

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The tracked process finished the recording itself: at the return from `main`, at `exit`, or
    /// at the end of a `Profiler` guard.
    Finished,
    /// The process exited without finishing the recording. `profiler-cli run` saw this exit status
    /// and closed the dump.
    Exited(u8),
    /// This signal killed the process. `profiler-cli run` closed the dump.
    Signalled(u8),
    /// The process is gone without having finished the recording, for an unknown reason.
    /// `profiler-cli run` closed the dump.
    Vanished,
}

impl EndReason {
    fn encode(self) -> (u64, u64) {
        match self {
            EndReason::Finished => (0, 0),
            EndReason::Exited(code) => (1, u64::from(code)),
            EndReason::Signalled(signal) => (2, u64::from(signal)),
            EndReason::Vanished => (3, 0),
        }
    }

    fn decode(kind: u64, value: u64) -> Option<EndReason> {
        let value = u8::try_from(value).ok()?;
        match kind {
            0 => Some(EndReason::Finished),
            1 => Some(EndReason::Exited(value)),
            2 => Some(EndReason::Signalled(value)),
            3 => Some(EndReason::Vanished),
            _ => None,
        }
    }
}

/// The recorder's own totals of all events that it put into the dump. It counts them apart from the
/// records, so that a reader can check its replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Number of `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// Number of `dealloc` events.
    pub deallocations: u64,
    /// Number of `realloc` events that succeeded.
    pub reallocations: u64,
    /// Sum of the sizes of all allocations and the new sizes of all reallocations, in bytes.
    pub allocated_bytes: u64,
    /// Sum of the sizes of all deallocations and the old sizes of all reallocations, in bytes.
    pub freed_bytes: u64,
    /// Number of lost events: they reached the hook and could not be recorded.
    pub lost_events: u64,
    /// Number of events with a truncated stack: the walk did not reach a known root.
    pub truncated_stacks: u64,
}

/// The fields of the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trailer {
    /// How the recording ended.
    pub end: EndReason,
    /// Length of the recording in microseconds.
    pub duration_us: u64,
    /// The recorder's totals. `None` if the process did not close the dump itself.
    pub totals: Option<Totals>,
}

impl Trailer {
    /// Returns a trailer without totals.
    pub fn new(end: EndReason, duration_us: u64) -> Trailer {
        Trailer { end, duration_us, totals: None }
    }

    /// Writes the trailer frame's payload at the start of `buf`. Returns the length of the payload
    /// in bytes, or `None` if it does not fit.
    pub fn encode(&self, buf: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        let (kind, value) = self.end.encode();
        for word in [kind, value, self.duration_us, u64::from(self.totals.is_some())] {
            varint::put(buf, &mut at, word)?;
        }
        if let Some(totals) = &self.totals {
            for word in totals.words() {
                varint::put(buf, &mut at, word)?;
            }
        }
        Some(at)
    }

    /// Reads a payload. `None` if a field is missing or the reason of the end is unknown. Bytes
    /// behind the last field belong to a newer minor version and are ignored.
    pub fn decode(payload: &[u8]) -> Option<Trailer> {
        let mut at = 0;
        let mut word = || varint::get(payload, &mut at);
        let end = EndReason::decode(word()?, word()?)?;
        let duration_us = word()?;
        let totals = match word()? {
            0 => None,
            _ => Some(Totals {
                allocations: word()?,
                deallocations: word()?,
                reallocations: word()?,
                allocated_bytes: word()?,
                freed_bytes: word()?,
                lost_events: word()?,
                truncated_stacks: word()?,
            }),
        };
        Some(Trailer { end, duration_us, totals })
    }
}

impl Totals {
    /// The totals in the order in which they stand in the payload.
    fn words(&self) -> [u64; 7] {
        [
            self.allocations,
            self.deallocations,
            self.reallocations,
            self.allocated_bytes,
            self.freed_bytes,
            self.lost_events,
            self.truncated_stacks,
        ]
    }
}
