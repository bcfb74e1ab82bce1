//! Where the host's function stood when it called the allocator. The one thing that no language but assembly can say.

/// The registers that an unwinder starts from: those of a function that has called another one, at the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The address that the call returns to.
    pub(crate) pc: u64,
    /// The stack pointer.
    pub(crate) sp: u64,
    /// What is in the register that is the frame pointer where there is one.
    pub(crate) fp: u64,
}

impl Registers {
    /// Those of the caller, if this function's frame has so many bytes above the stack pointer and its frame pointer is
    /// its caller's.
    ///
    /// # Safety
    /// It must be so.
    #[inline(always)]
    pub(super) unsafe fn outside_of(self, frame: u64) -> Registers {
        let sp = self.sp.wrapping_add(frame);
        // SAFETY: the caller's promise; on x86-64 the return address lies just below the caller's frame.
        Registers { pc: unsafe { super::word::read(sp.wrapping_sub(8)) }, sp, fp: self.fp }
    }
}

/// What the functions that [`entry!`] defines leave on the stack, just below their caller's frame.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EntryFrame {
    pub(crate) fp: u64,
    pub(crate) pc: u64,
}

impl EntryFrame {
    #[inline(always)]
    pub(crate) fn registers(&self) -> Registers {
        let sp = (&raw const *self).addr() + size_of::<EntryFrame>();
        Registers { pc: self.pc, sp: sp as u64, fp: self.fp }
    }
}

/// Defines a function that passes its arguments on to the function `$body` of the type, and behind them the registers that
/// its own caller had at the call, as an [`EntryFrame`]. The walk of the stack begins there: no frame further in is in it.
///
/// The two names say which register the argument behind the last one is in, on x86-64 and on aarch64.
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
            let entered = $crate::capture::EntryFrame { fp: 0, pc: 0 };
            // SAFETY: the caller's promise.
            unsafe { Self::$body($($argument,)* std::hint::black_box(&entered)) }
        }
    };
}

pub(crate) use entry;
