//! What holds the blocks of a row, in names. In: a judgement and named stacks. Out: for each row
//! the bytes that it retains, and the ways from roots to its blocks.

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use super::held::{Chain, Judgement, RootKind, SiteRetention, Verdict};
use super::source_paths::SourcePaths;
use crate::names::stacks::Stacks;
use crate::profile::HeapBlock;

/// A snapshot of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotInfo {
    /// Number of the snapshot in the dump.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// When it was taken, in nanoseconds since the recording began.
    pub ns: u64,
    /// Whether the rows are about the blocks that were live at the snapshot. If not, they are about
    /// those that are live at the end, with the verdicts of the snapshot.
    pub lists_its_blocks: bool,
    /// Why no block can be called lost. Null if blocks can be.
    pub nothing_is_lost: Option<String>,
}

/// Blocks that are lost because others are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LostWithIt {
    /// Number of the blocks.
    pub blocks: u64,
    /// Bytes of the blocks.
    pub bytes: u64,
}

/// A root that holds blocks, with the way to one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldBy {
    /// The root.
    pub root: HeldRoot,
    /// Bytes of the blocks of the row that the root holds: a shortest way to them begins at it.
    pub bytes: u64,
    /// The way to the block that retains most of them. The last link is that block.
    pub links: Vec<HeldLink>,
    /// Number of links that are left out in the middle of the way.
    pub omitted_links: usize,
}

/// The beginning of a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldRoot {
    /// The kind of the root.
    pub kind: RootKind,
    /// Name of the variable, or of the thread whose stack or registers it is, or of the memory.
    pub name: String,
    /// Where in the root the pointer is, in bytes.
    pub offset: u64,
}

/// A block on a way; or several in a row that got their size at one site and have the pointer at
/// one offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeldLink {
    /// Function of the site of the block.
    pub function: String,
    /// Source file of the site. Null if it is not known.
    pub file: Option<String>,
    /// Line of the site. Null if it is not known.
    pub line: Option<u32>,
    /// Bytes of the block; of several, of the first.
    pub bytes: u64,
    /// Where in the block the pointer to the next link is, in bytes. Null in the last link.
    pub offset: Option<u64>,
    /// Number of the blocks.
    pub times: u64,
}

/// The blocks that a report is about, with the verdicts of a snapshot.
#[derive(Debug)]
pub struct JudgedBlocks<'a> {
    /// The verdicts.
    pub judgement: &'a Judgement<'a>,
    /// The snapshot.
    pub snapshot: SnapshotInfo,
    /// The blocks that are live at the end. Not used if the report is about the blocks that were
    /// live at the snapshot.
    pub at_end: &'a [HeapBlock],
}

impl JudgedBlocks<'_> {
    /// Calls `visit` with each block of the report, its verdict, and its index in the judgement if
    /// it was live at the snapshot.
    pub fn visit(&self, mut visit: impl FnMut(&HeapBlock, Verdict, Option<usize>)) {
        let judged = self.judgement.blocks();
        if self.snapshot.lists_its_blocks {
            for (at, block) in judged.iter().enumerate() {
                visit(block, self.judgement.verdict(at), Some(at));
            }
            return;
        }
        let mut at = 0;
        for block in self.at_end {
            while judged.get(at).is_some_and(|judged| judged.address < block.address) {
                at += 1;
            }
            let same = judged.get(at).filter(|judged| is_same(judged, block)).map(|_| at);
            visit(block, same.map_or(Verdict::Unknown, |at| self.judgement.verdict(at)), same);
        }
    }
}

/// Whether two blocks, of different moments, are one. A block that was moved meanwhile counts as
/// another one.
fn is_same(earlier: &HeapBlock, later: &HeapBlock) -> bool {
    (earlier.address, earlier.born_us) == (later.address, later.born_us)
}

