//! A thousand forks while other threads may hold any lock. The children allocate and end in every
//! way. An alarm ends a child that hangs.

use std::ffi::CString;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const FORKS: usize = 1_000;

pub(crate) fn stunt() {
    let stop = AtomicBool::new(false);
    let itself = CString::new(std::env::current_exe().unwrap().as_os_str().as_bytes()).unwrap();
    std::thread::scope(|scope| {
        let until_stopped = || {
            while !stop.load(Relaxed) {
                work(50);
            }
        };
        let threads = [(); 4].map(|()| scope.spawn(until_stopped));
        for round in 0..FORKS {
            // SAFETY: the child may go on to allocate: glibc's allocator works in the fork of a
            // process with threads.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork {round}");
            if child == 0 {
                work_and_end_as_child(round, &itself);
            }
            work(5);
            let mut status = 0;
            // SAFETY: the child is ours, and `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
                "the child of fork {round} ended with {status:#x} (0xe: it hung until its alarm)"
            );
        }
        stop.store(true, Relaxed);
        // Joined one by one: a scope does not wait for the destructors of its threads.
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Allocates, reallocates and frees so many blocks.
fn work(rounds: usize) {
    for size in 1..=rounds {
        let mut list = black_box(Vec::<u8>::with_capacity(size));
        list.reserve_exact(2 * size);
        drop(black_box(list));
    }
}

/// Works in a child, and ends it in one of three ways: `exit`, another program, or `_exit`.
fn work_and_end_as_child(round: usize, itself: &CString) -> ! {
    // SAFETY: the pointers are to C strings and null-terminated arrays of them that live until the
    // call returns or ends the process. The other calls to the C library take numbers only.
    unsafe {
        libc::alarm(120);
        work(20);
        if round.is_multiple_of(10) {
            std::thread::spawn(|| work(20)).join().unwrap();
        }
        match round % 4 {
            0 => std::process::exit(0),
            1 => {
                let args = [itself.as_ptr(), c"nothing".as_ptr(), std::ptr::null()];
                let environment = [std::ptr::null()];
                libc::execve(itself.as_ptr(), args.as_ptr(), environment.as_ptr());
                libc::_exit(9)
            }
            _ => libc::_exit(0),
        }
    }
}
