//! The walk that works wherever the `backtrace` crate does: with the platform's own unwinder.
//!
//! It needs unwind tables, not frame pointers. With glibc 2.35 and libgcc 12 or newer it takes no lock; older ones
//! take the loader's.

use super::WalkEnd;

/// Calls `push` with the return address of every frame above the stack address `above`, innermost first, until it
/// returns false.
pub(super) fn walk(above: u64, mut push: impl FnMut(u64) -> bool) -> WalkEnd {
    let mut end = WalkEnd::Truncated;
    let mut in_the_hook = true;
    // SAFETY: unsynchronised tracing must not race with other users of the same unwinder state. Outside Windows there
    // is none: the unwinder keeps its state on the stack.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let pc = frame.ip() as u64;
            if pc == 0 {
                // The unwind tables of the outermost function say that it has no caller.
                end = WalkEnd::Root;
                return false;
            }
            // A frame's stack pointer is its lowest address, so that of the frame that `above` lies in is not larger.
            // Once out of the hook addresses say nothing: a signal handler may run on a stack above the one that it
            // interrupted.
            in_the_hook = in_the_hook && frame.sp() as u64 <= above;
            in_the_hook || push(pc)
        });
    }
    end
}
