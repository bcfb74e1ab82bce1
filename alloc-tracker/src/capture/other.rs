//! Processors for which there are no steps: every walk is that of the platform's unwinder.

use super::frame::Frame;
use super::incremental::{Step, Words};

/// Only a full unwinder can tell.
pub(super) fn step(_frame: &Frame, _words: &mut impl Words) -> Option<Step> {
    None
}

/// As [`step`].
pub(super) fn evaluate(_frame: &Frame, _words: &mut impl Words) -> Option<Step> {
    None
}

/// A return address as the call tree has it.
pub(super) fn plain_address(pc: u64) -> u64 {
    pc
}
