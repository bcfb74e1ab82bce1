//! What blocks retain. In: the graph, the ways from roots, the roots and the lost groups. Out: the
//! graph whose dominators say it, and sums of what is retained.
//!
//! ```text
//! node 0 -> roots -> blocks that are held
//!        -> memory of unknown owner -> blocks that only it reaches
//!        -> leaders of lost groups -> blocks that are lost with them
//! ```
//!
//! An edge counts between blocks of the same class only. So a stale pointer in free memory does not
//! take anything away from the block that retains its target.

use foldhash::HashMap;

use super::dominators::{DominatorTree, FlowGraph};
use super::graph::BlockGraph;
use super::index::BlockIndex;
use super::lost::LostGroups;
use super::places::RootKind;
use super::reach::Ways;
use super::roots::RootTable;
use super::sets::SetWalks;
use super::{Judgement, Verdict};
use crate::profile::HeapBlock;

/// The graph over roots and blocks: node 0, then the roots, then the blocks.
pub(super) struct RetainedGraph<'a> {
    graph: &'a BlockGraph,
    roots: u32,
    blocks: u32,
    /// Nodes below node 0.
    first: Vec<u32>,
    /// For each root the index in `root_targets` of its first target; one more entry than roots.
    root_rows: Vec<u32>,
    root_targets: Vec<BlockIndex>,
}

impl<'a> RetainedGraph<'a> {
    pub(super) fn new(
        graph: &'a BlockGraph,
        ways: &Ways,
        roots: &RootTable,
        lost: &LostGroups,
    ) -> RetainedGraph<'a> {
        let blocks = (graph.rows_len()) as u32;
        let count = roots.all().len() as u32;
        let mut pairs: Vec<(u32, BlockIndex)> = Vec::with_capacity(graph.roots.len());
        for (at, pointer) in graph.roots.iter().enumerate() {
            let Some(target) = pointer.strong_target() else { continue };
            // What a root with a known owner holds is not retained by other memory.
            if pointer.owner.kind != RootKind::Unknown || !ways.is_held(target) {
                pairs.push((roots.group(at), target));
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut root_rows = vec![0u32; count as usize + 1];
        for (group, _) in &pairs {
            root_rows[*group as usize + 1] += 1;
        }
        for at in 1..root_rows.len() {
            root_rows[at] += root_rows[at - 1];
        }
        let mut first: Vec<u32> = (1..=count).collect();
        let leaders = lost.blocks.iter().zip(&lost.leaders).filter(|(block, leader)| block == leader);
        first.extend(leaders.map(|(block, _)| 1 + count + block));
        // Blocks that nothing reaches and that are not called lost: each stands for itself.
        let unsettled = (0..blocks).filter(|block| !ways.is_reached(*block) && lost.leader(*block).is_none());
        first.extend(unsettled.map(|block| 1 + count + block));
        RetainedGraph {
            graph,
            roots: count,
            blocks,
            first,
            root_rows,
            root_targets: pairs.into_iter().map(|(_, target)| target).collect(),
        }
    }

    /// Returns for each place in the order of the dominator tree the bytes that its node retains.
    pub(super) fn retained(&self, tree: &DominatorTree, blocks: &[HeapBlock]) -> Vec<u64> {
        let block_of = |node: u32| node.checked_sub(1 + self.roots);
        let size_of = |node: &u32| block_of(*node).map_or(0, |block| blocks[block as usize].size);
        let mut retained: Vec<u64> = tree.order.iter().map(size_of).collect();
        for at in (1..retained.len()).rev() {
            let above = tree.above[at] as usize;
            retained[above] = retained[above].saturating_add(retained[at]);
        }
        retained
    }
}

impl FlowGraph for RetainedGraph<'_> {
    fn nodes(&self) -> usize {
        1 + self.roots as usize + self.blocks as usize
    }

    #[inline]
    fn edges(&self, node: u32) -> u32 {
        if node == 0 {
            return self.first.len() as u32;
        }
        match (node - 1).checked_sub(self.roots) {
            Some(block) => self.graph.row(block).len() as u32,
            None => self.root_rows[node as usize] - self.root_rows[node as usize - 1],
        }
    }

    #[inline]
    fn successor(&self, node: u32, edge: u32) -> Option<u32> {
        if node == 0 {
            return Some(self.first[edge as usize]);
        }
        let target = match (node - 1).checked_sub(self.roots) {
            None => self.root_targets[(self.root_rows[node as usize - 1] + edge) as usize],
            Some(block) => self.graph.target(self.graph.row(block).start + edge as usize)?,
        };
        Some(1 + self.roots + target)
    }
}

