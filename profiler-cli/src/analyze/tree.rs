//! The call tree with figures: what each call accounts for with its callees, and by itself. In: a
//! profile, its named stacks and a metric. Out: [`Tree`].
//!
//! ```text
//! callees                       callers
//! main                100       read               70
//!   load               70         load             70
//!     read       70    70           main           70
//!   draw         30    30       draw               30
//!                                 main             30
//! ```
//!
//! In both directions the rows of the outermost level add up to the total.

use std::cmp::Reverse;

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::flame::Metric;
use crate::analyze::frame_table::{FrameTable, StackFrame};
use crate::analyze::interval::CountedInterval;
use crate::analyze::shown::{Folding, ShownFrame, ShownStacks, Times};
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::summary::with_ids;
use crate::names::stacks::Stacks;
use crate::profile::Profile;

/// A call tree with figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tree {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Command line of the recorded program.
    pub command: String,
    /// What the figures count, such as `Live at the peak`.
    pub metric: String,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Unit of the figures: `bytes` or `allocations`.
    pub unit: &'static str,
    /// Whether rows lead from a function to its callers. If not, they lead to its callees.
    pub callers: bool,
    /// Whether the whole recording was read.
    pub complete: bool,
    /// Whether a filter or a selection of threads left stacks out.
    pub filtered: bool,
    /// Sum of the figures of all stacks.
    pub total: u64,
    /// Calls with less than this part of the total, in percent, have no rows of their own.
    pub min_percent: f64,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// The frames of all rows, which refer to them by index, from 0.
    pub frames: Vec<StackFrame>,
    /// The rows: each is followed by the rows below it.
    pub rows: Vec<TreeRow>,
}

/// One call in the tree, or the sum of calls that have no rows of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TreeRow {
    /// Index of the frame in [`Tree::frames`]. Null for blocks without a stack, and for the sum of
    /// calls that are too small or too deep for rows of their own.
    pub frame: Option<u32>,
    /// Number of rows that this row is below of.
    pub depth: usize,
    /// The figure of the call with everything below it.
    pub inclusive: u64,
    /// The figure of the call alone.
    pub exclusive: u64,
    /// Number of calls that the row stands for: 1, unless it is a sum.
    pub calls: usize,
    /// Number of frames that the row stands for: more than 1 for a recursion, and for folded frames
    /// of dependencies.
    pub times: u32,
    /// The smallest of the numbers that `times` is the largest of.
    #[serde(skip)]
    pub fewest: u32,
}

/// Which part of the tree is shown, and how.
#[derive(Clone, Copy, Debug)]
pub struct TreeSelection {
    /// The figure.
    pub metric: Metric,
    /// Whether rows lead from a function to its callers.
    pub callers: bool,
    /// Which frames are left out or folded.
    pub folding: Folding,
    /// The most levels of rows.
    pub depth: usize,
    /// Calls with less than this part of the total, in percent, have no rows of their own.
    pub min_percent: f64,
}

/// Makes the tree of all stacks that the filter accepts.
pub fn tree(profile: &Profile, stacks: &Stacks, filter: &Filter, selection: &TreeSelection) -> Tree {
    let accepted = filter.accepted(stacks);
    let figure_of = |stack: StackId| {
        let stats = profile.stacks.get(stack.0 as usize).filter(|_| accepted.accepts(stack));
        stats.map_or(0, |stats| selection.metric.of(stats))
    };
    let shown = ShownStacks::of(stacks, selection.folding, u32::MAX, |stack| figure_of(stack) > 0);
    let mut calls = Calls::default();
    let mut path: Vec<(ShownFrame, Times)> = Vec::new();
    // PERF: all stacks that are shown alike are added to the tree at once.
    let mut figures: HashMap<_, u64> = HashMap::default();
    let mut total = 0;
    for (stack, _) in with_ids(profile).filter(|(stack, _)| figure_of(*stack) > 0) {
        total += figure_of(stack);
        *figures.entry(shown.stack(stack)).or_default() += figure_of(stack);
    }
    let mut sorted: Vec<_> = figures.into_iter().collect();
    sorted.sort_unstable();
    for (id, figure) in sorted {
        path.clear();
        if selection.callers {
            path.extend(shown.frames(id).take(selection.depth));
        } else {
            path.extend(shown.frames(id));
            path.reverse();
        }
        calls.add(&path, figure, selection.depth);
    }
    let (paths, interval) = (SourcePaths::of(profile, stacks), CountedInterval::of(profile));
    let mut frames = FrameTable::new(stacks, &shown, &paths);
    let smallest = (total as f64 * selection.min_percent / 100.0).ceil() as u64;
    let rows = calls.rows(smallest, |frame| frames.index_of(frame));
    Tree {
        schema: "alloc-tracker/tree/1",
        command: profile.process.command(),
        metric: selection.metric.title_in(interval.as_ref()),
        interval,
        unit: selection.metric.unit(),
        callers: selection.callers,
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        total,
        min_percent: selection.min_percent,
        source_root: paths.root(),
        frames: frames.into_frames(),
        rows,
    }
}

