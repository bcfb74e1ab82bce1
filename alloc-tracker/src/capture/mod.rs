//! The stack of an event: from a place in the hook to the outermost frame. In: an address in the hook's own frame.
//! Out: return addresses in a [`Walk`], outermost first, and whether the walk reached its end. Runs without the
//! recorder's lock; never allocates through the global allocator, never locks.

mod portable;
mod walk;

pub(crate) use walk::Walk;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the outermost frame of the thread.
    Root,
    /// Somewhere before it: no unwind information, or no memory for so many frames.
    Truncated,
}

/// Walks the calling thread's stack into `walk`. Frames at or below the stack address `above` are the tracker's own
/// and are left out: by address, because how many there are differs from build to build.
pub(crate) fn walk(walk: &mut Walk, above: usize) -> End {
    walk.begin();
    let end = portable::walk(above, |pc| walk.push(pc));
    walk.finish();
    end
}
