//! Resident memory and page faults for the lines of annotated functions. In: the kernel's own
//! counts, read at every probe if the user asks for them. Out: an entry behind that of the probe.
//! Reading costs some microseconds a probe, so it is off by default. Never allocates.

use std::sync::atomic::{AtomicU8, Ordering};

use alloc_dump::record::{PageFaults, ResidentBytes};
use alloc_dump::thread_ring::Entry;

use super::thread_recorder::ThreadRecorder;
use crate::base::settings::LineUsage;
use crate::base::sys::{self, FaultsOf, ProcessSize};

/// Sets what the probes of the recording that begins ask the kernel for.
pub(super) fn set_wanted(wanted: LineUsage) {
    let bits = (u8::from(wanted.rss) * RSS) | (u8::from(wanted.faults) * FAULTS);
    WANTED.store(bits, Ordering::Relaxed);
}

/// Records the resident memory of the process and the page faults of this thread, as far as the
/// user wants them.
#[inline]
pub(super) fn record_if_wanted(recorder: &mut ThreadRecorder) {
    let wanted = WANTED.load(Ordering::Relaxed);
    if wanted != 0 {
        record(recorder, wanted);
    }
}

#[cold]
#[inline(never)]
fn record(recorder: &mut ThreadRecorder, wanted: u8) {
    let rss = if wanted & RSS == 0 { ResidentBytes::UNKNOWN } else { resident_bytes() };
    let (minor_faults, major_faults) =
        if wanted & FAULTS == 0 { (PageFaults::UNKNOWN, PageFaults::UNKNOWN) } else { page_faults() };
    recorder.store(0, |_| Entry::Usage { rss, minor_faults, major_faults });
}

/// Returns the resident set of the process.
fn resident_bytes() -> ResidentBytes {
    let mut buffer = [0; 128];
    let statm = sys::read_file(c"/proc/self/statm", &mut buffer).unwrap_or_default();
    ResidentBytes::new(ProcessSize::of_statm(statm).resident_bytes)
}

/// Returns the minor and major page faults of this thread.
fn page_faults() -> (PageFaults, PageFaults) {
    let (minor, major) = sys::page_faults(FaultsOf::Thread);
    // Readers take differences only, so the lower half of a count is enough.
    (PageFaults::new(minor as u32), PageFaults::new(major as u32))
}

const RSS: u8 = 1;
const FAULTS: u8 = 2;
/// The figures that are wanted: bits [`RSS`] and [`FAULTS`].
static WANTED: AtomicU8 = AtomicU8::new(0);
