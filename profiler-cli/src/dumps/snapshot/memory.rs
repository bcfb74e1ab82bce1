//! Reading the memory of a copy of a process through `/proc`. In: process ids. Out: regions, and
//! the words that point into memory that may have blocks.
//!
//! A copy does not have everything: a program can ask the kernel to leave a mapping out of copies,
//! or to give them zeros (`MADV_DONTFORK`, `MADV_WIPEONFORK`). Such memory is read from the program
//! itself, a little later.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use alloc_dump::exchange::{CopyReport, MAX_REPORT_WORDS};
use alloc_dump::snapshot::{MemoryRegion, RegionKind, SnapshotWriter, Targets, scan_page};

use super::SnapshotTrouble;
use super::exchange::{Exchange, ProcessCopy};
use super::identity::{ProcessFolder, mappings_in};

/// The memory of a copy.
pub(super) struct CopiedMemory {
    memory: File,
    pagemap: File,
    /// The pages of the recorded process. A copy shows no pages of mappings that it shares with the
    /// process until it touches them.
    host_pagemap: Option<File>,
    /// The memory of the recorded process, for what a copy does not have; `None` if the kernel does
    /// not let it be read.
    host_memory: Option<File>,
    /// Where each region begins that is read from the recorded process.
    only_in_host: HashSet<u64>,
    /// What the copy tells of itself.
    pub(super) report: CopyReport,
    /// Its regions, those of the tracker cut out of their neighbours.
    pub(super) regions: Vec<MemoryRegion>,
}

impl CopiedMemory {
    /// Opens the memory of a copy.
    ///
    /// The copy's id comes from a word that others can write to. So nothing of that process is
    /// changed or used before it has shown the report of this recording at the right address. The
    /// recorded process has the report as well, because it shares that memory with its copies.
    ///
    /// # Errors
    /// The kernel does not let this process read the copy's memory, the copy has ended, or the
    /// process is no copy.
    pub(super) fn open(copy: &ProcessCopy, exchange: &Exchange) -> Result<CopiedMemory, SnapshotTrouble> {
        let host = exchange.host();
        if copy.pid == host {
            return Err(SnapshotTrouble::Unknown);
        }
        let process = ProcessFolder::open(copy.pid)?;
        let memory = process.open_file("mem")?;
        let report =
            read_report(&memory, copy.report_address).map_err(|error| process.refused("mem", error))?;
        let report = report.filter(|report| report.session == exchange.session());
        let report = report.ok_or(SnapshotTrouble::Unknown)?;
        // If memory gets short, the kernel shall end the copy and not the program.
        let _ = fs::write(process.path("oom_score_adj"), "1000");
        let maps = fs::read(process.path("maps")).map_err(|error| process.refused("maps", error))?;
        let mut regions: Vec<MemoryRegion> = mappings_in(&maps).collect();
        let wiped = wiped_mappings(&fs::read(process.path("smaps")).unwrap_or_default());
        let host_maps = fs::read(format!("/proc/{host}/maps")).unwrap_or_default();
        let left_out = left_out(&regions, mappings_in(&host_maps));
        regions.extend(left_out.iter().cloned());
        regions.sort_unstable_by_key(|region| region.start);
        let regions = cut_out(regions.into_iter(), &report.tracker_mappings);
        let is_in = |ranges: &[(u64, u64)], region: &MemoryRegion| {
            ranges.iter().any(|(start, end)| (*start..*end).contains(&region.start))
        };
        let left_out: Vec<(u64, u64)> = left_out.iter().map(|region| (region.start, region.end)).collect();
        let only_in_host = regions
            .iter()
            .filter(|region| is_in(&wiped, region) || is_in(&left_out, region))
            .map(|region| region.start)
            .collect();
        Ok(CopiedMemory {
            memory,
            pagemap: process.open_file("pagemap")?,
            host_pagemap: File::open(format!("/proc/{host}/pagemap")).ok(),
            host_memory: File::open(format!("/proc/{host}/mem")).ok(),
            only_in_host,
            report,
            regions,
        })
    }

    /// Whether some memory must be read from the program itself, so that it must not end yet.
    pub(super) fn needs_program(&self) -> bool {
        !self.only_in_host.is_empty()
    }

    /// Writes each word that points into memory of the program that may have blocks, and the ranges
    /// that cannot be read.
    ///
    /// # Errors
    /// The first error of the writer.
    pub(super) fn write_words<W: io::Write>(&self, writer: &mut SnapshotWriter<W>) -> io::Result<()> {
        let targets = Targets::new(&self.regions);
        let page = rustix::param::page_size() as u64;
        let mut buffer = vec![0; CHUNK as usize];
        for region in self.regions.iter().filter(|region| is_scanned(region)) {
            // A region that was cut begins and ends within pages.
            let mut at = region.start / page * page;
            while at < region.end {
                let pages = (region.end - at).div_ceil(page).min(PAGES_AT_ONCE);
                for (from, to) in self.present(region, at, pages, page) {
                    let range = (from.max(region.start), to.min(region.end));
                    let memory = self.memory_with(region);
                    write_range(memory, writer, &targets, range, &mut buffer)?;
                }
                at += pages * page;
            }
        }
        Ok(())
    }

