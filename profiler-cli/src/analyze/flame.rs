//! Stacks with weights, for a flamegraph. In: a profile, its named stacks and a metric. Out:
//! [`Flame`].

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::analyze::filter::Filter;
use crate::analyze::flame_labels::LabelTable;
use crate::analyze::interval::{CountedInterval, live_title};
use crate::analyze::shown::{CutStack, Folding, ShownFrame, ShownStackId, ShownStacks, Times};
use crate::analyze::site_location::{NO_STACK, frame_label};
use crate::analyze::summary::with_ids;
use crate::names::code_owner::CodeOwner;
use crate::names::stacks::{FrameId, Stacks};
use crate::profile::{Profile, StackStats};

/// The figure that the width of a frame stands for.
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
    /// Bytes by what retains them, from a root to a site, by a snapshot
    Retained,
}

impl Metric {
    /// Returns the figure of one stack, in the [unit](Metric::unit) of the metric.
    pub fn of(self, stats: &StackStats) -> u64 {
        match self {
            Metric::Live => stats.live_bytes,
            Metric::Peak => stats.peak_bytes,
            Metric::Allocated => stats.allocated,
            Metric::Allocations => stats.allocations,
            Metric::Temporary => stats.temporary,
            // These are figures of blocks, not of stacks.
            Metric::Retained => 0,
        }
    }

    /// Returns the unit of the figures.
    pub fn unit(self) -> &'static str {
        match self {
            Metric::Live | Metric::Peak | Metric::Allocated | Metric::Retained => "bytes",
            Metric::Allocations | Metric::Temporary => "allocations",
        }
    }

    /// Returns the name of the metric in a title.
    pub fn title(self) -> &'static str {
        match self {
            Metric::Live => "Live at the end",
            Metric::Peak => "Live at the peak",
            Metric::Allocated => "Allocated",
            Metric::Allocations => "Allocations",
            Metric::Temporary => "Temporary allocations",
            Metric::Retained => "Retained",
        }
    }

    /// Returns the name of the metric in the title of a report about an interval.
    pub fn title_in(self, interval: Option<&CountedInterval>) -> String {
        match (interval, self) {
            (None, metric) => metric.title().to_owned(),
            (interval, Metric::Live) => live_title(interval),
            (Some(interval), metric) => format!("{} {}", metric.title(), interval.name()),
        }
    }
}

/// Stacks with weights, from which a flamegraph is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Flame {
    /// The figure that the weights stand for.
    pub metric: Metric,
    /// Command line of the recorded program.
    pub command: String,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether a filter or a selection of threads left stacks out.
    pub filtered: bool,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Sum of all weights, in the unit of the metric.
    pub total: u64,
    /// Labels of frames; `stacks` refers to them by index.
    pub labels: Vec<String>,
    /// For each label whose code it is.
    pub owners: Vec<CodeOwner>,
    /// For each stack its labels, outermost frame first, and its weight, which is never 0. Sorted
    /// by labels; the sum of the stacks that `top` left out comes last.
    pub stacks: Vec<(Vec<u32>, u64)>,
}

impl Flame {
    /// Returns the title: the metric, and the interval if the figures are of one.
    pub fn title(&self) -> String {
        self.metric.title_in(self.interval.as_ref())
    }

    /// Returns the labels of a stack.
    pub fn labels_of<'a>(&'a self, stack: &'a [u32]) -> impl Iterator<Item = &'a str> {
        stack.iter().map(|label| self.labels[*label as usize].as_str())
    }
}

/// The most frames of a stack that are drawn. A deeper stack keeps half of this number at each end.
/// A deeper picture is of no use to anybody, and huge: each stack of a deep recursion repeats all
/// frames of the stack before it.
const MAX_DEPTH: u32 = 160;

