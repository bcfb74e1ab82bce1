//! The mappings of this process. In: `/proc/self/maps`. Out: regions, and loads of files. Never
//! locks; takes memory only from the kernel.

use crate::base::loader::{self, LoadIdentity};
use crate::base::sys::{self, Errno, File, FutexLock, Mapping};

use super::elf::end_of_load;

/// A range of addresses; `end` is the first address behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct AddressRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl AddressRange {
    pub(super) const EMPTY: AddressRange = AddressRange { start: 0, end: 0 };

    #[inline]
    pub(super) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Whether the other range lies within this one.
    pub(super) fn covers(&self, other: &AddressRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// One line of `/proc/self/maps`: a mapping.
pub(crate) struct MappedRegion<'a> {
    pub(crate) range: AddressRange,
    /// How the mapping may be used, as the kernel writes it: `rw-p`.
    pub(crate) access: &'a [u8],
    pub(crate) offset: u64,
    pub(crate) inode: u64,
    /// The path as the kernel shows it.
    pub(crate) path: &'a [u8],
}

impl<'a> MappedRegion<'a> {
    /// Parses a line: `START-END PERMS OFFSET DEV INODE   PATH`. All numbers except the inode are
    /// hexadecimal.
    pub(crate) fn parse(line: &'a [u8]) -> Option<MappedRegion<'a>> {
        let mut rest = line;
        let mut field = |separator: u8| {
            let end = rest.iter().position(|byte| *byte == separator)?;
            let (field, after) = rest.split_at_checked(end)?;
            rest = after.get(1..)?;
            Some(field)
        };
        let start = number(field(b'-')?, 16)?;
        let end = number(field(b' ')?, 16)?;
        let access = field(b' ')?;
        let offset = number(field(b' ')?, 16)?;
        field(b' ')?;
        let inode = number(field(b' ').unwrap_or_default(), 10).unwrap_or(0);
        Some(MappedRegion {
            range: AddressRange { start, end },
            access,
            offset,
            inode,
            path: rest.trim_ascii_start(),
        })
    }

    /// Whether the mapping has code that may run.
    pub(super) fn is_executable(&self) -> bool {
        self.access.get(2) == Some(&b'x')
    }
}

/// Neighbouring regions of one file: one load of the file, or a part of one. Other memory may lie
/// between two parts, in a gap between the file's segments.
#[derive(Default)]
pub(super) struct LoadedFile {
    pub(super) range: AddressRange,
    pub(super) inode: u64,
    pub(super) executable: bool,
    /// Address at which the file's first byte is mapped.
    pub(super) head: Option<u64>,
    vdso: bool,
}

impl LoadedFile {
    /// Returns a load that begins with this region, or that continues one of `heads` with it.
    pub(super) fn starting_with(region: &MappedRegion<'_>, heads: &RecentHeads) -> LoadedFile {
        let vdso = region.path == b"[vdso]";
        let mut file = LoadedFile { range: region.range, inode: region.inode, vdso, ..LoadedFile::default() };
        file.extend(region);
        if file.head.is_none() && region.inode != 0 {
            file.head = heads.head_of(region);
        }
        file
    }

    /// Whether the region belongs to this load.
    pub(super) fn continues_with(&self, region: &MappedRegion<'_>) -> bool {
        if region.inode == 0 || region.inode != self.inode {
            return false;
        }
        // A second mapping of the file's first byte has one of two reasons. Either it is a second
        // load, of a library that is opened in two namespaces. Or it is another segment of the same
        // load, of a file so small that several segments share its first page.
        match self.head.filter(|_| region.offset == 0) {
            Some(head) => end_of_load(head).is_some_and(|end| region.range.start < end),
            None => true,
        }
    }

    /// Whether the load has a file, which a reader may find; the kernel's own code has none.
    pub(super) fn is_on_disk(&self) -> bool {
        !self.vdso
    }

    /// Whether this region of other memory directly follows the load and lies where the load goes
    /// on, by the file's program headers.
    pub(super) fn is_followed_inside_by(&self, region: &MappedRegion<'_>) -> bool {
        self.range.end == region.range.start
            && self.head.and_then(end_of_load).is_some_and(|end| region.range.start < end)
    }

    /// Whether the file is still mapped there, and the loader still has this load there. If both
    /// are true, everything that was read from these addresses in between belongs to the file.
    /// Other threads may load and unload libraries meanwhile.
    pub(super) fn is_still_there(&self, loaded: LoadIdentity) -> bool {
        let mut inode = None;
        let look = |line: &[u8]| {
            if let Some(region) =
                MappedRegion::parse(line).filter(|region| region.range.contains(self.range.start))
            {
                inode = Some(region.inode);
            }
        };
        for_each_line(Reading::Check, look).is_ok()
            && inode == Some(self.inode)
            && loader::load_at(self.range.start).unwrap_or(LoadIdentity::NONE) == loaded
    }

    /// Adds a region of other memory that has the load's code.
    pub(super) fn extend_by_copy(&mut self, region: &MappedRegion<'_>) {
        self.range.end = region.range.end;
        self.executable = true;
    }