/// The calls of the tree. The first is the root, which has no frame.
struct Calls {
    calls: Vec<Call>,
    ids: HashMap<(usize, Option<ShownFrame>), usize>,
}

struct Call {
    frame: Option<ShownFrame>,
    times: Times,
    inclusive: u64,
    exclusive: u64,
    below: Vec<usize>,
}

const ROOT: usize = 0;

impl Default for Calls {
    fn default() -> Calls {
        Calls { calls: vec![Call::new(None, Times { fewest: 1, most: 1 })], ids: HashMap::default() }
    }
}

impl Call {
    fn new(frame: Option<ShownFrame>, times: Times) -> Call {
        Call { frame, times, inclusive: 0, exclusive: 0, below: Vec::new() }
    }
}

impl Calls {
    /// Adds a stack, from the outermost level of the tree inwards. What is deeper than `depth`
    /// counts for the last level alone.
    fn add(&mut self, path: &[(ShownFrame, Times)], figure: u64, depth: usize) {
        let one = Times { fewest: 1, most: 1 };
        let mut at = ROOT;
        self.calls[at].inclusive += figure;
        let frames = path.iter().map(|(frame, times)| (Some(*frame), *times));
        let none = path.is_empty().then_some((None, one));
        for (frame, times) in frames.chain(none).take(depth) {
            let next = self.calls.len();
            let id = *self.ids.entry((at, frame)).or_insert(next);
            if id == next {
                self.calls.push(Call::new(frame, times));
                self.calls[at].below.push(id);
            }
            at = id;
            let call = &mut self.calls[at];
            call.inclusive += figure;
            call.times.fewest = call.times.fewest.min(times.fewest);
            call.times.most = call.times.most.max(times.most);
        }
        if path.len() <= depth {
            self.calls[at].exclusive += figure;
        }
    }

    /// Returns the rows, largest first at each level. Calls with a smaller figure than `smallest`
    /// become one row for each level.
    fn rows(&mut self, smallest: u64, mut index_of: impl FnMut(ShownFrame) -> u32) -> Vec<TreeRow> {
        let mut rows = Vec::new();
        let mut waiting: Vec<(Waiting, usize)> = vec![(Waiting::Call(ROOT), 0)];
        while let Some((next, depth)) = waiting.pop() {
            let at = match next {
                Waiting::Sum { calls, inclusive } => {
                    let row =
                        TreeRow { frame: None, depth, inclusive, exclusive: 0, calls, times: 1, fewest: 1 };
                    rows.push(row);
                    continue;
                }
                Waiting::Call(at) => at,
            };
            if at != ROOT {
                let Call { frame, times, inclusive, exclusive, .. } = self.calls[at];
                rows.push(TreeRow {
                    frame: frame.map(&mut index_of),
                    depth: depth - 1,
                    inclusive,
                    exclusive,
                    calls: 1,
                    times: times.most,
                    fewest: times.fewest,
                });
            }
            let mut below = std::mem::take(&mut self.calls[at].below);
            // The sort is stable, so equal calls stay in the order of their stacks.
            below.sort_by_key(|call| Reverse(self.calls[*call].inclusive));
            let large = below.partition_point(|call| self.calls[*call].inclusive >= smallest);
            let small = below.split_off(large);
            if !small.is_empty() {
                let inclusive = small.iter().map(|call| self.calls[*call].inclusive).sum();
                waiting.push((Waiting::Sum { calls: small.len(), inclusive }, depth));
            }
            waiting.extend(below.into_iter().rev().map(|call| (Waiting::Call(call), depth + 1)));
        }
        rows
    }
}

