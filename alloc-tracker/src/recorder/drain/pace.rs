//! How soon the rings are to be drained again. In: numbers of stored entries, and times. Out: how
//! long to wait. Plain arithmetic: never locks, allocates or panics.

use alloc_dump::sidecar::RING_CAPACITY;

/// How fast the fullest ring is filled.
///
/// PERF: the wait is derived from the speed, not from the number of entries since the last look. A
/// look that comes just after another one finds few entries. If few entries meant calm, the drain
/// process would sleep while events pour in, and the program would drain its rings itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time of the last measurement.
    measured_us: u64,
    /// Entries a second.
    speed: u64,
}

impl Pace {
    pub(super) const fn new() -> Pace {
        Pace { measured_us: 0, speed: 0 }
    }

    /// Whether enough time has passed to measure again.
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        now_us >= self.measured_us + SHORTEST_MEASUREMENT_US
    }

    /// Notes that `stored` entries were stored since the last call.
    pub(super) fn measure(&mut self, now_us: u64, stored: u64) {
        let passed_us = now_us.saturating_sub(self.measured_us).max(1);
        // Even if the average is low, a whole quarter may have come within the last microseconds,
        // after a calm.
        let at_least = if stored >= QUARTER { FLOOD } else { 0 };
        *self =
            Pace { measured_us: now_us, speed: (stored.saturating_mul(1_000_000) / passed_us).max(at_least) };
    }

    /// Returns after how many microseconds a ring that holds `held` entries now is a quarter full.
    /// `None` if that takes so long that the drain process can as well sleep.
    pub(super) fn quarter_us(&self, held: u64) -> Option<u64> {
        match QUARTER.checked_sub(held) {
            Some(missing) if self.speed >= FLOOD => Some(missing * 1_000_000 / self.speed),
            None if self.speed >= FLOOD => Some(0),
            // The ring's thread may be waiting for room. If the drainer could take no entry,
            // another thread is storing one at this moment.
            _ if held > RING_CAPACITY as u64 * 3 / 4 => Some(0),
            _ => None,
        }
    }
}

const QUARTER: u64 = RING_CAPACITY as u64 / 4;
/// A quarter in a millisecond.
const FLOOD: u64 = QUARTER * 1000;
const SHORTEST_MEASUREMENT_US: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_just_after_another_one_changes_nothing() {
        let mut pace = Pace::new();
        pace.measure(1000, 1);
        assert_eq!(pace.quarter_us(0), None, "calm");
        // Twenty entries a microsecond, and another look at once.
        pace.measure(1100, 2000);
        assert!(!pace.is_due(1105) && pace.is_due(1110));
        assert_eq!(pace.quarter_us(0), Some(QUARTER / 20));
        assert_eq!(pace.quarter_us(QUARTER - 20), Some(1));
        assert_eq!(pace.quarter_us(QUARTER + 1), Some(0));
    }

    #[test]
    fn a_quarter_in_a_millisecond_is_a_flood() {
        let mut pace = Pace::new();
        pace.measure(1000, QUARTER);
        assert_eq!(pace.quarter_us(0), Some(1000));
        pace.measure(2000, QUARTER - 1);
        assert_eq!(pace.quarter_us(0), None);
        pace.measure(12_000, QUARTER);
        assert_eq!(pace.quarter_us(0), Some(1000), "all of it may have come within the last microseconds");
        pace.measure(13_000, 0);
        assert_eq!(pace.quarter_us(0), None);
        // The thread cannot go on before the ring is drained.
        assert_eq!(pace.quarter_us(RING_CAPACITY as u64), Some(0));
    }
}
