//! The process over time, in bounded memory. In: the exact live heap after every event, the samples of the process, the
//! calls of functions that report their lines. Out: as much of each as a picture can show.
//!
//! The live heap goes into intervals of equal length: when they would be too many, two neighbours become one, which is twice
//! as long. So its lowest and highest values are exact however long the program ran.

use std::cmp::Reverse;

use alloc_dump::record::Sample;

use crate::profile::{HeapCurve, HeapInterval, Span};

/// The live heap over time.
#[derive(Debug)]
pub(super) struct Curve {
    width_us: u64,
    /// First microsecond behind the interval that is under way.
    end_us: u64,
    current: HeapInterval,
    done: Vec<HeapInterval>,
}

impl Default for Curve {
    fn default() -> Curve {
        Curve { width_us: 1, end_us: 1, current: HeapInterval::default(), done: Vec::new() }
    }
}

impl Curve {
    /// So many bytes are live from now on.
    #[inline]
    pub(super) fn note(&mut self, us: u64, live: u64) {
        if us >= self.end_us {
            self.advance(us);
        }
        let current = &mut self.current;
        (current.min, current.max, current.last) = (current.min.min(live), current.max.max(live), live);
    }

    /// The curve up to the end of the recording.
    pub(super) fn finish(mut self, until_us: u64) -> HeapCurve {
        if until_us >= self.end_us {
            self.advance(until_us);
        }
        self.done.push(self.current);
        HeapCurve { width_us: self.width_us, intervals: self.done }
    }

