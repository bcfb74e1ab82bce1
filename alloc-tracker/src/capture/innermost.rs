//! The innermost frames of a stack, for callers that need no node of the recording's call tree.
//!
//! In: the registers of the leaf. Out: return addresses, leaf first, as many as fit. Neither uses
//! nor changes a recorded walk, so it works with and without a recording. The time is bounded by
//! the number of frames, not by the depth of the stack. Never allocates; takes the same locks as a
//! walk does.

use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::incremental::{PassingReader, UnwindStep};
use super::registers::Registers;
use super::walker::StackWalker;
use super::{arch, portable, without_signature};
use crate::base::sys::ErrnoGuard;

/// Stores the return addresses of the innermost frames, from the one with these registers on.
/// Returns how many it has stored.
///
/// On the thread's own stack it steps by unwind rules; elsewhere, or where there is no rule, the
/// platform's unwinder walks.
pub(crate) fn innermost(walker: &mut StackWalker, registers: &Registers, addresses: &mut [u64]) -> usize {
    step_outwards(walker, registers, addresses).unwrap_or_else(|| innermost_by_platform(registers, addresses))
}

/// Does the same by the platform's unwinder, which takes none of the tracker's locks.
pub(crate) fn innermost_by_platform(registers: &Registers, addresses: &mut [u64]) -> usize {
    let _errno = ErrnoGuard::new();
    let mut frames = 0;
    portable::walk(registers, |pc: ReturnAddress| {
        if let Some(place) = addresses.get_mut(frames) {
            *place = without_signature(pc);
            frames += 1;
        }
        frames < addresses.len()
    });
    frames
}

/// Returns `None` if only the platform's unwinder can tell.
fn step_outwards(walker: &mut StackWalker, registers: &Registers, addresses: &mut [u64]) -> Option<usize> {
    let mut reader = PassingReader { bounds: walker.own_stack_from(registers.sp)? };
    let mut frame = Frame::with_fp_value(registers.pc, registers.sp, registers.fp);
    for (index, place) in addresses.iter_mut().enumerate() {
        *place = without_signature(frame.pc);
        let step = match arch::step(&frame, &mut reader)? {
            UnwindStep::RuleNotPacked => arch::step_by_full_rule(&frame, &mut reader)?,
            step => step,
        };
        match step {
            UnwindStep::Caller(caller) => frame = caller,
            _ => return Some(index + 1),
        }
    }
    Some(addresses.len())
}
