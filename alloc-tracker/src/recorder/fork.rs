//! Which process records. In: the beginning of a recording. Out: whether this process is the
//! recording one or a fork of it. A forked child has a copy of everything in memory, the parent's
//! recording included, and must not touch the parent's dump.
//!
//! The parent and the child must be told apart at every event, and asking the kernel for the
//! process id costs 150 ns. So the recording process keeps a page of its own, the *mark*, which the
//! kernel replaces with zeros in a child:
//!
//! ```text
//! parent: set_recording_process()   mark = 1
//!         fork()               parent's mark = 1     child's mark = 0   (MADV_WIPEONFORK)
//! child:  is_recorders_process() reads 0: "not my recording"
//!         the child begins a recording of its own:   child's mark = 1
//! ```
//!
//! Where the kernel cannot wipe pages (before 4.14), the process id is compared instead.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::base::sys::{self, Mapping};

/// Whether this process is the one that has begun the recording.
#[inline(always)]
pub(super) fn is_recorders_process() -> bool {
    let mark = MARK.load(Ordering::Acquire);
    if mark.is_null() {
        return is_recorders_pid();
    }
    // SAFETY: the mark's page is never unmapped; in a forked child the kernel replaces it with
    // zeros.
    let mark = unsafe { &*mark };
    mark.load(Ordering::Relaxed) != 0
}

/// Whether the process id is that of the recording process: for kernels without such pages.
///
/// PERF: not inlined, so that the check needs no additional register in the code around it.
#[cold]
#[inline(never)]
fn is_recorders_pid() -> bool {
    PID.load(Ordering::Relaxed) == sys::pid()
}

/// Whether another process has begun a recording, and this process is a fork of it.
pub(super) fn is_fork() -> bool {
    PID.load(Ordering::Relaxed) != 0 && !is_recorders_process()
}

/// Whether another process has begun a recording. Asks the kernel for the process id, so the answer
/// does not depend on the mark.
pub(super) fn is_recorded_by_other_process() -> bool {
    let recorder = PID.load(Ordering::Relaxed);
    recorder != 0 && recorder != sys::pid()
}

/// Whether this is the first call in this process. Of several threads that notice the fork at the
/// same time, one gets true.
pub(super) fn is_first_to_notice() -> bool {
    let pid = sys::pid();
    NOTICED_BY.swap(pid, Ordering::AcqRel) != pid
}

/// Makes this process the one that records. Called under the session's lock.
pub(super) fn set_recording_process() {
    PID.store(sys::pid(), Ordering::Relaxed);
    let mark = MARK.load(Ordering::Relaxed);
    if !mark.is_null() {
        // SAFETY: the mark is never unmapped. It is zero in a child that is about to record.
        unsafe { (*mark).store(1, Ordering::Relaxed) };
        return;
    }
    if let Some(page) = Mapping::anonymous(sys::page_size() as usize).ok().filter(Mapping::wipe_on_fork) {
        let mark = page.leak().cast::<AtomicU32>();
        // SAFETY: a zeroed page, aligned and large enough; zero is a valid value.
        unsafe { (*mark).store(1, Ordering::Relaxed) };
        MARK.store(mark, Ordering::Release);
    }
}

/// Forgets which process records, in a child that is about to record for itself.
pub(super) fn clear_recording_process() {
    PID.store(0, Ordering::Relaxed);
}

/// The first word of a page that a child does not inherit; null before the first recording. PERF:
/// the check is two loads.
#[unsafe(link_section = "alloc_tracker_hot")]
static MARK: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
/// The process that records; 0 before the first recording.
static PID: AtomicU32 = AtomicU32::new(0);
/// The last process that has noticed that it is a fork.
static NOTICED_BY: AtomicU32 = AtomicU32::new(0);
