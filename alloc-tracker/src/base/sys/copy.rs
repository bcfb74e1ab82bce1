//! A copy of this process's memory: a child that the kernel makes copy-on-write, and that the host
//! does not see. It sends no signal at its end, and `waitpid` without `__WALL` does not find it.
//!
//! In: a function that the copy runs. Out: the copy's process id. No handler of `pthread_atfork`
//! runs and no lock of the C library is needed, because the copy makes raw system calls alone.
//! Never allocates.

use super::system_call::{retry_interrupted, system_call};
use super::{Errno, exit_process};

/// Makes a copy, in which `run` is called. Returns the copy's process id.
///
/// # Errors
/// The kernel gives no process, or no memory for one.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) fn copy_process(run: fn()) -> Result<u32, Errno> {
    // SAFETY: without CLONE_VM the new process has its own memory, and goes on with a copy of this
    // stack. It runs nothing but `run`, which callers know to need no other thread.
    match unsafe { system_call!(libc::SYS_clone, 0, 0, 0, 0, 0) }? {
        0 => {
            run();
            exit_process()
        }
        id => Ok(id as u32),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn copy_process(_run: fn()) -> Result<u32, Errno> {
    Err(Errno(libc::ENOSYS))
}

/// Whether a copy that this process has made still runs. Takes its exit status if it has ended.
pub(crate) fn copy_runs(id: u32) -> bool {
    let flags = libc::__WALL | libc::WNOHANG;
    // SAFETY: no status is asked for.
    retry_interrupted(|| unsafe { system_call!(libc::SYS_wait4, id, 0, flags, 0) }) == Ok(0)
}

/// Lets this process read the memory of the calling one, where the kernel lets only debuggers of
/// descendants do that.
pub(crate) fn allow_reader(pid: u32) {
    // SAFETY: the call takes numbers. Kernels without such a restriction refuse it, without harm.
    let _ = unsafe { system_call!(libc::SYS_prctl, libc::PR_SET_PTRACER, pid, 0, 0, 0) };
}

/// Returns the thread pointer of the calling thread, at which its control block lies.
pub(crate) fn thread_pointer() -> u64 {
    let pointer: u64;
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the psABI has the control block begin with its own address, at `fs:0`.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: the instruction reads a register.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem, preserves_flags));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        pointer = 0;
    }
    pointer
}
