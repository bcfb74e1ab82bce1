//! The blocks that are live at the end, by site. In: a profile and its named stacks. Out:
//! [`Leaks`], largest first.

use std::collections::BTreeMap;

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::frame_table::{FrameTable, StackFrame};
use crate::analyze::growth::{GrowingSites, GrowthSummary, SiteGrowth};
use crate::analyze::interval::CountedInterval;
use crate::analyze::shown::{CutStack, Folding, ShownStackId, ShownStacks};
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::summary::with_ids;
use crate::names::stacks::Stacks;
use crate::profile::Profile;

/// The blocks that are live at the end of the recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leaks {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Bytes of all live blocks that the filter lets through, those of the runtime and of rows that
    /// `--top` cut off included.
    pub total_bytes: u64,
    /// Number of the blocks that `total_bytes` counts.
    pub total_blocks: u64,
    /// By how much blocks that are older than the interval grew in it; 0 for the whole recording.
    pub grown_bytes: u64,
    /// Number of the blocks that `grown_bytes` counts.
    pub grown_blocks: u64,
    /// Whether the whole recording was read. If not, the program may have freed some of these
    /// blocks later.
    pub complete: bool,
    /// Whether a filter or a selection of threads may have left out some live blocks.
    pub filtered: bool,
    /// Bytes of blocks that the runtime keeps for itself, which have no row: no frame of their
    /// stacks belongs to the user or to a dependency. With `--full` they have rows, and this is 0.
    pub runtime_bytes: u64,
    /// Number of the blocks that `runtime_bytes` counts.
    pub runtime_blocks: u64,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// The frames of all stacks. Rows refer to them by index, from 0.
    pub frames: Vec<StackFrame>,
    /// The windows of `--growing`, and how many sites do what in them. Null without `--growing`.
    pub growth: Option<GrowthSummary>,
    /// One row for each site, most bytes first. With `--growing` only sites that grow, those that
    /// grow most first, and those that slow down last; with `--all` then those that may grow, and
    /// those that are steady.
    pub leaks: Vec<Leak>,
    /// Number of sites that `--top` cut off.
    pub omitted: usize,
}

/// The live blocks that got their present size at one site.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leak {
    /// Bytes of the blocks, as they were asked for.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// By how much older blocks grew that got their present size here in the interval.
    pub grown_bytes: u64,
    /// Number of the blocks that `grown_bytes` counts.
    pub grown_blocks: u64,
    /// Source file of the site, which is the innermost frame that is the user's own code. Null if
    /// it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Function of the site; `(no stack)` for blocks without a stack.
    pub function: String,
    /// When the first of the blocks was allocated, in nanoseconds since the recording began; exact
    /// to a microsecond.
    pub first_ns: u64,
    /// When the last of the blocks got its present size, in nanoseconds since the recording began.
    pub last_ns: u64,
    /// How the site grows. Null without `--growing`.
    pub growth: Option<SiteGrowth>,
    /// Number of distinct stacks of the site; more than `stacks` has if some were left out.
    pub stack_count: u64,
    /// The stacks of the site, most bytes first.
    pub stacks: Vec<LeakStack>,
}

/// The live blocks that got their present size at one stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeakStack {
    /// Bytes of the blocks, as they were asked for.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// By how much older blocks grew that got their present size here in the interval.
    pub grown_bytes: u64,
    /// Number of the blocks that `grown_bytes` counts.
    pub grown_blocks: u64,
    /// The frames by their indices in [`Leaks::frames`], innermost first: of more than 1,000 frames
    /// the innermost 900 and the outermost 100.
    pub frames: Vec<u32>,
    /// For each of the frames how many calls it stands for; more than 1 for a recursion that is
    /// shown once, and for folded frames of dependencies. If stacks with different numbers are
    /// shown as one, the largest number.
    pub times: Vec<u32>,
    /// The smallest of the numbers of `times`, for each frame.
    #[serde(skip)]
    pub fewest: Vec<u32>,
    /// Number of frames that are left out between the innermost and the outermost part; 0 if the
    /// stack is whole.
    pub omitted_frames: usize,
}

