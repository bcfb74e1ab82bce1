//! The whole of both libraries. Their functions lie at the same offsets and differ in one thing: how large their frames
//! are. What is in the frame looks like return addresses to whoever mistakes one library for the other.

use std::hint::black_box;

/// Calls `function` with `argument`.
#[unsafe(no_mangle)]
pub extern "C" fn plug_calls(function: extern "C" fn(usize), argument: usize) {
    let mut room = [0usize; super::WORDS];
    fill(&mut room, function as *const () as usize + 4);
    function(argument);
    black_box(&room);
}

#[inline(never)]
fn fill(room: &mut [usize], with: usize) {
    for word in black_box(room) {
        *word = with;
    }
}
