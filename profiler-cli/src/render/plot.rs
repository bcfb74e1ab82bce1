//! The parts that all pictures of a timeline share. In: a timeline, and the series to draw. Out:
//! panels, each of series with one scale, and axes with round numbers.

use clap::ValueEnum;

use crate::analyze::timeline::{SamplePoint, Timeline};
use crate::units::SizeUnit;

/// A series of values over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Series {
    /// Live heap, exact
    Heap,
    /// Resident set, sampled
    Rss,
    /// Swapped-out memory, sampled
    Swap,
    /// Virtual size, sampled
    Vsz,
    /// Minor page faults so far, sampled
    MinorFaults,
    /// Major page faults so far, sampled
    MajorFaults,
}

impl Series {
    /// Returns the name of the series in a legend.
    pub(super) fn title(self) -> &'static str {
        match self {
            Series::Heap => "live heap (exact)",
            Series::Rss => "RSS (sampled)",
            Series::Swap => "swap (sampled)",
            Series::Vsz => "VSZ (sampled)",
            Series::MinorFaults => "minor page faults (sampled)",
            Series::MajorFaults => "major page faults (sampled)",
        }
    }

    /// Returns the value of one sample; 0 for the heap, which is not sampled.
    fn value(self, sample: &SamplePoint) -> u64 {
        match self {
            Series::Heap => 0,
            Series::Rss => sample.rss,
            Series::Swap => sample.swap,
            Series::Vsz => sample.vsz,
            Series::MinorFaults => sample.minor_faults,
            Series::MajorFaults => sample.major_faults,
        }
    }

    /// Returns the time in nanoseconds and the value of every sample.
    pub(super) fn values(self, timeline: &Timeline) -> impl Iterator<Item = (u64, u64)> {
        timeline.samples.iter().map(move |sample| (sample.ns, self.value(sample)))
    }

    fn largest(self, timeline: &Timeline) -> u64 {
        match self {
            Series::Heap => timeline.heap.iter().map(|point| point.max).max().unwrap_or(0),
            _ => self.values(timeline).map(|(_, value)| value).max().unwrap_or(0),
        }
    }

    /// Returns the number of the panel in which the series is drawn.
    fn panel(self) -> usize {
        match self {
            Series::Heap | Series::Rss | Series::Swap => 0,
            // The virtual size is so large that every other series in its panel would lie on the
            // axis.
            Series::Vsz => 1,
            Series::MinorFaults | Series::MajorFaults => 2,
        }
    }
}

/// Series that are drawn with one scale.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    pub(super) series: Vec<Series>,
    pub(super) axis: Axis,
}

/// Returns the panels for these series. A panel without a series is left out.
pub(super) fn panels(timeline: &Timeline, series: &[Series]) -> Vec<Panel> {
    let mut wanted = series.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let panel = |number: usize| {
        let series: Vec<Series> = wanted.iter().copied().filter(|series| series.panel() == number).collect();
        let largest = series.iter().map(|series| series.largest(timeline)).max()?;
        let axis = if number == 2 { Axis::of_counts(largest) } else { Axis::of_bytes(largest) };
        Some(Panel { series, axis })
    };
    (0..3).filter_map(panel).collect()
}

/// A scale with labelled ticks. A scale of amounts is from 0 to a round number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    fn of_bytes(largest: u64) -> Axis {
        let unit = SizeUnit::fitting(largest);
        let size = unit.size() as f64;
        let step = round_step(largest as f64 / size).max(if unit == SizeUnit::B { 1.0 } else { 0.0 });
        Axis::new(largest as f64, step * size, |value| format!("{} {}", short(value / size), unit.name()))
    }

    fn of_counts(largest: u64) -> Axis {
        let step = round_step(largest as f64).max(1.0);
        Axis::new(largest as f64, step, |value| crate::units::count(value as u64))
    }

    /// Returns a scale of the time between two moments, which need not be round numbers. Ticks are
    /// at round numbers.
    pub(super) fn of_time((from, to): (u64, u64)) -> Axis {
        let ns = to.saturating_sub(from);
        let (size, name) = match to {
            0..2_000 => (1.0, "ns"),
            2_000..2_000_000 => (1e3, "µs"),
            2_000_000..2_000_000_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let step = round_step(ns as f64 / size) * size;
        let first = (from as f64 / step).ceil() * step;
        let ticks = (0..=10).map(|at| first + f64::from(at) * step).take_while(|at| *at <= to as f64);
        let label = |at: f64| (at, format!("{} {name}", short(at / size)));
        Axis {
            start: from as f64,
            end: (to as f64).max(from as f64 + 1.0),
            ticks: ticks.map(label).collect(),
        }
    }

    fn new(largest: f64, step: f64, label: impl Fn(f64) -> String) -> Axis {
        let steps = (largest / step).ceil().clamp(1.0, 10.0);
        let ticks = (0..=steps as u32).map(|at| f64::from(at) * step).map(|value| (value, label(value)));
        Axis { start: 0.0, end: steps * step, ticks: ticks.collect() }
    }

    /// Returns the position of a value on the axis, from 0 to 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        ((value - self.start) / (self.end - self.start)).clamp(0.0, 1.0)
    }
}

/// Returns 1, 2 or 5 times a power of ten, such that three to five steps reach `largest`.
fn round_step(largest: f64) -> f64 {
    let rough = (largest / 4.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.8);
    factor.unwrap_or(10.0) * power
}

/// Returns the label of a number: at most three digits after the decimal point, without trailing
/// zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers_beyond_the_largest_value() {
        let labels = |axis: &Axis| axis.ticks.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        let axis = Axis::of_bytes(155 << 20);
        assert_eq!(labels(&axis), ["0 MiB", "50 MiB", "100 MiB", "150 MiB", "200 MiB"]);
        assert!((axis.position((100u64 << 20) as f64) - 0.5).abs() < 1e-9);
        assert_eq!(labels(&Axis::of_bytes(0)), ["0 B", "1 B"]);
        assert_eq!(labels(&Axis::of_counts(3)), ["0", "1", "2", "3"]);
        for largest in (0..200).map(|power| 1.2f64.powi(power) as u64) {
            let axis = Axis::of_bytes(largest);
            assert!(axis.end >= largest as f64 && (2..=11).contains(&axis.ticks.len()), "{largest} {axis:?}");
        }
        let axis = Axis::of_time((0, 1_234_000_000));
        assert_eq!(labels(&axis), ["0 ms", "500 ms", "1000 ms"]);
        assert!((axis.end - 1.234e9).abs() < 1.0);
        let axis = Axis::of_time((2_100_000_000, 2_900_000_000));
        assert_eq!(labels(&axis), ["2.2 s", "2.4 s", "2.6 s", "2.8 s"]);
        assert!((axis.position(2.5e9) - 0.5).abs() < 1e-9);
    }
}
