//! Which blocks the roots reach, and on which way. In: a graph of blocks. Out: for each block the
//! block or the root before it on a shortest way from a root of the most telling kind.

use super::graph::{BlockGraph, WEAK};
use super::index::BlockIndex;
use super::places::RootKind;

/// The ways from roots to blocks.
#[derive(Debug)]
pub(super) struct Ways {
    /// For each block what comes before it, packed.
    before: Vec<u32>,
    /// For each block its class.
    classes: Vec<u8>,
}

/// What comes before a block on its way from a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Another block.
    Block(BlockIndex),
    /// The root pointer with this index.
    Root(usize),
}

/// Roots with a known owner reach the block.
const HELD_CLASS: u8 = 0;
/// Only memory of unknown owner reaches the block.
const UNKNOWN_CLASS: u8 = 1;
/// Nothing reaches the block.
const UNREACHED_CLASS: u8 = 2;

const UNREACHED: u32 = u32::MAX;
/// Bit of packed values: the rest is the index of a root.
const ROOT: u32 = 1 << 31;

impl Ways {
    /// Finds the ways. An edge that is more likely the end of a range counts only if no other way
    /// leads to its target; all edges that count are made strong in the graph.
    pub(super) fn find(graph: &mut BlockGraph, blocks: usize) -> Ways {
        let mut search = Search { before: vec![UNREACHED; blocks], queue: Vec::new(), weak: Vec::new() };
        let named = [RootKind::Static, RootKind::Tls, RootKind::Stack, RootKind::Register];
        for kind in named {
            search.reach_from_roots(graph, kind);
        }
        search.by_weak_edges(graph);
        let class = |before: &u32| if *before == UNREACHED { UNREACHED_CLASS } else { HELD_CLASS };
        let mut classes: Vec<u8> = search.before.iter().map(class).collect();
        search.reach_from_roots(graph, RootKind::Unknown);
        search.by_weak_edges(graph);
        for (class, before) in classes.iter_mut().zip(&search.before) {
            if *class == UNREACHED_CLASS && *before != UNREACHED {
                *class = UNKNOWN_CLASS;
            }
        }
        Ways { before: search.before, classes }
    }

    /// Returns what comes before a block. `None` if no root reaches it.
    pub(super) fn before(&self, block: BlockIndex) -> Option<Before> {
        match self.before[block as usize] {
            UNREACHED => None,
            root if root & ROOT != 0 => Some(Before::Root((root & !ROOT) as usize)),
            other => Some(Before::Block(other)),
        }
    }

    /// Whether roots with a known owner reach a block.
    pub(super) fn is_held(&self, block: BlockIndex) -> bool {
        self.classes[block as usize] == HELD_CLASS
    }

    /// Returns the class of a block: by which roots it is reached.
    pub(super) fn class(&self, block: BlockIndex) -> u8 {
        self.classes[block as usize]
    }

    /// Whether any root reaches a block.
    pub(super) fn is_reached(&self, block: BlockIndex) -> bool {
        self.before[block as usize] != UNREACHED
    }
}

struct Search {
    before: Vec<u32>,
    queue: Vec<BlockIndex>,
    /// Weak edges from reached blocks, and weak roots: source, edge.
    weak: Vec<(u32, usize)>,
}

impl Search {
    fn reach_from_roots(&mut self, graph: &BlockGraph, kind: RootKind) {
        // The place before `UNREACHED` is the last that fits.
        for (index, root) in graph.roots.iter().enumerate().take((ROOT - 1) as usize) {
            if root.owner.kind != kind {
                continue;
            }
            if root.target & WEAK != 0 {
                self.weak.push((ROOT | index as u32, index));
            } else {
                self.reach(root.target, ROOT | index as u32);
            }
        }
        self.run(graph);
    }

    #[inline]
    fn reach(&mut self, block: BlockIndex, before: u32) {
        let slot = &mut self.before[block as usize];
        if *slot == UNREACHED {
            *slot = before;
            self.queue.push(block);
        }
    }

    /// Follows all edges from the blocks in the queue, nearest blocks first.
    fn run(&mut self, graph: &BlockGraph) {
        let mut at = 0;
        while let Some(block) = self.queue.get(at).copied() {
            at += 1;
            for edge in graph.row(block) {
                match graph.target_of_any(edge) {
                    (target, false) => self.reach(target, block),
                    (target, true) if self.before[target as usize] == UNREACHED => {
                        self.weak.push((block, edge));
                    }
                    _ => {}
                }
            }
        }
        self.queue.clear();
    }

    /// Follows weak edges to blocks that nothing else has reached.
    fn by_weak_edges(&mut self, graph: &mut BlockGraph) {
        while !self.weak.is_empty() {
            for (source, at) in std::mem::take(&mut self.weak) {
                let is_root = source & ROOT != 0;
                let target = match is_root {
                    true => graph.roots[at].target & !WEAK,
                    false => graph.target_of_any(at).0,
                };
                if self.before[target as usize] != UNREACHED {
                    continue;
                }
                match is_root {
                    true => graph.roots[at].target = target,
                    false => graph.strengthen(at),
                }
                self.reach(target, source);
                self.run(graph);
            }
        }
    }
}
