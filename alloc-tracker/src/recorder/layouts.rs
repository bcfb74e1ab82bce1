//! Layouts: the address space of the host at one moment. In: `/proc/self/smaps`, the mappings of
//! the tracker. Out: [`Region`]s. Never allocates.
//!
//! Only the drain process takes layouts. It shares the host's memory, so its list of mappings is
//! the host's. The kernel walks the page tables of every mapping for it, which takes milliseconds
//! in a large process. So the list is read in pieces, and the drain process drains between two of
//! them. A layout is no picture of one instant: the host goes on meanwhile.

use std::sync::atomic::{AtomicI32, Ordering};

use alloc_dump::record::{Region, RegionFlags};

use crate::base::sys::{self, File, Mapping, ProcessSize};
use crate::modules::MappedRegion;

/// Opens the list of mappings, and calls `f` with its descriptor. It stays open until the drain
/// process ends.
pub(super) fn open_files(f: &mut dyn FnMut(i32)) {
    LIST.store(NOT_OPEN, Ordering::Relaxed);
    if let Ok(file) = File::open(c"/proc/self/smaps", libc::O_RDONLY, 0) {
        let fd = file.move_to_high_fd().into_fd();
        LIST.store(fd, Ordering::Relaxed);
        f(fd);
    }
}

/// A list of mappings that is being read.
pub(super) struct LayoutReading {
    buffer: Mapping,
    /// Bytes that the buffer holds.
    len: usize,
    /// The place in the kernel's file.
    offset: u64,
    is_over: bool,
    /// The end of the last region.
    end: u64,
    /// For the kernel's answer which pages are resident.
    residency: Mapping,
    fd: i32,
}

impl LayoutReading {
    /// Begins to read; `None` if the list cannot be read.
    pub(super) fn begin() -> Option<LayoutReading> {
        let fd = LIST.load(Ordering::Relaxed);
        if fd == NOT_OPEN {
            return None;
        }
        let (buffer, residency) = (Mapping::anonymous(PIECE).ok()?, Mapping::anonymous(PAGES_AT_ONCE).ok()?);
        Some(LayoutReading { buffer, len: 0, offset: 0, is_over: false, end: 0, residency, fd })
    }

    /// Reads the next piece. Returns false if there was none.
    pub(super) fn read(&mut self) -> bool {
        let room = self.buffer.bytes_mut().get_mut(self.len..).unwrap_or_default();
        let got = sys::read_at(self.fd, room, self.offset).unwrap_or(0);
        (self.offset, self.len) = (self.offset + got as u64, self.len + got);
        self.is_over = got == 0;
        !self.is_over || self.len > 0
    }

    /// Calls `f` with each region that was read, and forgets it.
    ///
    /// # Errors
    /// The first error of `f`.
    pub(super) fn take_regions<E>(
        &mut self,
        mut f: impl FnMut(&Region<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.buffer.bytes_mut();
        let text = bytes.get(..self.len).unwrap_or_default();
        // The description of a mapping ends where the next one begins, or at the end of the list.
        let whole = if self.is_over { text.len() } else { last_mapping(text) };
        let residency = self.residency.bytes_mut();
        let mut outcome = Ok(());
        for mut mapping in Mappings(text.get(..whole).unwrap_or_default()) {
            let mut resident = |start, end| sys::resident_bytes(start, end, residency);
            // Between two pieces the host may have joined a mapping with one that was read already.
            if mapping.start < self.end {
                if mapping.end <= self.end {
                    continue;
                }
                let rest = resident(self.end, mapping.end).min(mapping.resident);
                mapping = Region { start: self.end, resident: rest, ..mapping };
            }
            self.end = mapping.end;
            split(&mapping, first_own_part, &mut resident, &mut |region| {
                if outcome.is_ok() {
                    outcome = f(region);
                }
            });
        }
        // A description that is longer than a piece is none.
        let used = if whole == 0 && self.len == PIECE { self.len } else { whole };
        bytes.copy_within(used..self.len, 0);
        self.len -= used;
        outcome
    }
}

/// When layouts are taken: when the program has grown, and so seldom that the kernel's work for
/// them stays small.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LayoutPace {
    /// The sizes of the process at the last layout.
    vsz: u64,
    rss: u64,
    /// Before this moment of the monotonic clock, none is taken.
    not_before_ns: u64,
}