/// A row that is still to be made.
enum Waiting {
    Call(usize),
    Sum { calls: usize, inclusive: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::NamedFrame;
    use crate::profile::StackStats;

    /// Stacks with the bytes that are live at their end, each from the innermost frame outwards.
    fn tree_of(stacks: &[(&str, u64)], selection: TreeSelection) -> Tree {
        let frame = |function: &str| NamedFrame {
            function: function.into(),
            file: None,
            line: None,
            is_inlined: false,
            owner: CodeOwner::Own,
            module: "app".into(),
        };
        let frames: Vec<Vec<NamedFrame>> =
            stacks.iter().map(|(names, _)| names.split(' ').map(frame).collect()).collect();
        let mut stats = vec![StackStats::default(); StackId::FIRST.0 as usize];
        stats.extend(
            stacks
                .iter()
                .map(|(_, live_bytes)| StackStats { live_bytes: *live_bytes, ..StackStats::default() }),
        );
        let profile = Profile { stacks: stats, ..Profile::default() };
        tree(&profile, &Stacks::from_frames(&frames), &Filter::default(), &selection)
    }

    fn all(callers: bool) -> TreeSelection {
        TreeSelection {
            metric: Metric::Live,
            callers,
            folding: Folding::Runtime,
            depth: usize::MAX,
            min_percent: 0.0,
        }
    }

    /// Returns the rows as text: the function after a space for each level, and the figures.
    fn rows(tree: &Tree) -> Vec<String> {
        let row = |row: &TreeRow| {
            let name = match row.frame {
                Some(frame) => tree.frames[frame as usize].function.clone(),
                None => format!("{} others", row.calls),
            };
            format!("{}{name} {} {}", " ".repeat(row.depth), row.inclusive, row.exclusive)
        };
        tree.rows.iter().map(row).collect()
    }

    const STACKS: [(&str, u64); 4] =
        [("read load main", 60), ("load main", 10), ("draw main", 30), ("read draw main", 5)];

    #[test]
    fn inclusive_figures_are_those_of_a_call_and_all_below_it() {
        let tree = tree_of(&STACKS, all(false));
        assert_eq!(rows(&tree), ["main 105 0", " load 70 10", "  read 60 60", " draw 35 30", "  read 5 5"]);
        let exclusive: u64 = tree.rows.iter().map(|row| row.exclusive).sum();
        assert_eq!((tree.total, exclusive), (105, 105));
    }

    #[test]
    fn callers_are_below_the_functions_that_they_call() {
        let tree = tree_of(&STACKS, all(true));
        let expected = [
            "read 65 0",
            " load 60 0",
            "  main 60 60",
            " draw 5 0",
            "  main 5 5",
            "draw 30 0",
            " main 30 30",
            "load 10 0",
            " main 10 10",
        ];
        assert_eq!(rows(&tree), expected);
    }

    #[test]
    fn small_and_deep_calls_are_summed_up() {
        // 20 percent of 105 are 21.
        let large = tree_of(&STACKS, TreeSelection { min_percent: 20.0, ..all(false) });
        assert_eq!(
            rows(&large),
            ["main 105 0", " load 70 10", "  read 60 60", " draw 35 30", "  1 others 5 0"]
        );
        let flat = tree_of(&STACKS, TreeSelection { depth: 2, ..all(false) });
        assert_eq!(rows(&flat), ["main 105 0", " load 70 10", " draw 35 30"]);
    }
}
