//! What holds the blocks of a row, in names. In: a judgement and named stacks. Out: for each row
//! the bytes that it retains, and the ways from roots to its blocks.

use alloc_dump::layout::StackId;
use foldhash::HashMap;
use serde::Serialize;

use super::held::{Chain, Judgement, RootKind, SiteRetention, Verdict};
use super::site_location::NO_STACK;
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
    /// those that are live at the end, or at the end of the interval, with the verdicts of the
    /// snapshot.
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
    /// The blocks that are live at the end, or at the end of the interval. Not used if the report
    /// is about the blocks that were live at the snapshot.
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

    /// Whether the blocks of a row may retain more than that.
    pub(super) fn retained_is_least(&self, row: usize) -> bool {
        self.rows[row].retained_is_least
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
            function: site.map_or_else(|| NO_STACK.to_owned(), |site| site.function.to_string()),
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

#[cfg(test)]
mod tests {
    use alloc_dump::snapshot::MemoryRegion;

    use super::*;
    use crate::analyze::filter::Filter;
    use crate::analyze::held::{
        ChainBlock, GraphBuilder, HoldingRoot, ImageMemory, ImageTrust, RootNames, SecondLook,
    };
    use crate::analyze::leaks::{LeakSelection, Leaks, VerdictSet, leaks};
    use crate::analyze::retention_flame::retention_flame;
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::NamedFrame;
    use crate::names::variables::Variable;
    use crate::profile::{CallNode, Profile, StackStats};

    const LIST: u32 = StackId::FIRST.0;
    const TEXT: u32 = StackId::FIRST.0 + 1;

    /// A list of five nodes in a static, each with a text; a sixth node, which is lost with its
    /// text; and a text that was allocated after the snapshot.
    struct Example {
        profile: Profile,
        stacks: Stacks,
        at_snapshot: Vec<HeapBlock>,
        at_end: Vec<HeapBlock>,
    }

    fn block(address: u64, size: u64, stack: u32, born_us: u64) -> HeapBlock {
        HeapBlock { address, size, stack: StackId(stack), born_us, is_in_event: false }
    }

    fn example() -> Example {
        let frame = |function: &str, line| NamedFrame {
            function: function.into(),
            file: Some("/w/src/main.rs".into()),
            line: Some(line),
            is_inlined: false,
            owner: CodeOwner::Own,
            module: "shop".into(),
        };
        let stacks = Stacks::from_frames(&[vec![frame("push", 6)], vec![frame("text", 9)]]);
        let nodes = (0..6).map(|at| block(0x9000 + 0x100 * at, 16, LIST, at));
        let texts = (0..6).map(|at| block(0xA000 + 0x100 * at, 40, TEXT, at));
        let at_snapshot: Vec<HeapBlock> = nodes.chain(texts).collect();
        let mut at_end = at_snapshot.clone();
        // Freed since; the same address, but another block; a new block.
        at_end.remove(0);
        at_end[6].born_us = 70;
        at_end.push(block(0xB000, 40, TEXT, 80));
        let profile = Profile {
            nodes: vec![CallNode::default(); TEXT as usize + 1],
            stacks: vec![StackStats::default(); TEXT as usize + 1],
            ..Profile::default()
        };
        Example { profile, stacks, at_snapshot, at_end }
    }

    impl Example {
        fn judged<R>(&self, lists_its_blocks: bool, use_it: impl FnOnce(&JudgedBlocks<'_>) -> R) -> R {
            let maps = ["1000-2000 r-xp 00000000 fe:01 5 /w/shop", "2000-3000 rw-p 00001000 fe:01 5 /w/shop"];
            let regions: Vec<MemoryRegion> =
                maps.iter().map(|line| MemoryRegion::parse(line.as_bytes()).unwrap()).collect();
            let memory =
                ImageMemory { regions: &regions, threads: &[], pid: 7, tls_size: 0, writable_segments: &[] };
            let graph = || {
                let mut builder = GraphBuilder::new(&self.at_snapshot, &memory);
                builder.add(0x2010, 0x9000);
                for at in 0..6 {
                    let node = 0x9000 + 0x100 * at;
                    builder.add(node, 0xA000 + 0x100 * at);
                    if at < 4 {
                        builder.add(node + 8, node + 0x100);
                    }
                }
                builder.finish()
            };
            let statics = [Variable { start: 0x2000, size: 32, name: "shop::LIST".to_owned() }];
            let names = RootNames { statics: &statics, regions: &regions, ..RootNames::default() };
            let trust = ImageTrust::of(true, &[], u64::MAX);
            let second = SecondLook::new(&self.at_snapshot, graph(), trust);
            let judgement = Judgement::new(&self.at_snapshot, graph(), trust, Some(&second), &names);
            let name = "warm".to_owned();
            let snapshot = SnapshotInfo { id: 1, name, ns: 5, lists_its_blocks, nothing_is_lost: None };
            use_it(&JudgedBlocks { judgement: &judgement, snapshot, at_end: &self.at_end })
        }

        fn leaks(&self, lists_its_blocks: bool, verdicts: &[Verdict]) -> Leaks {
            self.judged(lists_its_blocks, |judged| {
                let verdicts = VerdictSet::of(verdicts);
                let selection = LeakSelection { verdicts, judged: Some(judged), ..LeakSelection::default() };
                leaks(&self.profile, &self.stacks, &Filter::default(), selection)
            })
        }
    }

    fn rows(leaks: &Leaks) -> Vec<(&str, &str, u64)> {
        leaks.leaks.iter().map(|row| (&*row.function, row.verdict.name(), row.blocks)).collect()
    }

    #[test]
    fn rows_at_the_snapshot_have_all_its_blocks() {
        let leaks = example().leaks(true, &[]);
        let expected = [("text", "held", 5), ("push", "held", 5), ("text", "lost", 1), ("push", "lost", 1)];
        assert_eq!(rows(&leaks), expected);
        let [texts, nodes, lost_text, lost_node] = &leaks.leaks[..] else { panic!("four rows") };
        assert_eq!((nodes.retained_bytes, texts.retained_bytes), (Some(5 * 56), Some(200)));
        assert_eq!(lost_node.lost_with_it, Some(LostWithIt { blocks: 1, bytes: 40 }));
        assert_eq!(
            (lost_node.retained_bytes, lost_text.lost_with_it),
            (Some(56), Some(LostWithIt::default()))
        );
        assert_eq!((nodes.lost_with_it, lost_node.held_by.len()), (None, 0));
        // The way to the node that retains most: the first one.
        let held = &nodes.held_by[0];
        assert_eq!((&*held.root.name, held.root.offset, held.bytes), ("shop::LIST", 0x10, 80));
        assert_eq!(held.links.len(), 1);
        let totals: Vec<_> = leaks.verdicts.iter().map(|total| (total.bytes, total.blocks)).collect();
        assert_eq!(totals, [(56, 2), (0, 0), (280, 10), (0, 0)]);
    }

    #[test]
    fn rows_at_the_end_have_the_verdicts_of_the_same_blocks() {
        let leaks = example().leaks(false, &[]);
        let expected = [
            ("text", "held", 4),
            ("text", "unknown", 2),
            ("push", "held", 4),
            ("text", "lost", 1),
            ("push", "lost", 1),
        ];
        assert_eq!(rows(&leaks), expected);
        assert_eq!(leaks.leaks[1].retained_bytes, None, "they were not judged");
        // The first node is freed by now.
        assert_eq!(leaks.leaks[2].retained_bytes, Some(4 * 56));
    }

    #[test]
    fn only_rows_with_the_wanted_verdicts_are_listed() {
        let leaks = example().leaks(true, &[Verdict::Lost]);
        assert_eq!(rows(&leaks), [("text", "lost", 1), ("push", "lost", 1)]);
        assert_eq!((leaks.total_blocks, leaks.omitted), (12, 0));
    }

    #[test]
    fn repeated_links_are_one_and_long_ways_are_cut() {
        let example = example();
        let folded = example.judged(true, |judged| {
            let last_text = judged.judgement.chain(10).unwrap();
            held_by(last_text, 0, &example.stacks, &SourcePaths::default())
        });
        let links: Vec<_> =
            folded.links.iter().map(|link| (&*link.function, link.offset, link.times)).collect();
        assert_eq!(links, [("push", Some(8), 4), ("push", Some(0), 1), ("text", None, 1)]);
        let root = HoldingRoot { kind: RootKind::Stack, name: "stack".to_owned(), start: 0 };
        let two = [block(0x9000, 16, LIST, 0), block(0xA000, 40, TEXT, 0)];
        let step = |at: usize| ChainBlock { block: &two[at % 2], offset: at as u64 };
        let chain = Chain { root, offset: 0, blocks: (0..300).map(step).collect() };
        let held = held_by(chain, 0, &example.stacks, &SourcePaths::default());
        assert_eq!((held.links.len(), held.omitted_links), (100, 200));
        assert_eq!((held.links[49].offset, held.links[50].offset), (Some(49), Some(250)));
    }

    #[test]
    fn the_flamegraph_leads_from_roots_to_what_they_retain() {
        let example = example();
        let flame = example.judged(true, |judged| {
            retention_flame(&example.profile, &example.stacks, &Filter::default(), judged, None)
        });
        let stacks: Vec<(String, u64)> = flame
            .stacks
            .iter()
            .map(|(stack, bytes)| (flame.labels_of(stack).collect::<Vec<_>>().join(";"), *bytes))
            .collect();
        let expected = [
            ("(lost);push (main.rs:6)", 16),
            ("(lost);push (main.rs:6);text (main.rs:9)", 40),
            ("shop::LIST;push (main.rs:6)", 80),
            ("shop::LIST;push (main.rs:6);text (main.rs:9)", 200),
        ];
        assert_eq!(stacks, expected.map(|(stack, bytes)| (stack.to_owned(), bytes)));
        assert_eq!(flame.total, 336);
    }
}
