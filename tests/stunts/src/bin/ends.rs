//! A program that ends in every way in which a program can end. The first argument says how. Before
//! that it makes some events and prints a line.

use std::ffi::CString;
use std::hint::black_box;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() -> ExitCode {
    let way = std::env::args().nth(1).unwrap_or_default();
    // The system must not write the memory of the process to a file: that takes long.
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is valid for reads.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    let shell = [c"/bin/sh", c"-c", c"exit 9"].map(CString::from);
    let arguments = [shell[0].as_ptr(), shell[1].as_ptr(), shell[2].as_ptr(), std::ptr::null()];
    // Long enough for the recorder to come to rest.
    std::thread::sleep(Duration::from_millis(30));
    for size in 1..2_000 {
        std::mem::forget(black_box(vec![1u8; size % 100 + 1]));
    }
    println!("ending");
    std::io::stdout().flush().expect("stdout");
    // SAFETY: no call needs anything that the program has not got: the strings are valid, and no
    // other thread uses the stack of a thread that ends by a system call.
    unsafe {
        match way.as_str() {
            "return" => return ExitCode::from(3),
            "exit" => std::process::exit(4),
            "_exit" => libc::_exit(5),
            "exit of the last thread" => _ = libc::syscall(libc::SYS_exit, 6),
            "exit_group" => _ = libc::syscall(libc::SYS_exit_group, 7),
            "abort" => std::process::abort(),
            "kill" => _ = libc::kill(libc::getpid(), libc::SIGKILL),
            "segmentation fault" => _ = black_box(std::ptr::null::<u8>()).read_volatile(),
            "filter kills the thread" => forbid_getppid(KILL_THREAD),
            "filter kills the process" => forbid_getppid(KILL_PROCESS),
            "exec" => _ = libc::execv(shell[0].as_ptr(), arguments.as_ptr()),
            "panic" => panic!("as asked"),
            // Some kernels take the status from the first thread, others from the last one.
            "first thread ends first" => end_first_thread(|| _ = libc::syscall(libc::SYS_exit, 13)),
            "first thread ends first, then exit" => end_first_thread(|| std::process::exit(12)),
            // After this no path leads to the files of the recording any more.
            "another root" => {
                let is_permitted = libc::chroot(c"/usr".as_ptr()) == 0;
                return ExitCode::from(if is_permitted { 14 } else { 77 });
            }
            "stack overflow" => _ = black_box(overflow(0)),
            other => panic!("unknown end {other:?}"),
        }
    }
    unreachable!("the program has ended")
}

/// Ends the first thread with status 13, while another thread goes on.
fn end_first_thread(last: fn()) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        last();
    });
    // NOTE: `pthread_exit` would unwind through Rust's frames, so this is the system call.
    // SAFETY: the other thread uses no memory of this thread's stack.
    unsafe { libc::syscall(libc::SYS_exit, 13) };
}

#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    overflow(depth + 1) + frame[0]
}

/// Installs a filter of system calls that does `action` at `getppid`, and calls it.
fn forbid_getppid(action: u32) {
    let step = |code: u16, if_true: u8, value: u32| libc::sock_filter { code, jt: if_true, jf: 0, k: value };
    let mut filter = [
        step(LOAD, 0, 0),
        step(IS_EQUAL, 1, libc::SYS_getppid as u32),
        step(RETURN, 0, ALLOW),
        step(RETURN, 0, action),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter outlives the calls, and all other arguments are numbers.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        libc::getppid();
    }
}

/// Loads the number of the system call, which comes first in what the kernel shows to a filter.
const LOAD: u16 = 0x20;
/// Skips the next step if the number is this one.
const IS_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7FFF_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