    /// Returns the ranges of `pages` pages from `start` on that have contents.
    fn present(&self, region: &MemoryRegion, start: u64, pages: u64, page: u64) -> Vec<(u64, u64)> {
        let is_of_host = region.shared || self.only_in_host.contains(&region.start);
        let pagemap = if is_of_host { self.host_pagemap.as_ref() } else { Some(&self.pagemap) };
        let mut entries = vec![0; 8 * pages as usize];
        let is_read = pagemap.is_some_and(|file| file.read_exact_at(&mut entries, start / page * 8).is_ok());
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            let entry = entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            // Without the map of pages, all pages are read: that costs time only.
            if is_read && !has_contents(region, entry) {
                continue;
            }
            let from = start + index as u64 * page;
            match ranges.last_mut() {
                Some(last) if last.1 == from => last.1 += page,
                _ => ranges.push((from, from + page)),
            }
        }
        ranges
    }

    /// Returns the memory that has the contents of a region.
    fn memory_with(&self, region: &MemoryRegion) -> Option<&File> {
        match self.only_in_host.contains(&region.start) {
            true => self.host_memory.as_ref(),
            false => Some(&self.memory),
        }
    }
}

/// Writes the words of a range, or that it cannot be read.
fn write_range<W: io::Write>(
    memory: Option<&File>,
    writer: &mut SnapshotWriter<W>,
    targets: &Targets,
    (start, end): (u64, u64),
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let len = (end - at).min(CHUNK);
        let bytes = &mut buffer[..len as usize];
        if memory.is_none_or(|memory| memory.read_exact_at(bytes, at).is_err()) {
            writer.push_unread(at, at + len)?;
            at += len;
            continue;
        }
        let mut written = Ok(());
        scan_page(at, bytes, targets, |place, value| {
            if written.is_ok() {
                written = writer.push_word(place, value);
            }
        });
        written?;
        at += len;
    }
    Ok(())
}

/// Reads the report at an address. `None` if there is another thing.
fn read_report(memory: &File, address: u64) -> io::Result<Option<CopyReport>> {
    let mut bytes = vec![0; 8 * MAX_REPORT_WORDS];
    memory.read_exact_at(&mut bytes, address)?;
    let words = bytes.chunks_exact(8).filter_map(|word| word.first_chunk());
    let words: Vec<u64> = words.map(|word| u64::from_le_bytes(*word)).collect();
    Ok(CopyReport::parse(&words))
}

/// Whether the words of a region belong to a snapshot. A program may take away rights to its own
/// memory and give them back.
fn is_scanned(region: &MemoryRegion) -> bool {
    let is_reserved = !region.readable && region.end - region.start > MOST_INACCESSIBLE;
    let may_have_pointers = region.writable || !region.shared && region.kind() != RegionKind::Kernel;
    may_have_pointers && !is_reserved && !region.of_tracker
}

/// Whether a page has contents that the program may have written, by its entry in the map of pages.
fn has_contents(region: &MemoryRegion, entry: u64) -> bool {
    let is_there = entry & (PRESENT | SWAPPED) != 0 && entry & GUARD == 0;
    // Of memory that nobody may write to now, pages that the file still has were never written.
    is_there && (region.writable || entry & FILE_OR_SHARED == 0)
}

/// Returns the mappings of the recorded process that a copy does not have.
fn left_out(copy: &[MemoryRegion], host: impl Iterator<Item = MemoryRegion>) -> Vec<MemoryRegion> {
    let is_in_copy = |region: &MemoryRegion| {
        let after = copy.partition_point(|other| other.end <= region.start);
        copy.get(after).is_some_and(|other| other.start < region.end)
    };
    host.filter(|region| is_scanned(region) && !is_in_copy(region)).collect()
}

/// Returns the mappings that a copy sees as zeros, from `/proc/PID/smaps`.
fn wiped_mappings(smaps: &[u8]) -> Vec<(u64, u64)> {
    let mut wiped = Vec::new();
    let mut mapping = None;
    for line in smaps.split(|byte| *byte == b'\n') {
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let is_wiped = flags.split(|byte| *byte == b' ').any(|flag| flag == b"wf");
            wiped.extend(mapping.filter(|_| is_wiped));
        } else if let Some(region) = MemoryRegion::parse(line) {
            mapping = Some((region.start, region.end));
        }
    }
    wiped
}

