//! The trailer: the last frame, how the recording ended, and totals to check a replay against.

use crate::varint;

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// The tracked process finished it: return from main, `exit`, or the end of a `Profiler` guard.
    Finished,
    /// The process ended without finishing it; `profiler-cli run` saw the exit status and closed the dump.
    Exited(u8),
    /// The process was killed by this signal; `profiler-cli run` closed the dump.
    Signalled(u8),
    /// The process is gone without having finished it, nobody knows how; `profiler-cli run` closed the dump.
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

/// The recorder's own totals of everything that it put into the dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// `dealloc` events.
    pub deallocations: u64,
    /// `realloc` events.
    pub reallocations: u64,
    /// Bytes of all allocations and the new sizes of all reallocations.
    pub allocated_bytes: u64,
    /// Bytes of all deallocations and the old sizes of all reallocations.
    pub freed_bytes: u64,
    /// Events that reached the hook but could not be recorded.
    pub lost_events: u64,
    /// Events whose stack did not reach a known root.
    pub truncated_stacks: u64,
}

/// What the last frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trailer {
    /// How it ended.
    pub end: EndReason,
    /// Length of the recording in microseconds.
    pub duration_us: u64,
    /// The recorder's totals; absent when the dump was closed from outside.
    pub totals: Option<Totals>,
}

impl Trailer {
    /// A trailer without totals.
    pub fn new(end: EndReason, duration_us: u64) -> Trailer {
        Trailer { end, duration_us, totals: None }
    }

    /// Writes the payload at the start of `buf`; its length, or `None` if it does not fit.
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

    /// Reads a payload; what a newer minor version adds behind it is ignored.
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
