//! The local peaks of the live heap, if the caller of the loader asked for them. In: heap events.
//! Out: each point that the heap reached and fell from by a share of it, with such a valley before
//! it too. Their number is bounded: of very many, the highest are kept.
//!
//! ```text
//! drop of 10 %         100                 120 <- peak
//!                     /   \  95           /   \
//!          peak ->  100    \/  \         /     \
//!                           94  \       /       the end is a valley
//!                                60 ___/
//! ```
//!
//! 95 is no peak: the valley before it, 94, is not 10 % lower.

use super::{IntervalStart, Observer, ReplayEnd};
use crate::load::heap::{Heap, HeapEvent};
use crate::profile::{LocalPeak, Profile};

/// The local peaks so far.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LocalPeaksObserver {
    /// The least drop in percent; `None` if nobody asked for peaks.
    drop_percent: Option<u8>,
    /// The highest point since the last valley, which is a peak once the heap falls to `turn`.
    highest: LocalPeak,
    /// While the heap falls, the lowest bytes since the last peak.
    lowest: u64,
    /// Whether the heap falls: the last peak was left, and no valley is deep enough below the heap.
    is_falling: bool,
    /// Live bytes at which the direction changes.
    turn: u64,
    peaks: Vec<LocalPeak>,
    dropped: u64,
}

impl LocalPeaksObserver {
    pub(in crate::load) fn new(drop_percent: Option<u8>) -> LocalPeaksObserver {
        LocalPeaksObserver { drop_percent, ..LocalPeaksObserver::default() }
    }

    /// Notes what is live from now on.
    #[inline]
    fn note(&mut self, percent: u8, live: LocalPeak) {
        if self.is_falling {
            if live.bytes < self.lowest {
                self.lowest = live.bytes;
                self.turn = lowest_peak_above(live.bytes, percent);
            } else if live.bytes >= self.turn {
                self.is_falling = false;
                self.rise_to(percent, live);
            }
        } else if live.bytes > self.highest.bytes {
            self.rise_to(percent, live);
        } else if live.bytes <= self.turn && self.highest.bytes > 0 {
            self.keep(self.highest);
            (self.is_falling, self.lowest) = (true, live.bytes);
            self.turn = lowest_peak_above(live.bytes, percent);
        }
    }

    fn rise_to(&mut self, percent: u8, live: LocalPeak) {
        self.highest = live;
        self.turn = highest_valley_below(live.bytes, percent);
    }

    #[cold]
    fn keep(&mut self, peak: LocalPeak) {
        self.peaks.push(peak);
        if self.peaks.len() == 2 * MAX_PEAKS {
            sort(&mut self.peaks);
            self.peaks.truncate(MAX_PEAKS);
            self.dropped += MAX_PEAKS as u64;
        }
    }

    /// Returns the peaks, highest first, and the number of those that were not kept.
    fn into_peaks(mut self) -> (Vec<LocalPeak>, u64) {
        // The end is a valley, and so a rise that goes on until the end has a peak.
        if !self.is_falling && self.highest.bytes > 0 {
            self.keep(self.highest);
        }
        sort(&mut self.peaks);
        (self.peaks, self.dropped)
    }
}

impl Observer for LocalPeaksObserver {
    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        let Some(percent) = self.drop_percent else { return };
        let (bytes, blocks) = (heap.live_bytes(), heap.live_blocks());
        self.note(percent, LocalPeak { bytes, blocks, us: event.origin.us, event: event.number });
    }

    fn interval_begins(&mut self, start: &IntervalStart<'_>) {
        let Some(percent) = self.drop_percent else { return };
        let (bytes, blocks) = (start.heap.live_bytes(), start.heap.live_blocks());
        self.note(percent, LocalPeak { bytes, blocks, us: start.us, event: start.heap.events() });
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        (profile.local_peaks, profile.local_peaks_dropped) = self.into_peaks();
    }
}

/// Sorts peaks, highest first, then by time.
fn sort(peaks: &mut [LocalPeak]) {
    peaks.sort_by_key(|peak| (std::cmp::Reverse(peak.bytes), peak.event));
}

