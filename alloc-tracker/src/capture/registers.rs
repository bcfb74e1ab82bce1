//! Where the host's function stood when it called the hook. The one thing that no language but assembly can say.

/// The registers that an unwinder starts from: those of a function that has called another one, at the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The address that the call returns to.
    pub(super) pc: u64,
    /// The stack pointer.
    pub(super) sp: u64,
    /// What is in the register that is the frame pointer where there is one.
    pub(super) fp: u64,
}

impl Registers {
    /// From what [`hook_entry`] has passed on.
    #[inline(always)]
    pub(crate) fn at_call(pc: u64, sp: u64, fp: u64) -> Registers {
        Registers { pc, sp, fp }
    }
}

/// Defines a function that passes its arguments, of which there are at most three, on to `$body`, together with the
/// registers that its caller had at the call: return address, stack pointer, frame pointer. It leaves no frame.
macro_rules! hook_entry {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $body:ident) => {
        $(#[$doc])*
        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name($($argument: $type),*) {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "mov rcx, [rsp]",
                "lea r8, [rsp + 8]",
                "mov r9, rbp",
                "jmp {body}",
                ".cfi_endproc",
                body = sym $body,
            )
        }

        $(#[$doc])*
        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        pub(crate) extern "C" fn $name($($argument: $type),*) {
            std::arch::naked_asm!(
                ".cfi_startproc",
                "mov x3, x30",
                "mov x4, sp",
                "mov x5, x29",
                "b {body}",
                ".cfi_endproc",
                body = sym $body,
            )
        }

        $(#[$doc])*
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        #[inline(never)]
        pub(crate) fn $name($($argument: $type),*) {
            let here = 0u8;
            $body($($argument,)* 0, std::hint::black_box(&raw const here) as u64, 0)
        }
    };
}

pub(crate) use hook_entry;