impl LayoutPace {
    /// Whether a layout is due. `mark` says that the program has set a mark since the last one.
    pub(super) fn is_due(&self, sizes: ProcessSize, mark: bool, now_ns: u64) -> bool {
        let has_grown = |now: u64, before: u64| now > before + (before / 8).max(LEAST_GROWTH);
        let wanted =
            mark || has_grown(sizes.resident_bytes, self.rss) || has_grown(sizes.virtual_bytes, self.vsz);
        wanted && now_ns >= self.not_before_ns
    }

    /// Notes a layout that was taken now, and the processor time that it took.
    pub(super) fn note(&mut self, sizes: ProcessSize, cost_ns: u64, now_ns: u64) {
        let pause_ns = (COST_SHARE * cost_ns).max(SHORTEST_PAUSE_NS);
        let ProcessSize { virtual_bytes: vsz, resident_bytes: rss } = sizes;
        *self = LayoutPace { vsz, rss, not_before_ns: now_ns + pause_ns };
    }
}

/// The descriptions of mappings in a part of the list that holds whole ones.
struct Mappings<'a>(&'a [u8]);

impl<'a> Iterator for Mappings<'a> {
    type Item = Region<'a>;

    fn next(&mut self) -> Option<Region<'a>> {
        loop {
            let rest = self.0;
            if rest.is_empty() {
                return None;
            }
            let end = next_mapping(rest).unwrap_or(rest.len());
            self.0 = rest.get(end..).unwrap_or_default();
            if let Some(region) = parse(rest.get(..end).unwrap_or_default()) {
                return Some(region);
            }
        }
    }
}

/// Returns where the second description in the text begins; `None` if there is one description.
fn next_mapping(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(line) = text.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        at += line + 1;
        if text.get(at..).is_some_and(begins_mapping) {
            return Some(at);
        }
    }
    None
}

/// Returns where the last description in the text begins.
fn last_mapping(text: &[u8]) -> usize {
    let mut from = 0;
    while let Some(next) = text.get(from..).and_then(next_mapping) {
        from += next;
    }
    from
}

/// Whether the text begins with the first line of a description, which begins with an address. All
/// other lines begin with the capital letter of a name.
fn begins_mapping(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads the description of a mapping.
///
/// ```text
/// 7f01-7f02 rw-p 0000a000 ca:01 1971705                    /lib/a b.so
/// Size:                  4 kB
/// Rss:                   4 kB
/// ```
fn parse(text: &[u8]) -> Option<Region<'_>> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut region = parse_first_line(lines.next()?)?;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let field = match name {
            b"Rss" => &mut region.resident,
            b"Shared_Dirty" | b"Private_Dirty" => &mut region.dirty,
            b"Anonymous" => &mut region.anonymous,
            b"Swap" => &mut region.swapped,
            _ => continue,
        };
        *field += sys::first_number(value) * 1024;
    }
    Some(region)
}

fn parse_first_line(line: &[u8]) -> Option<Region<'_>> {
    let MappedRegion { range, access, offset, inode, path } = MappedRegion::parse(line)?;
    let bits = [
        (b'r', RegionFlags::READ),
        (b'w', RegionFlags::WRITE),
        (b'x', RegionFlags::EXECUTE),
        (b's', RegionFlags::SHARED),
    ];
    let flags =
        bits.iter().filter(|(letter, _)| access.contains(letter)).fold(0, |flags, (_, bit)| flags | bit.0);
    let (start, end, flags) = (range.start, range.end, RegionFlags(flags));
    Some(Region { start, end, flags, offset, inode, name: path, ..Region::default() })
}

