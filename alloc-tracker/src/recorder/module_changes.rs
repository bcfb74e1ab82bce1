//! What the recorder does when code appears or vanishes. In: changes, from the scan of the modules.
//! Out: records, and a new generation. Called under the lock of the modules, except
//! `scan_elsewhere`, so it must not call `modules`.

use super::current::{with_stream, with_stream_as_drainer};
use super::drainer::{self, Request};
use crate::base::epoch;
use crate::capture;
use crate::modules::{ModuleChange, ModuleObserver};

/// Writes changes of the modules into the recording.
pub(super) struct ModuleRecorder;

impl ModuleObserver for ModuleRecorder {
    fn generation_begins(&self) {
        // The order matters: a thread that sees the new generation forgets its walks and shortcuts,
        // and must then find no old unwind rule.
        capture::forget_rules();
        epoch::next_generation();
    }

    fn scan_elsewhere(&self) -> bool {
        // The program may have forbidden itself to open files, or have left the root of `/proc`.
        drainer::is_running() && drainer::ask(Request::ScanModules)
    }

    fn scanner_was_killed(&self) -> bool {
        drainer::was_killed()
    }

    fn module_changed(&self, change: &ModuleChange<'_>) {
        if drainer::is_host() {
            with_stream(|stream| stream.record_module_change(change));
        } else {
            with_stream_as_drainer(|stream| stream.record_module_change(change));
        }
    }
}
