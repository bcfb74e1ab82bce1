//! System calls, made with the processor's own instruction.
//!
//! In: the number of the call and its arguments. Out: its result, or the error number. Nothing of
//! the C library is called and `errno` stays as it is. A program or a preloaded library may have
//! its own version of any C function. That version may allocate, take locks, or use thread-locals
//! that the drain process does not have.
//!
//! On processors other than x86-64 and aarch64 the calls go through the C library's `syscall`, and
//! `errno` is restored.

use super::Errno;

/// Makes a system call. The arguments are converted with `as usize`; absent ones are 0.
///
/// Unsafe, as the call is: what the kernel reads and writes must be valid for that.
macro_rules! system_call {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let given: &[usize] = &[$($argument as usize),*];
        let mut arguments = [0usize; 6];
        arguments[..given.len()].copy_from_slice(given);
        $crate::base::sys::system_call::make($number, arguments)
    }};
}
pub(in crate::base) use system_call;

/// Makes the system call with this number.
///
/// # Safety
/// The memory that the kernel reads and writes for this call must be valid for that.
#[inline]
pub(in crate::base) unsafe fn make(number: libc::c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise is that of `instruction`.
    let result = unsafe { instruction(number, arguments) };
    // The kernel returns an error as its negated number, of which there are at most 4095.
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// Makes the call again as long as a signal interrupts it.
pub(in crate::base) fn retry_interrupted(
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno(libc::EINTR)) => {}
            result => return result,
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes rax, rcx and r11, and memory that the caller vouches for.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel changes x0, and memory that the caller vouches for.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") a as isize => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

#[cfg(all(not(any(target_arch = "x86_64", target_arch = "aarch64")), not(miri)))]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let _errno = super::ErrnoGuard::new();
    // SAFETY: the caller vouches for the memory that the kernel reads and writes.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => -(Errno::last().0 as isize),
        result => result as isize,
    }
}

/// The calls that tests under Miri need, through the functions that Miri knows.
#[cfg(miri)]
unsafe fn instruction(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let pointer = std::ptr::with_exposed_provenance_mut::<libc::c_void>;
    // SAFETY: the caller vouches for the memory that the kernel reads and writes.
    unsafe {
        match number {
            libc::SYS_mmap => match libc::mmap(pointer(a), b, c as i32, d as i32, e as i32, f as i64) {
                libc::MAP_FAILED => -(libc::ENOMEM as isize),
                start => start.expose_provenance() as isize,
            },
            libc::SYS_munmap => libc::munmap(pointer(a), b) as isize,
            libc::SYS_futex => libc::syscall(number, pointer(a), b as i32, c as u32, pointer(d)) as isize,
            _ => -(libc::ENOSYS as isize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors_are_told_apart_and_errno_stays() {
        // SAFETY: `getpid` touches no memory, and there is no descriptor -1.
        unsafe {
            assert_eq!(system_call!(libc::SYS_getpid), Ok(std::process::id() as usize));
            *libc::__errno_location() = 77;
            assert_eq!(system_call!(libc::SYS_close, -1i32), Err(Errno(libc::EBADF)));
            assert_eq!(*libc::__errno_location(), 77);
        }
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut calls = 0;
        let result = retry_interrupted(|| {
            calls += 1;
            if calls < 3 { Err(Errno(libc::EINTR)) } else { Ok(calls) }
        });
        assert_eq!(result, Ok(3));
    }
}
