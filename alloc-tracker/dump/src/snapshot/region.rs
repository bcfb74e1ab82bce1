//! The mappings of a process. In: lines of `/proc/PID/maps`, or bytes. Out: [`MemoryRegion`], or
//! bytes.

use super::read::FieldBytes;
use super::write::{put_number, put_text};

/// A mapping of the process, with the same access everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First address.
    pub start: u64,
    /// First address after the region.
    pub end: u64,
    /// Whether the process may read it.
    pub readable: bool,
    /// Whether the process may write to it.
    pub writable: bool,
    /// Whether it may hold code.
    pub executable: bool,
    /// Whether other processes can see what is written to it.
    pub shared: bool,
    /// Whether it is a mapping of alloc-tracker itself. Its words are never in a snapshot.
    pub of_tracker: bool,
    /// Offset of the first byte in the file, in bytes.
    pub offset: u64,
    /// Inode of the file; 0 if the region is not backed by a file.
    pub inode: u64,
    /// Path of the file, a name in brackets such as `[heap]`, or nothing.
    pub name: Vec<u8>,
}

/// What backs a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// A file.
    File,
    /// The memory behind the program's data that `brk` grows.
    Heap,
    /// The stack of the first thread.
    MainStack,
    /// Memory without a file. It may have a name.
    Anonymous,
    /// A mapping that the kernel has made, such as `[vdso]`.
    Kernel,
}

impl MemoryRegion {
    /// Reads a line of `/proc/PID/maps`, without its line end. `None` if it is not one.
    pub fn parse(line: &[u8]) -> Option<MemoryRegion> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let (range, access, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let (_device, inode) = (fields.next()?, str::from_utf8(fields.next()?).ok()?);
        let name = fields.next().unwrap_or_default().trim_ascii_start();
        let (start, end) = str::from_utf8(range).ok()?.split_once('-')?;
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let (start, end) = (hex(start)?, hex(end)?);
        if start >= end || access.len() < 4 {
            return None;
        }
        Some(MemoryRegion {
            start,
            end,
            readable: access[0] == b'r',
            writable: access[1] == b'w',
            executable: access[2] == b'x',
            shared: access[3] == b's',
            of_tracker: false,
            offset: hex(str::from_utf8(offset).ok()?)?,
            inode: inode.parse().ok()?,
            name: name.to_vec(),
        })
    }

    /// Returns what backs the region.
    pub fn kind(&self) -> RegionKind {
        match self.name.as_slice() {
            b"[heap]" => RegionKind::Heap,
            b"[stack]" => RegionKind::MainStack,
            name if name.starts_with(b"[anon") => RegionKind::Anonymous,
            name if name.starts_with(b"[") => RegionKind::Kernel,
            _ if self.inode != 0 => RegionKind::File,
            _ => RegionKind::Anonymous,
        }
    }

    /// Whether the region has this address.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Writes the region. `before` is the end of the region before in the same frame, or 0.
    pub(super) fn encode(&self, before: u64, out: &mut Vec<u8>) {
        let flags = [self.readable, self.writable, self.executable, self.shared, self.of_tracker];
        let bits = flags.iter().enumerate().map(|(bit, set)| u64::from(*set) << bit).sum();
        let (gap, len) = (self.start.wrapping_sub(before), self.end.wrapping_sub(self.start));
        for number in [gap, len, bits, self.offset, self.inode] {
            put_number(out, number);
        }
        put_text(out, &self.name);
    }

    /// Reads a region that [`MemoryRegion::encode`] wrote. `None` if it is malformed.
    pub(super) fn decode(fields: &mut FieldBytes<'_>, before: u64) -> Option<MemoryRegion> {
        let start = before.checked_add(fields.number()?)?;
        let end = start.checked_add(fields.number()?).filter(|end| *end > start)?;
        let bits = fields.number()?;
        let is_set = |bit: u32| bits >> bit & 1 == 1;
        Some(MemoryRegion {
            start,
            end,
            readable: is_set(0),
            writable: is_set(1),
            executable: is_set(2),
            shared: is_set(3),
            of_tracker: is_set(4),
            offset: fields.number()?,
            inode: fields.number()?,
            name: fields.text()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_read() {
        let line =
            b"7f0000001000-7f0000003000 rw-p 00002000 fe:01 1234                       /usr/lib/a b.so";
        let region = MemoryRegion::parse(line).unwrap();
        let expected = MemoryRegion {
            start: 0x7f00_0000_1000,
            end: 0x7f00_0000_3000,
            readable: true,
            writable: true,
            offset: 0x2000,
            inode: 1234,
            name: b"/usr/lib/a b.so".to_vec(),
            ..MemoryRegion::default()
        };
        assert_eq!((region.kind(), region), (RegionKind::File, expected));
        let kind = |rest: &str| {
            MemoryRegion::parse(format!("1000-2000 {rest}").as_bytes()).map(|region| region.kind())
        };
        assert_eq!(kind("rw-p 00000000 00:00 0 "), Some(RegionKind::Anonymous));
        assert_eq!(kind("rw-p 00000000 00:00 0   [anon:arena]"), Some(RegionKind::Anonymous));
        assert_eq!(kind("rw-p 00000000 00:00 0   [heap]"), Some(RegionKind::Heap));
        assert_eq!(kind("rw-p 00000000 00:00 0   [stack]"), Some(RegionKind::MainStack));
        assert_eq!(kind("r-xp 00000000 00:00 0   [vdso]"), Some(RegionKind::Kernel));
        assert_eq!(kind("rw-s 00000000 00:01 77  /memfd:x (deleted)"), Some(RegionKind::File));
        assert_eq!(kind("rw-p"), None);
        assert_eq!(MemoryRegion::parse(b"2000-1000 rw-p 00000000 00:00 0"), None);
    }
}
