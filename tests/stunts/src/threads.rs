//! The first thread ends, and the process goes on until its last thread ends.

use std::hint::black_box;
use std::time::Duration;

pub(crate) fn first_thread_ends_first() {
    std::thread::spawn(|| {
        for n in 0..10 {
            drop(black_box(vec![1u8; 100 + n]));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // NOTE: `pthread_exit` would unwind through Rust's frames, so this is the system call.
    // SAFETY: the other thread uses no memory of this thread's stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}
