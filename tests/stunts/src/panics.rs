//! Panics that are caught, resumed and caught again. Destructors on the way allocate, and some
//! panic themselves.

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};

const ROUNDS: u64 = 400;

pub(crate) fn stunt() {
    if cfg!(panic = "abort") {
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    for round in 0..ROUNDS {
        let caught = catch_unwind(|| descend(round, 1 + round % 12)).unwrap_err();
        assert_eq!(*caught.downcast::<u64>().unwrap(), round);
        black_box(vec![1u8; 10 + round as usize]);
    }
    // Several threads panic at once.
    let threads: Vec<_> = (0..4)
        .map(|seed| std::thread::spawn(move || (0..50).for_each(|n| panic_and_catch(seed + n))))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn panic_and_catch(round: u64) {
    assert!(catch_unwind(|| descend(round, 6)).is_err());
}

/// A value whose destructor allocates.
struct Allocates(u64);

impl Drop for Allocates {
    fn drop(&mut self) {
        black_box(vec![0u8; 1 + self.0 as usize]);
        // Some destructors panic and catch that, while another panic unwinds the stack.
        if self.0.is_multiple_of(3) {
            assert!(catch_unwind(|| panic_any(self.0)).is_err());
        }
    }
}

#[inline(never)]
fn descend(round: u64, depth: u64) {
    let _guard = Allocates(depth);
    black_box(vec![1u8; depth as usize]);
    if depth == 0 {
        panic_any(round);
    }
    match round % 3 {
        0 => descend(round, depth - 1),
        // The panic is caught and resumed at every depth.
        1 => resume_unwind(catch_unwind(|| descend(round, depth - 1)).unwrap_err()),
        _ => {
            let caught = catch_unwind(AssertUnwindSafe(|| descend(round, depth - 1))).unwrap_err();
            black_box(vec![2u8; 100]);
            resume_unwind(caught)
        }
    }
    black_box(0);
}
