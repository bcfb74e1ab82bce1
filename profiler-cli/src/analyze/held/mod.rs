//! Whether anything still holds a block, and what. In: the blocks that are live at a snapshot, and
//! the words of its images. Out: a [`Judgement`]: a verdict for each block, the way from a root to
//! it, and what it retains.
//!
//! | module | idea |
//! | --- | --- |
//! | `places` | what memory is used for: statics, stacks, thread-locals, unknown |
//! | `index` | finds the block of an address |
//! | `graph` | the pointers between blocks, in one pass over the words |
//! | `reach` | which blocks the roots reach, and on which way |
//! | `lost` | lost blocks, in groups with a leader each |
//! | `dominators` | what all ways to a block go through |
//! | `roots` | the roots, each with its name |
//! | `retained` | what blocks and sites retain |
//! | `sets` | what a set of blocks retains together |
//!
//! A pointer is any aligned word whose value is an address in a block, its middle included. So a
//! block is never called lost if such a word holds it, and may be called held because of a number
//! that looks like its address.

mod dominators;
mod graph;
mod index;
mod lost;
mod places;
mod reach;
mod retained;
mod roots;
mod sets;

use alloc_dump::snapshot::SnapshotThread;

pub use self::graph::{BlockGraph, GraphBuilder, RootPointer};
pub use self::places::{ImageMemory, PlaceOwner, RootKind, USUAL_TLS_SIZE};
pub use self::retained::{RetentionRoot, SiteRetention};
pub use self::roots::{HoldingRoot, RootNames};

use self::dominators::{DominatorTree, dominators};
use self::index::BlockIndex;
use self::lost::LostGroups;
use self::reach::{Before, Ways};
use self::retained::RetainedGraph;
use self::roots::RootTable;
use crate::profile::HeapBlock;

/// Whether anything holds a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No pointer to it is left
    Lost,
    /// Only memory of unknown owner points to it, which may be free memory
    Maybe,
    /// A static, a stack, a thread-local or a register holds it
    Held,
    /// There is no snapshot, or the block is younger or was just born, or memory could not be read
    Unknown,
}

impl Verdict {
    /// All verdicts, in their order.
    pub const ALL: [Verdict; 4] = [Verdict::Lost, Verdict::Maybe, Verdict::Held, Verdict::Unknown];

    /// Returns the word for people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Lost => "lost",
            Verdict::Maybe => "maybe",
            Verdict::Held => "held",
            Verdict::Unknown => "unknown",
        }
    }
}

/// How far an image can be trusted to have all pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageTrust {
    /// Whether all of the image was read, and nothing of the process was missing in it.
    pub is_complete: bool,
    /// Whether it has the registers of all threads.
    pub has_registers: bool,
    /// When copying began, in microseconds since time zero. The image may lack the pointers to
    /// blocks that were allocated since, because pages were copied one after another.
    pub begun_us: u64,
}

impl ImageTrust {
    /// Returns the trust in an image with these threads.
    pub fn of(is_complete: bool, threads: &[SnapshotThread], begun_us: u64) -> ImageTrust {
        let has_registers = threads.iter().all(|thread| thread.registers.is_some()) && !threads.is_empty();
        ImageTrust { is_complete, has_registers, begun_us }
    }
}

/// The blocks of the second image of a snapshot that no root reaches.
#[derive(Clone, Debug, Default)]
pub struct SecondLook {
    lost: Vec<HeapBlock>,
    is_complete: bool,
}

impl SecondLook {
    /// Finds the blocks that nothing reaches in the second image. `blocks` are those that are live
    /// at its own record.
    pub fn new(blocks: &[HeapBlock], mut graph: BlockGraph, trust: ImageTrust) -> SecondLook {
        let ways = Ways::find(&mut graph, blocks.len());
        let is_lost = |(at, _): &(usize, &HeapBlock)| !ways.is_reached(*at as BlockIndex);
        let lost = blocks.iter().enumerate().filter(is_lost).map(|(_, block)| *block).collect();
        SecondLook { lost, is_complete: trust.is_complete }
    }

    /// Whether the second image can be trusted to have all pointers.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the same block is live in the second image, and nothing reaches it there.
    fn is_lost(&self, block: &HeapBlock) -> bool {
        let at = self.lost.partition_point(|other| other.address < block.address);
        self.lost[at..].iter().take_while(|other| other.address == block.address).any(|other| other == block)
    }
}

