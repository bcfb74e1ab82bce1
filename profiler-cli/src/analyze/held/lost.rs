//! Groups of lost blocks. In: the graph, and which blocks are lost. Out: for each lost block its
//! leader.
//!
//! A lost block that another lost block points to is lost with it:
//!
//! ```text
//! Vec's buffer -> box 1          leader: the buffer; "with it 3 blocks"
//!              -> box 2 -> text
//!
//! node A <-> node B              a cycle: leader is the block with the lowest address
//! ```
//!
//! The leaders are one block of each strongly connected component that no other component points
//! to (Tarjan, "Depth-First Search and Linear Graph Algorithms", 1972; without recursion here).

use super::graph::BlockGraph;
use super::index::BlockIndex;

/// The lost blocks.
#[derive(Debug, Default)]
pub(super) struct LostGroups {
    /// The lost blocks, ascending.
    pub(super) blocks: Vec<BlockIndex>,
    /// For each of them the block with which it is lost; of a leader, itself.
    pub(super) leaders: Vec<BlockIndex>,
}

const NONE: u32 = u32::MAX;

impl LostGroups {
    /// Finds the leaders of the blocks that are lost.
    pub(super) fn find(
        graph: &BlockGraph,
        blocks: usize,
        is_lost: impl Fn(BlockIndex) -> bool,
    ) -> LostGroups {
        let lost: Vec<BlockIndex> = (0..blocks as BlockIndex).filter(|block| is_lost(*block)).collect();
        if lost.is_empty() {
            return LostGroups::default();
        }
        // Positions in `lost`, so that memory follows the number of lost blocks.
        let place_of = |block: BlockIndex| lost.binary_search(&block).ok().map(|at| at as u32);
        let next = |at: u32, edge: u32| {
            let edge = graph.row(lost[at as usize]).nth(edge as usize)?;
            Some(graph.target(edge).and_then(place_of))
        };
        let components = components(lost.len(), &next);
        let mut leaders = vec![NONE; lost.len()];
        let mut is_source = vec![true; lost.len()];
        for at in 0..lost.len() as u32 {
            each_next(at, &next, |to| {
                let to = components[to as usize];
                is_source[to as usize] &= to == components[at as usize];
            });
        }
        // In the order of addresses, so that a block below several leaders belongs to the first.
        let mut queue = Vec::new();
        for first in 0..lost.len() as u32 {
            if leaders[first as usize] != NONE || !is_source[components[first as usize] as usize] {
                continue;
            }
            let leader = lost[first as usize];
            leaders[first as usize] = leader;
            queue.push(first);
            while let Some(at) = queue.pop() {
                each_next(at, &next, |to| {
                    if leaders[to as usize] == NONE {
                        leaders[to as usize] = leader;
                        queue.push(to);
                    }
                });
            }
        }
        LostGroups { blocks: lost, leaders }
    }

    /// Returns the block with which a block is lost. `None` if it is not lost.
    pub(super) fn leader(&self, block: BlockIndex) -> Option<BlockIndex> {
        self.blocks.binary_search(&block).ok().map(|at| self.leaders[at])
    }
}

fn each_next(at: u32, next: &impl Fn(u32, u32) -> Option<Option<u32>>, mut visit: impl FnMut(u32)) {
    let mut edge = 0;
    while let Some(to) = next(at, edge) {
        edge += 1;
        to.into_iter().for_each(&mut visit);
    }
}

/// Returns for each node the number of its strongly connected component. `next` returns where an
/// edge of a node leads: `None` behind the last edge, `Some(None)` if the edge does not count.
fn components(nodes: usize, next: &impl Fn(u32, u32) -> Option<Option<u32>>) -> Vec<u32> {
    let mut component = vec![NONE; nodes];
    let mut number = vec![NONE; nodes];
    let mut lowest = vec![NONE; nodes];
    let (mut open, mut stack) = (Vec::new(), Vec::new());
    let (mut numbers, mut count) = (0, 0);
    for start in 0..nodes as u32 {
        if number[start as usize] != NONE {
            continue;
        }
        stack.push((start, 0));
        while let Some((at, edge)) = stack.last_mut() {
            let (at, index) = (*at as usize, *edge);
            *edge += 1;
            if index == 0 {
                (number[at], lowest[at]) = (numbers, numbers);
                numbers += 1;
                open.push(at);
            }
            match next(at as u32, index) {
                Some(Some(to)) if number[to as usize] == NONE => stack.push((to, 0)),
                Some(Some(to)) if component[to as usize] == NONE => {
                    lowest[at] = lowest[at].min(number[to as usize]);
                }
                Some(_) => {}
                None => {
                    if lowest[at] == number[at] {
                        while let Some(member) = open.pop() {
                            component[member] = count;
                            if member == at {
                                break;
                            }
                        }
                        count += 1;
                    }
                    stack.pop();
                    if let Some((caller, _)) = stack.last() {
                        let caller = *caller as usize;
                        lowest[caller] = lowest[caller].min(lowest[at]);
                    }
                }
            }
        }
    }
    component
}