/// How much of the leaks is listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeakSelection {
    /// Which frames are left out or folded. With [`Folding::None`] the blocks of the runtime have
    /// rows as well.
    pub folding: Folding,
    /// At most this many sites; `None` for all.
    pub top: Option<usize>,
    /// At most this many stacks of each site; `None` for all.
    pub stacks: Option<usize>,
}

/// Finds the blocks that are live at the end. Stacks that are shown alike are one stack.
pub fn leaks(profile: &Profile, stacks: &Stacks, filter: &Filter, selection: LeakSelection) -> Leaks {
    leaks_of(profile, stacks, filter, selection, None)
}

/// Finds the blocks that are live at the end, at the sites that grow.
pub fn growing_leaks(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    selection: LeakSelection,
    growing: &GrowingSites<'_>,
) -> Leaks {
    leaks_of(profile, stacks, filter, selection, Some(growing))
}

fn leaks_of(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    selection: LeakSelection,
    growing: Option<&GrowingSites<'_>>,
) -> Leaks {
    let accepted = filter.accepted(stacks);
    let blocks_of = |stack: StackId| {
        let stats = profile.stacks.get(stack.0 as usize)?;
        let grown = profile.grown.get(&stack).copied().unwrap_or_default();
        let is_live = stats.live_blocks > 0 || grown.blocks > 0;
        (is_live && accepted.accepts(stack)).then(|| LiveBlocks {
            bytes: stats.live_bytes,
            blocks: stats.live_blocks,
            grown_bytes: grown.bytes,
            grown_blocks: grown.blocks,
            first_us: if stats.live_blocks > 0 { stats.live_first_us } else { grown.last_us },
            last_us: stats.live_last_us.max(grown.last_us),
        })
    };
    let is_listed = |stack: StackId| is_listed(stacks, selection.folding, stack);
    let shown = ShownStacks::of(stacks, selection.folding, OUTERMOST, |stack| {
        blocks_of(stack).is_some() && is_listed(stack)
    });
    let (mut total, mut runtime) = (LiveBlocks::default(), LiveBlocks::default());
    // By location, as in the summary: one location is several frames if its code was inlined at one
    // call and not at another.
    let mut sites: BTreeMap<SiteLocation<'_>, SiteBlocks> = BTreeMap::new();
    for (stack, _) in with_ids(profile) {
        let Some(blocks) = blocks_of(stack) else { continue };
        total.add(&blocks);
        if !is_listed(stack) {
            runtime.add(&blocks);
            continue;
        }
        let site = sites.entry(location_of(stacks, stack)).or_default();
        site.all.add(&blocks);
        site.by_stack.entry(shown.stack(stack)).or_default().add(&blocks);
    }
    let mut sites: Vec<(SiteLocation<'_>, SiteBlocks)> = sites.into_iter().collect();
    // The sort is stable, so equal sites stay in the order of their locations.
    sites.sort_by_key(|(_, site)| site.all.rank());
    if let Some(growing) = growing {
        growing.select(&mut sites);
    }
    let omitted = sites.len().saturating_sub(selection.top.unwrap_or(usize::MAX));
    sites.truncate(selection.top.unwrap_or(usize::MAX));
    let paths = SourcePaths::of(profile, stacks);
    let mut frames = FrameTable::new(stacks, &shown, &paths);
    let rows = sites.into_iter();
    let rows = rows.map(|(location, site)| {
        let growth = growing.and_then(|growing| growing.at(&location)).cloned();
        let row = site.into_row(location, &mut frames, &paths, selection.stacks);
        Leak { growth, ..row }
    });
    let leaks: Vec<Leak> = rows.collect();
    Leaks {
        schema: "alloc-tracker/leaks/2",
        interval: CountedInterval::of(profile),
        total_bytes: total.bytes,
        total_blocks: total.blocks,
        grown_bytes: total.grown_bytes,
        grown_blocks: total.grown_blocks,
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        runtime_bytes: runtime.bytes,
        runtime_blocks: runtime.blocks,
        frames: frames.into_frames(),
        source_root: paths.root(),
        growth: growing.map(|growing| growing.summary.clone()),
        leaks,
        omitted,
    }
}

/// Whether the blocks of a stack have a row: they do, unless the runtime keeps them for itself.
pub(super) fn is_listed(stacks: &Stacks, folding: Folding, stack: StackId) -> bool {
    let site = stacks.site(stack).map(|id| stacks.frame(id));
    folding == Folding::None || site.is_none_or(|site| !site.is_runtime())
}

/// Returns the location of the site of a stack.
pub(super) fn location_of(stacks: &Stacks, stack: StackId) -> SiteLocation<'_> {
    let frame = stacks.site(stack).map(|id| stacks.frame(id));
    frame.map(|frame| (&*frame.function, frame.file.as_deref(), frame.line))
}

