//! Whether the tracker is the global allocator of the program, and of which part of its code.
//!
//! In: the first event of the process, and the allocations that `api` makes as trials. Out: an
//! [`Installation`]. The hook only calls [`note_first_event`] and [`take_trial`], which neither
//! lock nor allocate; everything else runs outside of the hook.
//!
//! All code that is linked into one file calls the same allocator, because the linker binds
//! `__rust_alloc` once for each file. So one event proves that the tracker serves all code of the
//! file that the event came from:
//!
//! ```text
//! usual program      one file: the program, this crate, std.
//!                    An event from anywhere: complete. No event: nothing is proven yet.
//! -C prefer-dynamic  two files: the program with this crate, and libstd-….so.
//!                    An event from the program says nothing about std.
//! ```
//!
//! Where the first event proves nothing, `api` makes a *trial*: it allocates a block, looks whether
//! that allocation reaches the hook, and frees the block. A trial is neither counted nor recorded.
//! Most programs never need one, which matters to an allocator that is wrapped around the tracker:
//! that allocator counts the trial.

use std::cell::Cell;
use std::fmt::Write;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use alloc_dump::record::Installation;

use super::current::with_stream;
use crate::base::loader::module_base;
use crate::base::mode::{self, RECORD};
use crate::base::sys::{BlockedSignals, ErrnoGuard};

/// An allocation that tells by its way whether a part of the code is served by the tracker. It may
/// ask whether an allocation has reached the hook already.
type Trial = fn(&TrialThread);

/// Whether the tracker is known to be the global allocator of all code. One relaxed load.
#[inline]
pub(crate) fn is_installation_complete() -> bool {
    KNOWN.load(Ordering::Relaxed) == COMPLETE
}

/// Finds out how far the tracker is installed, unless that is known. `here` allocates in code of
/// this crate, `in_std` in code of the standard library.
pub(crate) fn find_installation(here: Trial, in_std: Trial) -> Installation {
    if let Some(installation) = known_installation() {
        return installation;
    }
    let _errno = ErrnoGuard::new();
    let files = CodeFiles::look_up();
    let own = files.first_event == Some(files.own) || reaches_hook(here);
    let std = match files.std == files.own {
        true => own,
        false => files.first_event == Some(files.std) || reaches_hook(in_std),
    };
    let installation = match (own, std) {
        (true, true) => Installation::Complete,
        (false, false) if files.first_event.is_none() => Installation::Missing,
        _ => Installation::Partial,
    };
    set_known(installation);
    if mode::current() & RECORD != 0 {
        // The recording has begun with what was known then.
        with_stream(|stream| stream.record_installation(installation));
    }
    installation
}

/// Returns what a recording that begins now says about the installation. Makes no trial: it may be
/// the first event of the process that begins the recording.
pub(super) fn installation_of_recording() -> Installation {
    known_installation().unwrap_or(Installation::Partial)
}

/// Notes the code that the first event of the process came from. Called by the hook.
#[cold]
pub(crate) fn note_first_event(caller: u64) {
    let _ = FIRST_CALLER.compare_exchange(NO_EVENT, caller, Ordering::Relaxed, Ordering::Relaxed);
}

/// Whether the calling thread is making a trial, so that its events are not to be counted. Notes
/// that the trial has reached the hook. Called by the hook.
#[cold]
pub(crate) fn take_trial() -> bool {
    let note = |state: &Cell<u8>| {
        let is_in_trial = state.get() != NOT_IN_TRIAL;
        if is_in_trial {
            state.set(HAS_REACHED_HOOK);
        }
        is_in_trial
    };
    TRIAL_STATE.try_with(note).unwrap_or(false)
}

/// Proof that the calling thread is making a trial.
pub(crate) struct TrialThread {
    // NOTE: an event of a signal handler would be taken for the trial.
    _no_handler_runs: BlockedSignals,
}

impl TrialThread {
    fn begin() -> TrialThread {
        let trial = TrialThread { _no_handler_runs: BlockedSignals::all() };
        TRIAL_STATE.with(|state| state.set(IN_TRIAL));
        mode::begin_trial();
        trial
    }

    /// Whether an allocation of the trial has reached the hook.
    pub(crate) fn has_reached_hook(&self) -> bool {
        TRIAL_STATE.with(Cell::get) == HAS_REACHED_HOOK
    }
}

