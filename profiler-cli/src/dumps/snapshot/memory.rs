//! Reading the memory of a copy of a process through `/proc`. In: process ids. Out: regions, and
//! the words that point into writable memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use alloc_dump::exchange::{CopyReport, MAX_REPORT_WORDS};
use alloc_dump::snapshot::{MemoryRegion, SnapshotWriter, Targets, scan_page};

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
        let regions = cut_out(mappings_in(&maps), &report.tracker_mappings);
        Ok(CopiedMemory {
            memory,
            pagemap: process.open_file("pagemap")?,
            host_pagemap: File::open(format!("/proc/{host}/pagemap")).ok(),
            report,
            regions,
        })
    }

    /// Writes each word that points into writable memory of the program, and the ranges that cannot
    /// be read.
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
                    self.write_range(writer, &targets, range, &mut buffer)?;
                }
                at += pages * page;
            }
        }
        Ok(())
    }

    /// Returns the ranges of `pages` pages from `start` on that have contents.
    fn present(&self, region: &MemoryRegion, start: u64, pages: u64, page: u64) -> Vec<(u64, u64)> {
        let pagemap = if region.shared { self.host_pagemap.as_ref() } else { Some(&self.pagemap) };
        let mut entries = vec![0; 8 * pages as usize];
        let is_read = pagemap.is_some_and(|file| file.read_exact_at(&mut entries, start / page * 8).is_ok());
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (index, entry) in entries.chunks_exact(8).enumerate() {
            let entry = entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            // Without the map of pages, all pages are read: that costs time only.
            if is_read && entry & (PRESENT | SWAPPED) == 0 {
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

    fn write_range<W: io::Write>(
        &self,
        writer: &mut SnapshotWriter<W>,
        targets: &Targets,
        (start, end): (u64, u64),
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let mut at = start;
        while at < end {
            let len = (end - at).min(CHUNK);
            let bytes = &mut buffer[..len as usize];
            if self.memory.read_exact_at(bytes, at).is_err() {
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
}

/// Reads the report at an address. `None` if there is another thing.
fn read_report(memory: &File, address: u64) -> io::Result<Option<CopyReport>> {
    let mut bytes = vec![0; 8 * MAX_REPORT_WORDS];
    memory.read_exact_at(&mut bytes, address)?;
    let words = bytes.chunks_exact(8).filter_map(|word| word.first_chunk());
    let words: Vec<u64> = words.map(|word| u64::from_le_bytes(*word)).collect();
    Ok(CopyReport::parse(&words))
}

/// Whether the words of a region belong to a snapshot.
fn is_scanned(region: &MemoryRegion) -> bool {
    region.readable && region.writable && !region.of_tracker
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
/// Pages that are looked up at once.
const PAGES_AT_ONCE: u64 = 1 << 15;
/// Bytes that are read at once.
const CHUNK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

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