/// Collects the weights of the stacks that the filter accepts. With `top`, only that many of the
/// heaviest stacks stay, and all others become one stack.
pub fn flame(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    metric: Metric,
    folding: Folding,
    top: Option<usize>,
) -> Flame {
    let accepted = filter.accepted(stacks);
    let weight_of = |stack: StackId| {
        let stats = profile.stacks.get(stack.0 as usize).filter(|_| accepted.accepts(stack));
        stats.map_or(0, |stats| metric.of(stats))
    };
    let shown = ShownStacks::of(stacks, folding, MAX_DEPTH / 2, |stack| weight_of(stack) > 0);
    let mut labels = StackLabels::new(stacks, &shown);
    // Shown stacks that differ only in modules, folders or left-out frames have the same labels.
    let mut by_shown: HashMap<ShownStackId, usize> = HashMap::default();
    let mut by_labels: HashMap<Vec<u32>, usize> = HashMap::default();
    let mut weights: Vec<u64> = Vec::new();
    for (stack, _) in with_ids(profile).filter(|(stack, _)| weight_of(*stack) > 0) {
        let id = shown.stack(stack);
        let at = *by_shown.entry(id).or_insert_with(|| {
            let labels = labels.of_stack(&shown.cut(id, MAX_DEPTH as usize / 2));
            *by_labels.entry(labels).or_insert_with(|| {
                weights.push(0);
                weights.len() - 1
            })
        });
        weights[at] += weight_of(stack);
    }
    let total = weights.iter().sum();
    let mut sorted: Vec<(Vec<u32>, u64)> =
        by_labels.into_iter().map(|(labels, at)| (labels, weights[at])).collect();
    labels.table.sort_stacks(&mut sorted, top);
    Flame {
        metric,
        command: profile.process.command(),
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        interval: CountedInterval::of(profile),
        total,
        labels: labels.table.names,
        owners: labels.table.owners,
        stacks: sorted,
    }
}

/// The labels of shown stacks.
struct StackLabels<'a> {
    stacks: &'a Stacks,
    shown: &'a ShownStacks,
    table: LabelTable,
    /// The label of each single frame that has one already, at the frame's index. PERF: a deep
    /// stack asks for 160 labels.
    of_frames: Vec<Option<u32>>,
}

impl<'a> StackLabels<'a> {
    fn new(stacks: &'a Stacks, shown: &'a ShownStacks) -> StackLabels<'a> {
        let of_frames = vec![None; stacks.all_frames().count()];
        StackLabels { stacks, shown, table: LabelTable::default(), of_frames }
    }

    /// Returns the labels of a stack, outermost first.
    fn of_stack(&mut self, CutStack { inner, omitted, outer }: &CutStack) -> Vec<u32> {
        if inner.is_empty() {
            return vec![self.table.index_of(NO_STACK.to_owned(), CodeOwner::Runtime)];
        }
        let mut labels: Vec<u32> = outer.iter().rev().map(|(frame, times)| self.of(*frame, *times)).collect();
        if *omitted > 0 {
            // Without the number of frames, so that the stacks of a recursion share the label.
            labels.push(self.table.index_of("(… more frames …)".to_owned(), CodeOwner::Runtime));
        }
        labels.extend(inner.iter().rev().map(|(frame, times)| self.of(*frame, *times)));
        labels
    }

    fn of(&mut self, frame: ShownFrame, times: Times) -> u32 {
        match frame {
            ShownFrame::Single(id) if times.most > 1 => {
                let frame = self.stacks.frame(id);
                self.table.index_of(format!("{} (recursive)", frame_label(frame)), frame.owner)
            }
            ShownFrame::Single(id) => self.of_frame(id),
            ShownFrame::Folded(index) => {
                let fold = self.shown.fold(index);
                let name = match fold.entry.map(|id| self.stacks.frame(id)) {
                    // A fold of one frame is that frame.
                    Some(entry) if times.most == 1 => frame_label(entry),
                    Some(entry) => format!("{} …", entry.function),
                    None => format!("{} …", self.shown.crates_of(fold).join(", ")),
                };
                self.table.index_of(name, CodeOwner::Dependency)
            }
        }
    }

    fn of_frame(&mut self, id: FrameId) -> u32 {
        if let Some(label) = self.of_frames[id.index()] {
            return label;
        }
        let frame = self.stacks.frame(id);
        let label = self.table.index_of(frame_label(frame), frame.owner);
        self.of_frames[id.index()] = Some(label);
        label
    }
}
