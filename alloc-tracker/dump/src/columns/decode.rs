//! Columns to records, one at a time. In: the payload of a frame. Out: its records.
//!
//! Two bounds limit the memory: the decoded length that the frame's header claims, and
//! [`MAX_COLUMNS_RECORDS`](crate::layout::MAX_COLUMNS_RECORDS).

use std::fmt;

use super::model::{AFTER_STEPS, AddressName, BlockIndex, BlockName, FrameModel, OriginIndex};
use super::nodes::PcIndex;
use super::{Column, ColumnSpan, EventShape, op, split};
use crate::layout::{COLUMNS, StackId};
use crate::record::{DeltaContext, FIRST_COLD_TAG, MalformedRecord, Record, tags, to_u32};
use crate::varint::{self, undelta};

/// Decodes one frame in columns after the other. It keeps only memory from one frame to the next.
pub(crate) struct ColumnDecoder {
    zstd: zstd::bulk::Decompressor<'static>,
    /// The decompressed payload of the frame.
    bytes: Vec<u8>,
    state: FrameState,
}

/// How far a frame was read, and what is known of it by then.
#[derive(Debug)]
struct FrameState {
    columns: [ColumnSpan; COLUMNS],
    model: FrameModel,
    /// What the next record of a line is a difference from.
    lines: DeltaContext,
}

/// The records of one frame that are still to be read.
#[derive(Debug)]
pub(crate) struct ColumnRecords<'a> {
    bytes: &'a [u8],
    state: &'a mut FrameState,
}

impl ColumnDecoder {
    /// A decoder without a frame. `None` if Zstandard gets no memory.
    pub(crate) fn new() -> Option<ColumnDecoder> {
        let columns = [ColumnSpan::default(); COLUMNS];
        let state = FrameState { columns, model: FrameModel::new(), lines: DeltaContext::new() };
        Some(ColumnDecoder { zstd: zstd::bulk::Decompressor::new().ok()?, bytes: Vec::new(), state })
    }

    /// Decompresses the payload of the next frame to `decoded_len` bytes. `None` if the payload is
    /// malformed. [`FrameHeader::decode`](crate::frame::FrameHeader::decode) has bounded
    /// `decoded_len`.
    pub(crate) fn load(&mut self, payload: &[u8], decoded_len: usize) -> Option<()> {
        self.state.columns = [ColumnSpan::default(); COLUMNS];
        if self.bytes.len() < decoded_len {
            self.bytes.resize(decoded_len, 0);
        }
        let bytes = &mut self.bytes[..decoded_len];
        let len = self.zstd.decompress_to_buffer(payload, bytes).ok().filter(|len| *len == decoded_len)?;
        self.state.columns = split(&self.bytes[..len])?;
        self.state.model.clear();
        self.state.lines = DeltaContext::new();
        Some(())
    }

    /// The records of the frame that was loaded last.
    pub(crate) fn records(&mut self) -> ColumnRecords<'_> {
        ColumnRecords { bytes: &self.bytes, state: &mut self.state }
    }
}

