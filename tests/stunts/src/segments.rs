//! A recursion that continues on one new stack after the other. The stacks are unmapped on the way
//! back. Afterwards smaller ones, or memory that may not be touched, are at the same addresses.

use std::ffi::c_void;
use std::hint::black_box;

const SEGMENTS: usize = 60;
/// Calls on each stack.
const CALLS: usize = 6;
const ROUNDS: usize = 12;
const LARGE: usize = 64 << 10;
const SMALL: usize = 24 << 10;

pub(crate) fn stunt() {
    // No other mapping gets into this range: only the stacks of one recursion, and nothing at all.
    let range = Range::reserve(SEGMENTS * LARGE);
    for round in 0..ROUNDS {
        // Small stacks end lower, where the large ones of the round before had their outer frames.
        let len = if round % 2 == 0 { LARGE } else { SMALL };
        assert_eq!(next_stack(&range, SEGMENTS, len), (SEGMENTS * CALLS) as u64);
        black_box(vec![1u8; 9]);
    }
}

#[inline(never)]
fn next_stack(range: &Range, left: usize, len: usize) -> u64 {
    if left == 0 {
        return 0;
    }
    let place = range.0 + (left - 1) * LARGE;
    // A page at the lower end stays untouchable.
    protect(place + 4096, len - 4096, libc::PROT_READ | libc::PROT_WRITE);
    let mut call = Call { range, left, len, result: 0 };
    // SAFETY: the stack ends at a multiple of sixteen and is used by nothing else; `run` is called
    // with the argument that it expects, and does not unwind.
    unsafe { on_stack((place + len) as *mut c_void, run, (&raw mut call).cast()) };
    // Whatever the stack held is gone.
    // SAFETY: the range is this program's, and no function runs there any more.
    let unmapped = unsafe { libc::munmap(place as *mut c_void, LARGE) };
    assert_eq!(unmapped, 0);
    map(place, LARGE, libc::MAP_FIXED);
    black_box(vec![2u8; 7]);
    call.result
}

/// What is to be done on another stack.
struct Call<'a> {
    range: &'a Range,
    left: usize,
    len: usize,
    result: u64,
}

extern "C" fn run(call: *mut c_void) {
    // SAFETY: `next_stack` passes a call that nothing else uses meanwhile.
    let call = unsafe { &mut *call.cast::<Call<'_>>() };
    call.result = recurse(call, CALLS);
    black_box(&call.result);
}

#[inline(never)]
fn recurse(call: &Call<'_>, calls: usize) -> u64 {
    let block = black_box(vec![1u8; 1 + calls]);
    let below =
        if calls == 1 { next_stack(call.range, call.left - 1, call.len) } else { recurse(call, calls - 1) };
    black_box(vec![3u8; 3]);
    black_box(&block);
    below + 1
}

/// A range of addresses that nothing else uses and that may not be touched.
struct Range(usize);

impl Range {
    fn reserve(len: usize) -> Range {
        Range(map(0, len, 0))
    }
}

fn map(place: usize, len: usize, flags: i32) -> usize {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flags;
    // SAFETY: with MAP_FIXED the place is a part of the reserved range in which no function runs.
    let mapped = unsafe { libc::mmap(place as *mut c_void, len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    mapped as usize
}

fn protect(place: usize, len: usize, protection: i32) {
    // SAFETY: the place is a part of the reserved range.
    assert_eq!(unsafe { libc::mprotect(place as *mut c_void, len, protection) }, 0);
}

/// Calls `f` with `argument` on the stack that ends at `top`. The unwind rules find the caller by
/// the frame pointer, as those of other programs with segmented stacks do.
///
/// # Safety
/// `top` must be the aligned end of a stack that is large enough for `f`, and `f` must not unwind.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn on_stack(top: *mut c_void, f: extern "C" fn(*mut c_void), argument: *mut c_void) {
    std::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdi",
        "mov rdi, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Stays on the same stack: on other processors this package has no switch of its own.
#[cfg(not(target_arch = "x86_64"))]
unsafe extern "C" fn on_stack(_top: *mut c_void, f: extern "C" fn(*mut c_void), argument: *mut c_void) {
    f(argument);
}
