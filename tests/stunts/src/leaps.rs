//! `longjmp` through C: frames vanish without anybody being told.

use std::ffi::{c_int, c_ulong};
use std::hint::black_box;

const ROUNDS: c_ulong = 5_000;

unsafe extern "C" {
    fn stunts_calls(function: extern "C" fn(c_ulong), argument: c_ulong) -> c_int;
    fn stunts_leaps();
}

pub(crate) fn stunt() {
    let leapt = (0..ROUNDS).filter(|round| !call(*round)).count();
    assert!(leapt > ROUNDS as usize / 2 && leapt < ROUNDS as usize, "{leapt}");
}

/// Whether it came back by itself.
#[inline(never)]
fn call(round: c_ulong) -> bool {
    let before = black_box(vec![1u8; 20]);
    // SAFETY: no frame of ours that is jumped over has anything to drop.
    let returned = unsafe { stunts_calls(descend, round) } != 0;
    // At the same stack addresses as what was jumped over, other frames.
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
            // A point to come back to between two others. It always leaps, over frames without destructors.
            call(round + 1);
        }
        dive(round, depth - 1);
    } else if !round.is_multiple_of(4) {
        // SAFETY: there is a `stunts_calls` to come back to, and nothing to drop in between.
        unsafe { stunts_leaps() };
    }
    black_box(0);
}
