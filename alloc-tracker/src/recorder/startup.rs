//! Starts what the environment asks for, usually at the first event of a process. In: the
//! environment. Out: a recording, a count, or nothing. Runs outside of the recorded part of the
//! hook: it may take locks that are the tracker's own.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::module_changes::ModuleRecorder;
use super::{counters, fork, session};
use crate::base::loader;
use crate::base::mode::{self, COUNT, WHOLE};
use crate::base::settings::{self, Wanted};
use crate::capture;
use crate::modules;
use crate::scope;

/// Reads the environment, unless that has happened already, and starts what the environment asks
/// for.
///
/// `counting` is true if the allocator was declared to count. `first_event` is true if an event is
/// waiting to become the first one of the recording.
#[cold]
pub(crate) fn decide(counting: bool, first_event: bool) {
    if PROGRESS.compare_exchange(NOT_BEGUN, BEGUN, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // The environment has been read, or is being read now: by another thread, or by the code
        // that this signal handler has interrupted.
        return;
    }
    if counting {
        mode::switch_on(COUNT);
    }
    match settings::wanted() {
        Wanted::Nothing => {}
        Wanted::Count => mode::switch_on(COUNT),
        Wanted::Trace(settings) => {
            // `start` has reported any error on stderr already; the host goes on.
            if session::start(&settings, first_event).is_ok() {
                mode::switch_on(WHOLE);
            }
        }
    }
    if first_event && mode::current() & COUNT != 0 {
        counters::set_counted_from_first_event();
    }
    mode::set_decided();
    PROGRESS.store(DONE, Ordering::Release);
}

/// Switches counting on, for a caller that is about to read counts.
pub(crate) fn start_counting() {
    if mode::is_undecided() {
        decide(false, false);
    }
    mode::switch_on(COUNT);
}

/// Prepares walks without a recording, for a scope that is about to begin.
pub(crate) fn prepare_scopes() {
    if mode::is_undecided() {
        decide(false, false);
    }
    if fork::is_fork() || scope::is_in_fork() {
        // Locks that a walk takes may be held by threads that do not exist here.
        scope::walk_by_platform();
        return;
    }
    if !ARE_WALKS_PREPARED.swap(true, Ordering::AcqRel) {
        loader::prepare();
        capture::warm_up();
    }
    modules::observe(&ModuleRecorder);
}

static ARE_WALKS_PREPARED: AtomicBool = AtomicBool::new(false);

static PROGRESS: AtomicU8 = AtomicU8::new(NOT_BEGUN);
const NOT_BEGUN: u8 = 0;
const BEGUN: u8 = 1;
const DONE: u8 = 2;
