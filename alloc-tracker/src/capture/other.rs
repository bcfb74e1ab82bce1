//! Processors for which there are no steps: the platform's unwinder makes every walk.

use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::incremental::{StackReader, UnwindStep};

/// Returns `None`: only a full unwinder can tell the frame's caller.
pub(super) fn step(_frame: &Frame, _reader: &mut impl StackReader) -> Option<UnwindStep> {
    None
}

/// Returns `None`: there are no unwind rules.
pub(super) fn step_by_full_rule(_frame: &Frame, _reader: &mut impl StackReader) -> Option<UnwindStep> {
    None
}

/// Returns the number by which the call tree knows a return address.
pub(super) fn without_signature(pc: ReturnAddress) -> u64 {
    pc.0
}
