//! `longjmp` through C: stack frames disappear without returning and without being unwound.

use std::ffi::{c_int, c_ulong};
use std::hint::black_box;

const ROUNDS: c_ulong = 5_000;

unsafe extern "C" {
    fn stunts_calls(function: extern "C" fn(c_ulong), argument: c_ulong) -> c_int;
    fn stunts_leaps();
}

pub(crate) fn stunt() {
    let jumped = (0..ROUNDS).filter(|round| !call(*round)).count();
    assert!(jumped > ROUNDS as usize / 2 && jumped < ROUNDS as usize, "{jumped}");
}

/// Calls `descend` through C. Returns whether it returned; otherwise it jumped out.
#[inline(never)]
fn call(round: c_ulong) -> bool {
    let before = black_box(vec![1u8; 20]);
    // SAFETY: the frames that `longjmp` may skip have no values with destructors.
    let returned = unsafe { stunts_calls(descend, round) } != 0;
    // This call's frames are at the stack addresses of the frames that were skipped.
    black_box(vec![2u8; 30 + before.len()]);
    returned
}

extern "C" fn descend(round: c_ulong) {
    dive(round, round % 9);
    black_box(0);
}

#[inline(never)]
fn dive(round: c_ulong, depth: c_ulong) {
    black_box(Vec::<u8>::with_capacity(1 + depth as usize));
    if depth > 0 {
        if round.is_multiple_of(7) && depth == 4 {
            // A second jump target, inside of the first one's call. Its call always jumps out, over
            // frames without destructors.
            call(round + 1);
        }
        dive(round, depth - 1);
    } else if !round.is_multiple_of(4) {
        // SAFETY: an activation of `stunts_calls` is the jump target, and no frame in between has
        // values with destructors.
        unsafe { stunts_leaps() };
    }
    black_box(0);
}
