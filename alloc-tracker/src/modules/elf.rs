//! The ELF headers of a mapped file. In: the address of the mapping. Out: load bias, build-id,
//! unwind tables, and where the code is. Reads memory by `memory`: if the file is being unmapped
//! meanwhile, the result is an error and not a fault. Never locks, never allocates.

use super::memory::read_memory;

/// Where the unwind tables of a module are mapped.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct UnwindTables {
    /// Address of `.eh_frame_hdr`.
    pub(crate) header: u64,
    /// Address of the readable segment that has the header and `.eh_frame`.
    pub(crate) segment_start: u64,
    /// Bytes of that segment; 0 if the module has no tables.
    pub(crate) segment_len: u64,
}

/// The facts that the headers of a file state.
pub(super) struct ElfHeaders {
    /// Difference between addresses in memory and addresses in the file.
    pub(super) bias: u64,
    /// Bytes of the build-id; 0 if there is none.
    pub(super) build_id_len: usize,
    pub(super) tables: UnwindTables,
    pub(super) code: CodeSegment,
}

/// The first segment with code: where it is in the file and in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct CodeSegment {
    /// Its first address, as the file counts addresses.
    pub(super) address: u64,
    /// Offset of its first byte in the file.
    pub(super) offset: u64,
    /// Bytes that the file has of it; 0 if the file has no code.
    pub(super) len: u64,
}

/// Reads the headers of the file that is mapped from `head` on, and its build-id into `build_id`.
/// `None` if the file is no ELF file of 64 bits, or if it cannot be read.
pub(super) fn read_elf(head: u64, build_id: &mut [u8; MAX_BUILD_ID]) -> Option<ElfHeaders> {
    let mut header = [0u8; 64];
    read_memory(head, &mut header)?;
    if !header.starts_with(b"\x7fELF\x02") {
        return None;
    }
    let program_headers = word64(&header, 32)?;
    let entry_size = u64::from(word16(&header, 54)?);
    let entries = u64::from(word16(&header, 56)?).min(MAX_PROGRAM_HEADERS);
    let header = |index: u64| {
        let mut entry = [0u8; 56];
        read_memory(head.checked_add(program_headers)?.checked_add(index * entry_size)?, &mut entry)?;
        let (kind, offset, address) = (word32(&entry, 0)?, word64(&entry, 8)?, word64(&entry, 16)?);
        let code = CodeSegment { address, offset, len: word64(&entry, 32)? };
        let is_code = kind == PT_LOAD && word32(&entry, 4)? & PF_X != 0 && code.len > 0;
        Some((kind, offset, address, word64(&entry, 40)?, is_code.then_some(code)))
    };
    let (mut bias, mut build_id_len, mut tables_at) = (None, None, None);
    let mut code = None;
    for index in 0..entries {
        let (kind, offset, address, size, segment) = header(index)?;
        code = code.or(segment);
        match kind {
            PT_LOAD if offset == 0 && bias.is_none() => bias = Some(head.wrapping_sub(address)),
            PT_NOTE if build_id_len.is_none() => {
                build_id_len = find_build_id(head.wrapping_add(offset), size, build_id);
            }
            PT_GNU_EH_FRAME => tables_at = Some(address),
            _ => {}
        }
    }
    let (bias, mut tables) = (bias?, UnwindTables::default());
    for index in 0..entries {
        let (kind, _, start, size, _) = header(index)?;
        if let Some(at) =
            tables_at.filter(|at| kind == PT_LOAD && (start..start.saturating_add(size)).contains(at))
        {
            tables = UnwindTables {
                header: bias.wrapping_add(at),
                segment_start: bias.wrapping_add(start),
                segment_len: size,
            };
        }
    }
    Some(ElfHeaders { bias, build_id_len: build_id_len.unwrap_or(0), tables, code: code.unwrap_or_default() })
}

/// Returns the first address behind all segments of the file that is mapped from `head` on.
pub(super) fn end_of_load(head: u64) -> Option<u64> {
    let mut header = [0u8; 64];
    read_memory(head, &mut header)?;
    let at = head.checked_add(word64(&header, 32)?)?;
    let (entry_size, entries) = (u64::from(word16(&header, 54)?), u64::from(word16(&header, 56)?));
    let (mut start, mut end) = (u64::MAX, 0);
    for index in 0..entries.min(MAX_PROGRAM_HEADERS) {
        let mut entry = [0u8; 56];
        read_memory(at.checked_add(index * entry_size)?, &mut entry)?;
        if header.starts_with(b"\x7fELF\x02") && word32(&entry, 0)? == PT_LOAD {
            let address = word64(&entry, 16)?;
            start = start.min(address);
            end = end.max(address.checked_add(word64(&entry, 40)?)?);
        }
    }
    head.checked_add(end.checked_sub(start)?)
}

/// Bytes of the longest build-id.
pub(super) const MAX_BUILD_ID: usize = 64;
const MAX_PROGRAM_HEADERS: u64 = 128;
const PT_LOAD: u32 = 1;
const PF_X: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_EH_FRAME: u32 = 0x6474_E550;
const NT_GNU_BUILD_ID: u32 = 3;

/// Finds the build-id among the notes of `size` bytes from `at` on, and copies it. Returns its
/// length.
///
/// A note is: name length, content length, kind, name, content. Name and content are padded to four
/// bytes.
fn find_build_id(at: u64, size: u64, build_id: &mut [u8; MAX_BUILD_ID]) -> Option<usize> {
    let mut notes = [0u8; 512];
    let notes = notes.get_mut(..(size as usize).min(512))?;
    read_memory(at, notes)?;
    let mut rest = &*notes;
    loop {
        let name_len = word32(rest, 0)? as usize;
        let content_len = word32(rest, 4)? as usize;
        let kind = word32(rest, 8)?;
        let name = rest.get(12..)?.get(..name_len)?;
        let content = rest.get(12..)?.get(name_len.checked_next_multiple_of(4)?..)?;
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            let content = content.get(..content_len)?;
            build_id.get_mut(..content_len)?.copy_from_slice(content);
            return Some(content_len);
        }
        rest = content.get(content_len.checked_next_multiple_of(4)?..)?;
    }
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
