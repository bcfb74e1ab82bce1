//! What sets of blocks retain. In: the graph over roots and blocks, and a set. Out: the bytes that
//! nothing would reach any more if the whole set were gone.
//!
//! The dominator tree tells that of single blocks. Of a set it tells only a part:
//!
//! ```text
//! session 1 -> config <- session 2      neither session retains the config; both together do
//! ```
//!
//! So the set is followed: what it reaches is retained, but for the blocks to which edges lead from
//! elsewhere, and for what these reach without the set. An edge comes from elsewhere if it is none
//! of those that were followed: the number of edges into a block tells that without looking for
//! their sources.

use super::dominators::FlowGraph;

/// Follows sets of nodes in a graph all of whose nodes can be reached from node 0.
pub(super) struct SetWalks<'a, G> {
    graph: &'a G,
    /// For each node the number of edges into it.
    edges_into: Vec<u32>,
    /// For each node that the present walk has met, the number of edges into it that were followed.
    followed: Vec<u32>,
    /// For each node the last mark that it got. Each walk has marks of its own.
    marks: Vec<u32>,
    walks: u32,
    nodes: Vec<u32>,
}

/// Marks of a walk, after three times its number.
const IN_SET: u32 = 0;
const MET: u32 = 1;
const HELD_FROM_ELSEWHERE: u32 = 2;

/// The most walks: each takes three of the marks.
const MAX_WALKS: u32 = u32::MAX / 3 - 1;

impl<'a, G: FlowGraph> SetWalks<'a, G> {
    pub(super) fn new(graph: &'a G) -> SetWalks<'a, G> {
        let mut edges_into = vec![0u32; graph.nodes()];
        for node in 0..graph.nodes() as u32 {
            for edge in 0..graph.edges(node) {
                if let Some(to) = graph.successor(node, edge) {
                    edges_into[to as usize] += 1;
                }
            }
        }
        SetWalks {
            followed: vec![0; graph.nodes()],
            marks: vec![u32::MAX; graph.nodes()],
            edges_into,
            graph,
            walks: 0,
            nodes: Vec::new(),
        }
    }

    /// Calls `visit` with each node that the set retains, its own nodes included. Each edge that is
    /// followed takes one of `steps`; if they do not suffice, returns false and visits nothing.
    pub(super) fn retained(&mut self, set: &[u32], steps: &mut u64, mut visit: impl FnMut(u32)) -> bool {
        if self.walks == MAX_WALKS {
            return false;
        }
        let mark = 3 * self.walks;
        self.walks += 1;
        self.nodes.clear();
        for node in set {
            self.marks[*node as usize] = mark + IN_SET;
            self.nodes.push(*node);
        }
        let mut at = 0;
        while let Some(node) = self.nodes.get(at).copied() {
            at += 1;
            let edges = self.graph.edges(node);
            let Some(left) = steps.checked_sub(u64::from(edges) + 1) else { return false };
            *steps = left;
            for edge in 0..edges {
                let Some(to) = self.graph.successor(node, edge) else { continue };
                match self.marks[to as usize].wrapping_sub(mark) {
                    IN_SET => {}
                    MET => self.followed[to as usize] += 1,
                    _ => {
                        self.marks[to as usize] = mark + MET;
                        self.followed[to as usize] = 1;
                        self.nodes.push(to);
                    }
                }
            }
        }
        let met = &self.nodes[set.len()..];
        let (edges_into, followed) = (&self.edges_into, &self.followed);
        let has_others = |node: &&u32| edges_into[**node as usize] > followed[**node as usize];
        let mut elsewhere: Vec<u32> = met.iter().filter(has_others).copied().collect();
        elsewhere.iter().for_each(|node| self.marks[*node as usize] = mark + HELD_FROM_ELSEWHERE);
        while let Some(node) = elsewhere.pop() {
            for edge in 0..self.graph.edges(node) {
                let Some(to) = self.graph.successor(node, edge) else { continue };
                if self.marks[to as usize] == mark + MET {
                    self.marks[to as usize] = mark + HELD_FROM_ELSEWHERE;
                    elsewhere.push(to);
                }
            }
        }
        let is_retained = |node: &&u32| self.marks[**node as usize] != mark + HELD_FROM_ELSEWHERE;
        self.nodes.iter().filter(is_retained).for_each(|node| visit(*node));
        true
    }
}
