//! Codec 1: the records of a frame, taken apart into columns.
//!
//! A recording repeats habits rather than bytes: which stack follows which, which of the live
//! blocks is freed, which address the allocator hands out next. Both ends keep the same [`model`]
//! of the frame so far and predict the next event from it. The columns hold only what the
//! predictions leave open. Most of their bytes are zero, and Zstandard compresses them.
//!
//! Nothing that is read is trusted. [`MAX_COLUMNS_RECORDS`] bounds the memory, every number is
//! checked against the model's tables, and each record takes a bounded number of steps.
//!
//! docs/FORMAT.md describes the same tables. What it calls a *site* is an [`Origin`](model::Origin)
//! here, because a site is something else in the rest of this project; its *names* and *places* are
//! [`BlockName`](model::BlockName) and [`AddressName`](model::AddressName).

mod decode;
mod encode;
mod model;
mod nodes;

pub(crate) use decode::{ColumnDecoder, ColumnRecords};
pub(crate) use encode::ColumnEncoder;

use crate::layout::{COLUMNS, MAX_COLUMNS_RECORDS};
use crate::record::tags;
use crate::varint;

/// The columns, in the order in which they stand in a frame. A *delta* is a difference as
/// [`varint::delta`](crate::varint::delta) makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// One byte for each record: its operation, see [`op`].
    Op,
    /// Bytes: the tags of new origins.
    Tag,
    /// Varints: the indices of origins that were not predicted.
    Origin,
    /// Deltas: the stacks of new origins.
    Stack,
    /// Bytes: the names of released blocks that were not predicted.
    BlockName,
    /// Deltas: the indices of blocks that have no shorter name.
    Block,
    /// Varints: the sizes of new blocks that were not predicted.
    Size,
    /// Deltas: the recorded sizes of released blocks.
    OldSize,
    /// Bytes: the names of new addresses that were not predicted.
    AddressName,
    /// Deltas: addresses that have no name.
    Addr,
    /// Varints: numbers of threads.
    Thread,
    /// Deltas: times that are too far from the one before for an operation of their own.
    Time,
    /// Bytes: how many steps up the tree lead from the thread's last stack to the parent of a node.
    StepsUp,
    /// Deltas: ids of nodes and of parents.
    Node,
    /// Varints: return addresses, by their index.
    PcIndex,
    /// Deltas: new return addresses.
    Pc,
    /// Records of lines as in raw frames, except that each is a difference from the record before
    /// in this column.
    Line,
    /// Cold records, as in raw frames.
    Cold,
}

const _: () = assert!(Column::Cold as usize + 1 == COLUMNS);

/// Values and bits of [`Column::Op`].
pub(crate) mod op {
    /// The largest operation of an event. All smaller ones are events too, and their bits have the
    /// meanings below.
    pub(crate) const LAST_EVENT: u8 = 0x1F;
    /// The two bits that say how the event's origin is given.
    pub(crate) const ORIGIN: u8 = 0x03;
    /// The origin is the predicted one.
    pub(crate) const ORIGIN_PREDICTED: u8 = 0;
    /// The origin's index follows in its column.
    pub(crate) const ORIGIN_KNOWN: u8 = 1;
    /// The origin is new: its tag and its stack follow in their columns.
    pub(crate) const ORIGIN_NEW: u8 = 2;
    /// The name of the released block follows in its column; otherwise it is the predicted one.
    pub(crate) const BLOCK_NAME: u8 = 0x04;
    /// The size of the new block follows in its column; otherwise it is the predicted one.
    pub(crate) const SIZE: u8 = 0x08;
    /// The name of the new address follows in its column; otherwise it is the predicted one.
    pub(crate) const ADDRESS_NAME: u8 = 0x10;

    /// The next record of [`Column::Cold`](super::Column::Cold).
    pub(crate) const COLD: u8 = 0x20;
    /// A record of the current thread.
    pub(crate) const THREAD: u8 = 0x21;
    /// A record of the time, whose difference follows in its column.
    pub(crate) const TIME: u8 = 0x22;
    /// A realloc that failed.
    pub(crate) const REALLOC_FAILED: u8 = 0x23;
    /// The next record of [`Column::Line`](super::Column::Line).
    pub(crate) const LINE: u8 = 0x24;
    /// The first of the eight operations of nodes, with the three bits below.
    pub(crate) const NODE: u8 = 0x28;
    /// The last of the eight operations of nodes.
    pub(crate) const LAST_NODE: u8 = 0x2F;
    /// The parent is the node that was defined last.
    pub(crate) const PARENT_IS_LAST: u8 = 0x01;
    /// The return address is the one that was last seen below the parent's.
    pub(crate) const PC_PREDICTED: u8 = 0x02;
    /// The node's id follows in its column; otherwise it is one more than the last.
    pub(crate) const ID_FOLLOWS: u8 = 0x04;
    /// The first of the operations that stand for a time: so many microseconds after the one
    /// before.
    pub(crate) const LATER: u8 = 0x40;
    /// The most microseconds that such an operation stands for.
    pub(crate) const MAX_LATER: u64 = 0x3F;
}

