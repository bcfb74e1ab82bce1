//! The live heap by groups of stacks or threads, over time. Plain values.

use super::LiveHeap;

/// The groups that are asked for, and the time in which they are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapGrouping {
    /// The group of each block.
    pub key: GroupKey,
    /// Number of groups. The last one has all blocks that `key` does not name.
    pub groups: usize,
    /// First time, in microseconds.
    pub from_us: u64,
    /// Last time, in microseconds.
    pub to_us: u64,
}

/// What the group of a block depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupKey {
    /// The stack that gave the block its present size: the group of each stack, by its id.
    Stacks(Vec<u16>),
    /// The thread that allocated the block: the group of each thread, in the order of
    /// [`Profile::threads`](super::Profile::threads).
    Threads(Vec<u16>),
}

/// What groups held over time, in parts of equal length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCurve {
    /// When the first part begins, in microseconds since time zero.
    pub start_us: u64,
    /// Length of a part in microseconds.
    pub width_us: u64,
    /// The parts, without gaps.
    pub points: Vec<GroupPoint>,
    /// The most bytes that each group held at one time, and its blocks when that was first so.
    pub most: Vec<LiveHeap>,
}

/// What groups held during one part, when the live heap was largest in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPoint {
    /// Live bytes of the process then: the sum of `bytes`.
    pub max: u64,
    /// Bytes of each group.
    pub bytes: Vec<u64>,
}
