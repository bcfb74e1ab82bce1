//! A library whose function calls back from a large frame, and through another function.

use std::hint::black_box;

/// Calls `function` with `argument`.
#[unsafe(no_mangle)]
pub extern "C" fn plug_calls(function: extern "C" fn(usize), argument: usize) {
    let room = black_box([argument; 200]);
    indirectly(function, argument);
    black_box(&room);
}

#[inline(never)]
fn indirectly(function: extern "C" fn(usize), argument: usize) {
    function(argument);
    black_box(argument);
}
