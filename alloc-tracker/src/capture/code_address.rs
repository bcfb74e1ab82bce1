//! Addresses of code: where the function of a frame continues, and which address to look up for it.
//!
//! In: the return addresses that a walk reads. Out: the addresses to find unwind rules and modules
//! by. Nothing here reads memory; a [`ReturnAddress`] may be any number.

/// The address at which the function of a frame continues.
///
/// For a frame that has called another function this is the address behind the call instruction.
/// That address must not be looked up as it is: a call can be the last instruction of its function,
/// or the last one that an unwind rule holds for. An example:
///
/// ```text
/// 0x1000  f:  push rbp          rule A: canonical frame address = sp + 8
/// 0x1001      call abort        rule B: canonical frame address = sp + 16
/// 0x1006  g:  sub rsp, 24       rule C: canonical frame address = sp + 8
/// ```
///
/// While `abort` runs, the frame of `f` has the return address 0x1006. A look-up of that address
/// itself would find the function `g` with rule C. The byte before, 0x1005, is the last one of the
/// call: `f` with rule B. [`ReturnAddress::call_address`] returns that byte's address.
///
/// The exception is a frame that a signal has interrupted. It has not called anything: its address
/// is that of the instruction that runs next, and the byte before may belong to another rule. So
/// its address is looked up as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ReturnAddress(pub(super) u64);

/// An address inside of an instruction: what unwind rules, functions and modules are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct CodeAddress(pub(super) u64);

impl ReturnAddress {
    /// No return address. A walk by unwind rules ends at it, because no module is at address 0.
    pub(super) const NONE: ReturnAddress = ReturnAddress(0);

    /// Returns the address to look up for a frame that has called another function.
    #[inline(always)]
    pub(super) const fn call_address(self) -> CodeAddress {
        self.lookup_address(false)
    }

    /// Returns the address to look up for a frame that continues here. `was_interrupted`: the frame
    /// has called nothing, a signal interrupted it.
    ///
    /// PERF: a subtraction of zero or one, not a branch.
    #[inline(always)]
    pub(super) const fn lookup_address(self, was_interrupted: bool) -> CodeAddress {
        CodeAddress(self.0.wrapping_sub(!was_interrupted as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_looked_up_by_its_last_byte_and_an_interrupted_instruction_by_its_first() {
        let behind_the_call = ReturnAddress(0x1006);
        assert_eq!(behind_the_call.call_address(), CodeAddress(0x1005));
        assert_eq!(behind_the_call.lookup_address(true), CodeAddress(0x1006));
        assert_eq!(ReturnAddress::NONE.call_address(), CodeAddress(u64::MAX));
    }
}
