//! A recursion of a hundred thousand frames, with events on the way down, at the bottom and on the
//! way up.

use std::hint::black_box;

const DEPTH: usize = 100_000;

pub(crate) fn stunt() {
    let deep = || {
        assert_eq!(descend(DEPTH), DEPTH);
        // Then there are many recursions to a depth of 300, which is unusual, too.
        (0..200).for_each(|_| assert_eq!(descend(300), 300));
    };
    std::thread::Builder::new().stack_size(512 << 20).spawn(deep).unwrap().join().unwrap();
}

#[inline(never)]
fn descend(depth: usize) -> usize {
    if depth == 0 {
        (0..20).for_each(|size| drop(black_box(vec![1u8; 1 + size])));
        return 0;
    }
    let allocates = depth.is_multiple_of(5_000) || depth < 10;
    let block = if allocates { vec![1u8; 10] } else { Vec::new() };
    let below = descend(depth - 1);
    black_box(&block);
    below + 1
}
