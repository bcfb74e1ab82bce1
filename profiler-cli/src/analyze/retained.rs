//! Who retains memory, by site. In: judged blocks and named stacks. Out: [`Retained`], the site
//! that retains most first.

use std::collections::BTreeMap;

use alloc_dump::layout::StackId;
use serde::Serialize;

use super::filter::Filter;
use super::held::Verdict;
use super::holders::{HeldBy, HolderTable, JudgedBlocks, SnapshotInfo};
use super::site_location::{NO_STACK, location_of};
use super::source_paths::SourcePaths;
use super::summary::with_ids;
use crate::names::stacks::Stacks;
use crate::profile::Profile;

/// What the blocks of each site retain.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Retained {
    /// Name and version of this layout.
    pub schema: &'static str,
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// Bytes of all blocks that the filter lets through.
    pub total_bytes: u64,
    /// Number of these blocks.
    pub total_blocks: u64,
    /// Whether a filter or a selection of threads left blocks out.
    pub filtered: bool,
    /// The folder that paths of own source files are relative to. Null if it is not known.
    pub source_root: Option<String>,
    /// One row for each site and verdict, most retained bytes first.
    pub sites: Vec<RetainedSite>,
    /// Number of rows that `--top` cut off.
    pub omitted: usize,
}

/// The blocks that got their size at one site and have one verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RetainedSite {
    /// Bytes that would be freed if these blocks were: their own, and those of all blocks to which
    /// every way leads through them.
    pub retained_bytes: u64,
    /// Whether `retained_bytes` may be too small: in a very large heap, what only several blocks of
    /// a row hold together is not found for every row.
    pub retained_is_least: bool,
    /// Bytes of the blocks.
    pub live_bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// The verdict on the blocks.
    pub verdict: Verdict,
    /// Function of the site; `(no stack)` for blocks without a stack.
    pub function: String,
    /// Source file of the site. Null if it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// The roots that hold most bytes of the blocks, at most three.
    pub held_by: Vec<HeldBy>,
}

/// Adds up what sites retain. At most `top` sites are listed.
pub fn retained(
    profile: &Profile,
    stacks: &Stacks,
    filter: &Filter,
    judged: &JudgedBlocks<'_>,
    top: usize,
) -> Retained {
    let accepted = filter.accepted(stacks);
    let mut live: BTreeMap<(StackId, Verdict), (u64, u64)> = BTreeMap::new();
    judged.visit(|block, verdict, _| {
        if (block.stack.0 as usize) < stacks.len() && accepted.accepts(block.stack) {
            let sum = live.entry((block.stack, verdict)).or_default();
            *sum = (sum.0.saturating_add(block.size), sum.1 + 1);
        }
    });
    let mut sites: BTreeMap<_, (Vec<StackId>, u64, u64)> = BTreeMap::new();
    for (stack, _) in with_ids(profile) {
        for verdict in Verdict::ALL {
            let Some((bytes, blocks)) = live.get(&(stack, verdict)) else { continue };
            let site =
                sites.entry((location_of(stacks, stack), verdict)).or_insert_with(|| (Vec::new(), 0, 0));
            site.0.push(stack);
            (site.1, site.2) = (site.1.saturating_add(*bytes), site.2 + blocks);
        }
    }
    let sites: Vec<_> = sites.into_iter().collect();
    let paths = SourcePaths::of(profile, stacks);
    let stacks_of = |row: usize| (&*sites[row].1.0, sites[row].0.1);
    let holders = HolderTable::new(judged, stacks, &paths, sites.len(), stacks_of);
    let mut order: Vec<usize> = (0..sites.len()).collect();
    order.sort_by_key(|row| std::cmp::Reverse((holders.retained(*row).unwrap_or(0), sites[*row].1.1)));
    let omitted = order.len().saturating_sub(top);
    order.truncate(top);
    let rows = order.into_iter().map(|row| {
        let ((location, verdict), (_, live_bytes, blocks)) = &sites[row];
        let (function, file, line) = location.unwrap_or((NO_STACK, None, None));
        RetainedSite {
            retained_bytes: holders.retained(row).unwrap_or(*live_bytes),
            retained_is_least: holders.retained_is_least(row),
            live_bytes: *live_bytes,
            blocks: *blocks,
            verdict: *verdict,
            function: function.to_owned(),
            file: file.map(|file| paths.shown(file).to_owned()),
            line,
            held_by: holders.held_by(row),
        }
    });
    let rows = rows.collect();
    Retained {
        schema: "alloc-tracker/retained/1",
        snapshot: judged.snapshot.clone(),
        total_bytes: sites.iter().map(|(_, (_, bytes, _))| *bytes).sum(),
        total_blocks: sites.iter().map(|(_, (_, _, blocks))| *blocks).sum(),
        filtered: !filter.is_empty() || profile.counts_only_selected_threads,
        source_root: paths.root(),
        sites: rows,
        omitted,
    }
}