/// What the blocks of a site retain together, and what holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteRetention {
    /// Bytes of the blocks.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// Bytes that nothing would reach any more if all of the blocks were gone, their own included.
    pub retained: u64,
    /// Whether `retained` may be too small: what several of the blocks hold only together is
    /// missing, because following the graph for each site took too long.
    pub retained_is_least: bool,
    /// Index of the block that retains most.
    pub largest: usize,
    /// Bytes that the block with the index `largest` retains.
    pub largest_retained: u64,
    /// The roots that hold most bytes of the blocks, at most three: index of the root, bytes, and
    /// index of the block that retains most of those.
    pub held_by: Vec<(usize, u64, usize)>,
    /// Number of blocks that are lost with blocks of this site and are not leaders themselves.
    pub lost_with_blocks: u64,
    /// Bytes of these blocks.
    pub lost_with_bytes: u64,
}

/// Edges that are followed for all sites together: about a second.
const STEPS_FOR_SITES: u64 = 20_000_000;
/// In a graph with more edges no site is followed. Each step of a walk misses the cache there, so
/// that ten million blocks would take eight seconds more.
const MOST_EDGES_TO_FOLLOW: usize = 8_000_000;

/// The most roots of a site.
const MAX_HOLDERS: usize = 3;

impl Judgement<'_> {
    /// Adds up what sites retain. `site_of` returns the number of the site of a block, below
    /// `sites`; `None` for a block that does not count.
    pub fn by_site(&self, sites: usize, site_of: impl Fn(usize) -> Option<u32>) -> Vec<SiteRetention> {
        let mut sums = vec![SiteRetention::default(); sites];
        let mut members = Vec::new();
        let mut holders: Vec<HashMap<u32, (u64, u64, usize)>> = vec![HashMap::default(); sites];
        let roots_of_blocks = self.roots_of_blocks();
        self.visit_tree(|step, place, open: &mut Vec<u32>| {
            let Some(block) = self.block_at(place) else { return };
            let Some(site) = site_of(block) else { return };
            if open.is_empty() {
                open.resize(sites, 0);
            }
            let depth = &mut open[site as usize];
            if step == TreeVisit::Leave {
                *depth -= 1;
                return;
            }
            *depth += 1;
            let (sum, retained) = (&mut sums[site as usize], self.retained[place]);
            let size = self.blocks()[block].size;
            members.push((site, self.tree.order[place]));
            if *depth == 1 {
                sum.retained = sum.retained.saturating_add(retained);
            }
            if sum.blocks == 0 || retained > sum.largest_retained {
                (sum.largest, sum.largest_retained) = (block, retained);
            }
            sum.blocks += 1;
            sum.bytes = sum.bytes.saturating_add(size);
            if let Some(root) = roots_of_blocks.get(block).copied().filter(|root| *root != u32::MAX) {
                let held = holders[site as usize].entry(root).or_insert((0, 0, block));
                held.0 = held.0.saturating_add(size);
                if retained > held.1 {
                    (held.1, held.2) = (retained, block);
                }
            }
        });
        self.add_what_is_retained_together(&mut sums, members);
        for (block, leader) in self.lost.blocks.iter().zip(&self.lost.leaders) {
            if block != leader
                && let Some(site) = site_of(*leader as usize)
            {
                let (sum, size) = (&mut sums[site as usize], self.blocks()[*block as usize].size);
                sum.lost_with_blocks += 1;
                sum.lost_with_bytes = sum.lost_with_bytes.saturating_add(size);
            }
        }
        for (sum, holders) in sums.iter_mut().zip(holders) {
            let held = holders.into_iter().map(|(root, (bytes, _, block))| (root as usize, bytes, block));
            sum.held_by = held.collect();
            sum.held_by.sort_unstable_by_key(|(root, bytes, _)| (std::cmp::Reverse(*bytes), *root));
            sum.held_by.truncate(MAX_HOLDERS);
        }
        sums
    }

    /// Corrects what sites retain: what single blocks do not retain, but several of a site
    /// together. `members` are the sites with the nodes of their blocks.
    fn add_what_is_retained_together(&self, sums: &mut [SiteRetention], mut members: Vec<(u32, u32)>) {
        if self.graph.edges() > MOST_EDGES_TO_FOLLOW {
            sums.iter_mut().for_each(|sum| sum.retained_is_least = sum.blocks > 1);
            return;
        }
        let graph = RetainedGraph::new(&self.graph, &self.ways, &self.roots, &self.lost);
        let mut walks = SetWalks::new(&graph);
        members.sort_unstable();
        let mut sets: Vec<&[(u32, u32)]> = members.chunk_by(|one, next| one.0 == next.0).collect();
        // Those that retain most come first, in case that the steps do not suffice.
        sets.sort_by_key(|set| std::cmp::Reverse(sums[set[0].0 as usize].retained));
        let mut steps = STEPS_FOR_SITES;
        for set in sets.into_iter().filter(|set| set.len() > 1) {
            let sum = &mut sums[set[0].0 as usize];
            let nodes: Vec<u32> = set.iter().map(|(_, node)| *node).collect();
            let (given, mut retained) = (steps / 2, 0u64);
            let mut left = given;
            let is_followed = walks.retained(&nodes, &mut left, |node| {
                let block = (node - 1).checked_sub(graph.roots);
                let size = block.map_or(0, |block| self.blocks()[block as usize].size);
                retained = retained.saturating_add(size);
            });
            steps -= given - left;
            sum.retained_is_least = !is_followed;
            sum.retained = sum.retained.max(retained);
        }
    }

    /// Returns the bytes that each block retains, its own included.
    #[cfg(test)]
    pub(super) fn retained_of_all(&self) -> Vec<u64> {
        let mut all = vec![0; self.blocks().len()];
        for (place, bytes) in self.retained.iter().enumerate() {
            if let Some(block) = self.block_at(place) {
                all[block] = *bytes;
            }
        }
        all
    }

    /// Returns for each block the index of the root on its way; `u32::MAX` if there is none.
    fn roots_of_blocks(&self) -> Vec<u32> {
        let mut roots = vec![u32::MAX; self.blocks().len()];
        let mut way = Vec::new();
        for block in 0..roots.len() {
            let mut at = block as BlockIndex;
            let root = loop {
                if roots[at as usize] != u32::MAX {
                    break roots[at as usize];
                }
                way.push(at);
                match self.ways.before(at) {
                    Some(super::Before::Block(before)) => at = before,
                    Some(super::Before::Root(root)) => break self.roots.group(root),
                    None => break u32::MAX,
                }
            };
            for at in way.drain(..) {
                roots[at as usize] = root;
            }
        }
        roots
    }

    /// Returns the block at a place of the order of the dominator tree.
    pub(super) fn block_at(&self, place: usize) -> Option<usize> {
        let node = self.tree.order[place] as usize;
        node.checked_sub(1 + self.roots.all().len())
    }

    /// Returns the root at a place of the order of the dominator tree.
    fn root_at(&self, place: usize) -> Option<usize> {
        let node = (self.tree.order[place] as usize).checked_sub(1)?;
        (node < self.roots.all().len()).then_some(node)
    }

    /// Visits the dominator tree, each node before those that it dominates. The visitor has a table
    /// of its own.
    fn visit_tree(&self, mut visit: impl FnMut(TreeVisit, usize, &mut Vec<u32>)) {
        let places = self.tree.order.len();
        let mut first = vec![u32::MAX; places];
        let mut next = vec![u32::MAX; places];
        for place in (1..places).rev() {
            let above = self.tree.above[place] as usize;
            next[place] = std::mem::replace(&mut first[above], place as u32);
        }
        let mut table = Vec::new();
        let mut open: Vec<u32> = Vec::new();
        let mut entering = first.first().copied().unwrap_or(u32::MAX);
        loop {
            while entering != u32::MAX {
                visit(TreeVisit::Enter, entering as usize, &mut table);
                open.push(entering);
                entering = first[entering as usize];
            }
            let Some(leaving) = open.pop() else { break };
            visit(TreeVisit::Leave, leaving as usize, &mut table);
            entering = next[leaving as usize];
        }
    }

    /// Visits what each root, and each block that no root reaches, retains: chains of sites from a
    /// root downwards with the bytes of the blocks that end there. Chains with the same sites are
    /// visited as often as they occur. Repeated sites in a row are one.
    pub fn visit_retention(
        &self,
        site_of: impl Fn(usize) -> Option<u32>,
        mut visit: impl FnMut(RetentionRoot, &[u32], u64),
    ) {
        let mut chain: Vec<u32> = Vec::new();
        let mut pushed: Vec<bool> = Vec::new();
        let mut root = RetentionRoot::Nothing(Verdict::Unknown);
        self.visit_tree(|step, place, _| {
            let is_below_top = self.tree.above[place] != 0;
            if step == TreeVisit::Leave {
                if pushed.pop() == Some(true) {
                    chain.pop();
                }
                return;
            }
            if !is_below_top {
                chain.clear();
                root = match self.root_at(place) {
                    Some(root) => RetentionRoot::Root(root),
                    None => RetentionRoot::Nothing(
                        self.block_at(place).map_or(Verdict::Unknown, |block| self.verdict(block)),
                    ),
                };
            }
            let site = self.block_at(place).and_then(&site_of);
            let is_new = site.is_some() && chain.last().copied() != site && chain.len() < MAX_CHAIN;
            if let Some(site) = site.filter(|_| is_new) {
                chain.push(site);
            }
            pushed.push(is_new);
            if let Some(block) = self.block_at(place)
                && site.is_some()
            {
                visit(root, &chain, self.blocks()[block].size);
            }
        });
    }
}

/// The most sites of a chain of the retention tree; what is deeper belongs to the last of them.
const MAX_CHAIN: usize = 160;

/// What a chain of the retention tree begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetentionRoot {
    /// The root with this index.
    Root(usize),
    /// No single root: several roots hold the block, or none does.
    Nothing(Verdict),
}

/// A step of a visit of the dominator tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TreeVisit {
    Enter,
    Leave,
}