    #[cold]
    fn advance(&mut self, us: u64) {
        while us / self.width_us >= MOST_INTERVALS as u64 {
            self.join_neighbours();
        }
        let at = us / self.width_us;
        while (self.done.len() as u64) < at {
            self.done.push(self.current);
            // Nothing happens until the next event.
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

/// Samples of the process; when they would be too many, two neighbours become one.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: Vec<(u64, Sample)>,
    /// How many samples one entry stands for (0 and 1 are the same), and how many are in the last one.
    stride: u64,
    in_last: u64,
}

impl Samples {
    pub(super) fn add(&mut self, us: u64, sample: Sample) {
        if self.in_last < self.stride
            && let Some((last_us, last)) = self.kept.last_mut()
        {
            (*last_us, *last) = (us, worst(last, &sample));
            self.in_last += 1;
            return;
        }
        if self.kept.len() == MOST_SAMPLES {
            let pairs = self.kept.chunks_exact(2);
            self.kept = pairs.map(|pair| (pair[1].0, worst(&pair[0].1, &pair[1].1))).collect();
            self.stride = self.stride.max(1) * 2;
        }
        self.kept.push((us, sample));
        self.in_last = 1;
    }

    pub(super) fn finish(self) -> Vec<(u64, Sample)> {
        self.kept
    }
}

/// What was largest in either, and what only grows as it was in the end.
fn worst(first: &Sample, second: &Sample) -> Sample {
    Sample {
        vsz: first.vsz.max(second.vsz),
        rss: first.rss.max(second.rss),
        swap: first.swap.max(second.swap),
        tracker_bytes: first.tracker_bytes.max(second.tracker_bytes),
        ..*second
    }
}

/// Calls over time; when they would be too many, the shortest go.
#[derive(Debug, Default)]
pub(super) struct Spans {
    kept: Vec<Span>,
    shortest_us: u64,
    dropped: u64,
}

impl Spans {
    pub(super) fn add(&mut self, span: Span) {
        if length(&span) < self.shortest_us {
            self.dropped += 1;
            return;
        }
        self.kept.push(span);
        if self.kept.len() == MOST_SPANS {
            self.kept.sort_unstable_by_key(|span| (Reverse(length(span)), span.start_us, span.thread));
            self.dropped += (MOST_SPANS - MOST_SPANS / 2) as u64;
            self.kept.truncate(MOST_SPANS / 2);
            self.shortest_us = self.kept.last().map_or(0, length);
        }
    }

    /// The calls in the order in which they began, and how many are not among them.
    pub(super) fn finish(mut self) -> (Vec<Span>, u64) {
        self.kept
            .sort_unstable_by_key(|span| (span.start_us, Reverse(span.end_us), span.thread, span.function));
        (self.kept, self.dropped)
    }
}

fn length(span: &Span) -> u64 {
    span.end_us.saturating_sub(span.start_us)
}

const MOST_INTERVALS: usize = 4096;
const MOST_SAMPLES: usize = 1 << 16;
const MOST_SPANS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_what_was_live_at_any_instant_of_them() {
        let mut curve = Curve::default();
        for (us, live) in [(1, 10), (1, 30), (1, 20), (4, 5)] {
            curve.note(us, live);
        }
        let curve = curve.finish(5);
        let of = |min, max, last| HeapInterval { min, max, last };
        let expected =
            [of(0, 0, 0), of(0, 30, 20), of(20, 20, 20), of(20, 20, 20), of(5, 20, 5), of(5, 5, 5)];
        assert_eq!((curve.width_us, curve.intervals.as_slice()), (1, &expected[..]));
    }

    #[test]
    fn a_long_run_has_wider_intervals_and_the_same_extremes() {
        // A million microseconds with one value each; a tall and a deep one among them.
        let live = |us: u64| match us {
            333_333 => 1_000_000,
            777_777 => 1,
            us => 1000 + us % 7,
        };
        let mut curve = Curve::default();
        (0..1_000_000).for_each(|us| curve.note(us, live(us)));
        let curve = curve.finish(999_999);
        // 2^20 is the first power of two behind the end: 4096 intervals of 256, as far as they were needed.
        assert_eq!((curve.width_us, curve.intervals.len()), (256, 999_999 / 256 + 1));
        for (at, interval) in curve.intervals.iter().enumerate() {
            let first = at as u64 * 256;
            let times = first..(first + 256).min(1_000_000);
            // What an interval begins with belongs to it.
            let values = || times.clone().map(live).chain([if first == 0 { 0 } else { live(first - 1) }]);
            assert_eq!(interval.max, values().max().unwrap(), "{at}");
            assert_eq!(interval.min, values().min().unwrap(), "{at}");
            assert_eq!(interval.last, live(times.end - 1), "{at}");
        }
    }

    #[test]
    fn a_jump_over_centuries_costs_nothing() {
        let mut curve = Curve::default();
        curve.note(0, 7);
        curve.note(u64::MAX / 1000, 9);
        let curve = curve.finish(u64::MAX / 1000);
        assert!(curve.intervals.len() <= MOST_INTERVALS);
        assert_eq!((curve.intervals[0].max, curve.intervals.last().unwrap().last), (7, 9));
    }

    #[test]
    fn samples_that_become_one_keep_the_largest_sizes() {
        let mut samples = Samples::default();
        let count = MOST_SAMPLES as u64 * 3;
        for at in 0..count {
            let rss = if at == 12_345 { 1 << 40 } else { at };
            samples.add(at * 10, Sample { rss, minor_faults: at, ..Sample::default() });
        }
        let kept = samples.finish();
        assert!(kept.len() <= MOST_SAMPLES && kept.is_sorted_by_key(|(us, _)| *us));
        assert_eq!(kept.iter().map(|(_, sample)| sample.rss).max(), Some(1 << 40));
        let (us, last) = *kept.last().unwrap();
        assert_eq!((us, last.minor_faults), ((count - 1) * 10, count - 1));
    }

    #[test]
    fn the_longest_calls_stay() {
        let mut spans = Spans::default();
        let count = MOST_SPANS as u64 * 2;
        for at in 0..count {
            let long = u64::from(at % 1000 == 0) * 500;
            spans.add(Span { function: 0, thread: 1, start_us: at * 10, end_us: at * 10 + 1 + long });
        }
        let (kept, dropped) = spans.finish();
        assert_eq!(kept.len() as u64 + dropped, count);
        assert!(kept.len() < MOST_SPANS && kept.is_sorted_by_key(|span| span.start_us));
        let long = kept.iter().filter(|span| length(span) == 501).count();
        assert_eq!(long as u64, count.div_ceil(1000));
    }
}
