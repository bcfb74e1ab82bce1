//! The blocks that are live at the end, by site. In: a profile and its named stacks. Out:
//! [`Leaks`], largest first.

mod suppressed;

use std::collections::BTreeMap;

use alloc_dump::layout::StackId;
use alloc_dump::record::RecordingLimit;
use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::filter::Filter;
use crate::analyze::frame_table::{FrameTable, StackFrame};
use crate::analyze::growth::{GrowingSites, GrowthSummary, SiteGrowth};
use crate::analyze::held::Verdict;
use crate::analyze::holders::{HeldBy, HolderTable, JudgedBlocks, LostWithIt, SnapshotInfo};
use crate::analyze::interval::CountedInterval;
use crate::analyze::leaks::suppressed::SuppressedBlocks;
use crate::analyze::shown::{CutStack, Folding, ShownStackId, ShownStacks};
use crate::analyze::site_location::{NO_STACK, SiteLocation, location_of};
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::summary::with_ids;
use crate::analyze::suppressions::SuppressedStacks;
use crate::names::stacks::Stacks;
use crate::profile::Profile;

pub use self::suppressed::{Suppressed, SuppressedPattern};

/// The blocks that are live at the end of the recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leaks {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// Path of the dump as it was given.
    pub dump: String,
    /// Command line of the recorded program.
    pub command: String,
    /// Process id of the recorded program.
    pub pid: u32,
    /// Whether the recording has every heap event of the program's code up to its end.
    pub exact: bool,
    /// Name of the limit that has ended the recording before the program: `dump_size`, `duration`,
    /// or `other` for one that this release does not know. Null if none has.
    pub limit: Option<&'static str>,
    /// The interval that all figures count. Null for the whole recording.
    pub interval: Option<CountedInterval>,
    /// Bytes of all live blocks that the filter lets through and that are not suppressed, those of
    /// the runtime and of rows that `--top` cut off included.
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
    /// The live blocks that are suppressed. No other figure counts them.
    pub suppressed: Suppressed,
    /// The snapshot by which the blocks are judged. Null if there is none: then all verdicts are
    /// `unknown`.
    pub snapshot: Option<SnapshotInfo>,
    /// What the blocks of each verdict are together, rows that `--top` and `--verdict` left out
    /// included. Empty without a snapshot.
    pub verdicts: Vec<VerdictTotal>,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// The frames of all stacks. Rows refer to them by index, from 0.
    pub frames: Vec<StackFrame>,
    /// The windows of `--growing`, and how many sites do what in them. Null without `--growing` and
    /// `--fail-on growing`.
    pub growth: Option<GrowthSummary>,
    /// One row for each site, most bytes first. With `--growing` only sites that grow, those that
    /// grow most first, and those that slow down last; with `--all` then those that may grow, and
    /// those that are steady.
    pub leaks: Vec<Leak>,
    /// Number of sites that `--top` cut off.
    pub omitted: usize,
}

/// The blocks with one verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct VerdictTotal {
    /// The verdict.
    pub verdict: Verdict,
    /// Bytes of the blocks.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
}