impl fmt::Debug for ColumnDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnDecoder").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<'a> ColumnRecords<'a> {
    /// Whether all records were read.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let ops = &self.state.columns[Column::Op as usize];
        ops.at >= ops.end
    }

    /// Skips the records that were not read.
    pub(crate) fn skip_to_end(&mut self) {
        self.state.columns = [ColumnSpan::default(); COLUMNS];
    }

    /// Reads the next record. `Ok(None)` for a cold record of an unknown kind, which is skipped.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Record<'a>>, MalformedRecord> {
        let code = self.read_byte(Column::Op)?;
        if code <= op::LAST_EVENT {
            return self.read_event(code).map(Some);
        }
        if code >= op::LATER {
            let later = u64::from(code - op::LATER);
            if later > op::MAX_LATER {
                return Err(MalformedRecord);
            }
            return Ok(Some(self.time_record(later)));
        }
        match code {
            op::COLD => self.read_cold(),
            op::THREAD => {
                let id = to_u32(self.read_number(Column::Thread)?)?;
                self.state.model.switch_to(id);
                Ok(Some(Record::Thread { id }))
            }
            op::TIME => {
                let later = varint::unzigzag(self.read_number(Column::Time)?) as u64;
                Ok(Some(self.time_record(later)))
            }
            op::REALLOC_FAILED => Ok(Some(Record::ReallocFailed)),
            op::LINE => self.read_line().map(Some),
            op::NODE..=op::LAST_NODE => self.read_node(code).map(Some),
            _ => Err(MalformedRecord),
        }
    }

    /// The record of a time that is `later` microseconds after the one before.
    fn time_record(&mut self, later: u64) -> Record<'a> {
        let time = &mut self.state.model.time;
        *time = time.wrapping_add(later);
        Record::Time { us: *time }
    }

    #[inline]
    fn read_event(&mut self, code: u8) -> Result<Record<'a>, MalformedRecord> {
        let index = self.read_origin(code)?;
        let mut origin = self.state.model.origins[index.0 as usize];
        let shape = EventShape::of(origin.tag).ok_or(MalformedRecord)?;
        self.state.model.begin_event(index, shape.has_stack());
        let (mut released, mut old, mut old_size) = (BlockIndex::NONE, 0, None);
        if shape.releases_block() {
            if code & op::BLOCK_NAME != 0 {
                origin.block_name = BlockName(self.read_byte(Column::BlockName)?);
            }
            (released, old) = self.released_block(origin.block_name)?;
            let known_size = self.state.model.blocks.get(released.0 as usize).map_or(0, |block| block.size);
            if shape.has_old_size() {
                old_size = Some(undelta(known_size, self.read_number(Column::OldSize)?));
            }
            if released != BlockIndex::NONE {
                self.state.model.remove_live(released);
            }
        }
        let mut new = 0;
        if shape.adds_block() {
            if code & op::SIZE != 0 {
                origin.size = self.read_number(Column::Size)?;
            }
            if code & op::ADDRESS_NAME != 0 {
                origin.address_name = AddressName(self.read_byte(Column::AddressName)?);
            }
            let mut in_place = Some(old);
            if !shape.releases_block() {
                (released, in_place) = self.state.model.take_moving(origin.tag);
            }
            new = self.new_address(origin.address_name, origin.size, in_place)?;
            self.state.model.add_block(origin.address_name, new, origin.size);
        }
        self.state.model.end_event(index, &origin, released, shape);
        let (size, stack) = (origin.size, StackId(origin.stack));
        Ok(match origin.tag {
            tags::ALLOC => Record::Alloc { addr: new, size, stack, zeroed: false },
            tags::ALLOC_ZEROED => Record::Alloc { addr: new, size, stack, zeroed: true },
            tags::DEALLOC | tags::DEALLOC_SIZED => Record::Dealloc { addr: old, size: old_size, stack },
            tags::REALLOC | tags::REALLOC_SIZED => Record::Realloc { old, old_size, new, size, stack },
            tags::REALLOC_END => Record::ReallocEnd { new, size, stack },
            _ => Record::ReallocBegin { old, old_size },
        })
    }

    /// Reads the index of an event's origin, which is then in the table.
    #[inline]
    fn read_origin(&mut self, code: u8) -> Result<OriginIndex, MalformedRecord> {
        match code & op::ORIGIN {
            op::ORIGIN_PREDICTED => Ok(self.state.model.expected_origin()),
            op::ORIGIN_KNOWN => {
                let index = to_u32(self.read_number(Column::Origin)?)?;
                if index as usize >= self.state.model.origins.len() {
                    Err(MalformedRecord)
                } else {
                    Ok(OriginIndex(index))
                }
            }
            op::ORIGIN_NEW => {
                let tag = self.read_byte(Column::Tag)?;
                let shape = EventShape::of(tag).ok_or(MalformedRecord)?;
                let expected = u64::from(self.state.model.expected_stack());
                let stack = if shape.has_stack() {
                    to_u32(undelta(expected, self.read_number(Column::Stack)?))?
                } else {
                    0
                };
                Ok(self.state.model.add_origin(tag, stack))
            }
            _ => Err(MalformedRecord),
        }
    }

    /// The live block with this name and its address. A block from before this frame is
    /// [`BlockIndex::NONE`].
    #[inline]
    fn released_block(&mut self, name: BlockName) -> Result<(BlockIndex, u64), MalformedRecord> {
        let index = match name {
            BlockName(0..AFTER_STEPS) => self.state.model.block_named(name).ok_or(MalformedRecord)?,
            BlockName::BY_INDEX => {
                let last = u64::from(self.state.model.last_released().0);
                BlockIndex(to_u32(undelta(last, self.read_number(Column::Block)?))?)
            }
            BlockName::BY_ADDRESS => return Ok((BlockIndex::NONE, self.read_addr()?)),
            _ => return Err(MalformedRecord),
        };
        let addr = self.state.model.live_addr(index).ok_or(MalformedRecord)?;
        Ok((index, addr))
    }

    /// The address with this name, which is read if the name says that it follows.
    #[inline]
    fn new_address(
        &mut self,
        name: AddressName,
        size: u64,
        in_place: Option<u64>,
    ) -> Result<u64, MalformedRecord> {
        if name == AddressName::ELSEWHERE {
            return self.read_addr();
        }
        self.state.model.address_named(name, size, in_place).ok_or(MalformedRecord)
    }

    fn read_addr(&mut self) -> Result<u64, MalformedRecord> {
        let delta = self.read_number(Column::Addr)?;
        let slot = self.state.model.slot();
        slot.last_addr = undelta(slot.last_addr, delta);
        Ok(slot.last_addr)
    }

    fn read_node(&mut self, code: u8) -> Result<Record<'a>, MalformedRecord> {
        let nodes = &self.state.model.nodes;
        let last = nodes.last;
        let id = match code & op::ID_FOLLOWS {
            0 => last.checked_add(1).ok_or(MalformedRecord)?,
            _ => to_u32(undelta(u64::from(last), self.read_number(Column::Node)?))?,
        };
        let parent = if code & op::PARENT_IS_LAST != 0 { last } else { self.read_parent()? };
        let nodes = &self.state.model.nodes;
        let above = nodes.pc_of(parent);
        let pc = match code & op::PC_PREDICTED {
            0 => self.read_pc(above)?,
            _ => nodes.expected_below(above),
        };
        let nodes = &mut self.state.model.nodes;
        nodes.define(id, parent, above, pc);
        Ok(Record::Node { id: StackId(id), parent: StackId(parent), pc: nodes.addr(pc) })
    }

    fn read_parent(&mut self) -> Result<u32, MalformedRecord> {
        let steps_and_1 = self.read_byte(Column::StepsUp)?;
        let model = &mut self.state.model;
        let stack = model.slot().stack;
        match steps_and_1.checked_sub(1) {
            Some(steps) => model.nodes.ancestor(stack, u32::from(steps)).ok_or(MalformedRecord),
            None => to_u32(undelta(u64::from(stack), self.read_number(Column::Node)?)),
        }
    }

    /// Reads the index of a return address below the one that `above` means.
    fn read_pc(&mut self, above: PcIndex) -> Result<PcIndex, MalformedRecord> {
        let back = to_u32(self.read_number(Column::PcIndex)?)?;
        let count = self.state.model.nodes.pc_count();
        if back == 0 {
            let delta = self.read_number(Column::Pc)?;
            let nodes = &mut self.state.model.nodes;
            return Ok(nodes.add_pc(undelta(nodes.addr(above), delta)));
        }
        count.checked_sub(back).map(PcIndex).ok_or(MalformedRecord)
    }

    #[inline]
    fn read_line(&mut self) -> Result<Record<'a>, MalformedRecord> {
        let FrameState { columns, lines, .. } = &mut *self.state;
        let span = &mut columns[Column::Line as usize];
        let column = self.bytes.get(..span.end).ok_or(MalformedRecord)?;
        match lines.decode(column, &mut span.at)? {
            Some(record @ (Record::Enter { .. } | Record::Line { .. } | Record::Leave { .. })) => Ok(record),
            _ => Err(MalformedRecord),
        }
    }

    fn read_cold(&mut self) -> Result<Option<Record<'a>>, MalformedRecord> {
        let span = &mut self.state.columns[Column::Cold as usize];
        let column = self.bytes.get(..span.end).ok_or(MalformedRecord)?;
        if *column.get(span.at).ok_or(MalformedRecord)? < FIRST_COLD_TAG {
            return Err(MalformedRecord);
        }
        DeltaContext::new().decode(column, &mut span.at)
    }

    #[inline]
    fn read_byte(&mut self, column: Column) -> Result<u8, MalformedRecord> {
        let span = &mut self.state.columns[column as usize];
        let unread = self.bytes.get(..span.end).and_then(|bytes| bytes.get(span.at));
        let byte = *unread.ok_or(MalformedRecord)?;
        span.at += 1;
        Ok(byte)
    }

    #[inline]
    fn read_number(&mut self, column: Column) -> Result<u64, MalformedRecord> {
        let span = &mut self.state.columns[column as usize];
        let bytes = self.bytes.get(..span.end).ok_or(MalformedRecord)?;
        varint::get(bytes, &mut span.at).ok_or(MalformedRecord)
    }
}
