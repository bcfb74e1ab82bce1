//! A signal handler runs every millisecond on an alternate signal stack and allocates, whichever
//! instruction it has interrupted. The stacks of its events lead from that stack to the
//! interrupted function's. The test compares them with those of a full walk.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::inner;

const TICKS: u64 = 1_000;
const STACK: usize = 128 << 10;

static HANDLED: AtomicU64 = AtomicU64::new(0);

pub(crate) fn stunt() {
    inner::bump_from_now_on();
    // SAFETY: the stack is never freed. An all-zero `sigaction` is valid. The handler has the right
    // type and does not unwind, and the allocator that it calls may be interrupted by it
    // (`bump_from_now_on`).
    unsafe {
        let memory = Box::leak(vec![0u8; STACK].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(i32) as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
    }
    tick_every(1_000);
    for round in 0.. {
        if HANDLED.load(SeqCst) >= TICKS {
            break;
        }
        compute(round % 9);
    }
    tick_every(0);
}

extern "C" fn handle(_: i32) {
    nested(3);
    HANDLED.fetch_add(1, SeqCst);
}

#[inline(never)]
fn nested(depth: usize) {
    let mut list = black_box(Vec::<u8>::with_capacity(40));
    list.reserve_exact(400);
    if depth > 0 {
        nested(depth - 1);
    }
    drop(black_box(list));
}

/// Computes mostly without allocating, so that the handler rarely interrupts the recorder and most
/// of its events have a stack.
#[inline(never)]
fn compute(depth: usize) -> u64 {
    let block = black_box(vec![1u8; 10 + depth]);
    let mut sum = block.len() as u64;
    for n in 0..20_000u64 {
        sum = black_box(sum.rotate_left(5) ^ n);
    }
    if depth > 0 { compute(depth - 1) + 1 } else { sum }
}

/// Starts a timer that sends SIGALRM; zero stops it.
fn tick_every(microseconds: i64) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: `timer` is valid, and the null pointer says that the former timer is not wanted.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}
