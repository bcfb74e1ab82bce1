//! Birth stacks: the innermost frames of the stack that a block was allocated with. In: registers.
//! Out: a node of a call tree of the scopes' own, and the return addresses of a node. It works with
//! and without a recording, because it uses neither the recording's tree nor its recorded walks.
//!
//! Only the innermost [`MAX_FRAMES`] frames are kept: they name the line that has allocated. So the
//! time of a walk is bounded, however deep the stack is.
//!
//! Runs inside the host's allocator calls: never allocates through the global allocator, takes no
//! lock that application code can hold.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloc_dump::layout::StackId;

use crate::base::epoch::{self, RecordingId};
use crate::capture::{self, Registers, Shim, StackWalker};
use crate::tree::{Journal, Parent, Tree};

/// Walks the stack from the frame with these registers, which may be the shim's. Returns the leaf's
/// node; [`UNKNOWN`] if there is no memory for it. `None` if the stack is one of
/// [`ignore_calls_at`].
pub(super) fn note(walker: &mut StackWalker, shim: Shim, registers: Registers) -> Option<u32> {
    let mut addresses = [0; MAX_FRAMES];
    let frames = if IS_PLATFORM_WALKING.load(Ordering::Relaxed) {
        // Nor is the shim looked up: that takes the same locks.
        capture::innermost_by_platform(&registers, &mut addresses)
    } else {
        capture::innermost(walker, &shim.skip(registers), &mut addresses)
    };
    for ignored in &IGNORED {
        let ignored = ignored.load(Ordering::Relaxed);
        if ignored != 0 && addresses[..frames].contains(&ignored) {
            return None;
        }
    }
    let generation = epoch::current().generation();
    let outermost_first = addresses[..frames].iter().rev();
    let node = outermost_first
        .copied()
        .try_fold(StackId::ROOT, |parent, pc| TREE.intern(Parent::of(parent, generation), pc, &NoJournal));
    Some(node.map_or(UNKNOWN, |node: StackId| node.0))
}

/// From now on no event is noted whose stack has this return address. There may be as many
/// addresses as [`IGNORED`] has room for.
pub(crate) fn ignore_calls_at(address: u64) {
    for ignored in &IGNORED {
        let before = ignored.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed);
        if before.is_ok() || before == Err(address) {
            return;
        }
    }
}

/// See [`ignore_calls_at`].
static IGNORED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// From now on the platform's unwinder makes all walks. For forked children, where threads that do
/// not exist may hold the locks of the tracker's own walks.
pub(crate) fn walk_by_platform() {
    IS_PLATFORM_WALKING.store(true, Ordering::Relaxed);
}

static IS_PLATFORM_WALKING: AtomicBool = AtomicBool::new(false);

/// Calls `f` with the return addresses of a birth stack, leaf first.
pub(crate) fn for_each_address(stack: u32, mut f: impl FnMut(u64)) {
    let mut next = StackId(stack);
    while let Some(node) = TREE.node(next) {
        f(node.pc);
        next = node.parent;
    }
}

/// Makes the tree usable in a forked child.
///
/// # Safety
/// No other thread may use the tree.
pub(super) unsafe fn reset_after_fork() {
    // SAFETY: the caller's promise.
    unsafe { TREE.reset_after_fork() };
}

/// The birth stacks of all scopes. It is never emptied: it grows with the distinct stacks, not with
/// the blocks.
static TREE: Tree = Tree::new();

/// The tree is in no recording, so its nodes are written nowhere.
struct NoJournal;

impl Journal for NoJournal {
    fn recording(&self) -> Option<RecordingId> {
        None
    }

    fn append(&self, _id: StackId, _parent: StackId, _pc: u64) -> bool {
        true
    }
}

/// No stack is known.
pub(super) const UNKNOWN: u32 = StackId::ROOT.0;

/// Enough to reach the user's own code through the frames of a dependency, also in debug builds.
const MAX_FRAMES: usize = 64;
