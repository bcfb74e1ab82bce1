//! The state of the process as the kernel accounts for it. In: `/proc/self` and `getrusage`. Out: a [`Sample`].
//! Allocates nothing; what the kernel does not tell is 0.

use alloc_dump::record::Sample;

use crate::base::sys::{self, RereadFile};
use crate::capture;

/// Where the kernel says it.
pub(crate) struct Sources {
    statm: RereadFile,
    status: RereadFile,
}

impl Sources {
    pub(crate) const fn new() -> Sources {
        Sources { statm: RereadFile::new(c"/proc/self/statm"), status: RereadFile::new(c"/proc/self/status") }
    }
}

/// Reads it now. Costs tens of microseconds, so the recorder does it every [`INTERVAL_US`] at most.
/// `buffer` has room for [`SCRATCH`] bytes.
pub(crate) fn take(sources: &mut Sources, page_size: u64, buffer: &mut [u8]) -> (Sample, Life) {
    // statm: total and resident size, in pages.
    let statm = sources.statm.read(buffer);
    let mut pages = statm.split(|byte| *byte == b' ').map(|field| parse(field) * page_size);
    let (vsz, rss) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    let status = sources.status.read(buffer);
    let kilobytes = |name: &[u8]| {
        let mut lines = status.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(name)).map_or(0, parse) * 1024
    };
    // The first thread has ended without ending the process, and besides it there is only the one that asks.
    let over = status.windows(b"\nState:\tZ".len()).any(|text| text == b"\nState:\tZ")
        && status.windows(b"\nThreads:\t2\n".len()).any(|text| text == b"\nThreads:\t2\n");
    // SAFETY: all-zero is a valid `rusage`, and the call writes one to the given place.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let sample = Sample {
        vsz,
        rss,
        swap: kilobytes(b"VmSwap:"),
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
        tracker_bytes: sys::mapped_bytes() + capture::RULE_TABLE_BYTES,
        // Kept by the kernel, so what comes and goes between two samples is in them.
        peak_vsz: kilobytes(b"VmPeak:").max(vsz),
        peak_rss: kilobytes(b"VmHWM:").max(rss),
    };
    (sample, if over { Life::Over } else { Life::GoesOn })
}

/// Whether the process is only kept alive by whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Threads of the program are running.
    GoesOn,
    /// All threads of the program have ended.
    Over,
}

/// What the files that it reads need at most.
pub(crate) const SCRATCH: usize = 8192;
/// The timeline has at most one sample in this time.
pub(crate) const INTERVAL_US: u64 = 10_000;

/// The first number in `text`.
fn parse(text: &[u8]) -> u64 {
    let digits =
        text.iter().skip_while(|byte| !byte.is_ascii_digit()).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process map and touch memory at the same time, up to a hundred megabytes: the margins are
    /// several times that.
    #[test]
    fn touching_memory_shows_in_it() {
        const MAPPED: usize = 2 << 30;
        const TOUCHED: usize = 768 << 20;
        const OTHERS: u64 = 256 << 20;
        let page = sys::page_size();
        let mut buffer = vec![0; SCRATCH];
        let mut sources = Sources::new();
        let mut take = || take(&mut sources, page, &mut buffer).0;
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
