//! The address under which code is looked up. In: addresses from stacks. Out: [`CodeAddress`].
//!
//! Only this module subtracts one from a return address. No other code of this package may do so.

/// An address in a module's code, as the file counts it (`pc - bias`), ready to be looked up.
///
/// Most addresses on a stack are return addresses. A return address points to the instruction
/// *after* the call, which may belong to the next line, to another inlined function, or to another
/// function:
///
/// ```text
/// 1230  call handle_alloc_error     line 7 of `grow`; never returns
/// 1235  push rbp                    the function that happens to follow `grow`
/// ```
///
/// The stack holds 1235. So the look-up uses the byte before the return address, 1234, which is
/// always inside the call. Two kinds of addresses are exact and must not be moved: the address at
/// which a signal interrupted the code, and the address of the signal return trampoline. The kernel
/// pushes the latter as if the trampoline had made a call (see
/// [`Modules::is_signal_trampoline`](super::Modules::is_signal_trampoline)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeAddress(u64);

impl CodeAddress {
    /// Returns the address inside a call, from the address to which the call returns.
    #[must_use]
    pub const fn from_return_address(address: u64) -> Self {
        Self(address.saturating_sub(1))
    }

    /// Returns the address of an instruction that was not the target of a return.
    #[must_use]
    pub const fn exact(address: u64) -> Self {
        Self(address)
    }

    /// Returns the address to look up and to print. Any symbolizer gives the same line for it.
    #[must_use]
    pub const fn lookup(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_return_addresses_are_moved() {
        assert_eq!(CodeAddress::from_return_address(0x1235).lookup(), 0x1234);
        assert_eq!(CodeAddress::exact(0x1234).lookup(), 0x1234);
        assert_eq!(CodeAddress::from_return_address(0).lookup(), 0);
    }
}