    /// Adds a region that continues the load.
    pub(super) fn extend(&mut self, region: &MappedRegion<'_>) {
        self.range.end = region.range.end;
        self.executable |= region.is_executable() && (region.path.first() == Some(&b'/') || self.vdso);
        if region.offset == 0 && self.head.is_none() {
            self.head = Some(region.range.start);
        }
    }
}

/// The heads of the loads that a scan has met last: inode, and address of the file's first byte.
///
/// A load has a head only in its first part. A program that was linked statically may have unmapped
/// pages between its segments, and any other memory may be mapped there, also the recorder's own:
///
/// ```text
/// 7f00-7f01 r--p  program       the head
/// 7f01-7f02 rw-p                memory in the gap
/// 7f02-7f09 r-xp  program       belongs to the head above, because the program headers say so
/// ```
#[derive(Default)]
pub(super) struct RecentHeads {
    heads: [(u64, u64); HEADS],
    next: usize,
}

impl RecentHeads {
    /// Notes the head of a load, if it has one.
    pub(super) fn note(&mut self, file: &LoadedFile) {
        if let Some(head) = file.head.filter(|_| file.inode != 0)
            && let Some(slot) = self.heads.get_mut(self.next)
        {
            *slot = (file.inode, head);
            self.next = (self.next + 1) % HEADS;
        }
    }

    /// Returns the head of the load that this region belongs to by the program headers.
    fn head_of(&self, region: &MappedRegion<'_>) -> Option<u64> {
        let of_file = self.heads.iter().filter(|(inode, _)| *inode == region.inode).map(|(_, head)| *head);
        of_file
            .filter(|head| *head < region.range.start)
            .find(|head| end_of_load(*head).is_some_and(|end| region.range.start < end))
    }
}

/// More loads than can lie between two parts of another one.
const HEADS: usize = 8;

/// Calls `f` with every line of `/proc/self/maps`, without its newline. Of a line that is longer
/// than the buffer (16 KiB) the beginning is dropped.
pub(super) fn for_each_line(reading: Reading, mut f: impl FnMut(&[u8])) -> Result<(), Errno> {
    let kept = KEPT.lock().filter(|kept| kept.process == sys::pid());
    let opened = if kept.is_some() { None } else { Some(File::open(PATH, libc::O_RDONLY, 0)?) };
    let fd = kept.map_or(opened.as_ref().map_or(-1, File::fd), |kept| kept.fds[reading as usize]);
    let mut offset = 0;
    let mut memory = Mapping::anonymous(LINES_BUFFER)?;
    let buffer = memory.bytes_mut();
    let mut len = 0;
    loop {
        let got = sys::read_at(fd, buffer.get_mut(len..).unwrap_or_default(), offset)?;
        if got == 0 {
            return Ok(());
        }
        offset += got as u64;
        len += got;
        let mut start = 0;
        while let Some(end) = buffer[start..len].iter().position(|byte| *byte == b'\n') {
            f(&buffer[start..start + end]);
            start += end + 1;
        }
        if start == 0 && len == buffer.len() {
            len = 0;
        }
        buffer.copy_within(start..len, 0);
        len -= start.min(len);
    }
}

/// Why the list of mappings is read.
///
/// NOTE: each reading has an open file of its own. The kernel goes on where the file was read last.
/// If a check read the file of a scan in between, the kernel would count the scan's bytes anew from
/// the first mapping on. Another thread may have mapped a library there meanwhile, and the scan
/// would miss lines.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// For a scan of all modules.
    Scan = 0,
    /// For a question about one module, in the middle of a scan.
    Check = 1,
}

/// Opens the list of mappings for good, in a process that will not be able to open files. Returns
/// the descriptors.
pub(crate) fn keep_maps_open() -> Option<[i32; 2]> {
    let open = || Some(File::open(PATH, libc::O_RDONLY, 0).ok()?.move_to_high_fd());
    let fds = [open()?, open()?].map(File::into_fd);
    *KEPT.lock() = Some(KeptMaps { fds, process: sys::pid() });
    Some(fds)
}

/// The list of mappings, open in one process.
#[derive(Clone, Copy)]
struct KeptMaps {
    /// A descriptor for each [`Reading`].
    fds: [i32; 2],
    process: u32,
}

static KEPT: FutexLock<Option<KeptMaps>> = FutexLock::new(None);
const PATH: &std::ffi::CStr = c"/proc/self/maps";
const LINES_BUFFER: usize = 16 << 10;

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_parsed() {
        let line = b"7f01-7f02 r-xp 0000a000 ca:01 1971705                    /lib/a b.so";
        let region = MappedRegion::parse(line).unwrap();
        assert_eq!((region.range.start, region.range.end, region.access), (0x7f01, 0x7f02, &b"r-xp"[..]));
        assert_eq!((region.offset, region.inode, region.path), (0xa000, 1971705, &b"/lib/a b.so"[..]));
        assert!(
            MappedRegion::parse(b"7f01-7f02 rw-p 00000000 00:00 0 ")
                .is_some_and(|region| region.path.is_empty())
        );
        assert!(MappedRegion::parse(b"garbage").is_none());
    }
}
