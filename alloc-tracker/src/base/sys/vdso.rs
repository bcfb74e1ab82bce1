//! The kernel's clock without a system call: the function that the kernel maps into every process
//! (vDSO). In: a clock. Out: nanoseconds. Never allocates, never calls the C library's
//! `clock_gettime`, which a program may have replaced by one that stands still.
//!
//! [`prepare`] finds the function once, when a recording begins. Without it, or before that, the
//! clock is read by a system call.
//!
//! Source of the layout: "System V Application Binary Interface", chapters 4 and 5 (ELF).

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::system_call::system_call;

/// Returns the time that a clock of the kernel shows, in nanoseconds.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let function = CLOCK_GETTIME.load(Ordering::Relaxed);
    if function.is_null() {
        // SAFETY: the pointer is valid for the write of a `timespec`.
        let _ = unsafe { system_call!(libc::SYS_clock_gettime, clock, &raw mut time) };
    } else {
        // SAFETY: the kernel's function of this name has this type, and the pointer is valid for
        // the write of a `timespec`.
        unsafe {
            let function: ClockGettime = std::mem::transmute(function);
            function(clock, &raw mut time);
        }
    }
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Finds the kernel's function.
pub(crate) fn prepare() {
    if !CLOCK_GETTIME.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: `getauxval` has no preconditions. Its result is the start of the kernel's image, or
    // 0.
    let found = unsafe {
        let image = libc::getauxval(libc::AT_SYSINFO_EHDR) as usize;
        if image == 0 { None } else { find(std::ptr::with_exposed_provenance(image), NAME) }
    };
    CLOCK_GETTIME.store(found.map_or(std::ptr::null_mut(), <*const u8>::cast_mut), Ordering::Relaxed);
}

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

static CLOCK_GETTIME: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

#[cfg(target_arch = "aarch64")]
const NAME: &CStr = c"__kernel_clock_gettime";
#[cfg(not(target_arch = "aarch64"))]
const NAME: &CStr = c"__vdso_clock_gettime";

/// Returns the address of the function with this name in an ELF image of 64 bits that is mapped as
/// it is. `None` if the image has no such function.
///
/// # Safety
/// `image` must be the start of a whole image that the kernel has mapped for good.
unsafe fn find(image: *const u8, name: &CStr) -> Option<*const u8> {
    if cfg!(not(target_pointer_width = "64")) {
        return None;
    }
    // SAFETY: the caller promises a whole image. All offsets come from the kernel's own tables.
    unsafe {
        let word = |at: usize| image.add(at).cast::<u64>().read_unaligned();
        let half = |at: usize| usize::from(image.add(at).cast::<u16>().read_unaligned());
        let (headers, size, count) = (word(PROGRAM_HEADERS) as usize, half(HEADER_SIZE), half(HEADER_COUNT));
        let (mut bias, mut dynamic) = (None, None);
        for header in (0..count).map(|index| headers + index * size) {
            match image.add(header).cast::<u32>().read_unaligned() {
                PT_LOAD if bias.is_none() => {
                    bias = Some(word(header + 8).wrapping_sub(word(header + 16)));
                }
                PT_DYNAMIC => dynamic = Some(word(header + 8) as usize),
                _ => {}
            }
        }
        let (bias, mut entry) = (bias?, dynamic?);
        let (mut symbols, mut strings) = (None, None);
        while word(entry) != DT_NULL {
            let offset = bias.wrapping_add(word(entry + 8)) as usize;
            match word(entry) {
                DT_SYMTAB => symbols = Some(offset),
                DT_STRTAB => strings = Some(offset),
                _ => {}
            }
            entry += 16;
        }
        // The names follow the symbols, so the symbols end where the names begin.
        let (symbols, strings) = (symbols?, strings?);
        let count = strings.checked_sub(symbols)? / SYMBOL_LEN;
        for symbol in (0..count.min(MAX_SYMBOLS)).map(|index| symbols + index * SYMBOL_LEN) {
            let at = strings + image.add(symbol).cast::<u32>().read_unaligned() as usize;
            let value = word(symbol + 8);
            if value != 0 && CStr::from_ptr(image.add(at).cast()) == name {
                return Some(image.wrapping_add(bias.wrapping_add(value) as usize));
            }
        }
        None
    }
}

/// Offsets in the header of the image.
const PROGRAM_HEADERS: usize = 32;
const HEADER_SIZE: usize = 54;
const HEADER_COUNT: usize = 56;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const SYMBOL_LEN: usize = 24;
const MAX_SYMBOLS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_function_shows_the_time_of_the_system_call() {
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
            let by_call = |time: &mut libc::timespec| {
                // SAFETY: the pointer is valid for the write of a `timespec`.
                unsafe { system_call!(libc::SYS_clock_gettime, clock, &raw mut *time) }.unwrap();
                time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
            };
            prepare();
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let (before, now, after) = (by_call(&mut time), clock_ns(clock), by_call(&mut time));
            assert!((before..=after).contains(&now), "{before} {now} {after}");
        }
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert!(!CLOCK_GETTIME.load(Ordering::Relaxed).is_null());
        }
    }
}
