//! Scopes where the program makes it hard: forks, and no memory for the table. A
//! check never passes because something was not followed.

mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use alloc_oracle::Counting;
use alloc_tracker::{AllocTracker, LiveBlocks, Scope, ScopeHandle, assert_no_leaks};
use scenario::leak_checks::{block, leak_message};
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "forks", child: forks, check },
        Scenario { name: "forks_beside_threads", child: forks_beside_threads, check },
        Scenario { name: "no_memory", child: no_memory, check: check_alone },
    ])
}

/// Runs the child, which makes the assertions: alone, while everything is counted, and recorded.
fn check(name: &'static str) {
    check_alone(name);
    Run::of(name).env("ALLOC_TRACKER", "count").finish().assert_quiet(0);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    outcome.replay().assert_sound();
}

fn check_alone(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
}

/// Runs `child` in a fork and returns its exit status: 0, or 1 if it has panicked.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child calls `child` and ends; glibc's allocator works in the fork of a process
    // with threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let failed = catch_unwind(AssertUnwindSafe(child)).is_err();
        // SAFETY: the call ends the child at once.
        unsafe { libc::_exit(failed.into()) };
    }
    let mut status = 0;
    // SAFETY: the child exists, and the status is valid.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "{status}");
    libc::WEXITSTATUS(status)
}

/// A child has none of its parent's scopes, and may have its own. The parent's are as before.
fn forks() {
    let scope = Scope::new();
    let entered = scope.enter();
    let kept = block(700);
    let status = fork(|| {
        assert_eq!(scope.live(), LiveBlocks::default());
        drop(block(10));
        let handle = ScopeHandle::current();
        let inherited = handle.enter();
        drop((inherited, block(20)));
        assert_no_leaks(|| drop(block(30)));
        let message = leak_message(|| std::mem::forget(block(4000)));
        assert!(message.contains("4,000 B in 1 block"), "{message}");
        assert_eq!(scope.live(), LiveBlocks::default());
        // A child of the child, once the child has scopes of its own.
        let own = Scope::new();
        let _entered = own.enter();
        let kept = block(50);
        assert_eq!(own.live(), LiveBlocks { blocks: 1, bytes: 50 });
        assert_eq!(fork(|| assert_no_leaks(|| drop(block(60)))), 0);
        assert_eq!(own.live(), LiveBlocks { blocks: 1, bytes: 50 });
        drop(kept);
    });
    assert_eq!(status, 0);
    assert_eq!(scope.live(), LiveBlocks { blocks: 1, bytes: 700 });
    drop(kept);
    assert_eq!(scope.live(), LiveBlocks::default());
    drop(entered);
}

/// Other threads hold the locks of the table at the moment of a fork.
fn forks_beside_threads() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let scope = Scope::new();
                    let _entered = scope.enter();
                    drop((block(100), block(200)));
                }
            });
        }
        for _ in 0..50 {
            let status = fork(|| {
                drop(block(10));
                assert_no_leaks(|| drop(block(30)));
                drop(Scope::new());
            });
            assert_eq!(status, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn limit_address_space(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

/// The table cannot grow. The check fails although every block is freed.
fn no_memory() {
    // The C library gets its memory before.
    drop((0..40_000).map(|_| Box::new([1u8; 64])).collect::<Vec<_>>());
    let stock: Vec<Box<[u8; 64]>> = (0..40_000).map(|_| Box::new([1; 64])).collect();
    std::mem::forget(stock.into_iter().next_back());
    assert_no_leaks(|| drop(block(1)));
    let message = leak_message(|| {
        let mut boxes = Vec::with_capacity(20_000);
        limit_address_space(1);
        boxes.extend((0..20_000).map(|_| Box::new([1u8; 64])));
        drop(boxes);
        limit_address_space(libc::RLIM_INFINITY);
    });
    assert!(message.contains("could not be followed") && message.contains("no memory"), "{message}");
    assert!(message.lines().count() == 1 && !message.contains("live"), "{message}");
    // The next check is not disturbed by it.
    assert_no_leaks(|| drop(block(1)));
}
