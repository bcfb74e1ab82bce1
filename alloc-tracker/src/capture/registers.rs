//! The registers that a walk begins with: those of the host's function that has called the
//! allocator.
//!
//! In: a call of one of the allocator's methods. Out: its caller's return address, stack pointer
//! and frame pointer. Only assembly can read these registers, so the methods are entered through
//! functions written in assembly.

use super::code_address::ReturnAddress;
use super::stack_word::read_word;

/// The registers that an unwinder starts from: those of a function at its call of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The address that the call returns to.
    pub(crate) pc: ReturnAddress,
    /// The stack pointer before the call.
    pub(crate) sp: u64,
    /// The value of the frame pointer register, whatever the function uses the register for.
    pub(crate) fp: u64,
}

impl Registers {
    /// Returns the registers of the caller. The function that `self` belongs to has its canonical
    /// frame address `frame_size` bytes above its stack pointer.
    ///
    /// # Safety
    /// That function must be running on x86-64 with these registers and a frame of this size, and
    /// must not have changed the frame pointer register.
    #[inline(always)]
    pub(super) unsafe fn of_caller(self, frame_size: u64) -> Registers {
        let cfa = self.sp.wrapping_add(frame_size);
        // SAFETY: the word must be aligned and readable. The caller promises a frame that ends at
        // `cfa`, and on x86-64 the return address lies just below.
        let pc = ReturnAddress(unsafe { read_word(cfa.wrapping_sub(8)) });
        Registers { pc, sp: cfa, fp: self.fp }
    }
}

/// The two words that a function defined by [`entry!`] has on the stack, just below its caller's
/// frame.
///
/// ```text
///   +-----------------+ <-- the caller's stack pointer before the call
///   | return address  |     pc
///   | saved fp        |     fp
///   +-----------------+ <-- this value
/// ```
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct EntryFrame {
    pub(crate) fp: u64,
    pub(crate) pc: ReturnAddress,
}

impl EntryFrame {
    /// Returns an address in the code that called the function defined by [`entry!`]; 0 if it is
    /// not known.
    pub(crate) fn caller(&self) -> u64 {
        self.pc.0
    }

    /// Returns the registers of the function that called the one defined by [`entry!`].
    #[inline(always)]
    pub(crate) fn registers(&self) -> Registers {
        let sp = (&raw const *self).addr() + size_of::<EntryFrame>();
        Registers { pc: self.pc, sp: sp as u64, fp: self.fp }
    }
}

/// Defines a function that calls the function `$body` of the type with its own arguments, and
/// behind them an [`EntryFrame`] with the registers of its caller. The walk of the stack begins at
/// that caller, so no frame of this crate is part of it.
///
/// `$x86` and `$aarch64` name the register that passes the additional argument on each processor.
macro_rules! entry {
    (
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),*; $x86:literal, $aarch64:literal) $(-> $result:ty)? => $body:ident
    ) => {
        $(#[$doc])*
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "push rbp",
                ".cfi_adjust_cfa_offset 8",
                concat!("mov ", $x86, ", rsp"),
                "call {body}",
                "add rsp, 8",
                ".cfi_adjust_cfa_offset -8",
                "ret",
                ".cfi_endproc",
                body = sym Self::$body,
            )
        }

        $(#[$doc])*
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "stp x29, x30, [sp, #-16]!",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset x29, -16",
                ".cfi_offset x30, -8",
                concat!("mov ", $aarch64, ", sp"),
                "bl {body}",
                "ldp x29, x30, [sp], #16",
                ".cfi_def_cfa_offset 0",
                "ret",
                ".cfi_endproc",
                body = sym Self::$body,
            )
        }

        $(#[$doc])*
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        #[inline(never)]
        unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            let entered = $crate::capture::EntryFrame::default();
            // SAFETY: the body gets the arguments of this function, whose caller keeps the body's
            // contract.
            unsafe { Self::$body($($argument,)* std::hint::black_box(&entered)) }
        }
    };
}

pub(crate) use entry;
