//! What a line costs beside the heap. In: nothing but the kernel's own counts, asked for at every probe if the user wants
//! that. Out: an entry behind that of the probe. Some microseconds a probe, so it is off unless asked for.

use std::sync::atomic::{AtomicU8, Ordering};

use alloc_dump::record::{PageFaults, ResidentBytes};
use alloc_dump::thread_ring::Entry;

use super::thread_recorder::Enrolment;
use crate::base::settings::LineUsage;
use crate::base::sys::{self, ErrnoGuard};

/// What probes of the recording that begins now ask for.
pub(super) fn ask_for(wanted: LineUsage) {
    let bits = (u8::from(wanted.rss) * RSS) | (u8::from(wanted.faults) * FAULTS);
    ASKED.store(bits, Ordering::Relaxed);
}

/// Stores what the process and this thread have used so far, if that is wanted.
#[inline]
pub(super) fn note(enrolment: &mut Enrolment) {
    let asked = ASKED.load(Ordering::Relaxed);
    if asked != 0 {
        look(enrolment, asked);
    }
}

#[cold]
#[inline(never)]
fn look(enrolment: &mut Enrolment, asked: u8) {
    let _errno = ErrnoGuard::new();
    let rss = if asked & RSS == 0 { ResidentBytes::UNKNOWN } else { resident() };
    let (minor_faults, major_faults) =
        if asked & FAULTS == 0 { (PageFaults::UNKNOWN, PageFaults::UNKNOWN) } else { faults() };
    enrolment.store(0, |_| Entry::Usage { rss, minor_faults, major_faults });
}

/// Resident memory of the process, which the kernel counts in batches of some pages for each processor.
fn resident() -> ResidentBytes {
    let mut buffer = [0; 128];
    let statm = sys::read_file(c"/proc/self/statm", &mut buffer).unwrap_or_default();
    let field = statm.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let digits = field.iter().take_while(|byte| byte.is_ascii_digit());
    let pages = digits.fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    ResidentBytes::new(pages * sys::page_size())
}

/// Minor and major page faults of this thread.
fn faults() -> (PageFaults, PageFaults) {
    // SAFETY: all-zero is a valid `rusage`, and the call writes one to the given place.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    let number = |count: i64| PageFaults::new(count as u32);
    (number(usage.ru_minflt), number(usage.ru_majflt))
}

const RSS: u8 = 1;
const FAULTS: u8 = 2;
static ASKED: AtomicU8 = AtomicU8::new(0);