/// The live blocks that got their present size at one site. With a snapshot, those with the same
/// verdict: a site may have several rows.
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
    /// Share of the row in what all rows and the runtime hold, grown bytes included: from 0 to 1.
    pub share: f64,
    /// Source file of the site, which is the innermost frame that is the user's own code. Null if
    /// it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Function of the site; `(no stack)` for blocks without a stack.
    pub function: String,
    /// Whether anything held the blocks at the snapshot. `held`: a static, a stack, a thread-local
    /// or a register did. `maybe`: only memory of unknown owner did. `lost`: nothing did.
    /// `unknown`: there is no snapshot, the blocks were not there then, or memory could not be
    /// read.
    pub verdict: Verdict,
    /// Blocks of other rows and of this one that are lost because the blocks of this row are. Null
    /// unless the verdict is `lost`.
    pub lost_with_it: Option<LostWithIt>,
    /// Bytes that would be freed if the blocks of this row were, their own included. Null without a
    /// snapshot.
    pub retained_bytes: Option<u64>,
    /// Whether `retained_bytes` may be too small: in a very large heap, what only several blocks of
    /// a row hold together is not found for every row.
    pub retained_is_least: bool,
    /// The roots that hold most bytes of the blocks, at most three, each with the way to the block
    /// that retains most of them.
    pub held_by: Vec<HeldBy>,
    /// When the first of the blocks was allocated, in nanoseconds since the recording began; exact
    /// to a microsecond.
    pub first_ns: u64,
    /// When the last of the blocks got its present size, in nanoseconds since the recording began.
    pub last_ns: u64,
    /// How the site grows. Null without `--growing` and `--fail-on growing`.
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
pub struct LeakSelection<'a> {
    /// Which frames are left out or folded. With [`Folding::None`] the blocks of the runtime have
    /// rows as well.
    pub folding: Folding,
    /// At most this many sites; `None` for all.
    pub top: Option<usize>,
    /// At most this many stacks of each site; `None` for all.
    pub stacks: Option<usize>,
    /// Whether stacks of more than 1,000 frames have all of them.
    pub whole_stacks: bool,
    /// The stacks whose blocks are suppressed; `None` if no block is.
    pub suppressed: Option<&'a SuppressedStacks>,
    /// The growth of sites, which may leave out those that do not grow. `None` if nobody asks.
    pub growing: Option<&'a GrowingSites<'a>>,
    /// Whether anything holds the blocks, and what. `None` without a snapshot.
    pub judged: Option<&'a JudgedBlocks<'a>>,
    /// The verdicts whose rows are listed.
    pub verdicts: VerdictSet,
}

/// A set of verdicts; the empty set stands for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictSet(u8);

impl VerdictSet {
    /// Returns the set of these verdicts.
    pub fn of(verdicts: &[Verdict]) -> VerdictSet {
        VerdictSet(verdicts.iter().fold(0, |set, verdict| set | 1 << *verdict as u8))
    }

    /// Whether a verdict is in the set.
    pub fn has(self, verdict: Verdict) -> bool {
        self.0 == 0 || self.0 >> verdict as u8 & 1 == 1
    }
}

