//! Columns to records, one at a time. In: the payload of a frame. Out: its records. Memory is bounded by the length that
//! the frame's header claims and by [`MAX_COLUMNS_RECORDS`](crate::layout::MAX_COLUMNS_RECORDS).

use std::fmt;

use super::model::{BY_ADDRESS, BY_NUMBER, ELSEWHERE, Model, NONE};
use super::{Column, Shape, Span, op, split};
use crate::layout::{COLUMNS, StackId};
use crate::record::{Context, FIRST_COLD_TAG, Malformed, Record, tags};
use crate::varint::{self, undelta};

/// What decoding keeps from frame to frame: memory, nothing else.
pub(crate) struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug)]
struct State {
    columns: [Span; COLUMNS],
    model: Model,
    /// What the next record of a line is a difference from.
    lines: Context,
}

/// The records of one frame.
#[derive(Debug)]
pub(crate) struct Columns<'a> {
    bytes: &'a [u8],
    state: &'a mut State,
}

impl Decoder {
    pub(crate) fn new() -> Option<Decoder> {
        let state = State { columns: [Span::default(); COLUMNS], model: Model::new(), lines: Context::new() };
        Some(Decoder { zstd: zstd::bulk::Decompressor::new().ok()?, bytes: Vec::new(), state })
    }

    /// Takes the payload of the next frame; `None` if it is malformed. `decoded_len` is within the bound of a frame.
    pub(crate) fn load(&mut self, payload: &[u8], decoded_len: usize) -> Option<()> {
        self.state.columns = [Span::default(); COLUMNS];
        if self.bytes.len() < decoded_len {
            self.bytes.resize(decoded_len, 0);
        }
        let bytes = &mut self.bytes[..decoded_len];
        let len = self.zstd.decompress_to_buffer(payload, bytes).ok().filter(|len| *len == decoded_len)?;
        self.state.columns = split(&self.bytes[..len])?;
        self.state.model.clear();
        self.state.lines = Context::new();
        Some(())
    }

    /// The records of the frame that was loaded last.
    pub(crate) fn columns(&mut self) -> Columns<'_> {
        Columns { bytes: &self.bytes, state: &mut self.state }
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<'a> Columns<'a> {
    /// Whether all records were read.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let ops = &self.state.columns[Column::Op as usize];
        ops.at >= ops.end
    }

    /// There is no more to be had from this frame.
    pub(crate) fn give_up(&mut self) {
        self.state.columns = [Span::default(); COLUMNS];
    }

