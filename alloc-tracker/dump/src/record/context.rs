//! Hot records to bytes and back. Most of their fields are differences from the record before.

use super::cold::{decode_cold, encode_cold};
use super::tags::*;
use super::{FIRST_COLD_TAG, MalformedRecord, Record};
use crate::layout::StackId;
use crate::varint::{self, delta, undelta};

/// The values that the fields of the next record are differences from. The writer and the reader
/// begin every frame with zeros and update them record by record.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeltaContext {
    time: u64,
    addr: u64,
    stack: u64,
    node: u64,
    parent: u64,
    pc: u64,
    activation: u64,
    line: u64,
}

impl DeltaContext {
    pub(crate) const fn new() -> DeltaContext {
        DeltaContext { time: 0, addr: 0, stack: 0, node: 0, parent: 0, pc: 0, activation: 0, line: 0 }
    }

    /// Writes `record` at `*at` and moves `*at` behind it. `None` if the record does not fit; `*at`
    /// and the context are then unspecified, so the caller keeps copies of both.
    #[inline]
    pub(crate) fn encode(&mut self, buf: &mut [u8], at: &mut usize, record: &Record<'_>) -> Option<()> {
        match *record {
            Record::Thread { id } => {
                put_tag(buf, at, THREAD)?;
                varint::put(buf, at, u64::from(id))
            }
            Record::Time { us } => {
                put_tag(buf, at, TIME)?;
                // A clock that went back must not cost the frame: its records get the latest time
                // so far.
                let us = us.max(self.time);
                varint::put(buf, at, us - std::mem::replace(&mut self.time, us))
            }
            Record::Node { id, parent, pc } => {
                put_tag(buf, at, NODE)?;
                put_delta(buf, at, &mut self.node, u64::from(id.0))?;
                put_delta(buf, at, &mut self.parent, u64::from(parent.0))?;
                put_delta(buf, at, &mut self.pc, pc)
            }
            Record::Alloc { addr, size, stack, zeroed } => self.put_alloc(buf, at, addr, size, stack, zeroed),
            Record::Dealloc { addr, size, stack } => self.put_dealloc(buf, at, addr, size, stack),
            Record::Realloc { old, old_size, new, size, stack } => {
                put_tag(buf, at, if old_size.is_some() { REALLOC_SIZED } else { REALLOC })?;
                put_delta(buf, at, &mut self.addr, old)?;
                put_optional(buf, at, old_size)?;
                put_delta(buf, at, &mut self.addr, new)?;
                varint::put(buf, at, size)?;
                self.put_stack(buf, at, stack)
            }
            Record::ReallocBegin { old, old_size } => {
                put_tag(buf, at, if old_size.is_some() { REALLOC_BEGIN_SIZED } else { REALLOC_BEGIN })?;
                put_delta(buf, at, &mut self.addr, old)?;
                put_optional(buf, at, old_size)
            }
            Record::ReallocEnd { new, size, stack } => {
                put_tag(buf, at, REALLOC_END)?;
                put_delta(buf, at, &mut self.addr, new)?;
                varint::put(buf, at, size)?;
                self.put_stack(buf, at, stack)
            }
            Record::ReallocFailed => put_tag(buf, at, REALLOC_FAILED),
            Record::Enter { function, activation } => {
                put_tag(buf, at, ENTER)?;
                varint::put(buf, at, u64::from(function))?;
                put_delta(buf, at, &mut self.activation, activation)
            }
            Record::Line { activation, line } => self.put_line(buf, at, activation, line),
            Record::Leave { activation, ended } => {
                put_tag(buf, at, if ended { LEAVE } else { PAUSE })?;
                put_delta(buf, at, &mut self.activation, activation)
            }
            _ => encode_cold(buf, at, record),
        }
    }

