//! A program with much that a copy of its process could disturb: it counts its children and their
//! signals, loads and unloads a library, starts threads that end, and moves blocks between slots.
//! It works until its input ends, and then prints what does not depend on how long that took.
//!
//! The first argument is the path of a library, the second the path of a program to run as a child.
//! The first line of the output is the address of the slots, which hold addresses of blocks.

use std::ffi::CString;
use std::hint::black_box;
use std::io::{Read, Write};
use std::process::exit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

/// Size of the blocks that the slots have.
const BLOCK: usize = 1000;
const SLOTS_OF_THREAD: usize = 64;
const THREADS: usize = 4;

static SLOTS: [AtomicPtr<[u8; BLOCK]>; SLOTS_OF_THREAD * THREADS] =
    [const { AtomicPtr::new(null_mut()) }; SLOTS_OF_THREAD * THREADS];
static IS_OVER: AtomicBool = AtomicBool::new(false);
static CHILD_SIGNALS: AtomicU32 = AtomicU32::new(0);
/// Children that `waitpid(-1)` returned and that were not started here, and such that it missed.
static STRANGERS: AtomicU64 = AtomicU64::new(0);
static INTERRUPTED_SLEEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_child_signal(_: i32) {
    CHILD_SIGNALS.fetch_add(1, SeqCst);
}

fn main() {
    let arguments: Vec<CString> =
        std::env::args().skip(1).map(|argument| CString::new(argument).expect("an argument")).collect();
    let [library, program] = arguments.as_slice() else { panic!("give a library and a program") };
    // SAFETY: an all-zero `sigaction` is valid, and the handler has the right type. Only the main
    // thread shall receive the signal, so the others block it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_child_signal as extern "C" fn(i32) as *const () as usize;
        libc::sigaction(libc::SIGCHLD, &raw const action, null_mut());
    }
    println!("{:#x} {}", SLOTS.as_ptr().addr(), SLOTS.len());
    std::io::stdout().flush().expect("stdout");
    block_child_signals(true);
    let mut workers: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || move_blocks(&SLOTS[thread * SLOTS_OF_THREAD..][..SLOTS_OF_THREAD]))
        })
        .collect();
    workers.push(std::thread::spawn(wait_in_poll));
    workers.push(std::thread::spawn(|| {
        // Everything that is written is read before the end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        IS_OVER.store(true, SeqCst);
    }));
    block_child_signals(false);
    let mut children = 0;
    while !IS_OVER.load(SeqCst) {
        start_child(children, program);
        children += 1;
        load(library);
        std::thread::spawn(|| black_box(vec![1u8; 500])).join().expect("a thread");
    }
    for worker in workers {
        worker.join().expect("a thread");
    }
    println!("strangers: {}", STRANGERS.load(SeqCst));
    println!("signals that are missing: {}", children - CHILD_SIGNALS.load(SeqCst));
    println!("interrupted waits: {}", INTERRUPTED_SLEEPS.load(SeqCst));
    exit(7);
}

fn block_child_signals(blocked: bool) {
    // SAFETY: the set is initialized before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
        libc::pthread_sigmask(how, &raw const set, null_mut());
    }
}

/// Starts a child, and waits for any child there may be.
fn start_child(number: u32, program: &CString) {
    // SAFETY: the child calls only functions that are allowed after `fork`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the list of arguments ends with a null.
        unsafe {
            if number.is_multiple_of(2) {
                libc::execv(program.as_ptr(), [program.as_ptr(), null()].as_ptr());
            }
            libc::_exit(3);
        }
    }
    let expected = if number.is_multiple_of(2) { 0 } else { 3 };
    loop {
        let mut status = 0;
        // SAFETY: `status` may be written.
        let waited = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if waited == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
            continue;
        }
        if waited != child || libc::WEXITSTATUS(status) != expected {
            STRANGERS.fetch_add(1, SeqCst);
        }
        return;
    }
}

fn load(library: &CString) {
    // SAFETY: loading the library runs no code of ours, and nothing of it is used.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "the library can be loaded");
        libc::dlclose(handle);
    }
}

/// Puts blocks into slots and takes them out. A slot is set after its block is allocated, and
/// cleared before the block is freed.
fn move_blocks(slots: &[AtomicPtr<[u8; BLOCK]>]) {
    let mut round = 0usize;
    while !IS_OVER.load(Relaxed) {
        round = round.wrapping_add(1);
        let slot = &slots[round.wrapping_mul(7) % slots.len()];
        let old = slot.swap(null_mut(), SeqCst);
        if !old.is_null() {
            // SAFETY: it is from `Box::into_raw` below, and no other thread has these slots.
            drop(unsafe { Box::from_raw(old) });
        }
        slot.store(Box::into_raw(Box::new([round as u8; BLOCK])), SeqCst);
        if round.is_multiple_of(100) {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}

/// Waits in system calls that return early if the thread is stopped and goes on.
fn wait_in_poll() {
    while !IS_OVER.load(Relaxed) {
        // SAFETY: an empty list of descriptors is allowed.
        let outcome = unsafe { libc::poll(null_mut(), 0, 20) };
        if outcome != 0 {
            INTERRUPTED_SLEEPS.fetch_add(1, SeqCst);
        }
    }
}
