//! Where a function stands right now. The one thing that no language but assembly can say.

/// The registers that an unwinder starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// An address in the code of the function.
    pub(super) pc: u64,
    /// Its stack pointer.
    pub(super) sp: u64,
    /// What it has in the register that is the frame pointer where there is one.
    pub(super) fp: u64,
}

impl Registers {
    /// Those of the function that this is inlined into.
    #[inline(always)]
    pub(crate) fn here() -> Registers {
        let (pc, sp, fp): (u64, u64, u64);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads three registers and changes nothing.
        unsafe {
            std::arch::asm!(
                "lea {pc}, [rip]",
                "mov {sp}, rsp",
                "mov {fp}, rbp",
                pc = lateout(reg) pc,
                sp = lateout(reg) sp,
                fp = lateout(reg) fp,
                options(nomem, nostack, preserves_flags)
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let here = 0u8;
            (pc, fp) = (0, 0);
            sp = std::hint::black_box(&raw const here) as u64;
        }
        Registers { pc, sp, fp }
    }
}