impl Drop for TrialThread {
    fn drop(&mut self) {
        mode::end_trial();
        TRIAL_STATE.with(|state| state.set(NOT_IN_TRIAL));
    }
}

fn reaches_hook(trial: Trial) -> bool {
    let thread = TrialThread::begin();
    trial(&thread);
    thread.has_reached_hook()
}

/// Returns the installation if it is known, or if the first event proves it.
fn known_installation() -> Option<Installation> {
    match KNOWN.load(Ordering::Relaxed) {
        COMPLETE => return Some(Installation::Complete),
        PARTIAL => return Some(Installation::Partial),
        MISSING if FIRST_CALLER.load(Ordering::Relaxed) == NO_EVENT => return Some(Installation::Missing),
        // A tracker that serves single collections may have its first event after the trials.
        _ => {}
    }
    let _errno = ErrnoGuard::new();
    let files = CodeFiles::look_up();
    let proven = files.first_event == Some(files.own) && files.std == files.own;
    proven.then(|| {
        set_known(Installation::Complete);
        Installation::Complete
    })
}

fn set_known(installation: Installation) {
    let known = match installation {
        Installation::Complete => COMPLETE,
        Installation::Partial => PARTIAL,
        _ => MISSING,
    };
    KNOWN.store(known, Ordering::Relaxed);
}

/// The files that parts of the code are in, each by the address at which it is mapped.
#[derive(Debug)]
struct CodeFiles {
    /// The file with this crate.
    own: u64,
    /// The file with the standard library.
    std: u64,
    /// The file that the first event came from; `None` if there was no event yet.
    first_event: Option<u64>,
}

impl CodeFiles {
    /// Asks the loader. NOTE: a static program has no loader that knows an answer; then all three
    /// are 0, and equal.
    fn look_up() -> CodeFiles {
        let first_event = FIRST_CALLER.load(Ordering::Relaxed);
        CodeFiles {
            own: module_base((&raw const KNOWN).addr() as u64),
            std: module_base(address_in_std()),
            first_event: (first_event != NO_EVENT).then(|| module_base(first_event)),
        }
    }
}

/// Returns the address of a text that the standard library keeps. NOTE: not of one of its
/// functions. In a program at a fixed address that would be the address of a jump to the function,
/// and the jump is in the program's own file.
fn address_in_std() -> u64 {
    struct LastText(u64);
    impl Write for LastText {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 = text.as_ptr().addr() as u64;
            Ok(())
        }
    }
    let mut text = LastText(0);
    // The text of an error is written as it is, so this allocates nothing and cannot fail.
    let _ = write!(text, "{}", ErrorKind::NotFound);
    text.0
}

thread_local! {
    static TRIAL_STATE: Cell<u8> = const { Cell::new(NOT_IN_TRIAL) };
}

const NOT_IN_TRIAL: u8 = 0;
const IN_TRIAL: u8 = 1;
const HAS_REACHED_HOOK: u8 = 2;

/// An address in the code that the first event of the process came from, or [`NO_EVENT`].
static FIRST_CALLER: AtomicU64 = AtomicU64::new(NO_EVENT);
/// No code is at address 0.
const NO_EVENT: u64 = 0;

static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const MISSING: u8 = 1;
const PARTIAL: u8 = 2;
const COMPLETE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program has no global allocator of its own and is linked with std.
    #[test]
    fn code_of_this_crate_and_of_std_are_in_one_file_and_the_c_library_in_another() {
        let files = CodeFiles::look_up();
        assert_eq!((files.own, files.first_event), (files.std, None));
        let of_libc = module_base(libc::getpid as unsafe extern "C" fn() -> i32 as usize as u64);
        assert!(files.own != 0 && of_libc != files.own, "{files:x?} {of_libc:x}");
    }

    #[test]
    fn a_trial_is_seen_by_the_thread_that_makes_it_alone() {
        assert!(!take_trial());
        let seen = reaches_hook(|thread| {
            assert!(!thread.has_reached_hook());
            assert!(!std::thread::scope(|scope| scope.spawn(take_trial).join().unwrap()));
            assert!(mode::is_in_trial() && take_trial() && thread.has_reached_hook());
        });
        assert!(seen && !take_trial());
        assert!(!reaches_hook(|_| {}));
    }
}
