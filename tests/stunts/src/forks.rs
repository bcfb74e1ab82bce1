//! A thousand forks while other threads hold whatever they hold. Children allocate and end in every way; one that hangs is
//! ended by its alarm.

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
            // SAFETY: glibc's allocator works in the fork of a process with threads.
            let child = unsafe { libc::fork() };
            assert!(child >= 0, "fork {round}");
            if child == 0 {
                child_ends(round, &itself);
            }
            work(5);
            let mut status = 0;
            // SAFETY: the child is ours and `status` a valid place.
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

fn work(rounds: usize) {
    for size in 1..=rounds {
        let mut list = black_box(Vec::<u8>::with_capacity(size));
        list.reserve_exact(2 * size);
        drop(black_box(list));
    }
}

fn child_ends(round: usize, itself: &CString) -> ! {
    // SAFETY: no memory is involved but C strings that live on; each call ends the process or does nothing to it.
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
