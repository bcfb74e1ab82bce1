//! Dominators: what every way from a root to a node goes through. In: a graph with one root. Out:
//! for each node its immediate dominator.
//!
//! A block retains what it dominates: all of that would be lost if the block were gone.
//!
//! The algorithm is semi-NCA (Georgiadis, "Linear-Time Algorithms for Dominators and Related
//! Problems", 2005), with path compression and without recursion.

/// A graph whose node 0 is the root.
pub(super) trait FlowGraph {
    /// Number of nodes.
    fn nodes(&self) -> usize;

    /// Number of edges from a node, those that do not count included.
    fn edges(&self, node: u32) -> u32;

    /// Returns where an edge leads; `None` if it does not count.
    fn successor(&self, node: u32, edge: u32) -> Option<u32>;
}

/// The dominator tree of the nodes that can be reached.
#[derive(Debug, Default)]
pub(super) struct DominatorTree {
    /// The nodes in an order in which each comes after its immediate dominator. The root is first.
    pub(super) order: Vec<u32>,
    /// For each place in `order`, the place of the immediate dominator; 0 for the root.
    pub(super) above: Vec<u32>,
}

const NONE: u32 = u32::MAX;

/// Returns the dominator tree.
pub(super) fn dominators(graph: &impl FlowGraph) -> DominatorTree {
    let Walk { order, number, mut parents } = Walk::new(graph);
    let predecessors = Predecessors::new(graph, &number);
    drop(number);
    let mut above = parents.clone();
    // Of a node that is not linked yet, its own number.
    let mut semi: Vec<u32> = (0..order.len() as u32).collect();
    let mut labels: Vec<u32> = (0..order.len() as u32).collect();
    let mut path = Vec::new();
    for at in (1..order.len() as u32).rev() {
        let mut best = parents[at as usize];
        for before in predecessors.of(order[at as usize]) {
            let label = evaluate(*before, at + 1, &mut parents, &mut labels, &semi, &mut path);
            best = best.min(semi[label as usize]);
        }
        semi[at as usize] = best;
    }
    drop((predecessors, labels, parents));
    for at in 1..order.len() {
        let mut candidate = above[at];
        while candidate > semi[at] {
            candidate = above[candidate as usize];
        }
        above[at] = candidate;
    }
    DominatorTree { order, above }
}

/// Returns the node with the least semi-dominator among those from `node` upwards that have a
/// number of at least `linked`. Shortens the way upwards for later calls.
fn evaluate(
    node: u32,
    linked: u32,
    parents: &mut [u32],
    labels: &mut [u32],
    semi: &[u32],
    path: &mut Vec<u32>,
) -> u32 {
    let mut at = node;
    while parents[at as usize] >= linked {
        path.push(at);
        at = parents[at as usize];
    }
    // A node that is not linked yet, or directly below one that is not.
    let (mut top, mut top_label) = (at, labels[at as usize]);
    while let Some(lower) = path.pop() {
        parents[lower as usize] = parents[top as usize];
        if semi[top_label as usize] < semi[labels[lower as usize] as usize] {
            labels[lower as usize] = top_label;
        } else {
            top_label = labels[lower as usize];
        }
        top = lower;
    }
    labels[node as usize]
}

/// A walk through the graph, depth first.
struct Walk {
    /// The nodes in the order in which they are reached.
    order: Vec<u32>,
    /// For each node its place in `order`.
    number: Vec<u32>,
    /// For each place the place of the node from which it was reached.
    parents: Vec<u32>,
}

impl Walk {
    fn new(graph: &impl FlowGraph) -> Walk {
        let mut walk = Walk { order: Vec::new(), number: vec![NONE; graph.nodes()], parents: Vec::new() };
        walk.reach(0, 0);
        // Node, its number, its next edge, and the number of its edges.
        let mut stack = vec![(0u32, 0u32, 0u32, graph.edges(0))];
        while let Some((node, number, edge, edges)) = stack.last_mut() {
            if *edge == *edges {
                stack.pop();
                continue;
            }
            let (from, next) = (*number, graph.successor(*node, *edge));
            *edge += 1;
            if let Some(next) = next.filter(|next| walk.number[*next as usize] == NONE) {
                stack.push((next, walk.order.len() as u32, 0, graph.edges(next)));
                walk.reach(next, from);
            }
        }
        walk
    }

    fn reach(&mut self, node: u32, parent: u32) {
        self.number[node as usize] = self.order.len() as u32;
        self.order.push(node);
        self.parents.push(parent);
    }
}

/// For each node the places of the nodes before it.
struct Predecessors {
    rows: Vec<u32>,
    sources: Vec<u32>,
}

impl Predecessors {
    /// PERF: goes through the nodes by number, in which neighbouring blocks are neighbours, and not
    /// in the order of the walk.
    fn new(graph: &impl FlowGraph, number: &[u32]) -> Predecessors {
        let mut rows = vec![0u32; number.len() + 1];
        let each = |visit: &mut dyn FnMut(u32, u32)| {
            for (node, place) in number.iter().enumerate().filter(|(_, place)| **place != NONE) {
                for edge in 0..graph.edges(node as u32) {
                    if let Some(next) = graph.successor(node as u32, edge) {
                        visit(*place, next);
                    }
                }
            }
        };
        each(&mut |_, to| rows[to as usize] += 1);
        let mut sum = 0;
        for row in &mut rows {
            sum += *row;
            *row = sum;
        }
        let mut sources = vec![0u32; sum as usize];
        // Each row is filled from its end, so that it begins where the one before ends.
        each(&mut |from, to| {
            rows[to as usize] -= 1;
            sources[rows[to as usize] as usize] = from;
        });
        Predecessors { rows, sources }
    }

    fn of(&self, node: u32) -> &[u32] {
        &self.sources[self.rows[node as usize] as usize..self.rows[node as usize + 1] as usize]
    }
}
