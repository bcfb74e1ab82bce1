//! Reading the memory of a copy of a process through `/proc`. In: process ids. Out: regions,
//! threads, and the words that point into writable memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use alloc_dump::exchange::{CopyReport, MAX_REPORT_WORDS};
use alloc_dump::snapshot::{MemoryRegion, SnapshotThread, SnapshotWriter, Targets, scan_page};

use super::SnapshotTrouble;
use super::exchange::ProcessCopy;
use super::stopped::ThreadRegisters;

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
    /// Opens the memory of a copy of the process `host`.
    ///
    /// # Errors
    /// The kernel does not let this process read the copy's memory, or the copy has ended.
    pub(super) fn open(copy: &ProcessCopy, host: u32) -> Result<CopiedMemory, SnapshotTrouble> {
        let path = |name: &str| PathBuf::from(format!("/proc/{}/{name}", copy.pid));
        let refused = |name: &str, error: io::Error| SnapshotTrouble::Refused {
            what: path(name).display().to_string(),
            error,
        };
        let open = |name: &str| File::open(path(name)).map_err(|error| refused(name, error));
        // If memory gets short, the kernel shall end the copy and not the program.
        let _ = fs::write(path("oom_score_adj"), "1000");
        let memory = open("mem")?;
        let mut bytes = vec![0; 8 * MAX_REPORT_WORDS];
        memory.read_exact_at(&mut bytes, copy.report_address).map_err(|error| refused("mem", error))?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .filter_map(|word| word.first_chunk())
            .map(|w| u64::from_le_bytes(*w))
            .collect();
        let report = CopyReport::parse(&words).ok_or(SnapshotTrouble::Unknown)?;
        let maps = fs::read(path("maps")).map_err(|error| refused("maps", error))?;
        let regions = maps.split(|byte| *byte == b'\n').filter_map(MemoryRegion::parse);
        let regions = cut_out(regions, &report.tracker_mappings);
        Ok(CopiedMemory {
            memory,
            pagemap: open("pagemap")?,
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

/// Where a thread was at one moment: its stack pointer and its program counter.
type ThreadPlace = Option<(u64, u64)>;

/// The threads of a process at one moment.
#[derive(Default)]
pub(super) struct ThreadPlaces {
    /// Kernel id, name, and place, if the thread was in a system call.
    threads: Vec<(u32, Vec<u8>, ThreadPlace)>,
    /// The registers of all threads, if they stood still from this moment until the copy was made.
    registers: Option<Vec<ThreadRegisters>>,
}

impl ThreadPlaces {
    /// Looks where the threads of a process are.
    pub(super) fn look(pid: u32) -> ThreadPlaces {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let name = fs::read(entry.path().join("comm")).unwrap_or_default().trim_ascii_end().to_vec();
            let place = fs::read_to_string(entry.path().join("syscall")).ok().and_then(|text| place(&text));
            threads.push((tid, name, place));
        }
        ThreadPlaces { threads, registers: None }
    }

    /// Notes the registers of all threads.
    pub(super) fn set_registers(&mut self, registers: Option<Vec<ThreadRegisters>>) {
        self.registers = registers;
    }

    /// Whether the registers of all threads are known.
    pub(super) fn have_registers(&self) -> bool {
        self.registers.is_some()
    }

    /// Returns the threads of a copy that was made between this look and a `later` one. A stack
    /// pointer is known if the thread was in the same system call all the time.
    pub(super) fn threads_between(&self, later: &ThreadPlaces, report: &CopyReport) -> Vec<SnapshotThread> {
        if let Some(registers) = &self.registers {
            return registers.iter().map(|registers| self.stopped_thread(registers)).collect();
        }
        let mut threads = Vec::new();
        for (tid, name, after) in &later.threads {
            let before = self.threads.iter().find(|(id, ..)| id == tid).and_then(|(.., place)| *place);
            let is_same = before.is_some() && before == *after;
            let reported = report.threads.iter().find(|thread| thread.tid == *tid);
            threads.push(SnapshotThread {
                tid: *tid,
                name: name.clone(),
                stack_pointer: before.filter(|_| is_same).map(|(stack_pointer, _)| stack_pointer),
                thread_pointer: reported.map_or(0, |thread| thread.thread_pointer),
                registers: None,
            });
        }
        // Threads that have ended since the copy was made: their stacks are roots as a whole.
        for reported in &report.threads {
            if threads.iter().all(|thread| thread.tid != reported.tid) {
                threads.push(SnapshotThread {
                    tid: reported.tid,
                    thread_pointer: reported.thread_pointer,
                    ..SnapshotThread::default()
                });
            }
        }
        threads
    }
}

impl ThreadPlaces {
    fn stopped_thread(&self, registers: &ThreadRegisters) -> SnapshotThread {
        let named = self.threads.iter().find(|(tid, ..)| *tid == registers.tid);
        SnapshotThread {
            tid: registers.tid,
            name: named.map(|(_, name, _)| name.clone()).unwrap_or_default(),
            stack_pointer: Some(registers.stack_pointer),
            thread_pointer: registers.thread_pointer,
            registers: Some(registers.general.clone()),
        }
    }
}

/// Reads the stack pointer and the program counter in `/proc/PID/task/TID/syscall`. `None` if the
/// thread is running.
fn place(text: &str) -> ThreadPlace {
    let mut fields = text.split_whitespace().rev();
    let mut hex = || u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok();
    let (program_counter, stack_pointer) = (hex()?, hex()?);
    Some((stack_pointer, program_counter))
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

    #[test]
    fn a_thread_in_a_system_call_has_a_stack_pointer() {
        assert_eq!(place("running\n"), None);
        let blocked = "230 0x1 0x0 0x7f 0x0 0x0 0x0 0x7ffc1000 0x7f2000\n";
        assert_eq!(place(blocked), Some((0x7ffc_1000, 0x7f_2000)));
        assert_eq!(place("-1 0x7ffc1000 0x7f2000"), Some((0x7ffc_1000, 0x7f_2000)));
    }
}
