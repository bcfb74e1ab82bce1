//! Codec 1: the records of a frame, taken apart into columns. What repeats in a recording is not bytes but habits: which
//! stack follows which, which of the live blocks is freed, which address the allocator hands out next. [`model`] keeps
//! what both ends know about a frame so far and guesses from it; the columns hold what the guesses leave open, most of it
//! zeros, and Zstandard does the rest.
//!
//! Nothing read is trusted: memory is bounded by [`MAX_COLUMNS_RECORDS`], every number is checked against the tables, and no
//! record takes more than a bounded number of steps.

mod decode;
mod encode;
mod model;
mod nodes;

pub(crate) use decode::{Columns, Decoder};
pub(crate) use encode::Encoder;

use crate::layout::{COLUMNS, MAX_COLUMNS_RECORDS};
use crate::record::tags;
use crate::varint;

/// The columns, in the order in which they stand in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// A byte for each record.
    Op,
    /// Tags of new sites.
    Tag,
    /// Numbers of sites that were not guessed.
    Site,
    /// Stacks of new sites.
    Stack,
    /// How blocks are named.
    Reference,
    /// Blocks by their number.
    Block,
    /// Sizes that were not guessed.
    Size,
    /// Recorded sizes of what is freed.
    OldSize,
    /// How addresses are named.
    Place,
    /// Addresses that were not guessed.
    Addr,
    Thread,
    Time,
    /// Steps from the stack before to the parent of a node.
    Up,
    /// Numbers of nodes, and of parents.
    Node,
    /// Return addresses by their number.
    PcIndex,
    /// New return addresses.
    Pc,
    /// Records of lines, as in raw frames, but for what they are differences from: the one before in this column.
    Line,
    /// Cold records, as they are.
    Cold,
}

const _: () = assert!(Column::Cold as usize + 1 == COLUMNS);

/// Sets and bits of [`Column::Op`].
pub(crate) mod op {
    /// Up to here: an event. The low two bits say how its site is named.
    pub(crate) const LAST_EVENT: u8 = 0x1F;
    pub(crate) const SITE: u8 = 0x03;
    pub(crate) const SITE_GUESSED: u8 = 0;
    pub(crate) const SITE_KNOWN: u8 = 1;
    pub(crate) const SITE_NEW: u8 = 2;
    /// The way in which the block is named was not guessed.
    pub(crate) const REFERENCE: u8 = 0x04;
    /// The size was not guessed.
    pub(crate) const SIZE: u8 = 0x08;
    /// The way in which the new address is named was not guessed.
    pub(crate) const PLACE: u8 = 0x10;

    pub(crate) const COLD: u8 = 0x20;
    pub(crate) const THREAD: u8 = 0x21;
    pub(crate) const TIME: u8 = 0x22;
    pub(crate) const REALLOC_FAILED: u8 = 0x23;
    pub(crate) const LINE: u8 = 0x24;
    /// From here on: a node, with three bits.
    pub(crate) const NODE: u8 = 0x28;
    pub(crate) const LAST_NODE: u8 = 0x2F;
    /// The parent is the node of the record before.
    pub(crate) const CHILD: u8 = 0x01;
    /// The return address is the one that followed its caller's last.
    pub(crate) const PC: u8 = 0x02;
    /// The number is not one more than the last.
    pub(crate) const NUMBERED: u8 = 0x04;
    /// From here on: a time so much later.
    pub(crate) const LATER: u8 = 0x40;
    pub(crate) const MOST_LATER: u64 = 0x3F;
}

/// What the events of a tag say. The tags are those of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape(u8);

impl Shape {
    const OLD: u8 = 1;
    const OLD_SIZE: u8 = 2;
    const NEW: u8 = 4;
    const STACK: u8 = 8;

    /// `None` unless it is the tag of an event.
    #[inline]
    pub(crate) fn of(tag: u8) -> Option<Shape> {
        SHAPES.get(usize::from(tag)).filter(|shape| **shape != 0).map(|shape| Shape(*shape))
    }

    /// A block that was there before.
    #[inline]
    pub(crate) fn frees(self) -> bool {
        self.0 & Shape::OLD != 0
    }

    /// The size that it had, as recorded.
    #[inline]
    pub(crate) fn sized(self) -> bool {
        self.0 & Shape::OLD_SIZE != 0
    }

    /// A block that is there from now on.
    #[inline]
    pub(crate) fn allocates(self) -> bool {
        self.0 & Shape::NEW != 0
    }

    #[inline]
    pub(crate) fn has_stack(self) -> bool {
        self.0 & Shape::STACK != 0
    }
}

/// PERF: a table, because programs jump from tag to tag in ways that no CPU guesses.
const SHAPES: [u8; tags::REALLOC_END as usize + 1] = {
    const NEW: u8 = Shape::NEW | Shape::STACK;
    const GONE: u8 = Shape::OLD | Shape::STACK;
    let mut shapes = [0; tags::REALLOC_END as usize + 1];
    shapes[tags::ALLOC as usize] = NEW;
    shapes[tags::ALLOC_ZEROED as usize] = NEW;
    shapes[tags::DEALLOC as usize] = GONE;
    shapes[tags::DEALLOC_SIZED as usize] = GONE | Shape::OLD_SIZE;
    shapes[tags::REALLOC as usize] = GONE | NEW;
    shapes[tags::REALLOC_SIZED as usize] = GONE | NEW | Shape::OLD_SIZE;
    shapes[tags::REALLOC_BEGIN as usize] = Shape::OLD;
    shapes[tags::REALLOC_BEGIN_SIZED as usize] = Shape::OLD | Shape::OLD_SIZE;
    shapes[tags::REALLOC_END as usize] = NEW;
    shapes
};

/// Puts the columns one behind the other, their lengths in front.
fn join(columns: &[Vec<u8>; COLUMNS]) -> Vec<u8> {
    let lengths = COLUMNS * varint::MAX_LEN;
    let mut bytes = Vec::with_capacity(lengths + columns.iter().map(Vec::len).sum::<usize>());
    for column in columns {
        put(&mut bytes, column.len() as u64);
    }
    columns.iter().for_each(|column| bytes.extend_from_slice(column));
    bytes
}

/// Where each column begins and ends. `None` if they do not fill the bytes exactly, or hold too many records.
fn split(bytes: &[u8]) -> Option<[Span; COLUMNS]> {
    let mut at = 0;
    let mut spans = [Span::default(); COLUMNS];
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

/// What is left of a column.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    at: usize,
    end: usize,
}

fn put(column: &mut Vec<u8>, value: u64) {
    let mut bytes = [0u8; varint::MAX_LEN];
    let mut at = 0;
    if varint::put(&mut bytes, &mut at, value).is_some() {
        column.extend_from_slice(&bytes[..at]);
    }
}