/// Finds the blocks that are live at the end, or at the snapshot if the judged blocks are those of
/// the snapshot. Stacks that are shown alike are one stack. The path of the dump is left empty.
pub fn leaks(profile: &Profile, stacks: &Stacks, filter: &Filter, selection: LeakSelection<'_>) -> Leaks {
    let LeakSelection { growing, judged, .. } = selection;
    let accepted = filter.accepted(stacks);
    let by_verdict = judged.map(|judged| live_by_verdict(judged, profile, |stack| accepted.accepts(stack)));
    let live_at_end = |stack: StackId| {
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
    let rule_of = |stack: StackId| selection.suppressed.and_then(|suppressed| suppressed.rule_of(stack));
    let parts_of = |stack: StackId| -> Vec<(Verdict, LiveBlocks)> {
        match &by_verdict {
            None => live_at_end(stack).map(|blocks| (Verdict::Unknown, blocks)).into_iter().collect(),
            Some(table) => {
                let part = |verdict: &Verdict| Some((*verdict, *table.get(&(stack, *verdict))?));
                Verdict::ALL.iter().filter_map(part).collect()
            }
        }
    };
    let shown = ShownStacks::of(stacks, selection.folding, OUTERMOST, |stack| {
        !parts_of(stack).is_empty() && is_listed(stack) && rule_of(stack).is_none()
    });
    let (mut total, mut runtime) = (LiveBlocks::default(), LiveBlocks::default());
    let mut suppressed = SuppressedBlocks::new(selection.suppressed);
    // By location, as in the summary: one location is several frames if its code was inlined at one
    // call and not at another.
    let mut sites: BTreeMap<(SiteLocation<'_>, Verdict), SiteBlocks> = BTreeMap::new();
    let mut totals = [LiveBlocks::default(); Verdict::ALL.len()];
    for (stack, _) in with_ids(profile) {
        for (verdict, blocks) in parts_of(stack) {
            if let Some(rule) = rule_of(stack) {
                suppressed.add(rule, &blocks);
                continue;
            }
            total.add(&blocks);
            totals[verdict as usize].add(&blocks);
            if !is_listed(stack) {
                runtime.add(&blocks);
                continue;
            }
            let site = sites.entry((location_of(stacks, stack), verdict)).or_default();
            site.all.add(&blocks);
            site.stacks.push(stack);
            site.by_stack.entry(shown.stack(stack)).or_default().add(&blocks);
        }
    }
    let mut sites: Vec<((SiteLocation<'_>, Verdict), SiteBlocks)> =
        sites.into_iter().filter(|((_, verdict), _)| selection.verdicts.has(*verdict)).collect();
    // The sort is stable, so equal sites stay in the order of their locations.
    sites.sort_by_key(|(_, site)| site.all.rank());
    if let Some(growing) = growing {
        growing.select(&mut sites, |((location, _), _)| location);
    }
    let omitted = sites.len().saturating_sub(selection.top.unwrap_or(usize::MAX));
    sites.truncate(selection.top.unwrap_or(usize::MAX));
    let paths = SourcePaths::of(profile, stacks);
    let mut frames = FrameTable::new(stacks, &shown, &paths);
    let holders = judged.map(|judged| {
        let stacks_of = |row: usize| (&*sites[row].1.stacks, sites[row].0.1);
        HolderTable::new(judged, stacks, &paths, sites.len(), stacks_of)
    });
    let rows = sites.into_iter().enumerate();
    let rows = rows.map(|(number, ((location, verdict), site))| {
        let growth = growing.and_then(|growing| growing.at(&location)).cloned();
        let row = site.into_row(location, &mut frames, &paths, selection, total.both());
        let row = Leak { growth, ..row };
        match &holders {
            None => row,
            Some(holders) => Leak {
                verdict,
                lost_with_it: (verdict == Verdict::Lost).then(|| holders.lost_with(number)),
                retained_bytes: holders.retained(number),
                retained_is_least: holders.retained_is_least(number),
                held_by: holders.held_by(number),
                ..row
            },
        }
    });
    let leaks: Vec<Leak> = rows.collect();
    let total_of = |verdict: &Verdict| {
        let LiveBlocks { bytes, blocks, .. } = totals[*verdict as usize];
        VerdictTotal { verdict: *verdict, bytes, blocks }
    };
    let verdicts = judged.map_or(Vec::new(), |_| Verdict::ALL.iter().map(total_of).collect());
    Leaks {
        schema: "alloc-tracker/leaks/2",
        dump: String::new(),
        command: profile.process.command(),
        pid: profile.process.pid,
        exact: profile.trust.is_exact(),
        limit: profile.trust.limit.map(limit_name),
        interval: CountedInterval::of(profile),
        total_bytes: total.bytes,
        total_blocks: total.blocks,
        grown_bytes: total.grown_bytes,
        grown_blocks: total.grown_blocks,
        complete: profile.trust.is_complete(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        runtime_bytes: runtime.bytes,
        runtime_blocks: runtime.blocks,
        suppressed: suppressed.finish(),
        snapshot: judged.map(|judged| judged.snapshot.clone()),
        verdicts,
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

/// Returns the name of a limit in JSON.
fn limit_name(limit: RecordingLimit) -> &'static str {
    match limit {
        RecordingLimit::DumpSize { .. } => "dump_size",
        RecordingLimit::Duration { .. } => "duration",
        // A dump of a later release.
        _ => "other",
    }
}

/// Limits of the innermost and of the outermost frames that a stack has. Stacks with all frames of
/// a deep recursion would need memory quadratic in its depth.
const INNERMOST: usize = 900;
const OUTERMOST: u32 = 100;

/// The live blocks of a site.
#[derive(Default)]
struct SiteBlocks {
    all: LiveBlocks,
    stacks: Vec<StackId>,
    by_stack: HashMap<ShownStackId, LiveBlocks>,
}

impl SiteBlocks {
    fn into_row(
        self,
        location: SiteLocation<'_>,
        frames: &mut FrameTable<'_>,
        paths: &SourcePaths,
        selection: LeakSelection<'_>,
        total_bytes: u64,
    ) -> Leak {
        let (function, file, line) = location.unwrap_or((NO_STACK, None, None));
        let mut stacks: Vec<(ShownStackId, LiveBlocks)> = self.by_stack.into_iter().collect();
        let stack_count = stacks.len() as u64;
        stacks.sort_by_key(|(id, blocks)| (blocks.rank(), *id));
        stacks.truncate(selection.stacks.unwrap_or(usize::MAX));
        let innermost = if selection.whole_stacks { usize::MAX } else { INNERMOST };
        Leak {
            bytes: self.all.bytes,
            blocks: self.all.blocks,
            grown_bytes: self.all.grown_bytes,
            grown_blocks: self.all.grown_blocks,
            share: self.all.both() as f64 / total_bytes.max(1) as f64,
            file: file.map(|file| paths.shown(file).to_owned()),
            line,
            function: function.to_owned(),
            verdict: Verdict::Unknown,
            lost_with_it: None,
            retained_bytes: None,
            retained_is_least: false,
            held_by: Vec::new(),
            first_ns: self.all.first_us * 1000,
            last_ns: self.all.last_us * 1000,
            stack_count,
            growth: None,
            stacks: stacks
                .into_iter()
                .map(|(id, blocks)| stack_row(id, &blocks, frames, innermost))
                .collect(),
        }
    }
}

fn stack_row(
    id: ShownStackId,
    blocks: &LiveBlocks,
    table: &mut FrameTable<'_>,
    innermost: usize,
) -> LeakStack {
    let CutStack { inner, omitted, outer } = table.shown().cut(id, innermost);
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

/// Adds up the blocks of each stack by verdict.
fn live_by_verdict(
    judged: &JudgedBlocks<'_>,
    profile: &Profile,
    accepts: impl Fn(StackId) -> bool,
) -> HashMap<(StackId, Verdict), LiveBlocks> {
    let mut table: HashMap<(StackId, Verdict), LiveBlocks> = HashMap::default();
    judged.visit(|block, verdict, _| {
        let is_known = (block.stack.0 as usize) < profile.stacks.len();
        if is_known && accepts(block.stack) {
            let (bytes, us) = (block.size, block.born_us);
            let one = LiveBlocks { bytes, blocks: 1, first_us: us, last_us: us, ..LiveBlocks::default() };
            table.entry((block.stack, verdict)).or_default().add(&one);
        }
    });
    for (stack, grown) in profile.grown.iter().filter(|(stack, _)| accepts(**stack)) {
        let one = LiveBlocks {
            grown_bytes: grown.bytes,
            grown_blocks: grown.blocks,
            first_us: grown.last_us,
            last_us: grown.last_us,
            ..LiveBlocks::default()
        };
        table.entry((*stack, Verdict::Unknown)).or_default().add(&one);
    }
    table
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

    /// Returns the bytes of new blocks, and those by which older ones grew.
    fn both(&self) -> u64 {
        self.bytes.saturating_add(self.grown_bytes)
    }

    /// Returns a key that sorts the most bytes first, then the most blocks, then the oldest.
    fn rank(&self) -> (std::cmp::Reverse<(u64, u64)>, u64) {
        (std::cmp::Reverse((self.both(), self.blocks + self.grown_blocks)), self.first_us)
    }
}
