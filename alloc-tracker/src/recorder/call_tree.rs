//! The call tree of the recording that runs, and the journal of its new nodes. In: (parent node,
//! return address). Out: the node, which is in the sidecar before any thread can use its id.

use alloc_dump::layout::StackId;

use super::current;
use crate::base::epoch::RecordingId;
use crate::capture;
use crate::modules;
use crate::output::sidecar;
use crate::tree::{InternError, Journal, Parent, Tree};

/// The call tree of the recording that runs.
pub(super) static TREE: Tree = Tree::new();

/// Returns the function that gives nodes their ids, for a thread that takes part in this recording.
#[inline(always)]
pub(super) fn interner(
    recording: RecordingId,
) -> impl Fn(Parent, u64) -> Result<StackId, InternError> + Copy {
    move |parent, pc| TREE.intern(parent, pc, &SidecarJournal { recording })
}

/// The node ring in the sidecar, for a thread that takes part in this recording.
struct SidecarJournal {
    recording: RecordingId,
}

impl Journal for SidecarJournal {
    fn recording(&self) -> Option<RecordingId> {
        Some(self.recording)
    }

    fn append(&self, id: StackId, parent: StackId, pc: u64) -> bool {
        if !capture::has_rule_for(pc) {
            modules::ensure_known(pc);
        }
        sidecar::append_node(id, parent, pc, current::drain_nodes)
    }
}
