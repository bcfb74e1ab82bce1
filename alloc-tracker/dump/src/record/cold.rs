//! Cold records to bytes and back. Their fields are whole values behind a length.

use super::context::put_tag;
use super::tags::*;
use super::{
    AllocCall, Function, Installation, Layout, LayoutOccasion, MemoryLimit, MemoryLimitKind, Module,
    PageFaults, Process, Record, RecordingLimit, Region, RegionFlags, ResidentBytes, Sample, SlowReason,
};
use crate::code::CodeIdentity;
use crate::layout::{MAX_TEXT, StackId};
use crate::varint;

/// A bit of the flags of a [`Process`], which stand behind its other fields if any is set.
const DEBUG_ASSERTIONS: u64 = 1;

/// Writes a cold record at `*at`: tag, length, fields. The length is a varint padded to three
/// bytes, because it is filled in last. `None` if the record does not fit.
pub(super) fn encode_cold(buf: &mut [u8], at: &mut usize, record: &Record<'_>) -> Option<()> {
    let kind = match record {
        Record::Process(_) => PROCESS,
        Record::Module(_) => MODULE,
        Record::ModuleEnd { .. } => MODULE_END,
        Record::ModuleCode { .. } => MODULE_CODE,
        Record::Slow(_) => SLOW,
        Record::ThreadStart { .. } => THREAD_START,
        Record::ThreadName { .. } => THREAD_NAME,
        Record::ThreadEnd { .. } => THREAD_END,
        Record::Sample(_) => SAMPLE,
        Record::Lost { .. } => LOST,
        Record::Checked { .. } => CHECKED,
        Record::PartlyVerified { .. } => PARTLY_VERIFIED,
        Record::Function(_) => FUNCTION,
        Record::Usage { .. } => USAGE,
        Record::MarkName { .. } => MARK_NAME,
        Record::Mark { .. } => MARK,
        Record::Installation(_) => INSTALLATION,
        Record::Label { .. } => LABEL,
        Record::LimitReached(_) => LIMIT_REACHED,
        Record::Snapshot { .. } => SNAPSHOT,
        Record::MemoryLimit(_) => MEMORY_LIMIT,
        Record::AllocFailed { .. } => ALLOC_FAILED,
        Record::Alignment { .. } => ALIGNMENT,
        Record::Resident { .. } => RESIDENT,
        Record::Layout(_) => LAYOUT,
        Record::Region(_) => REGION,
        Record::SwapTraffic { .. } => SWAP_TRAFFIC,
        Record::ThreadStack { .. } => THREAD_STACK,
        _ => return None,
    };
    put_tag(buf, at, kind)?;
    let length_at = *at;
    *at += 3;
    match record {
        Record::Process(process) => {
            varint::put(buf, at, u64::from(process.pid))?;
            varint::put(buf, at, process.page_size)?;
            varint::put(buf, at, u64::from(process.from_first_event))?;
            for text in [process.exe, process.args, process.cwd, process.run] {
                put_text(buf, at, text)?;
            }
            if process.debug_assertions {
                varint::put(buf, at, DEBUG_ASSERTIONS)?;
            }
        }
        Record::Module(module) => {
            varint::put(buf, at, u64::from(module.id))?;
            varint::put(buf, at, module.start)?;
            varint::put(buf, at, module.end)?;
            varint::put(buf, at, module.bias)?;
            put_text(buf, at, module.build_id)?;
            put_text(buf, at, module.path)?;
        }
        Record::ModuleEnd { id } | Record::ThreadEnd { id } => varint::put(buf, at, u64::from(*id))?,
        Record::ModuleCode { id, code } => {
            for word in [u64::from(*id), code.code_bytes, u64::from(code.crc), code.file_bytes] {
                varint::put(buf, at, word)?;
            }
        }
        Record::Slow(reason) => {
            let (reason, number) = reason.to_numbers();
            varint::put(buf, at, reason)?;
            varint::put(buf, at, number)?;
        }
        Record::Label { name, value } => {
            put_text(buf, at, name)?;
            put_text(buf, at, value)?;
        }
        Record::LimitReached(limit) => {
            let (limit, value) = limit.to_numbers();
            varint::put(buf, at, limit)?;
            varint::put(buf, at, value)?;
        }
        Record::MemoryLimit(limit) => {
            varint::put(buf, at, limit.kind.number())?;
            varint::put(buf, at, limit.most)?;
            if let Some(used) = limit.used {
                varint::put(buf, at, used)?;
            }
        }
        Record::AllocFailed { call, size, align, stack } => {
            for word in [call.number(), *size, *align, u64::from(stack.0)] {
                varint::put(buf, at, word)?;
            }
        }
        Record::Alignment { bytes } => varint::put(buf, at, *bytes)?,
        Record::Resident { released, allocated } => {
            varint::put(buf, at, *released)?;
            varint::put(buf, at, *allocated)?;
        }
        Record::Layout(layout) => {
            varint::put(buf, at, layout.occasion.number())?;
            varint::put(buf, at, layout.regions)?;
        }
        Record::Region(region) => {
            for word in [
                region.start,
                region.end,
                region.flags.0,
                region.offset,
                region.inode,
                region.resident,
                region.dirty,
                region.swapped,
                region.anonymous,
            ] {
                varint::put(buf, at, word)?;
            }
            put_text(buf, at, region.name)?;
        }
        Record::ThreadStack { id, address } => {
            varint::put(buf, at, u64::from(*id))?;
            varint::put(buf, at, *address)?;
        }
        Record::SwapTraffic { read, written } => {
            varint::put(buf, at, *read)?;
            varint::put(buf, at, *written)?;
        }
        Record::ThreadStart { id, os_tid } => {
            varint::put(buf, at, u64::from(*id))?;
            varint::put(buf, at, u64::from(*os_tid))?;
        }
        Record::ThreadName { id, name } => {
            varint::put(buf, at, u64::from(*id))?;
            put_text(buf, at, name)?;
        }
        Record::Sample(sample) => {
            for word in [
                sample.vsz,
                sample.rss,
                sample.swap,
                sample.minor_faults,
                sample.major_faults,
                sample.tracker_bytes,
                sample.peak_vsz,
                sample.peak_rss,
            ] {
                varint::put(buf, at, word)?;
            }
        }
        Record::Lost { events } => varint::put(buf, at, *events)?,
        Record::PartlyVerified { stacks } => varint::put(buf, at, *stacks)?,
        Record::Checked { stacks, different } => {
            varint::put(buf, at, *stacks)?;
            varint::put(buf, at, *different)?;
        }
        Record::Function(function) => {
            varint::put(buf, at, u64::from(function.id))?;
            put_text(buf, at, function.name)?;
            put_text(buf, at, function.file)?;
            varint::put(buf, at, u64::from(function.start_line))?;
            varint::put(buf, at, u64::from(function.end_line))?;
        }
        Record::Usage { rss, minor_faults, major_faults } => {
            varint::put(buf, at, rss.0)?;
            varint::put(buf, at, u64::from(minor_faults.0))?;
            varint::put(buf, at, u64::from(major_faults.0))?;
        }
        Record::MarkName { id, name } => {
            varint::put(buf, at, u64::from(*id))?;
            put_text(buf, at, name)?;
        }
        Record::Snapshot { id, name, copying_us } => {
            varint::put(buf, at, u64::from(*id))?;
            put_text(buf, at, name)?;
            varint::put(buf, at, *copying_us)?;
        }
        Record::Mark { id } => varint::put(buf, at, u64::from(*id))?,
        Record::Installation(installation) => {
            let number = match installation {
                Installation::Missing => 0,
                Installation::Partial => 1,
                Installation::Complete => 2,
            };
            varint::put(buf, at, number)?;
        }
        _ => return None,
    }
    let len = *at - length_at - 3;
    if len >= 1 << 21 {
        return None;
    }
    let length = buf.get_mut(length_at..length_at + 3)?;
    length.copy_from_slice(&[len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8]);
    Some(())
}

