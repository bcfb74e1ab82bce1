//! Stacks with weights, for a flamegraph. In: a profile, its stacks and a metric. Out: [`Flame`].

use std::collections::BTreeMap;

use crate::analyze::summary::with_ids;
use crate::filter::Filter;
use crate::profile::{Profile, StackStats};
use crate::stacks::{NamedFrame, Stacks};

/// What the width of a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Metric {
    /// Bytes live at the end
    Live,
    /// Bytes live at the peak
    Peak,
    /// Bytes allocated, freed or not
    Allocated,
    /// Number of allocations
    Allocations,
    /// Number of allocations that were freed at once
    Temporary,
}

impl Metric {
    /// The figure of one stack.
    pub fn of(self, stats: &StackStats) -> u64 {
        match self {
            Metric::Live => stats.live_bytes,
            Metric::Peak => stats.peak_bytes,
            Metric::Allocated => stats.allocated,
            Metric::Allocations => stats.allocations,
            Metric::Temporary => stats.temporary,
        }
    }

    /// What it counts.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Live | Metric::Peak | Metric::Allocated => "bytes",
            Metric::Allocations | Metric::Temporary => "allocations",
        }
    }

    /// What it is called in a title.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Live => "Live at the end",
            Metric::Peak => "Live at the peak",
            Metric::Allocated => "Allocated",
            Metric::Allocations => "Allocations",
            Metric::Temporary => "Temporary allocations",
        }
    }
}

/// Stacks with weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Flame {
    /// What the weights are.
    pub metric: Metric,
    /// The command line.
    pub command: String,
    /// Sum of all weights.
    pub total: u64,
    /// Labels of a stack, outermost frame first, and its weight. Weights are not zero.
    pub stacks: BTreeMap<Vec<String>, u64>,
}

/// Collects the weights. Frames of the runtime are left out unless `full`. With `top` all but the heaviest stacks become
/// one.
pub fn flame(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    metric: Metric,
    full: bool,
    top: Option<usize>,
) -> Flame {
    let mut weights: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for (stack, stats) in with_ids(profile) {
        let weight = metric.of(stats);
        if weight == 0 || !filter.accepts(stacks, stack) {
            continue;
        }
        let frames = if full { stacks.frames(stack).collect() } else { stacks.trimmed(stack) };
        let mut labels: Vec<String> = frames.iter().rev().map(|id| label(stacks.frame(*id))).collect();
        if labels.is_empty() {
            labels.push("(no stack)".to_owned());
        }
        *weights.entry(labels).or_default() += weight;
    }
    if let Some(top) = top {
        weights = heaviest(weights, top);
    }
    let (command, total) = (profile.process.command(), weights.values().sum());
    Flame { metric, command, total, stacks: weights }
}

fn heaviest(weights: BTreeMap<Vec<String>, u64>, top: usize) -> BTreeMap<Vec<String>, u64> {
    let mut sorted: Vec<(Vec<String>, u64)> = weights.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let rest = sorted.split_off(top.min(sorted.len()));
    let others = rest.iter().map(|(_, weight)| weight).sum();
    if others > 0 {
        sorted.push((vec![format!("({} other stacks)", rest.len())], others));
    }
    sorted.into_iter().collect()
}

/// `function (file.rs:12)`.
fn label(frame: &NamedFrame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => {
            format!("{} ({}:{line})", frame.function, file.rsplit('/').next().unwrap_or_default())
        }
        _ => frame.function.to_string(),
    }
}