/// Returns the most bytes that are at least this share below a peak.
fn highest_valley_below(peak: u64, percent: u8) -> u64 {
    (u128::from(peak) * u128::from(100 - percent.min(100)) / 100) as u64
}

/// Returns the fewest bytes that a valley lies at least this share below.
fn lowest_peak_above(valley: u64, percent: u8) -> u64 {
    // With 100 percent only an empty heap is a valley, and with 0 percent a step of a byte counts.
    let left = u128::from(100 - percent.min(100));
    let least = (u128::from(valley) * 100)
        .checked_div(left)
        .map_or(u128::from(u64::MAX), |least| least + u128::from(u128::from(valley) * 100 % left != 0));
    let least = if valley == 0 { 1 } else { least };
    u64::try_from(least.max(u128::from(valley) + 1)).unwrap_or(u64::MAX)
}

/// The most peaks that are kept.
const MAX_PEAKS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn peaks_of(percent: u8, live: &[u64]) -> Vec<(u64, u64)> {
        let mut observer = LocalPeaksObserver::new(Some(percent));
        for (bytes, event) in live.iter().zip(1..) {
            observer.note(percent, LocalPeak { bytes: *bytes, blocks: 0, us: 0, event });
        }
        observer.into_peaks().0.iter().map(|peak| (peak.bytes, peak.event)).collect()
    }

    /// By definition: the valleys between a point and the next higher points, or the ends, are low
    /// enough on both sides.
    fn by_definition(percent: u8, live: &[u64]) -> Vec<(u64, u64)> {
        let mut peaks = Vec::new();
        for (at, height) in live.iter().enumerate() {
            let is_low = |bytes: u64| bytes * 100 <= height * u64::from(100 - percent) && bytes < *height;
            let left = live[..at].iter().rev().take_while(|bytes| *bytes < height).copied();
            let is_start = live[..at].iter().all(|bytes| bytes < height);
            let right = live[at + 1..].iter().take_while(|bytes| *bytes <= height).copied();
            let is_end = live[at + 1..].iter().all(|bytes| bytes <= height);
            let low_left = is_start || left.min().is_some_and(is_low);
            if *height > 0 && low_left && (is_end || right.min().is_some_and(is_low)) {
                peaks.push((*height, at as u64 + 1));
            }
        }
        // Of equal heights without a valley between them, only the first is a peak.
        peaks.sort_by_key(|(bytes, event)| (std::cmp::Reverse(*bytes), *event));
        peaks
    }

    #[test]
    fn the_picture_above_has_two_peaks() {
        assert_eq!(peaks_of(10, &[50, 100, 94, 95, 60, 120, 110]), [(120, 6), (100, 2)]);
        assert_eq!(peaks_of(50, &[50, 100, 94, 95, 60, 120, 110]), [(120, 6)], "60 is no half of 100");
        assert_eq!(peaks_of(10, &[]), []);
        assert_eq!(peaks_of(100, &[5, 0, 7, 1, 9]), [(9, 5), (5, 1)]);
    }

    #[test]
    fn peaks_are_those_of_the_definition() {
        let mut seed = 7u64;
        let mut next = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for round in 0..2000 {
            let live: Vec<u64> = (0..1 + next(40)).map(|_| next([4, 30, 1000][round % 3])).collect();
            for percent in [1, 10, 50, 99] {
                assert_eq!(peaks_of(percent, &live), by_definition(percent, &live), "{percent} {live:?}");
            }
        }
    }

    #[test]
    fn of_very_many_peaks_the_highest_stay() {
        let count = 5 * MAX_PEAKS as u64;
        let live: Vec<u64> = (1..=count).flat_map(|height| [height, 0]).collect();
        let mut observer = LocalPeaksObserver::new(Some(10));
        for (bytes, event) in live.iter().zip(1..) {
            observer.note(10, LocalPeak { bytes: *bytes, blocks: 1, us: 0, event });
        }
        let (peaks, dropped) = observer.into_peaks();
        assert_eq!(peaks.len() as u64 + dropped, count);
        assert!(peaks.len() < 2 * MAX_PEAKS && peaks[0].bytes == count);
        assert!(peaks.iter().zip((0..count).rev()).all(|(peak, height)| peak.bytes == height + 1));
    }
}