    /// Reads the record at `*at` and moves `*at` behind it. `Ok(None)` for a cold record of an
    /// unknown kind, which is skipped.
    #[inline]
    pub(crate) fn decode<'a>(
        &mut self,
        buf: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Record<'a>>, MalformedRecord> {
        let kind = *buf.get(*at).ok_or(MalformedRecord)?;
        *at += 1;
        if kind >= FIRST_COLD_TAG {
            let len = usize::try_from(get_varint(buf, at)?).map_err(|_| MalformedRecord)?;
            let end = at.checked_add(len).ok_or(MalformedRecord)?;
            let payload = buf.get(*at..end).ok_or(MalformedRecord)?;
            *at = end;
            return decode_cold(kind, payload).ok_or(MalformedRecord);
        }
        Ok(Some(match kind {
            THREAD => Record::Thread { id: to_u32(get_varint(buf, at)?)? },
            TIME => {
                self.time = self.time.checked_add(get_varint(buf, at)?).ok_or(MalformedRecord)?;
                Record::Time { us: self.time }
            }
            NODE => {
                let id = StackId(to_u32(get_delta(buf, at, &mut self.node)?)?);
                let parent = StackId(to_u32(get_delta(buf, at, &mut self.parent)?)?);
                Record::Node { id, parent, pc: get_delta(buf, at, &mut self.pc)? }
            }
            ALLOC | ALLOC_ZEROED => Record::Alloc {
                addr: get_delta(buf, at, &mut self.addr)?,
                size: get_varint(buf, at)?,
                stack: self.get_stack(buf, at)?,
                zeroed: kind == ALLOC_ZEROED,
            },
            DEALLOC | DEALLOC_SIZED => Record::Dealloc {
                addr: get_delta(buf, at, &mut self.addr)?,
                size: get_optional(buf, at, kind == DEALLOC_SIZED)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC | REALLOC_SIZED => Record::Realloc {
                old: get_delta(buf, at, &mut self.addr)?,
                old_size: get_optional(buf, at, kind == REALLOC_SIZED)?,
                new: get_delta(buf, at, &mut self.addr)?,
                size: get_varint(buf, at)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC_BEGIN | REALLOC_BEGIN_SIZED => Record::ReallocBegin {
                old: get_delta(buf, at, &mut self.addr)?,
                old_size: get_optional(buf, at, kind == REALLOC_BEGIN_SIZED)?,
            },
            REALLOC_END => Record::ReallocEnd {
                new: get_delta(buf, at, &mut self.addr)?,
                size: get_varint(buf, at)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC_FAILED => Record::ReallocFailed,
            ENTER => Record::Enter {
                function: to_u32(get_varint(buf, at)?)?,
                activation: get_delta(buf, at, &mut self.activation)?,
            },
            LINE | LINE_SAME_ACTIVATION => {
                if kind == LINE {
                    get_delta(buf, at, &mut self.activation)?;
                }
                let line = to_u32(get_delta(buf, at, &mut self.line)?)?.rotate_right(1);
                Record::Line { activation: self.activation, line }
            }
            LEAVE | PAUSE => {
                Record::Leave { activation: get_delta(buf, at, &mut self.activation)?, ended: kind == LEAVE }
            }
            _ => return Err(MalformedRecord),
        }))
    }

    /// Writes a [`Record::Alloc`]; see [`encode`](DeltaContext::encode).
    #[inline]
    pub(crate) fn put_alloc(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        addr: u64,
        size: u64,
        stack: StackId,
        zeroed: bool,
    ) -> Option<()> {
        put_tag(buf, at, if zeroed { ALLOC_ZEROED } else { ALLOC })?;
        put_delta(buf, at, &mut self.addr, addr)?;
        varint::put(buf, at, size)?;
        self.put_stack(buf, at, stack)
    }

    /// Writes a [`Record::Dealloc`]; see [`encode`](DeltaContext::encode).
    #[inline]
    pub(crate) fn put_dealloc(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        addr: u64,
        size: Option<u64>,
        stack: StackId,
    ) -> Option<()> {
        put_tag(buf, at, if size.is_some() { DEALLOC_SIZED } else { DEALLOC })?;
        put_delta(buf, at, &mut self.addr, addr)?;
        put_optional(buf, at, size)?;
        self.put_stack(buf, at, stack)
    }

    /// Writes a [`Record::Line`]; see [`encode`](DeltaContext::encode).
    #[inline]
    pub(crate) fn put_line(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        activation: u64,
        line: u32,
    ) -> Option<()> {
        if activation == self.activation {
            put_tag(buf, at, LINE_SAME_ACTIVATION)?;
        } else {
            put_tag(buf, at, LINE)?;
            put_delta(buf, at, &mut self.activation, activation)?;
        }
        // `LINE_AGAIN` becomes the lowest bit, so that the difference of neighbouring lines is a
        // small number.
        put_delta(buf, at, &mut self.line, u64::from(line.rotate_left(1)))
    }

    #[inline]
    fn put_stack(&mut self, buf: &mut [u8], at: &mut usize, stack: StackId) -> Option<()> {
        put_delta(buf, at, &mut self.stack, u64::from(stack.0))
    }

    #[inline]
    fn get_stack(&mut self, buf: &[u8], at: &mut usize) -> Result<StackId, MalformedRecord> {
        Ok(StackId(to_u32(get_delta(buf, at, &mut self.stack)?)?))
    }
}

#[inline]
pub(super) fn put_tag(buf: &mut [u8], at: &mut usize, tag: u8) -> Option<()> {
    *buf.get_mut(*at)? = tag;
    *at += 1;
    Some(())
}

#[inline]
fn put_delta(buf: &mut [u8], at: &mut usize, last: &mut u64, value: u64) -> Option<()> {
    varint::put(buf, at, delta(std::mem::replace(last, value), value))
}

#[inline]
fn put_optional(buf: &mut [u8], at: &mut usize, value: Option<u64>) -> Option<()> {
    match value {
        Some(value) => varint::put(buf, at, value),
        None => Some(()),
    }
}

#[inline]
fn get_varint(buf: &[u8], at: &mut usize) -> Result<u64, MalformedRecord> {
    varint::get(buf, at).ok_or(MalformedRecord)
}

#[inline]
fn get_delta(buf: &[u8], at: &mut usize, last: &mut u64) -> Result<u64, MalformedRecord> {
    *last = undelta(*last, get_varint(buf, at)?);
    Ok(*last)
}

#[inline]
fn get_optional(buf: &[u8], at: &mut usize, is_there: bool) -> Result<Option<u64>, MalformedRecord> {
    if is_there { get_varint(buf, at).map(Some) } else { Ok(None) }
}

#[inline]
pub(crate) fn to_u32(value: u64) -> Result<u32, MalformedRecord> {
    u32::try_from(value).map_err(|_| MalformedRecord)
}
