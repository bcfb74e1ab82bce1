//! When and on which thread a block was allocated, in 16 bytes. In: a time, a thread and the number
//! of its heap event. Out: the same, and two marks of the block.
//!
//! PERF: a live block has 32 bytes, and most blocks of a large heap are in no cache. So the marks
//! and the upper bits of the event's number use bits that no time needs.

/// Tells a block from all others of the recording: its birth, without the marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::load) struct BirthId(u64, u32, u32);

/// The allocation of a block. A realloc keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) struct Birth {
    /// From bit 0: [`TIME_BITS`] bits of microseconds, [`RESIZED`], [`OLDER`], then the upper bits
    /// of the event's number.
    packed: u64,
    /// The lower 32 bits of the event's number.
    event_low: u32,
    /// Index of the thread.
    thread: u32,
}

impl Birth {
    /// Makes the birth of a block: the event with this number on the thread with this index.
    #[inline]
    pub(super) fn new(us: u64, thread: usize, event: u64) -> Birth {
        let event_high = (event >> 32) << FIRST_EVENT_BIT;
        Birth { packed: us & TIME_MASK | event_high, event_low: event as u32, thread: thread as u32 }
    }

    /// When the block was allocated, in microseconds.
    #[inline]
    pub(in crate::load) fn us(self) -> u64 {
        self.packed & TIME_MASK
    }

    /// Index of the thread that allocated the block.
    #[inline]
    pub(in crate::load) fn thread(self) -> usize {
        self.thread as usize
    }

    /// Whether this is the allocation that the thread made with this event, and the block was never
    /// reallocated.
    #[inline]
    pub(super) fn is_event(self, thread: usize, event: u64) -> bool {
        self.thread() == thread && self.packed & RESIZED == 0 && self.events_until(event) == 0
    }

    /// Number of heap events of the block's thread since, if its last event has this number.
    #[inline]
    pub(super) fn events_until(self, event: u64) -> u64 {
        let born = (self.packed >> FIRST_EVENT_BIT) << 32 | u64::from(self.event_low);
        event.wrapping_sub(born) & EVENT_MASK
    }

    /// The birth of a block that was reallocated.
    #[inline]
    pub(super) fn resized(self) -> Birth {
        Birth { packed: self.packed | RESIZED, ..self }
    }

    /// The birth of a block that is older than the interval that is counted.
    pub(super) fn older(self) -> Birth {
        Birth { packed: self.packed | OLDER, ..self }
    }

    /// Whether the block was born after its thread had made this many heap events.
    pub(super) fn is_after(self, events: u64) -> bool {
        // The difference wraps for an event that came later.
        self.events_until(events) > EVENT_MASK / 2
    }

    /// Whether the block was reallocated.
    #[inline]
    pub(in crate::load) fn is_resized(self) -> bool {
        self.packed & RESIZED != 0
    }

    /// Returns what no other block of the recording has.
    #[inline]
    pub(in crate::load) fn id(self) -> BirthId {
        BirthId(self.packed & !(RESIZED | OLDER), self.event_low, self.thread)
    }

    /// Whether the block is older than the interval that is counted.
    #[inline]
    pub(in crate::load) fn is_older(self) -> bool {
        self.packed & OLDER != 0
    }
}

/// Enough for the largest time of a replay, which is more than five hundred years.
const TIME_BITS: u32 = 55;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const RESIZED: u64 = 1 << TIME_BITS;
const OLDER: u64 = 1 << (TIME_BITS + 1);
const FIRST_EVENT_BIT: u32 = TIME_BITS + 2;
/// The bits of an event's number that are kept: enough for 500,000 million events of one thread,
/// which would be a dump of a terabyte.
const EVENT_MASK: u64 = (1 << (32 + 64 - FIRST_EVENT_BIT)) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_thread_event_and_marks_do_not_touch_each_other() {
        let latest = u64::MAX / 1000;
        let event = EVENT_MASK - 3;
        let birth = Birth::new(latest, u32::MAX as usize, event);
        assert_eq!((birth.us(), birth.thread()), (latest, u32::MAX as usize));
        assert!(birth.is_event(u32::MAX as usize, event) && !birth.is_event(0, event));
        assert_eq!(birth.events_until(event + 1000), 1000, "although the number has wrapped");
        assert!(!birth.is_older() && birth.older().is_older());
        let both = birth.resized().older();
        assert_eq!((both.us(), both.events_until(event)), (latest, 0));
        assert!(both.is_resized() && !birth.is_resized());
        assert_eq!(both.id(), birth.id());
        assert_ne!(birth.id(), Birth::new(latest, 0, event).id());
        assert!(!both.is_event(u32::MAX as usize, event), "a realloc came in between");
    }

    #[test]
    fn a_live_block_has_32_bytes() {
        assert_eq!(size_of::<super::super::LiveBlock>(), 32);
    }
}
