//! Records to columns. In: the payloads of raw frames. Out: the payload of one frame that holds all
//! their records.

use std::fmt;
use std::io;

use foldhash::HashMap;

use super::model::{AddressName, BlockIndex, BlockName, FrameModel, OriginIndex};
use super::nodes::PcIndex;
use super::{Column, EventShape, join, op, push_varint};
use crate::compress::Fingerprint;
use crate::layout::COLUMNS;
use crate::record::{DeltaContext, FIRST_COLD_TAG, MAX_HOT_LEN, MalformedRecord, Record, tags};
use crate::varint::{delta, zigzag};

/// Fills one frame in columns after the other.
pub(crate) struct ColumnEncoder {
    zstd: zstd::bulk::Compressor<'static>,
    columns: [Vec<u8>; COLUMNS],
    model: FrameModel,
    /// What the next record of a line is a difference from.
    lines: DeltaContext,
    /// The frame's live blocks by their address.
    live: HashMap<u64, BlockIndex>,
    /// The frame's origins by tag and stack.
    origins: HashMap<(u8, u32), OriginIndex>,
    /// The frame's return addresses by their value.
    pcs: HashMap<u64, PcIndex>,
}

/// The fields of an event of any kind; those that its kind lacks are zero.
#[derive(Clone, Copy, Default)]
struct EventFields {
    tag: u8,
    old: u64,
    old_size: Option<u64>,
    new: u64,
    size: u64,
    stack: u32,
}

impl ColumnEncoder {
    /// An encoder that compresses with this level of Zstandard.
    pub(crate) fn new(level: i32) -> io::Result<ColumnEncoder> {
        Ok(ColumnEncoder {
            zstd: zstd::bulk::Compressor::new(level)?,
            columns: Default::default(),
            model: FrameModel::new(),
            lines: DeltaContext::new(),
            live: HashMap::default(),
            origins: HashMap::default(),
            pcs: HashMap::default(),
        })
    }

    /// How many records the frame has.
    pub(crate) fn records(&self) -> usize {
        self.columns[Column::Op as usize].len()
    }

    /// Bytes of all columns, before Zstandard.
    pub(crate) fn len(&self) -> usize {
        self.columns.iter().map(Vec::len).sum()
    }

    /// Appends the records of a raw frame, and adds them to the fingerprint.
    pub(crate) fn push_frame(
        &mut self,
        payload: &[u8],
        fingerprint: &mut Fingerprint,
    ) -> Result<(), MalformedRecord> {
        let (mut context, mut at) = (DeltaContext::new(), 0);
        while at < payload.len() {
            let start = at;
            let record = context.decode(payload, &mut at)?;
            if let Some(record) = &record {
                fingerprint.add(record);
            }
            match record {
                Some(record) if payload[start] < FIRST_COLD_TAG => self.push_hot(&record),
                // Copied unread, because a newer version may have added fields to it.
                _ => {
                    self.push_op(op::COLD);
                    self.columns[Column::Cold as usize].extend_from_slice(&payload[start..at]);
                }
            }
        }
        Ok(())
    }

    /// Ends the frame. Returns its compressed payload, and how many bytes that has once
    /// decompressed.
    pub(crate) fn finish(&mut self) -> io::Result<(Vec<u8>, usize)> {
        let bytes = join(&self.columns);
        self.columns.iter_mut().for_each(Vec::clear);
        self.model.clear();
        self.lines = DeltaContext::new();
        self.live.clear();
        self.origins.clear();
        self.pcs.clear();
        Ok((self.zstd.compress(&bytes)?, bytes.len()))
    }

