//! The code of both libraries. Their functions are at the same offsets and differ only in the size
//! of their stack frames. The frames are filled with words that look like return addresses. So a
//! walk that uses the unwind rules of the wrong library finds a false caller and does not fail.

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
