//! Samples of the process over time, in bounded memory. In: records of samples. Out: the samples;
//! when there would be too many, each pair of neighbours becomes one entry.

use alloc_dump::record::{Record, Sample};

use super::{Moment, Observer, ReplayEnd};
use crate::profile::Profile;

/// The samples so far.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct SamplesObserver {
    /// Microseconds since time zero, and the kernel's figures at that time.
    kept: Vec<(u64, Sample)>,
    /// Number of samples that one entry of `kept` stands for; the initial 0 means 1.
    stride: u64,
    /// Number of samples that the last entry stands for so far.
    in_last: u64,
    /// Number of samples in the dump.
    count: u64,
    /// The last sample before the interval.
    before: Option<Sample>,
}

impl Observer for SamplesObserver {
    #[inline]
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        match *record {
            Record::Sample(sample) if moment.is_before => self.before = Some(sample),
            Record::Sample(sample) => {
                self.count += 1;
                self.add(moment.us, sample);
            }
            _ => {}
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        (profile.sample_count, profile.timeline) = (self.count, self.kept);
        profile.sample_before = self.before;
    }
}

impl SamplesObserver {
    fn add(&mut self, us: u64, sample: Sample) {
        if self.in_last < self.stride
            && let Some((last_us, last)) = self.kept.last_mut()
        {
            (*last_us, *last) = (us, largest(last, &sample));
            self.in_last += 1;
            return;
        }
        if self.kept.len() == MAX_SAMPLES {
            let pairs = self.kept.chunks_exact(2);
            self.kept = pairs.map(|pair| (pair[1].0, largest(&pair[0].1, &pair[1].1))).collect();
            self.stride = self.stride.max(1) * 2;
        }
        self.kept.push((us, sample));
        self.in_last = 1;
    }
}

/// Returns the larger of each size. Counts, which only grow, are those of the second sample.
fn largest(first: &Sample, second: &Sample) -> Sample {
    Sample {
        vsz: first.vsz.max(second.vsz),
        rss: first.rss.max(second.rss),
        swap: first.swap.max(second.swap),
        tracker_bytes: first.tracker_bytes.max(second.tracker_bytes),
        ..*second
    }
}

const MAX_SAMPLES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_become_one_keep_the_largest_sizes() {
        let mut samples = SamplesObserver::default();
        let count = MAX_SAMPLES as u64 * 3;
        for at in 0..count {
            let rss = if at == 12_345 { 1 << 40 } else { at };
            samples.add(at * 10, Sample { rss, minor_faults: at, ..Sample::default() });
        }
        let kept = samples.kept;
        assert!(kept.len() <= MAX_SAMPLES && kept.is_sorted_by_key(|(us, _)| *us));
        assert_eq!(kept.iter().map(|(_, sample)| sample.rss).max(), Some(1 << 40));
        let (us, last) = *kept.last().unwrap();
        assert_eq!((us, last.minor_faults), ((count - 1) * 10, count - 1));
    }
}
