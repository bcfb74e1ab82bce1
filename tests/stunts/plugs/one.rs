//! A library whose function calls back from a small frame.

use std::hint::black_box;

/// Calls `function` with `argument`.
#[unsafe(no_mangle)]
pub extern "C" fn plug_calls(function: extern "C" fn(usize), argument: usize) {
    let room = black_box([argument; 4]);
    function(argument);
    black_box(&room);
}