/// Reads the fields of a cold record. `Some(None)` for a record of an unknown kind, `None` for a
/// malformed record of a known kind.
pub(super) fn decode_cold(kind: u8, payload: &[u8]) -> Option<Option<Record<'_>>> {
    let at = &mut 0;
    let word = |at: &mut usize| varint::get(payload, at);
    let id = |at: &mut usize| u32::try_from(varint::get(payload, at)?).ok();
    Some(Some(match kind {
        PROCESS => Record::Process(Process {
            pid: id(at)?,
            page_size: word(at)?,
            from_first_event: word(at)? != 0,
            exe: get_text(payload, at)?,
            args: get_text(payload, at)?,
            cwd: get_text(payload, at)?,
            run: get_text(payload, at)?,
            debug_assertions: if payload.len() > *at { word(at)? } else { 0 } & DEBUG_ASSERTIONS != 0,
        }),
        MODULE => Record::Module(Module {
            id: id(at)?,
            start: word(at)?,
            end: word(at)?,
            bias: word(at)?,
            build_id: get_text(payload, at)?,
            path: get_text(payload, at)?,
        }),
        MODULE_END => Record::ModuleEnd { id: id(at)? },
        MODULE_CODE => Record::ModuleCode {
            id: id(at)?,
            code: CodeIdentity { code_bytes: word(at)?, crc: id(at)?, file_bytes: word(at)? },
        },
        SLOW => match SlowReason::from_numbers(word(at)?, word(at)?) {
            Some(reason) => Record::Slow(reason),
            None => return Some(None),
        },
        LABEL => Record::Label { name: get_text(payload, at)?, value: get_text(payload, at)? },
        LIMIT_REACHED => match RecordingLimit::from_numbers(word(at)?, word(at)?) {
            Some(limit) => Record::LimitReached(limit),
            None => return Some(None),
        },
        MEMORY_LIMIT => {
            let (kind, most) = (MemoryLimitKind::from_number(word(at)?), word(at)?);
            let Some(kind) = kind else { return Some(None) };
            // Versions before 1.6 have no such field.
            let used = if *at == payload.len() { None } else { Some(word(at)?) };
            Record::MemoryLimit(MemoryLimit { kind, most, used })
        }
        ALLOC_FAILED => {
            let call = AllocCall::from_number(word(at)?);
            let (size, align, stack) = (word(at)?, word(at)?, StackId(id(at)?));
            let Some(call) = call else { return Some(None) };
            Record::AllocFailed { call, size, align, stack }
        }
        ALIGNMENT => Record::Alignment { bytes: word(at)? },
        RESIDENT => Record::Resident { released: word(at)?, allocated: word(at)? },
        LAYOUT => {
            let (occasion, regions) = (LayoutOccasion::from_number(word(at)?), word(at)?);
            let Some(occasion) = occasion else { return Some(None) };
            Record::Layout(Layout { occasion, regions })
        }
        REGION => Record::Region(Region {
            start: word(at)?,
            end: word(at)?,
            flags: RegionFlags(word(at)?),
            offset: word(at)?,
            inode: word(at)?,
            resident: word(at)?,
            dirty: word(at)?,
            swapped: word(at)?,
            anonymous: word(at)?,
            name: get_text(payload, at)?,
        }),
        THREAD_STACK => Record::ThreadStack { id: id(at)?, address: word(at)? },
        SWAP_TRAFFIC => Record::SwapTraffic { read: word(at)?, written: word(at)? },
        THREAD_START => Record::ThreadStart { id: id(at)?, os_tid: id(at)? },
        THREAD_NAME => Record::ThreadName { id: id(at)?, name: get_text(payload, at)? },
        THREAD_END => Record::ThreadEnd { id: id(at)? },
        SAMPLE => Record::Sample(Sample {
            vsz: word(at)?,
            rss: word(at)?,
            swap: word(at)?,
            minor_faults: word(at)?,
            major_faults: word(at)?,
            tracker_bytes: word(at)?,
            peak_vsz: word(at)?,
            peak_rss: word(at)?,
        }),
        PARTLY_VERIFIED => Record::PartlyVerified { stacks: word(at)? },
        LOST => Record::Lost { events: word(at)? },
        CHECKED => Record::Checked { stacks: word(at)?, different: word(at)? },
        FUNCTION => Record::Function(Function {
            id: id(at)?,
            name: get_text(payload, at)?,
            file: get_text(payload, at)?,
            start_line: id(at)?,
            end_line: id(at)?,
        }),
        USAGE => Record::Usage {
            rss: ResidentBytes(word(at)?),
            minor_faults: PageFaults(id(at)?),
            major_faults: PageFaults(id(at)?),
        },
        MARK_NAME => Record::MarkName { id: id(at)?, name: get_text(payload, at)? },
        SNAPSHOT => Record::Snapshot {
            id: id(at)?,
            name: get_text(payload, at)?,
            // Version 1.4 has no such field.
            copying_us: if *at == payload.len() { 0 } else { word(at)? },
        },
        MARK => Record::Mark { id: id(at)? },
        INSTALLATION => Record::Installation(match word(at)? {
            0 => Installation::Missing,
            1 => Installation::Partial,
            2 => Installation::Complete,
            // A newer minor version knows another answer.
            _ => return Some(None),
        }),
        _ => return Some(None),
    }))
}

/// Writes the length of a text and the text at `*at`. Cuts texts that are longer than [`MAX_TEXT`].
fn put_text(buf: &mut [u8], at: &mut usize, text: &[u8]) -> Option<()> {
    let text = &text[..text.len().min(MAX_TEXT)];
    varint::put(buf, at, text.len() as u64)?;
    buf.get_mut(*at..)?.get_mut(..text.len())?.copy_from_slice(text);
    *at += text.len();
    Some(())
}

/// Reads a text at `*at`. `None` if it is cut short, or longer than [`MAX_TEXT`].
fn get_text<'a>(buf: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::get(buf, at)?).ok().filter(|len| *len <= MAX_TEXT)?;
    let text = buf.get(*at..)?.get(..len)?;
    *at += len;
    Some(text)
}
