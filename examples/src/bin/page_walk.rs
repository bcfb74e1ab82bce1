//! Locality: a chain of nodes, once in boxes that are visited in a shuffled order, once side by
//! side in a table.
//!
//! What a profile must show:
//!
//! - `NODES` = 50,000 blocks of `NODE_BYTES` = 256 bytes, 12,800,000 bytes, from the line marked
//!   `PLANTED: boxes` in `boxed`.
//! - As many bytes in one block from the line marked `PLANTED: table` in `table`.
//! - Both are live at the peak, and nothing is left at the end. The walks themselves (`walk_boxes`,
//!   `walk_table`) allocate nothing.
//!
//! The output is the time of each walk and their ratio: the cost of scattered memory on this
//! machine. With `rounds` as first argument, each walk makes `PASSES * rounds` passes: the times
//! grow, the allocations do not.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use examples::Lcg;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const NODES: usize = 50_000;
const NODE_BYTES: usize = size_of::<Node>();
const PASSES: usize = 10;

/// Four cache lines, of which a walk reads one. A walk knows the next node only after reading this
/// one.
struct Node {
    value: u64,
    next: usize,
    _payload: [u64; 30],
}

fn main() {
    examples::begin();
    let passes = PASSES * examples::rounds();

    let boxes = boxed(&shuffled());
    let table = table();
    let (scattered, boxes_sum) = timed(passes, || walk_boxes(&boxes));
    let (sequential, table_sum) = timed(passes, || walk_table(&table));
    assert_eq!(boxes_sum, table_sum);
    println!("{NODES} nodes of {NODE_BYTES} bytes, {passes} passes each");
    println!(
        "boxes {scattered:.1?}, table {sequential:.1?}: {:.1} times as long",
        scattered.as_secs_f64() / sequential.as_secs_f64()
    );
}

/// Makes one allocation for each node. The order of the chain has nothing to do with the addresses.
#[inline(never)]
#[expect(clippy::vec_box, reason = "the boxes are what is measured")]
fn boxed(order: &[usize]) -> Vec<Box<Node>> {
    let mut nodes = Vec::with_capacity(NODES);
    for value in 0..NODES {
        nodes.push(Box::new(Node::new(value))); // PLANTED: boxes
    }
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        nodes[*from].next = *to;
    }
    nodes
}

/// Makes one allocation for all nodes, through which the chain leads from end to end.
#[inline(never)]
fn table() -> Vec<Node> {
    let mut nodes = Vec::with_capacity(NODES); // PLANTED: table
    for value in 0..NODES {
        nodes.push(Node::new(value));
    }
    nodes
}

#[inline(never)]
fn shuffled() -> Vec<usize> {
    let mut order = Vec::with_capacity(NODES);
    order.extend(0..NODES);
    Lcg::new(1).shuffle(&mut order);
    order
}

#[inline(never)]
fn walk_boxes(nodes: &[Box<Node>]) -> u64 {
    let (mut index, mut sum) = (0, 0);
    for _ in 0..nodes.len() {
        let node = &nodes[index];
        (index, sum) = (node.next, sum + node.value);
    }
    sum
}

#[inline(never)]
fn walk_table(nodes: &[Node]) -> u64 {
    let (mut index, mut sum) = (0, 0);
    for _ in 0..nodes.len() {
        let node = &nodes[index];
        (index, sum) = (node.next, sum + node.value);
    }
    sum
}

fn timed(passes: usize, walk: impl Fn() -> u64) -> (Duration, u64) {
    let begin = Instant::now();
    let sum = (0..passes).map(|_| black_box(walk())).sum();
    (begin.elapsed(), sum)
}

impl Node {
    /// Makes a node whose next one is its neighbour in the table; the last is followed by the
    /// first.
    fn new(value: usize) -> Self {
        Self { value: value as u64, next: (value + 1) % NODES, _payload: [value as u64; 30] }
    }
}