/// Function, file and line of a site; `None` for blocks without a stack.
pub(super) type SiteLocation<'a> = Option<(&'a str, Option<&'a str>, Option<u32>)>;

/// The name of the site of blocks without a stack.
const NO_STACK: &str = "(no stack)";

/// Limits of the innermost and of the outermost frames that a stack has. Stacks with all frames of
/// a deep recursion would need memory quadratic in its depth.
const INNERMOST: usize = 900;
const OUTERMOST: u32 = 100;

/// The live blocks of a site.
#[derive(Default)]
struct SiteBlocks {
    all: LiveBlocks,
    by_stack: HashMap<ShownStackId, LiveBlocks>,
}

impl SiteBlocks {
    fn into_row(
        self,
        location: SiteLocation<'_>,
        frames: &mut FrameTable<'_>,
        paths: &SourcePaths,
        most_stacks: Option<usize>,
    ) -> Leak {
        let (function, file, line) = location.unwrap_or((NO_STACK, None, None));
        let mut stacks: Vec<(ShownStackId, LiveBlocks)> = self.by_stack.into_iter().collect();
        let stack_count = stacks.len() as u64;
        stacks.sort_by_key(|(id, blocks)| (blocks.rank(), *id));
        stacks.truncate(most_stacks.unwrap_or(usize::MAX));
        Leak {
            bytes: self.all.bytes,
            blocks: self.all.blocks,
            grown_bytes: self.all.grown_bytes,
            grown_blocks: self.all.grown_blocks,
            file: file.map(|file| paths.shown(file).to_owned()),
            line,
            function: function.to_owned(),
            first_ns: self.all.first_us * 1000,
            last_ns: self.all.last_us * 1000,
            stack_count,
            growth: None,
            stacks: stacks.into_iter().map(|(id, blocks)| stack_row(id, &blocks, frames)).collect(),
        }
    }
}

fn stack_row(id: ShownStackId, blocks: &LiveBlocks, table: &mut FrameTable<'_>) -> LeakStack {
    let CutStack { inner, omitted, outer } = table.shown().cut(id, INNERMOST);
    let frames = || inner.iter().chain(&outer);
    LeakStack {
        bytes: blocks.bytes,
        blocks: blocks.blocks,
        grown_bytes: blocks.grown_bytes,
        grown_blocks: blocks.grown_blocks,
        frames: frames().map(|(frame, _)| table.index_of(*frame)).collect(),
        times: frames().map(|(_, times)| times.most).collect(),
        fewest: frames().map(|(_, times)| times.fewest).collect(),
        omitted_frames: omitted,
    }
}

/// Live blocks, added up.
#[derive(Clone, Copy, Debug, Default)]
struct LiveBlocks {
    bytes: u64,
    blocks: u64,
    grown_bytes: u64,
    grown_blocks: u64,
    first_us: u64,
    last_us: u64,
}

impl LiveBlocks {
    fn add(&mut self, more: &LiveBlocks) {
        let is_first = self.blocks + self.grown_blocks == 0;
        self.first_us = if is_first { more.first_us } else { self.first_us.min(more.first_us) };
        self.last_us = self.last_us.max(more.last_us);
        self.bytes += more.bytes;
        self.blocks += more.blocks;
        self.grown_bytes += more.grown_bytes;
        self.grown_blocks += more.grown_blocks;
    }

    /// Returns a key that sorts the most bytes first, then the most blocks, then the oldest.
    fn rank(&self) -> (std::cmp::Reverse<(u64, u64)>, u64) {
        let bytes = self.bytes.saturating_add(self.grown_bytes);
        (std::cmp::Reverse((bytes, self.blocks + self.grown_blocks)), self.first_us)
    }
}