    fn push_hot(&mut self, record: &Record<'_>) {
        let event = match *record {
            Record::Thread { id } => {
                self.push_op(op::THREAD);
                self.push_number(Column::Thread, u64::from(id));
                return self.model.switch_to(id);
            }
            Record::Time { us } => return self.push_time(us),
            Record::Node { id, parent, pc } => return self.push_node(id.0, parent.0, pc),
            Record::Alloc { addr, size, stack, zeroed } => {
                let tag = if zeroed { tags::ALLOC_ZEROED } else { tags::ALLOC };
                EventFields { tag, new: addr, size, stack: stack.0, ..EventFields::default() }
            }
            Record::Dealloc { addr, size, stack } => {
                let tag = if size.is_some() { tags::DEALLOC_SIZED } else { tags::DEALLOC };
                EventFields { tag, old: addr, old_size: size, stack: stack.0, ..EventFields::default() }
            }
            Record::Realloc { old, old_size, new, size, stack } => {
                let tag = if old_size.is_some() { tags::REALLOC_SIZED } else { tags::REALLOC };
                EventFields { tag, old, old_size, new, size, stack: stack.0 }
            }
            Record::ReallocBegin { old, old_size } => {
                let tag = if old_size.is_some() { tags::REALLOC_BEGIN_SIZED } else { tags::REALLOC_BEGIN };
                EventFields { tag, old, old_size, ..EventFields::default() }
            }
            Record::ReallocEnd { new, size, stack } => {
                EventFields { tag: tags::REALLOC_END, new, size, stack: stack.0, ..EventFields::default() }
            }
            Record::Enter { .. } | Record::Line { .. } | Record::Leave { .. } => {
                return self.push_line(record);
            }
            _ => return self.push_op(op::REALLOC_FAILED),
        };
        if let Some(shape) = EventShape::of(event.tag) {
            self.push_event(&event, shape);
        }
    }

    fn push_line(&mut self, record: &Record<'_>) {
        let (mut bytes, mut len) = ([0; MAX_HOT_LEN], 0);
        if self.lines.encode(&mut bytes, &mut len, record).is_some() {
            self.push_op(op::LINE);
            self.columns[Column::Line as usize].extend_from_slice(&bytes[..len]);
        }
    }

    fn push_time(&mut self, us: u64) {
        let later = us.wrapping_sub(std::mem::replace(&mut self.model.time, us));
        if later <= op::MAX_LATER {
            return self.push_op(op::LATER + later as u8);
        }
        self.push_op(op::TIME);
        self.push_number(Column::Time, zigzag(later as i64));
    }

    fn push_event(&mut self, event: &EventFields, shape: EventShape) {
        let (index, mut code) = self.push_origin(event, shape);
        let mut origin = self.model.origins[index.0 as usize];
        self.model.begin_event(index, shape.has_stack());
        let mut released = BlockIndex::NONE;
        if shape.releases_block() {
            released = self.live.remove(&event.old).unwrap_or(BlockIndex::NONE);
            let name = self.name_of_block(released, origin.block_name);
            if name != origin.block_name {
                code |= op::BLOCK_NAME;
                origin.block_name = name;
                self.push_byte(Column::BlockName, name.0);
            }
            match name {
                BlockName::BY_INDEX => {
                    let last = self.model.last_released();
                    self.push_number(Column::Block, delta(u64::from(last.0), u64::from(released.0)));
                }
                BlockName::BY_ADDRESS => self.push_addr(event.old),
                _ => {}
            }
            let known_size = self.model.blocks.get(released.0 as usize).map_or(0, |block| block.size);
            if let Some(size) = event.old_size {
                self.push_number(Column::OldSize, delta(known_size, size));
            }
            if released != BlockIndex::NONE {
                self.model.remove_live(released);
            }
        }
        if shape.adds_block() {
            if event.size != origin.size {
                code |= op::SIZE;
                origin.size = event.size;
                self.push_number(Column::Size, event.size);
            }
            let mut in_place = Some(event.old);
            if !shape.releases_block() {
                (released, in_place) = self.model.take_moving(event.tag);
            }
            let name = self.name_of_address(event, origin.address_name, in_place);
            if name != origin.address_name {
                code |= op::ADDRESS_NAME;
                origin.address_name = name;
                self.push_byte(Column::AddressName, name.0);
            }
            if name == AddressName::ELSEWHERE {
                self.push_addr(event.new);
            }
            let block = self.model.add_block(name, event.new, event.size);
            self.live.insert(event.new, block);
        }
        self.model.end_event(index, &origin, released, shape);
        self.push_op(code);
    }

