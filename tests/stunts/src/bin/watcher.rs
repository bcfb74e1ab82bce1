//! A program that watches itself, as programs do that must be alone in their process: it counts its
//! threads and children, and asks for what the kernel gives to such a program only. It prints what
//! it sees. Descriptors and mappings go to stderr, because a recorder may add some.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

static CHILD_SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_child_signal(_: i32) {
    CHILD_SIGNALS.fetch_add(1, SeqCst);
}

fn main() {
    // SAFETY: an all-zero `sigaction` is valid, and the handler has the right type.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_child_signal as extern "C" fn(i32) as *const () as usize;
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
    }
    for round in 0..4 {
        // More events than a thread ring has room for.
        for size in 0..10_000 {
            drop(black_box(vec![1u8; size % 100 + 1]));
        }
        println!("round {round}: {}", look());
        // Whatever a recorder does from time to time happens meanwhile.
        std::thread::sleep(Duration::from_millis(30));
    }
    eprintln!("descriptors {}", count("/proc/self/fd"));
    let maps = std::fs::read_to_string("/proc/self/maps").expect("its mappings");
    eprintln!("mappings {}", maps.lines().count());
    // SAFETY: the call takes a number.
    let left = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    println!("unshare {left}: {}", if left == 0 { String::new() } else { last_error() });
    println!("{} signals of children", CHILD_SIGNALS.load(SeqCst));
}

fn look() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("its status");
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap_or_default().trim();
    let [children, all_children] = [libc::WNOHANG, libc::WNOHANG | libc::__WALL].map(|flags| {
        // SAFETY: a null status is allowed.
        let child = unsafe { libc::waitpid(-1, std::ptr::null_mut(), flags) };
        format!("{child} {}", last_error())
    });
    let tasks = count("/proc/self/task");
    format!("{threads} threads, {tasks} tasks, waits give {children} and {all_children}")
}

fn last_error() -> String {
    std::io::Error::last_os_error().to_string()
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).expect(folder).count()
}