/// Returns the regions, ascending, with the parts that the tracker has mapped as regions of their
/// own. The kernel lists neighbouring mappings of equal access as one.
fn cut_out(
    regions: impl Iterator<Item = MemoryRegion>,
    tracker_mappings: &[(u64, u64)],
) -> Vec<MemoryRegion> {
    let mut ranges: Vec<(u64, u64)> =
        tracker_mappings.iter().map(|(start, len)| (*start, start.saturating_add(*len))).collect();
    ranges.sort_unstable();
    let mut pieces = Vec::new();
    for region in regions {
        let mut at = region.start;
        let mut push = |from: u64, to: u64, of_tracker: bool| {
            if from < to {
                let offset = region.offset.wrapping_add(from - region.start);
                pieces.push(MemoryRegion { start: from, end: to, of_tracker, offset, ..region.clone() });
            }
        };
        for (start, end) in &ranges {
            let (start, end) = ((*start).max(at), (*end).min(region.end));
            if start < end {
                push(at, start, false);
                push(start, end, true);
                at = end;
            }
        }
        push(at, region.end, false);
    }
    pieces
}

/// Bits of an entry of `/proc/PID/pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page belongs to a file or is shared: it is no copy that this process has made by writing.
const FILE_OR_SHARED: u64 = 1 << 61;
/// Nobody may access the page (`MADV_GUARD_INSTALL`); it has no contents.
const GUARD: u64 = 1 << 58;
/// Larger mappings that nobody may access are room that was only reserved, as sanitizers do it:
/// their maps of pages would have gigabytes.
const MOST_INACCESSIBLE: u64 = 64 << 30;
/// Pages that are looked up at once.
const PAGES_AT_ONCE: u64 = 1 << 15;
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_a_copy_has_without_contents_are_found() {
        let region = |line: &str| MemoryRegion::parse(line.as_bytes()).unwrap();
        let copy = [region("10000-20000 rw-p 00000000 00:00 0"), region("30000-40000 r--p 00000000 00:00 0")];
        let host = [
            region("10000-18000 rw-p 00000000 00:00 0"),
            region("20000-22000 rw-p 00000000 00:00 0"),
            region("38000-40000 rw-p 00000000 00:00 0"),
            region("50000-51000 r--s 00000000 00:00 0"),
        ];
        let found: Vec<u64> = left_out(&copy, host.into_iter()).iter().map(|region| region.start).collect();
        assert_eq!(found, [0x20000]);
        let smaps = b"10000-20000 rw-p 00000000 00:00 0 \nSize: 64 kB\nVmFlags: rd wr mr mw me ac wf \n\
            20000-21000 rw-p 00000000 00:00 0 \nVmFlags: rd wr mr mw me ac \n";
        assert_eq!(wiped_mappings(smaps), [(0x10000, 0x20000)]);
    }

    #[test]
    fn only_pages_that_the_program_may_have_written_are_read() {
        let region = |line: &str| MemoryRegion::parse(line.as_bytes()).unwrap();
        let writable = region("10000-20000 rw-p 00000000 fe:01 5 /bin/app");
        let frozen = region("10000-20000 r--p 00000000 fe:01 5 /bin/app");
        let hidden = region("10000-20000 ---p 00000000 00:00 0");
        assert!([&writable, &frozen, &hidden].into_iter().all(is_scanned));
        assert!(!is_scanned(&region("10000-20000 r--p 00000000 00:00 0 [vvar]")));
        assert!(!is_scanned(&region("10000-20000 r--s 00000000 fe:01 5 /bin/app")));
        assert!(!is_scanned(&region("10000-200000000000 ---p 00000000 00:00 0")));
        assert!(has_contents(&writable, PRESENT | FILE_OR_SHARED) && has_contents(&writable, SWAPPED));
        assert!(has_contents(&frozen, PRESENT) && !has_contents(&frozen, PRESENT | FILE_OR_SHARED));
        assert!(!has_contents(&writable, SWAPPED | GUARD) && !has_contents(&hidden, 0));
    }

    #[test]
    fn mappings_of_the_tracker_are_cut_out_of_their_neighbours() {
        let region = MemoryRegion::parse(b"10000-20000 rw-p 00000000 00:00 0 ").unwrap();
        let cut = cut_out([region].into_iter(), &[(0x18000, 0x1000), (0x10000, 0x2000), (0x30000, 0x1000)]);
        let cut: Vec<_> = cut.iter().map(|piece| (piece.start, piece.end, piece.of_tracker)).collect();
        let expected = [
            (0x10000, 0x12000, true),
            (0x12000, 0x18000, false),
            (0x18000, 0x19000, true),
            (0x19000, 0x20000, false),
        ];
        assert_eq!(cut, expected);
    }
}
