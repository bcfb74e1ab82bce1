//! The address under which code is looked up.

/// A place in a module's code, as the file has it (`pc - bias`), ready to be looked up.
///
/// What a stack holds is mostly return addresses, and a return address is the instruction *after* the call. That one may
/// belong to the next line, to another inlined function, or, after a call that never returns, to the function that
/// happens to follow. So the look-up goes to the byte before it, which is always inside the call. Two kinds of pc are
/// exact and must not be moved: one that a signal interrupted, and the signal return trampoline itself, whose address
/// the kernel pushed as if it had been called (see [`Modules::is_signal_trampoline`](super::Modules::is_signal_trampoline)).
///
/// This type owns that "minus one"; nothing else in the package subtracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodeAddress(u64);

impl CodeAddress {
    /// The place of a call, from the address to which it returns.
    #[must_use]
    pub const fn from_return_address(address: u64) -> Self {
        Self(address.saturating_sub(1))
    }

    /// The place of an instruction whose address is known as such.
    #[must_use]
    pub const fn exact(address: u64) -> Self {
        Self(address)
    }

    /// The address to look up, and the one that is printed: pasted into any symbolizer it gives the same line.
    #[must_use]
    pub const fn lookup(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_return_addresses_move() {
        assert_eq!(CodeAddress::from_return_address(0x1235).lookup(), 0x1234);
        assert_eq!(CodeAddress::exact(0x1234).lookup(), 0x1234);
        assert_eq!(CodeAddress::from_return_address(0).lookup(), 0);
    }
}
