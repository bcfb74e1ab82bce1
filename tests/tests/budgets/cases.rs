//! Tests with budgets, of the test harness and of tokio. In a package of their own they are run by
//! cargo and nextest, too.

use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use alloc_tracker::ScopeHandle;
use alloc_tracker::block::budget;

/// Is set in some processes: there the tests `exceeds_*` exceed their budgets.
pub(crate) const EXCEED: &str = "BUDGETS_EXCEED";

fn block(size: usize) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(size))
}

/// Allocates the value of the variable: one byte in one block.
fn exceeds() -> bool {
    env::var_os(EXCEED).is_some()
}

/// Blocks that are allocated around an await, on whichever thread polls.
async fn work(blocks: usize) {
    for size in 1..=blocks {
        let kept = block(size);
        yield_now().await;
        drop(kept);
    }
}

/// Lets other tasks run. Tokio's own function of this name allocates when it is first called.
async fn yield_now() {
    let mut is_ready = false;
    let once = std::future::poll_fn(|context| match std::mem::replace(&mut is_ready, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    once.await;
}

#[test]
#[alloc_tracker::budget(allocations = 2, allocated = 300, peak = 300, leaked = 0)]
fn sync_below() {
    drop((block(100), block(200)));
}

#[alloc_tracker::budget(allocations = 2, allocated = 300, peak = 300, leaked = 0)]
#[test]
fn sync_above() -> Result<(), io::Error> {
    println!("captured output is not part of a budget: {:?}", [1u8; 300]);
    let both = (block(100), block(200));
    drop(both);
    Ok(())
}

/// The bounds are exact, so the runtime is no part of them, wherever the attribute is.
#[tokio::test]
#[alloc_tracker::budget(allocations = 20, allocated = 210, peak = 20, leaked = 0)]
async fn current_thread_below() {
    work(20).await;
}

#[alloc_tracker::budget(allocations = 20, allocated = 210, peak = 20, leaked = 0)]
#[tokio::test]
async fn current_thread_above() -> io::Result<()> {
    work(20).await;
    Err(io::ErrorKind::Other).or(Ok(()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[alloc_tracker::budget(allocations = 20, allocated = 210, peak = 20, leaked = 0)]
async fn multi_thread_below() {
    work(20).await;
}

#[alloc_tracker::budget(allocations = 20, allocated = 210, peak = 20, leaked = 0)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_thread_above() {
    work(20).await;
}

/// Other tasks of the same thread run between two polls of the test.
#[tokio::test]
async fn other_tasks_do_not_count() {
    let noise = tokio::spawn(async {
        loop {
            drop(block(5000));
            yield_now().await;
        }
    });
    let returned = budget! {
        allocations = 50, allocated = 1275, peak = 50;
        work(50).await;
        7
    };
    assert_eq!(returned, 7);
    noise.abort();
}

/// A task enters by a handle at each poll, as with a span of `tracing`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_counts_on_other_threads() {
    let message = exceeded(async {
        budget! {
            allocated = 0, leaked = 0;
            let scope = ScopeHandle::current();
            let mut task = std::pin::pin!(work(400));
            let within = std::future::poll_fn(|context| {
                let _entered = scope.enter();
                task.as_mut().poll(context)
            });
            within.await;
            let worker = std::thread::spawn(move || {
                let _entered = scope.enter();
                std::mem::forget(block(70_000));
            });
            worker.join().unwrap();
        }
    })
    .await;
    // 1 + 2 + … + 400, and the block of the worker.
    assert!(message.contains("    150,200 B: "), "{message}");
    assert!(message.contains("leaked: expected at most 0 B, found 70,000 B\n    70,000 B: "), "{message}");
}

/// No test, but called by one.
#[alloc_tracker::budget(allocated = 100)]
fn helper(size: usize) {
    drop(block(size));
}

/// Awaits a future that must panic, and returns the message.
async fn exceeded(future: impl Future<Output = ()>) -> String {
    let mut future = std::pin::pin!(future);
    let polled = std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    });
    *polled.await.expect_err("a panic").downcast::<String>().unwrap()
}

mod inner {
    #[test]
    #[alloc_tracker::budget(allocations = 1)]
    fn exceeds_sync() {
        drop(super::block(10));
        if super::exceeds() {
            drop(super::block(20));
        }
    }

    #[alloc_tracker::budget(peak = "1KiB", leaked = 0)]
    #[tokio::test(flavor = "multi_thread")]
    async fn exceeds_above() {
        std::mem::forget(super::block(if super::exceeds() { 2000 } else { 0 }));
    }

    #[tokio::test]
    #[alloc_tracker::budget(allocated = "1KiB")]
    async fn exceeds_below() {
        drop(super::block(if super::exceeds() { 1024 } else { 0 }));
    }

    #[test]
    fn exceeds_in_helper() {
        super::helper(if super::exceeds() { 101 } else { 0 });
    }

    /// Alone in its process where it is to fail.
    #[test]
    #[alloc_tracker::budget(peak = "16MiB", threads = "all")]
    fn exceeds_all() {
        if super::exceeds() {
            std::thread::spawn(|| drop(super::block(20 << 20))).join().unwrap();
        }
    }
}
