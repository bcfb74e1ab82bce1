//! Samples: what the kernel says about the process at one moment. In: `/proc` and `getrusage`. Out:
//! a [`Sample`]. Never allocates; a figure that the kernel does not give is 0.

use alloc_dump::record::Sample;

use super::host;
use crate::base::sys::{self, FaultsOf, ProcessSize, RereadFile};

/// The files that a sample is read from.
pub(super) struct SampleSources {
    /// The memory of the calling process. The drain process shares it with the host, so the figures
    /// are the host's.
    statm: RereadFile,
    status: RereadFile,
}

impl SampleSources {
    pub(super) const fn new() -> SampleSources {
        SampleSources {
            statm: RereadFile::new(c"/proc/self/statm"),
            status: RereadFile::new(c"/proc/self/status"),
        }
    }

    /// Closes the files, before another process opens its own.
    pub(super) fn close(&mut self) {
        self.statm.close();
        self.status.close();
    }

    /// Opens the files.
    pub(super) fn open(&mut self) {
        self.statm.open();
        self.status.open();
    }

    /// Calls `f` with the descriptor of each file that is open.
    pub(super) fn for_each_descriptor(&self, f: &mut dyn FnMut(i32)) {
        [self.statm.fd(), self.status.fd()].into_iter().flatten().for_each(f);
    }
}

/// Takes a sample. That costs tens of microseconds, so the recorder takes one every [`INTERVAL_US`]
/// at most.
///
/// `buffer` has room for [`SCRATCH`] bytes. `table_bytes` is memory of the tracker that it has not
/// mapped, because it is part of the program's image.
pub(super) fn take(
    sources: &mut SampleSources,
    table_bytes: u64,
    buffer: &mut [u8],
) -> (Sample, ProcessLife) {
    let size = ProcessSize::of_statm(sources.statm.read(buffer));
    let (vsz, rss) = (size.virtual_bytes, size.resident_bytes);
    let status = sources.status.read(buffer);
    let kilobytes = |name: &[u8]| {
        let mut lines = status.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(name)).map_or(0, sys::first_number) * 1024
    };
    let (swap, peak_vsz, peak_rss) = (kilobytes(b"VmSwap:"), kilobytes(b"VmPeak:"), kilobytes(b"VmHWM:"));
    // In the drain process the host's faults are in a file.
    let (minor_faults, major_faults) =
        host::page_faults().unwrap_or_else(|| sys::page_faults(FaultsOf::Process));
    let sample = Sample {
        vsz,
        rss,
        swap,
        minor_faults,
        major_faults,
        tracker_bytes: sys::mapped_bytes() + table_bytes,
        // The kernel keeps these two maxima, so they include a peak between two samples.
        peak_vsz: peak_vsz.max(vsz),
        peak_rss: peak_rss.max(rss),
    };
    let life = if host::executes_another_program() { ProcessLife::Replaced } else { ProcessLife::Running };
    (sample, life)
}

/// Whether the recorded program still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessLife {
    /// The program runs.
    Running,
    /// The host executes another program.
    Replaced,
}

/// The most bytes that a file of a sample has.
pub(super) const SCRATCH: usize = 8192;
/// The timeline has at most one sample in this time.
pub(super) const INTERVAL_US: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process map and touch up to a hundred megabytes at the same time. The
    /// margins are several times that.
    #[test]
    fn a_sample_shows_memory_that_was_touched() {
        const MAPPED: usize = 2 << 30;
        const TOUCHED: usize = 768 << 20;
        const OTHERS: u64 = 256 << 20;
        let page = sys::page_size();
        let mut buffer = vec![0; SCRATCH];
        let mut sources = SampleSources::new();
        let mut take = || take(&mut sources, 0, &mut buffer).0;
        let before = take();
        let mut memory = vec![0u8; MAPPED];
        let mapped = take();
        memory[..TOUCHED].iter_mut().step_by(page as usize).for_each(|byte| *byte = 1);
        let touched = take();
        assert!(mapped.vsz + OTHERS >= before.vsz + MAPPED as u64, "{mapped:?} {before:?}");
        assert!(mapped.rss <= before.rss + OTHERS, "{mapped:?} {before:?}");
        assert!(touched.rss + OTHERS >= mapped.rss + TOUCHED as u64, "{touched:?} {mapped:?}");
        assert!(
            touched.minor_faults > mapped.minor_faults && touched.peak_rss >= touched.rss.min(mapped.rss)
        );
        assert!(memory.contains(&1));
    }
}
