//! The portable walk, which the platform's own unwinder makes. It works wherever the `backtrace`
//! crate works.
//!
//! It is used for stacks that have a frame without a rule, on processors without steps, and to
//! check the other walks. It costs some microseconds. It needs unwind tables, not frame pointers.
//! With glibc 2.35 and libgcc 12 or newer it takes no lock; with older ones it takes the loader's.
//!
//! In: the registers of the leaf. Out: return addresses, leaf first. Must not run for the first
//! time in an event (see `warm_up`). The unwinder begins in this function itself, so the walk skips
//! the frames of this crate by their addresses:
//!
//! ```text
//!   higher addresses
//!   | run             |    pushed
//!   | parse           |    pushed: the leaf, whose stack pointer is above `above`
//!   +-----------------+ <- above, one byte below the leaf's stack pointer
//!   | the hook        |    skipped
//!   | portable::walk  |    skipped
//!   lower addresses
//! ```

use super::WalkEnd;
use super::code_address::ReturnAddress;
use super::registers::Registers;

/// Calls `push` with the return address of every frame from the one with these registers on,
/// innermost first, until `push` returns false. Returns whether the walk reached the root.
///
/// The first frame is there in any case, because its registers are known. Without unwind tables for
/// the hook itself the unwinder finds nothing.
pub(super) fn walk(registers: &Registers, mut push: impl FnMut(ReturnAddress) -> bool) -> WalkEnd {
    let above = registers.sp.wrapping_sub(1);
    let mut end = WalkEnd::Truncated;
    let mut is_in_hook = true;
    // SAFETY: tracing without a lock must not race with other users of the same unwinder state.
    // Outside of Windows there is no such state: the unwinder keeps everything on the stack.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let pc = frame.ip() as u64;
            if pc == 0 {
                // The unwind tables of the outermost function say that it has no caller.
                end = WalkEnd::Root;
                return false;
            }
            // A frame's stack pointer is its lowest address. So the frame that contains `above` has
            // a stack pointer of at most `above`, and so have the frames inside of it. Once the
            // walk has left the hook, addresses are no longer compared: a signal handler may run on
            // a stack above the one that it interrupted.
            is_in_hook = is_in_hook && frame.sp() as u64 <= above;
            is_in_hook || push(ReturnAddress(pc))
        });
    }
    if is_in_hook {
        push(registers.pc);
        return WalkEnd::Truncated;
    }
    end
}