/// What holds the blocks of each row.
pub(super) struct HolderTable<'a> {
    judged: &'a JudgedBlocks<'a>,
    stacks: &'a Stacks,
    paths: &'a SourcePaths,
    rows: Vec<SiteRetention>,
}

impl<'a> HolderTable<'a> {
    /// Makes the table of so many rows. `stacks_of` returns the stacks and the verdict of a row.
    pub(super) fn new<'s>(
        judged: &'a JudgedBlocks<'a>,
        stacks: &'a Stacks,
        paths: &'a SourcePaths,
        rows: usize,
        stacks_of: impl Fn(usize) -> (&'s [StackId], Verdict),
    ) -> HolderTable<'a> {
        let mut row_of: HashMap<(StackId, Verdict), u32> = HashMap::default();
        for row in 0..rows {
            let (stacks, verdict) = stacks_of(row);
            row_of.extend(stacks.iter().map(|stack| ((*stack, verdict), row as u32)));
        }
        let mut rows_of_blocks = vec![u32::MAX; judged.judgement.blocks().len()];
        judged.visit(|block, verdict, at| {
            if let (Some(at), Some(row)) = (at, row_of.get(&(block.stack, verdict))) {
                rows_of_blocks[at] = *row;
            }
        });
        let row_of_block = |at: usize| Some(rows_of_blocks[at]).filter(|row| *row != u32::MAX);
        HolderTable { judged, stacks, paths, rows: judged.judgement.by_site(rows, row_of_block) }
    }

    /// Returns the bytes that the blocks of a row retain. `None` if none of them was judged.
    pub(super) fn retained(&self, row: usize) -> Option<u64> {
        let row = &self.rows[row];
        (row.blocks > 0).then_some(row.retained)
    }

    pub(super) fn lost_with(&self, row: usize) -> LostWithIt {
        let SiteRetention { lost_with_blocks, lost_with_bytes, .. } = self.rows[row];
        LostWithIt { blocks: lost_with_blocks, bytes: lost_with_bytes }
    }

    /// Returns the roots that hold most of a row.
    pub(super) fn held_by(&self, row: usize) -> Vec<HeldBy> {
        let held = self.rows[row].held_by.iter();
        let named = held.filter_map(|(_, bytes, block)| {
            let chain = self.judged.judgement.chain(*block)?;
            Some(held_by(chain, *bytes, self.stacks, self.paths))
        });
        named.collect()
    }
}

/// Names the links of a way.
fn held_by(chain: Chain<'_>, bytes: u64, stacks: &Stacks, paths: &SourcePaths) -> HeldBy {
    let mut links: Vec<HeldLink> = Vec::new();
    let last = chain.blocks.len().saturating_sub(1);
    for (at, step) in chain.blocks.iter().enumerate() {
        let site = stacks.site(step.block.stack).map(|id| stacks.frame(id));
        let link = HeldLink {
            function: site.map_or_else(|| "(no stack)".to_owned(), |site| site.function.to_string()),
            file: site.and_then(|site| site.file.as_deref()).map(|file| paths.shown(file).to_owned()),
            line: site.and_then(|site| site.line),
            bytes: step.block.size,
            offset: (at != last).then_some(step.offset),
            times: 1,
        };
        match links.last_mut() {
            Some(before)
                if before.offset == link.offset
                    && (&before.function, &before.file, before.line)
                        == (&link.function, &link.file, link.line) =>
            {
                before.times += 1;
            }
            _ => links.push(link),
        }
    }
    let omitted_links = links.len().saturating_sub(MAX_LINKS);
    if omitted_links > 0 {
        links.drain(MAX_LINKS / 2..MAX_LINKS / 2 + omitted_links);
    }
    let root = HeldRoot { kind: chain.root.kind, name: chain.root.name, offset: chain.offset };
    HeldBy { root, bytes, links, omitted_links }
}

/// The most links of a way that are kept: half of them at each end.
const MAX_LINKS: usize = 100;
