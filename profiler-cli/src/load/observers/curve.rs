//! The exact live heap over time, in bounded memory. In: heap events. Out: a [`HeapCurve`].
//!
//! Time is cut into intervals of equal length, and each interval keeps its lowest and its highest
//! value. When there would be too many intervals, each pair of neighbours becomes one interval of
//! twice the length. So both values stay exact, however long the program ran.

use super::{IntervalStart, Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent};
use crate::profile::{HeapCurve, HeapInterval, Profile};

/// The live heap over time, so far.
#[derive(Clone, Debug)]
pub(in crate::load) struct CurveObserver {
    /// The time zero of the curve, in microseconds since the recording began.
    start_us: u64,
    width_us: u64,
    /// First microsecond after the current interval, counted from `start_us`.
    end_us: u64,
    current: HeapInterval,
    done: Vec<HeapInterval>,
}

impl Default for CurveObserver {
    fn default() -> CurveObserver {
        CurveObserver::new(0, 0)
    }
}

impl Observer for CurveObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        self.note(event.origin.us, heap.live_bytes());
    }

    fn interval_begins(&mut self, start: &IntervalStart<'_>) {
        *self = CurveObserver::new(start.us, start.heap.live_bytes());
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.heap = self.curve_until(profile.duration_us);
    }
}

impl CurveObserver {
    /// Begins a curve at a time at which this many bytes are live.
    fn new(start_us: u64, live: u64) -> CurveObserver {
        let current = HeapInterval { min: live, max: live, last: live };
        CurveObserver { start_us, width_us: 1, end_us: 1, current, done: Vec::new() }
    }

    /// Notes that this many bytes are live from now on.
    #[inline]
    fn note(&mut self, us: u64, live: u64) {
        let us = us.saturating_sub(self.start_us);
        if us >= self.end_us {
            self.advance(us);
        }
        let current = &mut self.current;
        (current.min, current.max, current.last) = (current.min.min(live), current.max.max(live), live);
    }

    /// Returns the curve up to the end of the recording.
    fn curve_until(mut self, until_us: u64) -> HeapCurve {
        let until_us = until_us.saturating_sub(self.start_us);
        if until_us >= self.end_us {
            self.advance(until_us);
        }
        self.done.push(self.current);
        HeapCurve { start_us: self.start_us, width_us: self.width_us, intervals: self.done }
    }

    #[cold]
    fn advance(&mut self, us: u64) {
        while us / self.width_us >= MAX_INTERVALS as u64 {
            self.join_neighbours();
        }
        let at = us / self.width_us;
        while (self.done.len() as u64) < at {
            self.done.push(self.current);
            // The live heap stays the same until the next event.
            let live = self.current.last;
            self.current = HeapInterval { min: live, max: live, last: live };
        }
        self.end_us = (at + 1) * self.width_us;
    }

    fn join_neighbours(&mut self) {
        self.width_us *= 2;
        if self.done.len() % 2 == 1
            && let Some(before) = self.done.pop()
        {
            self.current = joined(before, self.current);
        }
        self.done = self.done.chunks_exact(2).map(|pair| joined(pair[0], pair[1])).collect();
    }
}

fn joined(first: HeapInterval, second: HeapInterval) -> HeapInterval {
    HeapInterval { min: first.min.min(second.min), max: first.max.max(second.max), last: second.last }
}

const MAX_INTERVALS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_what_was_live_at_any_instant_of_them() {
        let mut curve = CurveObserver::default();
        for (us, live) in [(1, 10), (1, 30), (1, 20), (4, 5)] {
            curve.note(us, live);
        }
        let curve = curve.curve_until(5);
        let of = |min, max, last| HeapInterval { min, max, last };
        let expected =
            [of(0, 0, 0), of(0, 30, 20), of(20, 20, 20), of(20, 20, 20), of(5, 20, 5), of(5, 5, 5)];
        assert_eq!((curve.width_us, curve.intervals.as_slice()), (1, &expected[..]));
    }

    #[test]
    fn a_long_run_has_wider_intervals_and_the_same_extremes() {
        // A million microseconds with one value each, among them one very large and one very small
        // value.
        let live = |us: u64| match us {
            333_333 => 1_000_000,
            777_777 => 1,
            us => 1000 + us % 7,
        };
        let mut curve = CurveObserver::default();
        (0..1_000_000).for_each(|us| curve.note(us, live(us)));
        let curve = curve.curve_until(999_999);
        // 2^20 is the first power of two beyond the end. That makes 4096 intervals of 256
        // microseconds, of which the curve has those up to its end.
        assert_eq!((curve.width_us, curve.intervals.len()), (256, 999_999 / 256 + 1));
        for (at, interval) in curve.intervals.iter().enumerate() {
            let first = at as u64 * 256;
            let times = first..(first + 256).min(1_000_000);
            // The value at the beginning of an interval belongs to it.
            let values = || times.clone().map(live).chain([if first == 0 { 0 } else { live(first - 1) }]);
            assert_eq!(interval.max, values().max().unwrap(), "{at}");
            assert_eq!(interval.min, values().min().unwrap(), "{at}");
            assert_eq!(interval.last, live(times.end - 1), "{at}");
        }
    }

    #[test]
    fn a_curve_may_begin_late_with_a_heap_that_is_there() {
        let mut curve = CurveObserver::new(100, 7);
        curve.note(101, 9);
        let curve = curve.curve_until(102);
        let of = |min, max, last| HeapInterval { min, max, last };
        let expected = vec![of(7, 7, 7), of(7, 9, 9), of(9, 9, 9)];
        assert_eq!(curve, HeapCurve { start_us: 100, width_us: 1, intervals: expected });
    }

    #[test]
    fn a_jump_over_centuries_costs_nothing() {
        let mut curve = CurveObserver::default();
        curve.note(0, 7);
        curve.note(u64::MAX / 1000, 9);
        let curve = curve.curve_until(u64::MAX / 1000);
        assert!(curve.intervals.len() <= MAX_INTERVALS);
        assert_eq!((curve.intervals[0].max, curve.intervals.last().unwrap().last), (7, 9));
    }
}