/// Which fields the events of one tag have. The tags are those of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventShape(u8);

impl EventShape {
    const OLD: u8 = 1;
    const OLD_SIZE: u8 = 2;
    const NEW: u8 = 4;
    const STACK: u8 = 8;

    /// The shape of a tag's events, or `None` if it is not the tag of an event.
    #[inline]
    pub(crate) fn of(tag: u8) -> Option<EventShape> {
        SHAPES.get(usize::from(tag)).filter(|shape| **shape != 0).map(|shape| EventShape(*shape))
    }

    /// Whether the event releases a block that was there before.
    #[inline]
    pub(crate) fn releases_block(self) -> bool {
        self.0 & EventShape::OLD != 0
    }

    /// Whether the event records the size of the block that it releases.
    #[inline]
    pub(crate) fn has_old_size(self) -> bool {
        self.0 & EventShape::OLD_SIZE != 0
    }

    /// Whether the event adds a block.
    #[inline]
    pub(crate) fn adds_block(self) -> bool {
        self.0 & EventShape::NEW != 0
    }

    /// Whether the event has a stack.
    #[inline]
    pub(crate) fn has_stack(self) -> bool {
        self.0 & EventShape::STACK != 0
    }
}

/// The bits of [`EventShape`] for each tag; 0 for tags that are no events.
///
/// PERF: a table rather than a `match`, because no CPU predicts in which order a program's tags
/// follow each other.
const SHAPES: [u8; tags::REALLOC_END as usize + 1] = {
    const NEW: u8 = EventShape::NEW | EventShape::STACK;
    const RELEASED: u8 = EventShape::OLD | EventShape::STACK;
    let mut shapes = [0; tags::REALLOC_END as usize + 1];
    shapes[tags::ALLOC as usize] = NEW;
    shapes[tags::ALLOC_ZEROED as usize] = NEW;
    shapes[tags::DEALLOC as usize] = RELEASED;
    shapes[tags::DEALLOC_SIZED as usize] = RELEASED | EventShape::OLD_SIZE;
    shapes[tags::REALLOC as usize] = RELEASED | NEW;
    shapes[tags::REALLOC_SIZED as usize] = RELEASED | NEW | EventShape::OLD_SIZE;
    shapes[tags::REALLOC_BEGIN as usize] = EventShape::OLD;
    shapes[tags::REALLOC_BEGIN_SIZED as usize] = EventShape::OLD | EventShape::OLD_SIZE;
    shapes[tags::REALLOC_END as usize] = NEW;
    shapes
};

/// Returns the lengths of the columns as varints, followed by the columns themselves.
fn join(columns: &[Vec<u8>; COLUMNS]) -> Vec<u8> {
    let lengths = COLUMNS * varint::MAX_LEN;
    let mut bytes = Vec::with_capacity(lengths + columns.iter().map(Vec::len).sum::<usize>());
    for column in columns {
        push_varint(&mut bytes, column.len() as u64);
    }
    columns.iter().for_each(|column| bytes.extend_from_slice(column));
    bytes
}

/// Returns where each column begins and ends. `None` if the columns do not fill the bytes exactly,
/// or hold more than [`MAX_COLUMNS_RECORDS`] records.
fn split(bytes: &[u8]) -> Option<[ColumnSpan; COLUMNS]> {
    let mut at = 0;
    let mut spans = [ColumnSpan::default(); COLUMNS];
    for span in &mut spans {
        span.end = usize::try_from(varint::get(bytes, &mut at)?).ok()?;
    }
    for span in &mut spans {
        (span.at, span.end) = (at, at.checked_add(span.end).filter(|end| *end <= bytes.len())?);
        at = span.end;
    }
    let records = spans[Column::Op as usize];
    (at == bytes.len() && records.end - records.at <= MAX_COLUMNS_RECORDS).then_some(spans)
}

/// The unread part of a column: offsets into the decompressed payload.
#[derive(Clone, Copy, Debug, Default)]
struct ColumnSpan {
    at: usize,
    end: usize,
}

fn push_varint(column: &mut Vec<u8>, value: u64) {
    let mut bytes = [0u8; varint::MAX_LEN];
    let mut at = 0;
    if varint::put(&mut bytes, &mut at, value).is_some() {
        column.extend_from_slice(&bytes[..at]);
    }
}
