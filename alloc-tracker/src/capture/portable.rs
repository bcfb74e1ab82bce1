//! The walk that works wherever the `backtrace` crate does: with the platform's own unwinder.
//!
//! It needs unwind tables, not frame pointers. With glibc 2.35 and libgcc 12 or newer it takes no lock; older ones
//! take the loader's.

use super::End;

/// Calls `push` with the return address of every frame above the stack address `above`, innermost first, until it
/// returns false.
pub(super) fn walk(above: usize, mut push: impl FnMut(u64) -> bool) -> End {
    let mut end = End::Truncated;
    // SAFETY: unsynchronised tracing must not race with other users of the same unwinder state. Outside Windows there
    // is none: the unwinder keeps its state on the stack.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let pc = frame.ip() as u64;
            if pc == 0 {
                // The unwind tables of the outermost function say that it has no caller.
                end = End::Root;
                return false;
            }
            // A frame's stack pointer is its lowest address, so that of the frame that `above` lies in is not larger.
            frame.sp() as usize <= above || push(pc)
        });
    }
    end
}