    /// The next record. `Ok(None)` for a cold record of an unknown kind, which is skipped.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        let code = self.byte(Column::Op)?;
        if code <= op::LAST_EVENT {
            return self.event(code).map(Some);
        }
        if code >= op::LATER {
            let later = u64::from(code - op::LATER);
            if later > op::MOST_LATER {
                return Err(Malformed);
            }
            return Ok(Some(self.time(later)));
        }
        match code {
            op::COLD => self.cold(),
            op::THREAD => {
                let id = narrow(self.number(Column::Thread)?)?;
                self.state.model.switch_to(id);
                Ok(Some(Record::Thread { id }))
            }
            op::TIME => {
                let later = varint::unzigzag(self.number(Column::Time)?) as u64;
                Ok(Some(self.time(later)))
            }
            op::REALLOC_FAILED => Ok(Some(Record::ReallocFailed)),
            op::LINE => self.line().map(Some),
            op::NODE..=op::LAST_NODE => self.node(code).map(Some),
            _ => Err(Malformed),
        }
    }

    fn time(&mut self, later: u64) -> Record<'a> {
        let time = &mut self.state.model.time;
        *time = time.wrapping_add(later);
        Record::Time { us: *time }
    }

    #[inline]
    fn event(&mut self, code: u8) -> Result<Record<'a>, Malformed> {
        let number = self.site(code)?;
        let mut site = self.state.model.sites[number as usize];
        let shape = Shape::of(site.tag).ok_or(Malformed)?;
        self.state.model.arrive(number, shape.has_stack());
        let (mut gone, mut old, mut old_size) = (NONE, 0, None);
        if shape.frees() {
            if code & op::REFERENCE != 0 {
                site.reference = self.byte(Column::Reference)?;
            }
            (gone, old) = self.reference(site.reference)?;
            let known = self.state.model.blocks.get(gone as usize).map_or(0, |block| block.size);
            if shape.sized() {
                old_size = Some(undelta(known, self.number(Column::OldSize)?));
            }
            if gone != NONE {
                self.state.model.remove(gone);
            }
        }
        let mut new = 0;
        if shape.allocates() {
            if code & op::SIZE != 0 {
                site.size = self.number(Column::Size)?;
            }
            if code & op::PLACE != 0 {
                site.place = self.byte(Column::Place)?;
            }
            let mut in_place = Some(old);
            if !shape.frees() {
                (gone, in_place) = self.state.model.end_move_of(site.tag);
            }
            new = self.place(site.place, site.size, in_place)?;
            self.state.model.append(site.place, new, site.size);
        }
        self.state.model.settle(number, &site, gone, shape);
        let (size, stack) = (site.size, StackId(site.stack));
        Ok(match site.tag {
            tags::ALLOC => Record::Alloc { addr: new, size, stack, zeroed: false },
            tags::ALLOC_ZEROED => Record::Alloc { addr: new, size, stack, zeroed: true },
            tags::DEALLOC | tags::DEALLOC_SIZED => Record::Dealloc { addr: old, size: old_size, stack },
            tags::REALLOC | tags::REALLOC_SIZED => Record::Realloc { old, old_size, new, size, stack },
            tags::REALLOC_END => Record::ReallocEnd { new, size, stack },
            _ => Record::ReallocBegin { old, old_size },
        })
    }

    /// The number of an event's site, which is in the table.
    #[inline]
    fn site(&mut self, code: u8) -> Result<u32, Malformed> {
        match code & op::SITE {
            op::SITE_GUESSED => Ok(self.state.model.expected_site()),
            op::SITE_KNOWN => {
                let number = narrow(self.number(Column::Site)?)?;
                if number as usize >= self.state.model.sites.len() { Err(Malformed) } else { Ok(number) }
            }
            op::SITE_NEW => {
                let tag = self.byte(Column::Tag)?;
                let shape = Shape::of(tag).ok_or(Malformed)?;
                let expected = u64::from(self.state.model.expected_stack());
                let stack = if shape.has_stack() {
                    narrow(undelta(expected, self.number(Column::Stack)?))?
                } else {
                    0
                };
                Ok(self.state.model.add_site(tag, stack))
            }
            _ => Err(Malformed),
        }
    }

    /// The block with this name, if it is one of the frame, and its address.
    #[inline]
    fn reference(&mut self, name: u8) -> Result<(u32, u64), Malformed> {
        let number = match name {
            0..BY_NUMBER => self.state.model.resolve(name).ok_or(Malformed)?,
            BY_NUMBER => {
                let last = u64::from(self.state.model.gone());
                narrow(undelta(last, self.number(Column::Block)?))?
            }
            BY_ADDRESS => return Ok((NONE, self.addr()?)),
            _ => return Err(Malformed),
        };
        let addr = self.state.model.addr_of(number).ok_or(Malformed)?;
        Ok((number, addr))
    }

    #[inline]
    fn place(&mut self, name: u8, size: u64, in_place: Option<u64>) -> Result<u64, Malformed> {
        if name == ELSEWHERE {
            return self.addr();
        }
        self.state.model.place(name, size, in_place).ok_or(Malformed)
    }

    fn addr(&mut self) -> Result<u64, Malformed> {
        let delta = self.number(Column::Addr)?;
        let slot = self.state.model.slot();
        slot.addr = undelta(slot.addr, delta);
        Ok(slot.addr)
    }

    fn node(&mut self, code: u8) -> Result<Record<'a>, Malformed> {
        let nodes = &self.state.model.nodes;
        let last = nodes.last;
        let id = match code & op::NUMBERED {
            0 => last.checked_add(1).ok_or(Malformed)?,
            _ => narrow(undelta(u64::from(last), self.number(Column::Node)?))?,
        };
        let parent = if code & op::CHILD != 0 { last } else { self.parent()? };
        let nodes = &self.state.model.nodes;
        let above = nodes.pc_of(parent);
        let pc = match code & op::PC {
            0 => self.pc(above)?,
            _ => nodes.expected_below(above),
        };
        let nodes = &mut self.state.model.nodes;
        nodes.define(id, parent, above, pc);
        Ok(Record::Node { id: StackId(id), parent: StackId(parent), pc: nodes.addr(pc) })
    }

    fn parent(&mut self) -> Result<u32, Malformed> {
        let up = self.byte(Column::Up)?;
        let model = &mut self.state.model;
        let stack = model.slot().stack;
        match up.checked_sub(1) {
            Some(steps) => model.nodes.ancestor(stack, u32::from(steps)).ok_or(Malformed),
            None => narrow(undelta(u64::from(stack), self.number(Column::Node)?)),
        }
    }

    /// The number of a return address below that with the number `above`.
    fn pc(&mut self, above: u32) -> Result<u32, Malformed> {
        let back = narrow(self.number(Column::PcIndex)?)?;
        let known = self.state.model.nodes.pcs();
        if back == 0 {
            let delta = self.number(Column::Pc)?;
            let nodes = &mut self.state.model.nodes;
            return Ok(nodes.add_pc(undelta(nodes.addr(above), delta)));
        }
        known.checked_sub(back).ok_or(Malformed)
    }

    #[inline]
    fn line(&mut self) -> Result<Record<'a>, Malformed> {
        let State { columns, lines, .. } = &mut *self.state;
        let span = &mut columns[Column::Line as usize];
        let column = self.bytes.get(..span.end).ok_or(Malformed)?;
        match lines.decode(column, &mut span.at)? {
            Some(record @ (Record::Enter { .. } | Record::Line { .. } | Record::Leave { .. })) => Ok(record),
            _ => Err(Malformed),
        }
    }

    fn cold(&mut self) -> Result<Option<Record<'a>>, Malformed> {
        let span = &mut self.state.columns[Column::Cold as usize];
        let column = self.bytes.get(..span.end).ok_or(Malformed)?;
        if *column.get(span.at).ok_or(Malformed)? < FIRST_COLD_TAG {
            return Err(Malformed);
        }
        Context::new().decode(column, &mut span.at)
    }

    #[inline]
    fn byte(&mut self, column: Column) -> Result<u8, Malformed> {
        let span = &mut self.state.columns[column as usize];
        let byte = *self.bytes.get(..span.end).and_then(|bytes| bytes.get(span.at)).ok_or(Malformed)?;
        span.at += 1;
        Ok(byte)
    }

    #[inline]
    fn number(&mut self, column: Column) -> Result<u64, Malformed> {
        let span = &mut self.state.columns[column as usize];
        let bytes = self.bytes.get(..span.end).ok_or(Malformed)?;
        varint::get(bytes, &mut span.at).ok_or(Malformed)
    }
}

fn narrow(value: u64) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| Malformed)
}
