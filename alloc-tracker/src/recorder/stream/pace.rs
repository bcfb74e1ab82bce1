//! How soon the lanes are looked at again. In: how many entries there were at what time. Out: how long to wait.

use alloc_dump::tail::LANE_ROOM;

/// Entries that were stored between two measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filled {
    /// Into the lane that got most.
    most: u64,
    /// Which one that is.
    lane: usize,
    /// Into all.
    all: u64,
}

impl Filled {
    /// So many were stored into this lane.
    pub(super) fn add(&mut self, lane: usize, entries: u64) {
        self.all += entries;
        if entries > self.most {
            (self.most, self.lane) = (entries, lane);
        }
    }
}

/// How fast the fullest lane is filled.
///
/// PERF: told from the speed, not from what there was since the last look. A look that comes just after another one finds
/// little; taken for calm, it lets the helper sleep while events pour in, and the program's thread has to wake it, or to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// When it was measured last.
    measured_us: u64,
    /// Entries a second.
    speed: u64,
    filled: Filled,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { measured_us: 0, speed: 0, filled: Filled::default() }
    }

    /// Whether there was time for enough entries to measure.
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        now_us >= self.measured_us + SHORTEST_MEASUREMENT_US
    }

    /// What was stored since this was called last.
    pub(super) fn measure(&mut self, now_us: u64, filled: Filled) {
        let passed_us = now_us.saturating_sub(self.measured_us).max(1);
        let speed = filled.most.saturating_mul(1_000_000) / passed_us;
        // So many wake the helper: who knows how long it was calm before they came.
        let at_least = if filled.most >= QUARTER { FLOOD } else { 0 };
        *self = Pace { measured_us: now_us, speed: speed.max(at_least), filled };
    }

    /// In how many microseconds a quarter of a lane is filled that holds so many entries by now; `None` if that will take so
    /// long that its thread can as well say so.
    pub(super) fn quarter_us(&self, held: u64) -> Option<u64> {
        match QUARTER.checked_sub(held) {
            Some(missing) if self.speed >= FLOOD => Some(missing * 1_000_000 / self.speed),
            None if self.speed >= FLOOD => Some(0),
            // Its thread may be waiting, and if nothing could be taken, another one is just storing an entry.
            _ if held > LANE_ROOM as u64 * 3 / 4 => Some(0),
            _ => None,
        }
    }

    /// The only lane that is filled, but for a few entries.
    pub(super) fn only_lane(&self) -> Option<usize> {
        let Filled { most, lane, all } = self.filled;
        (most > (all - most) * 8).then_some(lane)
    }
}

const QUARTER: u64 = LANE_ROOM as u64 / 4;
/// A quarter in a millisecond.
const FLOOD: u64 = QUARTER * 1000;
const SHORTEST_MEASUREMENT_US: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(at: &[(u64, u64)]) -> Pace {
        let mut pace = Pace::new();
        for (now_us, entries) in at {
            let mut filled = Filled::default();
            filled.add(0, *entries);
            pace.measure(*now_us, filled);
        }
        pace
    }

    #[test]
    fn a_look_just_after_another_one_changes_nothing() {
        assert_eq!(measured(&[(1000, 1)]).quarter_us(0), None, "calm");
        // Twenty entries a microsecond, and then a look at once.
        let pace = measured(&[(1000, 1), (1100, 2000)]);
        assert!(!pace.is_due(1105) && pace.is_due(1110));
        assert_eq!(pace.quarter_us(0), Some(QUARTER / 20));
        assert_eq!(pace.quarter_us(QUARTER - 20), Some(1));
        assert_eq!(pace.quarter_us(QUARTER + 1), Some(0));
    }

    #[test]
    fn who_fills_a_quarter_in_a_millisecond_floods_it() {
        let mut at = vec![(1000, QUARTER)];
        assert_eq!(measured(&at).quarter_us(0), Some(1000));
        at.push((2000, QUARTER - 1));
        assert_eq!(measured(&at).quarter_us(0), None);
        at.push((12_000, QUARTER));
        assert_eq!(measured(&at).quarter_us(0), Some(1000), "maybe within the last microseconds");
        at.push((13_000, 0));
        assert_eq!(measured(&at).quarter_us(0), None);
        // It cannot go on before it is drained.
        assert_eq!(measured(&at).quarter_us(LANE_ROOM as u64), Some(0));
    }

    #[test]
    fn a_lane_is_the_only_one_if_others_get_next_to_nothing() {
        let only = |entries: &[u64]| {
            let mut filled = Filled::default();
            entries.iter().enumerate().for_each(|(lane, entries)| filled.add(lane, *entries));
            Pace { filled, ..Pace::new() }.only_lane()
        };
        assert_eq!(only(&[]), None);
        assert_eq!(only(&[0, 0]), None);
        assert_eq!(only(&[0, 1]), Some(1));
        assert_eq!(only(&[3, 1000, 100]), Some(1));
        assert_eq!(only(&[500, 3, 600]), None);
    }
}
