//! What the recorder does when code appears or vanishes. Called under the lock of the modules.

use super::current::with_stream;
use crate::base::epoch;
use crate::capture;
use crate::modules::{ModuleChange, ModuleObserver};

/// Writes changes of the modules into the recording.
pub(super) struct ModuleRecorder;

impl ModuleObserver for ModuleRecorder {
    fn generation_begins(&self) {
        // In this order: a thread that sees the new generation forgets what it knew, and must find
        // no old unwind rule any more.
        capture::forget_rules();
        epoch::next_generation();
    }

    fn module_changed(&self, change: &ModuleChange<'_>) {
        with_stream(|stream| stream.record_module_change(change));
    }
}
