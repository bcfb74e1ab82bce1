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
pub(super) fn dominators(graph: &(impl FlowGraph + Sync)) -> DominatorTree {
    // PERF: both take about as long, and there mostly is a second processor.
    let (walk, mut predecessors) = std::thread::scope(|scope| {
        let predecessors = scope.spawn(|| Predecessors::new(graph));
        let walk = Walk::new(graph);
        (walk, predecessors.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let Walk { order, number, parents } = walk;
    for source in &mut predecessors.sources {
        *source = number[*source as usize];
    }
    drop(number);
    let mut above = parents.clone();
    let node = |(at, parent): (usize, u32)| ForestNode { parent, least: at as u32 };
    let mut forest: Vec<ForestNode> = parents.into_iter().enumerate().map(node).collect();
    let mut semi = vec![0; order.len()];
    let mut path = Vec::new();
    for at in (1..order.len() as u32).rev() {
        let mut best = forest[at as usize].parent;
        // Nodes that the root does not reach dominate nothing.
        for before in predecessors.of(order[at as usize]).iter().filter(|before| **before != NONE) {
            best = best.min(least(*before, at + 1, &mut forest, &mut path));
        }
        (semi[at as usize], forest[at as usize].least) = (best, best);
    }
    drop((predecessors, forest));
    for at in 1..order.len() {
        let mut candidate = above[at];
        while candidate > semi[at] {
            candidate = above[candidate as usize];
        }
        above[at] = candidate;
    }
    DominatorTree { order, above }
}

/// A node of the forest of the nodes that are done, by its place in the order of the walk.
///
/// PERF: one look-up of a node misses the cache once.
#[derive(Clone, Copy)]
struct ForestNode {
    /// A node above this one.
    parent: u32,
    /// The least semi-dominator of the nodes from this one up to below `parent`. Of a node that is
    /// not done, its own place.
    least: u32,
}

/// Returns the least semi-dominator of a node and of those above it that have a place of at least
/// `done`. Shortens the way upwards for later calls.
fn least(node: u32, done: u32, forest: &mut [ForestNode], path: &mut Vec<u32>) -> u32 {
    let mut at = node;
    while forest[at as usize].parent >= done {
        path.push(at);
        at = forest[at as usize].parent;
    }
    let ForestNode { parent, mut least } = forest[at as usize];
    while let Some(lower) = path.pop() {
        let lower = &mut forest[lower as usize];
        least = least.min(lower.least);
        *lower = ForestNode { parent, least };
    }
    least
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

/// For each node the nodes before it.
struct Predecessors {
    rows: Vec<u32>,
    sources: Vec<u32>,
}

impl Predecessors {
    /// PERF: goes through the nodes by number, in which neighbouring blocks are neighbours, and not
    /// in the order of the walk.
    fn new(graph: &impl FlowGraph) -> Predecessors {
        let mut rows = vec![0u32; graph.nodes() + 1];
        let each = |visit: &mut dyn FnMut(u32, u32)| {
            for node in 0..graph.nodes() as u32 {
                for edge in 0..graph.edges(node) {
                    if let Some(next) = graph.successor(node, edge) {
                        visit(node, next);
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
