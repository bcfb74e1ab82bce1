//! Measures how fast dumps are read. In: a number of events. Out: what `profiler-cli summary` used
//! for a dump of that many events.
//!
//! The dump is generated here: addresses are freed and used again, sizes and stacks repeat, and new
//! stacks appear now and then.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use alloc_dump::header::Header;
use alloc_dump::layout::{FRAME_HEADER_LEN, StackId};
use alloc_dump::record::Record;
use alloc_dump::trailer::{EndReason, Totals, Trailer};
use alloc_dump::write::{Encoder, seal_trailer};
use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde::Serialize;

use crate::cli::Options;
use crate::launch::{self, Cores, Usage};
use crate::programs::Programs;

/// What loading a dump used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Loading {
    pub(crate) events: u64,
    pub(crate) dump_bytes: u64,
    #[serde(flatten)]
    pub(crate) usage: Usage,
}

impl Loading {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 * 1e9 / self.usage.wall_ns.max(1) as f64
    }
}

/// Whether the flags choose this measurement.
pub(crate) fn chosen(options: &Options) -> bool {
    options.wants_workload("loading") && options.wants_tool("trace")
}

/// Generates a dump and runs `profiler-cli summary` on it, on one core.
pub(crate) fn measure(programs: &Programs, events: u64) -> Result<Loading> {
    let folder = tempfile::tempdir()?;
    let dump = folder.path().join("generated.alloc");
    eprintln!("loading: a dump of {events} events");
    let totals = generate(&dump, events).with_context(|| dump.display().to_string())?;
    let mut command = Command::new(programs.path("profiler-cli")?);
    command.args(["summary", "--json"]).arg(&dump);
    let usage = launch::run(&command, Cores::One, folder.path())?;
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("stdout"))?)?;
    ensure!(
        summary["allocations"] == totals.allocations && summary["exact"] == true,
        "the summary of the generated dump is wrong: {}",
        summary["warnings"]
    );
    Ok(Loading { events, dump_bytes: dump.metadata()?.len(), usage })
}

/// Writes a dump of so many events, and returns their totals.
fn generate(path: &Path, events: u64) -> Result<Totals> {
    let mut dump = Dump::create(path)?;
    let mut rng = Rng::with_seed(1);
    let mut live: Vec<(u64, u64)> = Vec::new();
    let mut heap = Heap::default();
    let mut totals = Totals::default();
    let (mut us, mut next_stack) = (0, StackId::FIRST.0);
    dump.push(&Record::Thread { id: 1 })?;
    for event in 0..events {
        if rng.u32(..16) == 0 {
            us += rng.u64(1..8);
            dump.push(&Record::Time { us })?;
        }
        if event == 0 || rng.u32(..STACK_EVERY) == 0 {
            let parent = StackId(next_stack.saturating_sub(rng.u32(..STACKS_IN_USE)));
            let parent =
                if parent.0 < StackId::FIRST.0 || parent.0 == next_stack { StackId::ROOT } else { parent };
            let pc = 0x5555_0000_0000 + rng.u64(..0x10_0000);
            dump.push(&Record::Node { id: StackId(next_stack), parent, pc })?;
            next_stack += 1;
        }
        let stack =
            StackId(rng.u32(next_stack.saturating_sub(STACKS_IN_USE).max(StackId::FIRST.0)..next_stack));
        let kind = if live.is_empty() { 15 } else { rng.u32(..16) };
        if kind < 7 || live.len() == MOST_LIVE {
            let (addr, size) = live.swap_remove(rng.usize(..live.len()));
            dump.push(&Record::Dealloc { addr, size: None, stack })?;
            heap.free(addr);
            totals.deallocations += 1;
            totals.freed_bytes += size;
            continue;
        }
        let most = 16 << (4 * rng.u32(..3));
        let size = 8 + rng.u64(..most);
        let new = heap.allocate();
        totals.allocated_bytes += size;
        if kind == 7 {
            let index = rng.usize(..live.len());
            let (old, old_size) = std::mem::replace(&mut live[index], (new, size));
            dump.push(&Record::Realloc { old, old_size: None, new, size, stack })?;
            heap.free(old);
            totals.reallocations += 1;
            totals.freed_bytes += old_size;
        } else {
            live.push((new, size));
            dump.push(&Record::Alloc { addr: new, size, stack, zeroed: false })?;
            totals.allocations += 1;
        }
    }
    dump.finish(us, totals)?;
    Ok(totals)
}

/// Addresses of blocks. The address that was freed last is used first.
#[derive(Default)]
struct Heap {
    free: Vec<u64>,
    used: u64,
}

impl Heap {
    fn allocate(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            0x7F00_0000_0000 + self.used * BLOCK
        })
    }

    fn free(&mut self, address: u64) {
        self.free.push(address);
    }
}

/// A dump file that is being written.
struct Dump {
    file: BufWriter<File>,
    buffer: Vec<u8>,
    encoder: Encoder,
    frames: u32,
}

impl Dump {
    fn create(path: &Path) -> Result<Dump> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&Header { session: [7; 16], created_unix_ns: 0 }.encode())?;
        Ok(Dump { file, buffer: vec![0; FRAME], encoder: Encoder::new(), frames: 0 })
    }

    fn push(&mut self, record: &Record<'_>) -> Result<()> {
        if self.encoder.push(&mut self.buffer, record).is_err() {
            self.seal()?;
            let pushed = self.encoder.push(&mut self.buffer, record);
            ensure!(pushed.is_ok(), "a record does not fit into an empty frame");
        }
        Ok(())
    }

    /// Writes the current dump frame to the file.
    fn seal(&mut self) -> Result<()> {
        let len = self.encoder.seal(&mut self.buffer, self.frames);
        self.file.write_all(&self.buffer[..len])?;
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self, duration_us: u64, totals: Totals) -> Result<()> {
        self.seal()?;
        let mut last = [0; FRAME_HEADER_LEN + 256];
        let trailer = Trailer { totals: Some(totals), ..Trailer::new(EndReason::Finished, duration_us) };
        let len = seal_trailer(&mut last, self.frames, &trailer).context("no room for the trailer")?;
        self.file.write_all(&last[..len])?;
        Ok(self.file.flush()?)
    }
}

/// Bytes of a dump frame: as many as in the recorder.
const FRAME: usize = 256 << 10;
/// Bytes from one address to the next.
const BLOCK: u64 = 16;
const MOST_LIVE: usize = 100_000;
/// Events from one new stack to the next, on average.
const STACK_EVERY: u32 = 1000;
/// Number of the latest stacks from which events come.
const STACKS_IN_USE: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc_dump::read::Reader;

    #[test]
    fn a_generated_dump_is_complete_and_has_the_requested_number_of_events() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let totals = generate(&path, 5000).unwrap();
        assert_eq!(totals.allocations + totals.deallocations + totals.reallocations, 5000);

        let mut reader = Reader::new(File::open(&path).unwrap()).unwrap();
        let mut events = 0;
        while let Some(records) = reader.next_frame().unwrap() {
            events += records
                .filter(|record| {
                    matches!(record, Record::Alloc { .. } | Record::Dealloc { .. } | Record::Realloc { .. })
                })
                .count();
        }
        assert_eq!(events, 5000);
        assert!(reader.complete());
    }

    #[test]
    fn the_speed_is_events_divided_by_wall_time() {
        let usage = Usage { wall_ns: 500_000_000, ..Usage::default() };
        assert_eq!(Loading { events: 1000, dump_bytes: 1, usage }.events_per_second(), 2000.0);
    }
}
