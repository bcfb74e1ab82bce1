//! One step outwards on aarch64, by frame records: the frame pointer points to the caller's frame pointer and, behind
//! it, to the return address. Compilers keep these records in all functions that call others, unless told otherwise.
//!
//! Return addresses may be signed. Words are compared as they stand in memory; the signature is taken off only where an
//! address goes into the call tree.

use super::frame::Frame;
use super::incremental::{Step, Words};

/// The frame's caller; `None` if there is no frame record where there should be one.
#[inline]
pub(super) fn step(frame: &Frame, words: &mut impl Words) -> Option<Step> {
    words.need_fp();
    let record = frame.fp;
    // The record of the thread's first function says so.
    if record == 0 {
        return Some(Step::Outermost);
    }
    // Records lie one above the other.
    if record < frame.sp {
        return None;
    }
    let fp = words.read(record)?;
    let pc = words.read(record.checked_add(8)?)?;
    if plain_address(pc) == 0 {
        return Some(Step::Outermost);
    }
    Some(Step::Caller(Frame::in_register(pc, record + 16, fp).read_elsewhere()))
}

/// There are no other frames.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "tests have no use for it"))]
pub(super) fn evaluate(_frame: &Frame, _words: &mut impl Words) -> Option<Step> {
    None
}

/// A return address as the call tree has it: user space has 48 bits of addresses at most, and the bits above hold the
/// signature.
#[inline]
pub(super) fn plain_address(pc: u64) -> u64 {
    pc & 0x0000_FFFF_FFFF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of words from this address on.
    struct Stack<'a> {
        at: u64,
        words: &'a [u64],
        read: Vec<u64>,
    }

    impl Words for Stack<'_> {
        fn return_address(&mut self, _sp: u64, _inner: u64) -> Option<u64> {
            None
        }

        fn read(&mut self, address: u64) -> Option<u64> {
            self.read.push(address);
            self.words.get(usize::try_from(address.checked_sub(self.at)? / 8).ok()?).copied()
        }

        fn need_fp(&mut self) {}

        fn go_to(&mut self, _sp: u64) -> Option<()> {
            None
        }
    }

    const AT: u64 = 0x7000_0000;

    #[test]
    fn records_lead_to_the_root() {
        const SIGNED: u64 = 0x00AB_0000_5555_0200;
        let words = [0, 0, AT + 0x30, 0x5555_0100, 0, 0, AT + 0x40, SIGNED, 0, 0];
        let mut stack = Stack { at: AT, words: &words, read: Vec::new() };
        let first = Frame::in_register(0x5555_0000, AT, AT + 0x10);
        let second = Frame::in_register(0x5555_0100, AT + 0x20, AT + 0x30).read_elsewhere();
        assert_eq!(step(&first.clone(), &mut stack), Some(Step::Caller(second)));
        let third = Frame::in_register(SIGNED, AT + 0x40, AT + 0x40).read_elsewhere();
        assert_eq!(step(&second.clone(), &mut stack), Some(Step::Caller(third)));
        assert_eq!(step(&third.clone(), &mut stack), Some(Step::Outermost));
        assert_eq!(stack.read, [0x10, 0x18, 0x30, 0x38, 0x40, 0x48].map(|offset| AT + offset));
        assert_eq!(plain_address(SIGNED), 0x5555_0200);
    }

    #[test]
    fn a_frame_pointer_of_zero_is_the_root() {
        let mut stack = Stack { at: AT, words: &[], read: Vec::new() };
        assert_eq!(step(&Frame::in_register(1, AT, 0), &mut stack), Some(Step::Outermost));
        assert!(stack.read.is_empty());
    }

    #[test]
    fn what_is_no_record_is_not_followed() {
        let words = [AT, 0x5555_0100];
        let mut stack = Stack { at: AT, words: &words, read: Vec::new() };
        // Below the stack pointer: an inner frame's, or no frame pointer at all.
        assert_eq!(step(&Frame::in_register(1, AT + 8, AT), &mut stack), None);
        // Outside of the stack.
        assert_eq!(step(&Frame::in_register(1, AT, AT + 0x1000), &mut stack), None);
    }
}
