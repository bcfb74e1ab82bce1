//! A step outwards on aarch64, by frame records.
//!
//! The frame pointer points to a record of two words: the caller's frame pointer, and behind it the
//! return address. Compilers keep these records in all functions that call others, unless told
//! otherwise.
//!
//! ```text
//!   fp --> | caller's fp --> | its caller's fp --> ... 0 at the root
//!          | return address  | return address
//! ```
//!
//! Return addresses may be signed: some of the bits above the address hold a signature. Words are
//! compared as they stand in memory. The signature is removed only where an address goes into the
//! call tree.
//!
//! In: a frame. Out: its caller's frame.

use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::incremental::{StackReader, UnwindStep};

/// Steps to the frame's caller; `None` if there is no frame record where there should be one.
#[inline]
pub(super) fn step(frame: &Frame, reader: &mut impl StackReader) -> Option<UnwindStep> {
    reader.note_fp_register();
    let record = frame.fp;
    // The thread's first function has a frame pointer of zero.
    if record == 0 {
        return Some(UnwindStep::Outermost);
    }
    // The record of an outer frame never lies below the stack pointer of an inner one.
    if record < frame.sp {
        return None;
    }
    let fp = reader.read(record)?;
    let pc = ReturnAddress(reader.read(record.checked_add(8)?)?);
    if without_signature(pc) == 0 {
        return Some(UnwindStep::Outermost);
    }
    Some(UnwindStep::Caller(Frame::with_fp_value(pc, record + 16, fp).with_return_address_elsewhere()))
}

/// Returns `None`: there are no full rules, and a step by frame records never asks for one.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "tests have no use for it"))]
pub(super) fn step_by_full_rule(_frame: &Frame, _reader: &mut impl StackReader) -> Option<UnwindStep> {
    None
}

/// Returns the number by which the call tree knows a return address: the address without its
/// signature. User space has at most 48 bits of addresses, and the bits above hold the signature.
#[inline]
pub(super) fn without_signature(pc: ReturnAddress) -> u64 {
    pc.0 & 0x0000_FFFF_FFFF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulated stack: its words begin at the address `start`.
    struct SimulatedStack<'a> {
        start: u64,
        words: &'a [u64],
        /// The addresses that were read.
        reads: Vec<u64>,
    }

    impl StackReader for SimulatedStack<'_> {
        fn read_return_address(&mut self, _cfa: u64, _sp: u64) -> Option<ReturnAddress> {
            None
        }

        fn read(&mut self, address: u64) -> Option<u64> {
            self.reads.push(address);
            self.words.get(usize::try_from(address.checked_sub(self.start)? / 8).ok()?).copied()
        }

        fn note_fp_register(&mut self) {}

        fn continue_at(&mut self, _sp: u64) -> Option<()> {
            None
        }
    }

    const START: u64 = 0x7000_0000;

    #[test]
    fn frame_records_lead_to_the_root() {
        const SIGNED: u64 = 0x00AB_0000_5555_0200;
        let words = [0, 0, START + 0x30, 0x5555_0100, 0, 0, START + 0x40, SIGNED, 0, 0];
        let mut stack = SimulatedStack { start: START, words: &words, reads: Vec::new() };
        let first = Frame::with_fp_value(ReturnAddress(0x5555_0000), START, START + 0x10);
        let second = Frame::with_fp_value(ReturnAddress(0x5555_0100), START + 0x20, START + 0x30)
            .with_return_address_elsewhere();
        assert_eq!(step(&first.clone(), &mut stack), Some(UnwindStep::Caller(second)));
        let third = Frame::with_fp_value(ReturnAddress(SIGNED), START + 0x40, START + 0x40)
            .with_return_address_elsewhere();
        assert_eq!(step(&second.clone(), &mut stack), Some(UnwindStep::Caller(third)));
        assert_eq!(step(&third.clone(), &mut stack), Some(UnwindStep::Outermost));
        assert_eq!(stack.reads, [0x10, 0x18, 0x30, 0x38, 0x40, 0x48].map(|offset| START + offset));
        assert_eq!(without_signature(ReturnAddress(SIGNED)), 0x5555_0200);
    }

    #[test]
    fn a_frame_pointer_of_zero_is_the_root() {
        let mut stack = SimulatedStack { start: START, words: &[], reads: Vec::new() };
        assert_eq!(
            step(&Frame::with_fp_value(ReturnAddress(1), START, 0), &mut stack),
            Some(UnwindStep::Outermost)
        );
        assert!(stack.reads.is_empty());
    }

    #[test]
    fn a_frame_pointer_to_no_record_is_not_followed() {
        let words = [START, 0x5555_0100];
        let mut stack = SimulatedStack { start: START, words: &words, reads: Vec::new() };
        // Below the stack pointer: the record of an inner frame, or no frame pointer at all.
        assert_eq!(step(&Frame::with_fp_value(ReturnAddress(1), START + 8, START), &mut stack), None);
        // Outside of the stack.
        assert_eq!(step(&Frame::with_fp_value(ReturnAddress(1), START, START + 0x1000), &mut stack), None);
    }
}