/// Calls `f` with the parts of a mapping: those that are the tracker's own, and the others. The
/// kernel joins neighbouring mappings, so a mapping may be both.
///
/// `own_part` returns the first range between two addresses that is the tracker's, `resident` how
/// many bytes between two addresses are in physical memory.
fn split(
    mapping: &Region<'_>,
    own_part: impl Fn(u64, u64) -> Option<(u64, u64)>,
    resident: &mut dyn FnMut(u64, u64) -> u64,
    f: &mut dyn FnMut(&Region<'_>),
) {
    let flagged =
        |is_own: bool| RegionFlags(mapping.flags.0 | if is_own { RegionFlags::TRACKER.0 } else { 0 });
    let (start, end) = (mapping.start, mapping.end);
    let Some((own_start, own_end)) = own_part(start, end) else { return f(mapping) };
    if (own_start, own_end) == (start, end) {
        return f(&Region { flags: flagged(true), ..*mapping });
    }
    let (mut at, mut swapped) = (start, mapping.swapped);
    let mut part = |start: u64, end: u64, is_own: bool| {
        if start < end {
            let resident = resident(start, end);
            // What the kernel has swapped out counts for the program.
            let swapped = if is_own { 0 } else { std::mem::take(&mut swapped) };
            let [dirty, anonymous] = [mapping.dirty, mapping.anonymous].map(|all| all.min(resident));
            let offset = mapping.offset + if mapping.inode == 0 { 0 } else { start - mapping.start };
            let flags = flagged(is_own);
            f(&Region { start, end, flags, offset, resident, dirty, swapped, anonymous, ..*mapping });
        }
    };
    while at < end {
        let (own_start, own_end) = own_part(at, end).unwrap_or((end, end));
        part(at, own_start, false);
        part(own_start, own_end, true);
        at = own_end;
    }
}

/// Returns the first range between two addresses that the tracker has mapped.
fn first_own_part(start: u64, end: u64) -> Option<(u64, u64)> {
    let mut first: Option<(u64, u64)> = None;
    let page = sys::page_size();
    sys::for_each_own_mapping(|at, len| {
        let len = len.next_multiple_of(page);
        let own = (at.max(start), at.saturating_add(len).min(end));
        if own.0 < own.1 && first.is_none_or(|first| own.0 < first.0) {
            first = Some(own);
        }
    });
    first
}

/// The descriptor of the list in the drain process.
static LIST: AtomicI32 = AtomicI32::new(NOT_OPEN);
const NOT_OPEN: i32 = -1;
/// Bytes of the list that are read at once: some dozens of mappings.
const PIECE: usize = 32 << 10;
/// Pages whose residency is asked for at once.
const PAGES_AT_ONCE: usize = 16 << 10;
/// A process that grows by less is not looked at again.
const LEAST_GROWTH: u64 = 1 << 20;
/// After a layout none is taken for this many times its processor time.
const COST_SHARE: u64 = 100;
const SHORTEST_PAUSE_NS: u64 = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The last of the three descriptions of [`LIST_OF_THREE`].
    const LAST: &[u8] = b"7ffc00000000-7ffc00021000 rw-s 00000000 00:00 0         [stack]\nRss: 4 kB\n";
    const LIST_OF_THREE: &[u8] = b"00400000-00403000 r-xp 00001000 ca:01 77   /bin/a b\n\
Size:                 12 kB\nRss:                   8 kB\nShared_Dirty:          0 kB\n\
Private_Dirty:         4 kB\nAnonymous:             4 kB\nSwap:                  0 kB\n\
VmFlags: rd ex mr mw me \n\
7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n\
Rss:                 300 kB\nShared_Dirty:          1 kB\nPrivate_Dirty:       200 kB\nSwap:   12 kB\n\
7ffc00000000-7ffc00021000 rw-s 00000000 00:00 0         [stack]\nRss: 4 kB\n";

    #[test]
    fn descriptions_of_mappings_are_read() {
        let regions: Vec<Region<'_>> = Mappings(LIST_OF_THREE).collect();
        let [text, memory, stack] = regions.as_slice() else { panic!("{regions:?}") };
        let read_and_execute = RegionFlags(RegionFlags::READ.0 | RegionFlags::EXECUTE.0);
        let expected = Region {
            start: 0x40_0000,
            end: 0x40_3000,
            flags: read_and_execute,
            offset: 0x1000,
            inode: 77,
            resident: 8 << 10,
            dirty: 4 << 10,
            swapped: 0,
            anonymous: 4 << 10,
            name: b"/bin/a b",
        };
        assert_eq!(*text, expected);
        assert_eq!((memory.resident, memory.dirty, memory.swapped), (300 << 10, 201 << 10, 12 << 10));
        assert_eq!((memory.name, stack.name), (&b""[..], &b"[stack]"[..]));
        assert!(stack.flags.has(RegionFlags::SHARED) && !memory.flags.has(RegionFlags::SHARED));
        assert_eq!(last_mapping(LIST_OF_THREE), LIST_OF_THREE.len() - LAST.len());
    }

    #[test]
    fn a_mapping_is_split_where_the_tracker_is_in_it() {
        let mapping =
            Region { start: 0x1000, end: 0x9000, resident: 0x6000, swapped: 0x1000, ..Region::default() };
        // The tracker has two ranges, and all pages but the first are resident.
        let own = [(0x2000, 0x3000), (0x8000, 0xA000)];
        let own_part = |start: u64, end: u64| {
            let parts = own.iter().map(|(from, to)| (start.max(*from), end.min(*to)));
            parts.filter(|(from, to)| from < to).min()
        };
        let mut parts = Vec::new();
        let mut resident = |start: u64, end: u64| end - start - if start == 0x1000 { 0x1000 } else { 0 };
        split(&mapping, own_part, &mut resident, &mut |part| {
            parts.push((
                part.start,
                part.end,
                part.flags.has(RegionFlags::TRACKER),
                part.resident,
                part.swapped,
            ));
        });
        let expected = [
            (0x1000, 0x2000, false, 0, 0x1000),
            (0x2000, 0x3000, true, 0x1000, 0),
            (0x3000, 0x8000, false, 0x5000, 0),
            (0x8000, 0x9000, true, 0x1000, 0),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_layout_is_due_when_the_process_has_grown_or_set_a_mark() {
        let sizes = |vsz: u64, rss: u64| ProcessSize { virtual_bytes: vsz << 20, resident_bytes: rss << 20 };
        let mut pace = LayoutPace::default();
        pace.note(sizes(100, 40), 1_000_000, 1_000_000);
        let later_ns = 1_000_000 + 100 * 1_000_000;
        assert!(!pace.is_due(sizes(112, 45), false, later_ns), "an eighth more at most");
        assert!(pace.is_due(sizes(113, 40), false, later_ns) && pace.is_due(sizes(100, 46), false, later_ns));
        assert!(pace.is_due(sizes(1, 1), true, later_ns) && !pace.is_due(sizes(1, 1), true, later_ns - 1));
        pace.note(sizes(1, 1), 10, 10);
        assert!(!pace.is_due(sizes(2, 2), false, u64::MAX) && pace.is_due(sizes(3, 2), false, u64::MAX));
    }

    #[test]
    fn the_list_of_this_process_has_memory_that_was_touched() {
        const LEN: usize = 24 << 20;
        let mut memory = Mapping::anonymous(LEN).unwrap();
        memory.bytes_mut()[..LEN / 2].iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let file = File::open(c"/proc/self/smaps", libc::O_RDONLY, 0).unwrap();
        let anonymous = |len| Mapping::anonymous(len).unwrap();
        let (buffer, residency) = (anonymous(PIECE), anonymous(PAGES_AT_ONCE));
        let mut reading =
            LayoutReading { buffer, len: 0, offset: 0, is_over: false, end: 0, residency, fd: file.fd() };
        let start = memory.start().addr() as u64;
        let (mut found, mut end) = (None, 0);
        while reading.read() {
            let taken: Result<(), ()> = reading.take_regions(|region| {
                assert!(region.start >= end, "{region:?}");
                end = region.end;
                if region.start == start {
                    found = Some((region.end - region.start, region.resident, region.flags));
                }
                Ok(())
            });
            taken.unwrap();
        }
        let (len, resident, flags) = found.unwrap();
        assert_eq!((len, resident), (LEN as u64, LEN as u64 / 2));
        assert!(flags.has(RegionFlags::TRACKER), "this mapping is in the tracker's table");
    }
}
