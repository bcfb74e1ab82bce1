//! The arithmetic. In: pairs of runs, a tool's run and the untracked run of the same round. Out:
//! the figures that the table shows.

use serde::{Deserialize, Serialize};

use crate::launch::Usage;

/// One run of a workload under a tool.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What the process used, by the kernel's accounts.
    #[serde(flatten)]
    pub(crate) usage: Usage,
    /// CPU time of the threads that did the work, until the work was done.
    pub(crate) application_cpu_ns: u64,
    /// Size of the files that the tool wrote.
    pub(crate) output_bytes: u64,
}

/// Two runs of the same work, in the same round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    /// The run under the tool.
    pub(crate) tool: Run,
    /// The run without a tool.
    pub(crate) untracked: Run,
}

/// Medians over the rounds, of figures that each round gives. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Wall time, as a multiple of that of the untracked run.
    pub(crate) ratio: f64,
    /// The smallest `ratio` of a round.
    pub(crate) lowest_ratio: f64,
    /// The largest `ratio` of a round.
    pub(crate) highest_ratio: f64,
    /// Wall time that the tool adds.
    pub(crate) ns_per_event: f64,
    /// CPU time that the tool adds, in all threads and processes.
    pub(crate) cpu_ns_per_event: f64,
    /// CPU time that the tool adds in the threads that do the work.
    pub(crate) application_cpu_ns_per_event: f64,
    /// CPU time that the tool adds elsewhere: in threads and processes of its own, and after the
    /// work is done.
    pub(crate) other_cpu_ns_per_event: f64,
    /// Size of the files that the tool wrote.
    pub(crate) output_bytes_per_event: f64,
    /// Peak memory that the tool adds, in bytes. May be negative, by noise, for a tool that needs
    /// none.
    pub(crate) peak_bytes: f64,
}

/// Computes the figures of some pairs. Returns `None` without pairs or events.
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

/// Returns the middle value, or the mean of the two middle values. Returns `None` without values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values.get(middle).copied(),
        _ => Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0),
    }
}

/// Returns the difference, which may be negative.
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
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![7.0]), Some(7.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![10.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn an_added_amount_can_be_negative() {
        assert_eq!(added(5, 3), 2.0);
        assert_eq!(added(3, 5), -2.0);
    }

    #[test]
    fn figures_compare_within_a_round_and_then_take_the_median() {
        // The machine gets slower from round to round. The tool takes twice as long, and once five
        // times.
        let pair = |slower: u64, times: u64| Pair {
            untracked: run(1000 * slower, 900 * slower, 800 * slower, 5000, 0),
            tool: run(1000 * slower * times, 900 * slower + 600, 800 * slower + 400, 7000, 250),
        };
        let figures = figures(&[pair(1, 2), pair(2, 2), pair(4, 5)], 100).unwrap();
        assert_eq!((figures.lowest_ratio, figures.ratio, figures.highest_ratio), (2.0, 2.0, 5.0));
        // The tool adds 1000, 2000 and 16000 ns of wall time.
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
