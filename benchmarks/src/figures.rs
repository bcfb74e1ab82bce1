//! The arithmetic. In: pairs of runs, a tool's and the untracked one of the same round. Out: what the table shows.

use serde::{Deserialize, Serialize};

use crate::launch::Usage;

/// One run of a workload under a tool.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What the kernel says of the process.
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// CPU time of the threads that did the work, until it was done.
    pub(crate) application_cpu_ns: u64,
    /// Size of what the tool left behind.
    pub(crate) output_bytes: u64,
}

/// Two runs of the same work, in the same round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    /// Under the tool.
    pub(crate) tool: Run,
    /// Without one.
    pub(crate) untracked: Run,
}

/// Medians over all rounds of what each round gives. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Wall time, as a multiple of the untracked run's.
    pub(crate) ratio: f64,
    /// The smallest of the rounds.
    pub(crate) lowest_ratio: f64,
    /// The largest of the rounds.
    pub(crate) highest_ratio: f64,
    /// Wall time added.
    pub(crate) ns_per_event: f64,
    /// CPU time added, in whatever thread or process.
    pub(crate) cpu_ns_per_event: f64,
    /// CPU time added in the threads that did the work.
    pub(crate) application_cpu_ns_per_event: f64,
    /// CPU time elsewhere: in helper threads and processes, and in what the tool does when the work is done.
    pub(crate) other_cpu_ns_per_event: f64,
    /// Size of what the tool left behind.
    pub(crate) output_bytes_per_event: f64,
    /// Peak memory added, in bytes; the noise of a tool that needs none may be less than nothing.
    pub(crate) peak_bytes: f64,
}

/// `None` without pairs or events.
pub(crate) fn figures(pairs: &[Pair], events: u64) -> Option<Figures> {
    if events == 0 {
        return None;
    }
    let over_rounds = |figure: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(figure).collect());
    let per_event = |figure: &dyn Fn(&Run) -> u64| {
        over_rounds(&|pair| added(figure(&pair.tool), figure(&pair.untracked)) / events as f64)
    };
    let ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    Some(Figures {
        lowest_ratio: ratios.iter().copied().reduce(f64::min)?,
        highest_ratio: ratios.iter().copied().reduce(f64::max)?,
        ratio: median(ratios)?,
        ns_per_event: per_event(&|run| run.usage.wall_ns)?,
        cpu_ns_per_event: per_event(&|run| run.usage.cpu_ns)?,
        application_cpu_ns_per_event: per_event(&|run| run.application_cpu_ns)?,
        other_cpu_ns_per_event: per_event(&|run| run.usage.cpu_ns.saturating_sub(run.application_cpu_ns))?,
        output_bytes_per_event: per_event(&|run| run.output_bytes)?,
        peak_bytes: over_rounds(&|pair| added(pair.tool.usage.peak_bytes, pair.untracked.usage.peak_bytes))?,
    })
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values.get(middle).copied(),
        _ => Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0),
    }
}

/// What came on top, or less than nothing.
pub(crate) fn added(with: u64, without: u64) -> f64 {
    with as f64 - without as f64
}

fn ratio(pair: &Pair) -> f64 {
    pair.tool.usage.wall_ns as f64 / pair.untracked.usage.wall_ns.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(wall_ns: u64, cpu_ns: u64, application_cpu_ns: u64, peak_bytes: u64, output_bytes: u64) -> Run {
        Run { usage: Usage { wall_ns, cpu_ns, peak_bytes }, application_cpu_ns, output_bytes }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![10.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn what_is_added_can_be_less_than_nothing() {
        assert_eq!(added(5, 3), 2.0);
        assert_eq!(added(3, 5), -2.0);
    }

    #[test]
    fn figures_compare_within_a_round_and_then_take_the_median() {
        // The machine is slower from round to round, and the tool always takes twice as long, but once.
        let pair = |slower: u64, times: u64| Pair {
            untracked: run(1000 * slower, 900 * slower, 800 * slower, 5000, 0),
            tool: run(1000 * slower * times, 900 * slower + 600, 800 * slower + 400, 7000, 250),
        };
        let figures = figures(&[pair(1, 2), pair(2, 2), pair(4, 5)], 100).unwrap();
        assert_eq!((figures.lowest_ratio, figures.ratio, figures.highest_ratio), (2.0, 2.0, 5.0));
        // Added: 1000, 2000 and 16000.
        assert_eq!(figures.ns_per_event, 20.0);
        assert_eq!(figures.cpu_ns_per_event, 6.0);
        assert_eq!(figures.application_cpu_ns_per_event, 4.0);
        assert_eq!(figures.other_cpu_ns_per_event, 2.0);
        assert_eq!(figures.output_bytes_per_event, 2.5);
        assert_eq!(figures.peak_bytes, 2000.0);
    }

    #[test]
    fn without_events_or_rounds_there_are_no_figures() {
        let pair = Pair { untracked: run(1, 1, 1, 1, 0), tool: run(1, 1, 1, 1, 0) };
        assert_eq!(figures(&[pair], 0), None);
        assert_eq!(figures(&[], 10), None);
    }
}