/// What is known of the blocks of a snapshot.
#[derive(Debug)]
pub struct Judgement<'a> {
    blocks: &'a [HeapBlock],
    graph: BlockGraph,
    ways: Ways,
    verdicts: Vec<Verdict>,
    lost: LostGroups,
    roots: RootTable,
    tree: DominatorTree,
    /// For each place in the order of `tree`, the bytes that its node retains.
    retained: Vec<u64>,
}

/// A block on the way from a root to another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainBlock<'a> {
    /// The block.
    pub block: &'a HeapBlock,
    /// The offset in it of the pointer to the next block; 0 in the last block.
    pub offset: u64,
}

/// The way from a root to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// The root.
    pub root: HoldingRoot,
    /// The offset of the pointer in the root.
    pub offset: u64,
    /// The blocks from the root to the block itself.
    pub blocks: Vec<ChainBlock<'a>>,
}

impl<'a> Judgement<'a> {
    /// Judges the blocks that are live at the record of a snapshot, by its first image.
    ///
    /// `blocks` are in the order of their addresses; `graph` is the one of the same blocks.
    pub fn new(
        blocks: &'a [HeapBlock],
        mut graph: BlockGraph,
        trust: ImageTrust,
        second: Option<&SecondLook>,
        names: &RootNames<'_>,
    ) -> Judgement<'a> {
        let ways = Ways::find(&mut graph, blocks.len());
        let is_complete = trust.is_complete && second.is_none_or(|second| second.is_complete);
        let verdict = |(at, block): (usize, &HeapBlock)| {
            let index = at as BlockIndex;
            let is_confirmed = trust.has_registers || second.is_some_and(|second| second.is_lost(block));
            if block.is_in_event {
                Verdict::Unknown
            } else if ways.is_held(index) {
                Verdict::Held
            } else if ways.is_reached(index) {
                Verdict::Maybe
            } else if !is_complete || block.born_us >= trust.begun_us {
                Verdict::Unknown
            } else if is_confirmed {
                Verdict::Lost
            } else {
                Verdict::Maybe
            }
        };
        let verdicts: Vec<Verdict> = blocks.iter().enumerate().map(verdict).collect();
        let lost = LostGroups::find(&graph, blocks.len(), |block| verdicts[block as usize] == Verdict::Lost);
        let roots = RootTable::new(&graph, names);
        graph.separate(|block| ways.class(block));
        let flow = RetainedGraph::new(&graph, &ways, &roots, &lost);
        let tree = dominators(&flow);
        let retained = flow.retained(&tree, blocks);
        Judgement { blocks, graph, ways, verdicts, lost, roots, tree, retained }
    }

    /// Returns the blocks, in the order of their addresses.
    pub fn blocks(&self) -> &'a [HeapBlock] {
        self.blocks
    }

    /// Returns the verdict on the block with this index.
    pub fn verdict(&self, block: usize) -> Verdict {
        self.verdicts[block]
    }

    /// Returns the index of the block with which a lost block is lost; its own index for the leader
    /// of a group. `None` if the block is not lost.
    pub fn lost_with(&self, block: usize) -> Option<usize> {
        self.lost.leader(block as BlockIndex).map(|leader| leader as usize)
    }

    /// Returns the index of the root on the way to a block.
    pub fn root_of(&self, block: usize) -> Option<usize> {
        self.way_to(block).map(|(root, _)| self.roots.group(root) as usize)
    }

    /// Returns all roots; [`Judgement::root_of`] returns indices of them.
    pub fn roots(&self) -> &[HoldingRoot] {
        self.roots.all()
    }

    /// Returns the way from a root to a block. `None` if no root reaches the block.
    pub fn chain(&self, block: usize) -> Option<Chain<'a>> {
        let (root, way) = self.way_to(block)?;
        let next = way.iter().skip(1).map(Some).chain([None]);
        let blocks = way.iter().zip(next).map(|(at, next)| ChainBlock {
            block: &self.blocks[*at as usize],
            offset: next.map_or(0, |next| self.graph.offset(*at, *next)),
        });
        let (group, place) = (self.roots.group(root), self.graph.roots[root].place);
        let root = self.roots.all()[group as usize].clone();
        Some(Chain { offset: place.saturating_sub(root.start), blocks: blocks.collect(), root })
    }

    /// Returns the index of the root pointer on the way to a block, and the blocks of that way.
    fn way_to(&self, block: usize) -> Option<(usize, Vec<BlockIndex>)> {
        let mut way = vec![block as BlockIndex];
        let mut at = block as BlockIndex;
        loop {
            match self.ways.before(at)? {
                Before::Root(root) => {
                    way.reverse();
                    return Some((root, way));
                }
                Before::Block(before) => {
                    way.push(before);
                    at = before;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
