//! Samples: what the kernel says about the process at one moment. In: `/proc` and `getrusage`. Out:
//! a [`Sample`]. Never allocates; a figure that the kernel does not give is 0.

use std::fmt::Write;

use alloc_dump::record::Sample;

use crate::base::sys::{self, FaultsOf, File, ProcessSize, RereadFile, Text};

/// The files that a sample is read from.
pub(super) struct SampleSources {
    /// The memory of the calling process. The drain process shares it with the host, so the figures
    /// are the host's.
    statm: RereadFile,
    status: RereadFile,
    /// In the drain process: the host's own files.
    host: Option<HostFiles>,
}

/// Files about the host, which the drain process reads.
struct HostFiles {
    statm: File,
    stat: File,
}

impl SampleSources {
    pub(super) const fn new() -> SampleSources {
        SampleSources {
            statm: RereadFile::new(c"/proc/self/statm"),
            status: RereadFile::new(c"/proc/self/status"),
            host: None,
        }
    }

    /// Closes the files, before another process opens its own.
    pub(super) fn close(&mut self) {
        self.statm.close();
        self.status.close();
    }

    /// Opens the files in the drain process of this host.
    pub(super) fn open_for_drain_process(&mut self, host: u32) {
        self.statm.open();
        self.status.open();
        self.host = HostFiles::open(host);
    }

    /// Calls `f` with the descriptor of each file that is open.
    pub(super) fn for_each_descriptor(&self, f: &mut dyn FnMut(i32)) {
        let own = [self.statm.fd(), self.status.fd()].into_iter().flatten();
        let hosts = self.host.iter().flat_map(|host| [host.statm.fd(), host.stat.fd()]);
        own.chain(hosts).for_each(f);
    }
}

impl HostFiles {
    fn open(host: u32) -> Option<HostFiles> {
        let open = |name: &str| {
            let mut path = Text::<64>::new();
            write!(path, "/proc/{host}/{name}").ok()?;
            Some(File::open(path.as_c_str()?, libc::O_RDONLY, 0).ok()?.move_to_high_fd())
        };
        Some(HostFiles { statm: open("statm")?, stat: open("stat")? })
    }

    /// Returns the minor and major page faults of the host. They are the tenth and the twelfth
    /// field, and the second field, a name in parentheses, may have spaces.
    fn page_faults(&self, buffer: &mut [u8]) -> Option<(u64, u64)> {
        let len = self.stat.read_from_start(buffer).ok()?;
        let text = buffer.get(..len)?;
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields = text.get(name_end + 1..)?.split(|byte| *byte == b' ').skip(1);
        let minor = fields.nth(7).map(sys::first_number)?;
        Some((minor, fields.nth(1).map(sys::first_number)?))
    }

    /// Whether the host executes another program, so that the drain process is alone with the
    /// memory of the old one.
    ///
    /// The sizes of the host and those of the calling process are the same as long as they share
    /// their memory. The host may map memory between two looks, so the own size is read twice. A
    /// host whose first thread has ended shows no size.
    fn executes_another_program(&self, own: &mut RereadFile, buffer: &mut [u8]) -> bool {
        for _ in 0..LOOKS {
            let before = ProcessSize::of_statm(own.read(buffer)).virtual_bytes;
            let Ok(len) = self.statm.read_from_start(buffer) else { return false };
            let host = ProcessSize::of_statm(buffer.get(..len).unwrap_or_default()).virtual_bytes;
            let after = ProcessSize::of_statm(own.read(buffer)).virtual_bytes;
            if host == 0 || host == before || host == after {
                return false;
            }
            if before == after {
                return true;
            }
        }
        false
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
    let (minor_faults, major_faults) = match &sources.host {
        Some(host) => host.page_faults(buffer).unwrap_or_default(),
        None => sys::page_faults(FaultsOf::Process),
    };
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
    let SampleSources { statm, host, .. } = sources;
    let is_replaced = host.as_ref().is_some_and(|host| host.executes_another_program(statm, buffer));
    (sample, if is_replaced { ProcessLife::Replaced } else { ProcessLife::Running })
}

/// Whether the recorded program still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessLife {
    /// The program runs.
    Running,
    /// The host executes another program.
    Replaced,
}

/// How often a host that maps memory all the time is compared.
const LOOKS: u32 = 4;
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
