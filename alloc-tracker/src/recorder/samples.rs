//! Samples: what the kernel says about the process at one moment. In: `/proc/self` and `getrusage`.
//! Out: a [`Sample`]. Never allocates; a figure that the kernel does not give is 0.

use alloc_dump::record::Sample;

use crate::base::sys::{self, FaultsOf, ProcessSize, RereadFile};

/// The files that a sample is read from.
pub(super) struct SampleSources {
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
    // The first thread has ended without ending the process, and the only other thread takes this
    // sample: it is the drain thread.
    let is_over = status.windows(b"\nState:\tZ".len()).any(|text| text == b"\nState:\tZ")
        && status.windows(b"\nThreads:\t2\n".len()).any(|text| text == b"\nThreads:\t2\n");
    let (minor_faults, major_faults) = sys::page_faults(FaultsOf::Process);
    let sample = Sample {
        vsz,
        rss,
        swap: kilobytes(b"VmSwap:"),
        minor_faults,
        major_faults,
        tracker_bytes: sys::mapped_bytes() + table_bytes,
        // The kernel keeps these two maxima, so they include a peak between two samples.
        peak_vsz: kilobytes(b"VmPeak:").max(vsz),
        peak_rss: kilobytes(b"VmHWM:").max(rss),
    };
    (sample, if is_over { ProcessLife::Over } else { ProcessLife::Running })
}

/// Whether threads of the program are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessLife {
    /// Threads of the program are running.
    Running,
    /// All threads of the program have ended; the drain thread alone keeps the process alive.
    Over,
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
