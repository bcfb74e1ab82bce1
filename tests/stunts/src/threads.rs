//! The first thread ends, and the process goes on until the last one has.

use std::hint::black_box;
use std::time::Duration;

pub(crate) fn the_first_one_leaves() {
    std::thread::spawn(|| {
        for n in 0..10 {
            drop(black_box(vec![1u8; 100 + n]));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // NOTE: not `pthread_exit`, which would unwind through frames of Rust.
    // SAFETY: nothing of this thread is used by the other one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}
