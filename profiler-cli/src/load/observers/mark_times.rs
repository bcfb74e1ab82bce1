//! The times of the marks that match a pattern, if the caller of the loader asked for it. In: marks
//! and their names. Out: at most [`MOST_TIMES`] times with equal numbers of marks between them.
//!
//! A service may set a mark for each request, so the marks themselves would need memory without
//! bound. When the times run out, every second one is dropped:
//!
//! ```text
//! marks   1 2 3 4 5 6 7 8 9
//! step 1  1 2 3 4 5            full
//! step 2  1   3   5   7   9
//! ```

use alloc_dump::record::Record;
use foldhash::HashSet;

use super::marks::MAX_MARKS;
use super::{Moment, Observer, ReplayEnd};
use crate::pattern::Pattern;
use crate::profile::{MarkTimes, Profile};

/// The times so far.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct MarkTimesObserver {
    /// `None` if nobody asked for it.
    pattern: Option<Pattern>,
    /// The ids of the names that match.
    matching: HashSet<u32>,
    times: MarkTimes,
}

impl MarkTimesObserver {
    pub(in crate::load) fn new(pattern: Option<Pattern>) -> MarkTimesObserver {
        let times = MarkTimes { step: 1, ..MarkTimes::default() };
        MarkTimesObserver { pattern, times, ..MarkTimesObserver::default() }
    }

    fn add(&mut self, us: u64) {
        let times = &mut self.times;
        if times.marks.is_multiple_of(times.step) {
            if times.us.len() == MOST_TIMES {
                let mut at = 0..;
                times.us.retain(|_| at.next().is_some_and(|at: u64| at.is_multiple_of(2)));
                times.step *= 2;
            }
            // The number of times is even, so the next one after halving is a multiple as well.
            times.us.push(us);
        }
        times.marks += 1;
    }
}

impl Observer for MarkTimesObserver {
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        let Some(pattern) = &self.pattern else { return };
        match *record {
            Record::MarkName { id, name }
                if self.matching.len() < MAX_MARKS && pattern.matches(&String::from_utf8_lossy(name)) =>
            {
                self.matching.insert(id);
            }
            Record::Mark { id } if !moment.is_before && self.matching.contains(&id) => self.add(moment.us),
            _ => {}
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.mark_times = self.pattern.is_some().then_some(self.times);
    }
}

/// The most times that are kept. It is even, and many times the number of windows, so that windows
/// made of them have nearly equal numbers of marks.
const MOST_TIMES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// The times after this many marks, one each microsecond from 0 on.
    fn times_of(marks: u64) -> MarkTimes {
        let mut observer = MarkTimesObserver::new(Some(Pattern::new("request")));
        (0..marks).for_each(|us| observer.add(us));
        observer.times
    }

    #[test]
    fn few_marks_are_all_kept() {
        let times = times_of(256);
        assert_eq!((times.us, times.step, times.marks), ((0..256).collect(), 1, 256));
    }

    #[test]
    fn many_marks_are_kept_in_equal_steps() {
        for marks in [257, 300, 511, 512, 513, 1000, 100_000] {
            let times = times_of(marks);
            let expected: Vec<u64> = (0..marks).step_by(times.step as usize).collect();
            assert_eq!((times.us, times.marks), (expected, marks), "{marks}");
        }
        assert_eq!((times_of(257).step, times_of(513).step, times_of(1025).step), (2, 4, 8));
    }
}