    /// Pushes what identifies an event's origin. Returns the origin's index, and the bits of the
    /// operation that say how it is given.
    fn push_origin(&mut self, event: &EventFields, shape: EventShape) -> (OriginIndex, u8) {
        let expected = self.model.expected_origin();
        let origin = &self.model.origins[expected.0 as usize];
        if (origin.tag, origin.stack) == (event.tag, event.stack) {
            return (expected, op::ORIGIN_PREDICTED);
        }
        if let Some(&index) = self.origins.get(&(event.tag, event.stack)) {
            self.push_number(Column::Origin, u64::from(index.0));
            return (index, op::ORIGIN_KNOWN);
        }
        self.push_byte(Column::Tag, event.tag);
        if shape.has_stack() {
            let expected = self.model.expected_stack();
            self.push_number(Column::Stack, delta(u64::from(expected), u64::from(event.stack)));
        }
        let index = self.model.add_origin(event.tag, event.stack);
        self.origins.insert((event.tag, event.stack), index);
        (index, op::ORIGIN_NEW)
    }

    /// The name of a released block: the predicted one if it is right, else the shortest.
    fn name_of_block(&self, block: BlockIndex, predicted: BlockName) -> BlockName {
        if block == BlockIndex::NONE {
            return BlockName::BY_ADDRESS;
        }
        if self.model.block_named(predicted) == Some(block) {
            return predicted;
        }
        // PERF: an origin whose last block was far away mostly releases one that is far away again.
        let max_steps = if predicted == BlockName::BY_INDEX { 2 } else { 16 };
        self.model.shortest_name_of(block, max_steps).unwrap_or(BlockName::BY_INDEX)
    }

    /// The name of a new block's address: the predicted one if it is right, else the first that it
    /// has.
    fn name_of_address(
        &self,
        event: &EventFields,
        predicted: AddressName,
        in_place: Option<u64>,
    ) -> AddressName {
        if self.model.address_named(predicted, event.size, in_place) == Some(event.new) {
            return predicted;
        }
        self.model.name_of_address(event.new, event.size, in_place).unwrap_or(AddressName::ELSEWHERE)
    }

    fn push_addr(&mut self, addr: u64) {
        let before = std::mem::replace(&mut self.model.slot().last_addr, addr);
        self.push_number(Column::Addr, delta(before, addr));
    }

    fn push_node(&mut self, id: u32, parent: u32, pc: u64) {
        let mut code = op::NODE;
        let last = self.model.nodes.last;
        if last.checked_add(1) != Some(id) {
            code |= op::ID_FOLLOWS;
            self.push_number(Column::Node, delta(u64::from(last), u64::from(id)));
        }
        if parent == last {
            code |= op::PARENT_IS_LAST;
        } else {
            self.push_parent(parent);
        }
        let above = self.model.nodes.pc_of(parent);
        let expected = self.model.nodes.expected_below(above);
        let index = if self.model.nodes.addr(expected) == pc {
            code |= op::PC_PREDICTED;
            expected
        } else {
            self.push_pc(above, pc)
        };
        self.model.nodes.define(id, parent, above, index);
        self.push_op(code);
    }

    fn push_parent(&mut self, parent: u32) {
        let stack = self.model.slot().stack;
        match self.model.nodes.steps_to(stack, parent) {
            Some(steps) => self.push_byte(Column::StepsUp, steps as u8 + 1),
            None => {
                self.push_byte(Column::StepsUp, 0);
                self.push_number(Column::Node, delta(u64::from(stack), u64::from(parent)));
            }
        }
    }

    /// Pushes a return address that was not predicted, below the one that `above` means. Returns
    /// its index.
    fn push_pc(&mut self, above: PcIndex, pc: u64) -> PcIndex {
        if let Some(&index) = self.pcs.get(&pc) {
            self.push_number(Column::PcIndex, u64::from(self.model.nodes.pc_count() - index.0));
            return index;
        }
        self.push_number(Column::PcIndex, 0);
        self.push_number(Column::Pc, delta(self.model.nodes.addr(above), pc));
        let index = self.model.nodes.add_pc(pc);
        self.pcs.insert(pc, index);
        index
    }

    fn push_op(&mut self, code: u8) {
        self.push_byte(Column::Op, code);
    }

    fn push_byte(&mut self, column: Column, byte: u8) {
        self.columns[column as usize].push(byte);
    }

    fn push_number(&mut self, column: Column, value: u64) {
        push_varint(&mut self.columns[column as usize], value);
    }
}

impl fmt::Debug for ColumnEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnEncoder").field("records", &self.records()).finish_non_exhaustive()
    }
}
