//! Scopes and `assert_no_leaks`: a block belongs to the scope that it was allocated in, whatever
//! happens to it later, and the message of a failed check names the line of code.

mod scenario;

use std::cell::RefCell;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind, set_hook};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Barrier, OnceLock};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::{AllocTracker, LeakCheck, LiveBlocks, Scope, ScopeHandle, assert_no_leaks, measure};
use scenario::leak_checks::{block, block_in, leak_message, message_of};
use scenario::{Lcg, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "lines", child: lines, check: check_alone },
        Scenario { name: "many_lines", child: many_lines, check: check_alone },
        Scenario { name: "freed_elsewhere", child: freed_elsewhere, check },
        Scenario { name: "reallocs", child: reallocs, check },
        Scenario { name: "nested", child: nested, check: check_alone },
        Scenario { name: "order_of_guards", child: order_of_guards, check },
        Scenario { name: "ended_scopes", child: ended_scopes, check },
        Scenario { name: "too_deep", child: too_deep, check: check_alone },
        Scenario { name: "many_scopes", child: many_scopes, check },
        Scenario { name: "side_by_side", child: side_by_side, check },
        Scenario { name: "handles", child: handles, check: check_alone },
        Scenario { name: "results", child: results, check },
        Scenario { name: "panics", child: panics, check: check_alone },
        Scenario { name: "lazy_statics", child: lazy_statics, check: check_alone },
        Scenario { name: "ends_of_threads", child: ends_of_threads, check },
        Scenario { name: "deep_stacks", child: deep_stacks, check },
        Scenario { name: "beside_a_recording", child: beside_a_recording, check: check_beside_a_recording },
        Scenario { name: "events_of_all_threads", child: events_of_all_threads, check },
    ])
}

/// Runs the child, which makes the assertions: alone, while everything is counted, and recorded.
fn check(name: &'static str) {
    check_alone(name);
    Run::of(name).env("ALLOC_TRACKER", "count").finish().assert_quiet(0);
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.different, 0);
}

fn check_alone(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
}

fn live(blocks: u64, bytes: u64) -> LiveBlocks {
    LiveBlocks { blocks, bytes }
}

#[inline(never)]
fn keep(size: usize) -> u32 {
    std::mem::forget(black_box(Vec::<u8>::with_capacity(size)));
    line!() - 1
}

#[inline(always)]
fn keep_inlined(size: usize) -> u32 {
    std::mem::forget(black_box(vec![1u8; size]));
    line!() - 1
}

/// The line of a block is that of the function which has allocated it, also where `Vec` is between
/// the function and the allocator, and also for an inlined function.
fn lines() {
    let mut lines = (0, 0, 0);
    let message = leak_message(|| {
        lines.0 = keep(4000);
        for _ in 0..3 {
            lines.1 = keep_inlined(50);
        }
        let map: std::collections::BTreeMap<u64, u64> = (0..2).map(|n| (n, n)).collect();
        lines.2 = line!() - 1;
        std::mem::forget(map);
        drop(block(100_000));
    });
    let text: Vec<&str> = message.lines().collect();
    assert!(
        text[0].starts_with("4,") && text[0].contains("B in 5 blocks were allocated in a scope"),
        "{message}"
    );
    let expected = [
        ("  4,000 B in 1 block: ", "scopes::keep at ", lines.0),
        ("  150 B in 3 blocks: ", "keep_inlined at ", lines.1),
    ];
    for (held, function, line) in expected {
        let line = format!("tests/scopes.rs:{line}");
        let found = text.iter().find(|text| text.starts_with(held)).unwrap_or_else(|| panic!("{message}"));
        assert!(found.contains(function) && found.ends_with(&line), "{line} in {message}");
    }
    let line = format!("tests/scopes.rs:{}", lines.2);
    assert!(text.iter().any(|text| text.contains("scopes::lines") && text.ends_with(&line)), "{message}");
    assert!(text.last().unwrap().contains("live is not lost"), "{message}");
    assert_eq!(text.len(), 5, "{message}");
}

/// Ten lines at most, those that hold most, and the sum of the others.
fn many_lines() {
    fn forget(list: Vec<u8>) {
        std::mem::forget(black_box(list));
    }
    let message = leak_message(|| {
        forget(Vec::with_capacity(1001));
        for _ in 0..2 {
            forget(Vec::with_capacity(1));
        }
        forget(Vec::with_capacity(2));
        forget(Vec::with_capacity(2000));
        forget(Vec::with_capacity(2001));
        forget(Vec::with_capacity(2002));
        forget(Vec::with_capacity(2003));
        forget(Vec::with_capacity(2004));
        forget(Vec::with_capacity(2005));
        forget(Vec::with_capacity(2006));
        forget(Vec::with_capacity(2007));
        forget(Vec::with_capacity(2008));
    });
    // 2,000 to 2,008 on nine lines, 1,001 on the tenth; the rest is 1 + 1 and 2 on two lines.
    let sum = (2000..=2008).sum::<u64>() + 1001 + 4;
    assert!(message.starts_with("19,041 B in 13 blocks") && sum == 19_041, "{message}");
    assert!(message.contains("\n  4 B in 3 blocks: 2 more lines\n"), "{message}");
    assert_eq!(message.lines().count(), 1 + 10 + 1 + 1, "{message}");
}

/// A block is freed by a thread that has never been in a scope, during the scope and after it.
fn freed_elsewhere() {
    let (give, take) = channel::<Vec<u8>>();
    let (done, wait) = channel::<()>();
    let thread = std::thread::spawn(move || {
        for list in take {
            drop(list);
            done.send(()).unwrap();
        }
    });
    // A channel keeps a block for messages to come.
    give.send(block(1)).unwrap();
    wait.recv().unwrap();
    let scope = Scope::new();
    for size in 1..100 {
        let list = block_in(scope.handle(), size);
        assert_eq!(scope.live(), live(1, size as u64));
        give.send(list).unwrap();
        wait.recv().unwrap();
        assert_eq!(scope.live(), live(0, 0));
    }
    let list = block_in(scope.handle(), 77);
    drop(scope);
    give.send(list).unwrap();
    wait.recv().unwrap();
    drop(give);
    thread.join().unwrap();
}

/// A realloc never changes which scope a block belongs to.
fn reallocs() {
    let mut older = block(10);
    let scope = Scope::new();
    let entered = scope.enter();
    let mut born = block(100);
    older.reserve_exact(5000);
    assert_eq!(scope.live(), live(1, 100));
    born.reserve_exact(300_000);
    assert_eq!(scope.live(), live(1, 300_000));
    assert!(born.try_reserve_exact(isize::MAX as usize / 2).is_err());
    assert_eq!(scope.live(), live(1, 300_000));
    drop(entered);
    born.shrink_to(40);
    assert_eq!(scope.live(), live(1, 40));
    let mut born = std::thread::spawn(move || {
        born.reserve_exact(7000);
        born
    })
    .join()
    .unwrap();
    assert_eq!(scope.live(), live(1, 7000));
    let other = Scope::new();
    let entered = other.enter();
    born.reserve_exact(9000);
    assert_eq!((scope.live(), other.live()), (live(1, 9000), live(0, 0)));
    drop((born, older));
    assert_eq!(scope.live(), live(0, 0));
    drop(entered);
    // The zeroed one, too, and one that the allocator leaves where it is.
    let entered = other.enter();
    let mut zeroed = black_box(vec![0u8; 64]);
    zeroed.shrink_to(64);
    zeroed.reserve_exact(1);
    assert_eq!(other.live(), live(1, 65));
    drop((zeroed, entered));
    assert_eq!(other.live(), live(0, 0));
}

/// A block belongs to the innermost scope and counts for all around it, also after its end.
fn nested() {
    let outer = Scope::new();
    let entered = outer.enter();
    let inner = Scope::new();
    let entered_inner = inner.enter();
    let kept = block(30);
    drop(entered_inner);
    let own = block(500);
    assert_eq!((outer.live(), inner.live()), (live(2, 530), live(1, 30)));
    drop(inner);
    assert_eq!(outer.live(), live(2, 530));
    drop(kept);
    assert_eq!(outer.live(), live(1, 500));
    drop(own);
    drop(entered);
    assert_eq!(outer.live(), live(0, 0));

    // A scope that begins outside of another one, and is entered there, is none of its.
    let stranger = Scope::new();
    let entered = outer.enter();
    let entered_stranger = stranger.enter();
    let kept = block(9);
    assert_eq!((outer.live(), stranger.live()), (live(0, 0), live(1, 9)));
    drop((kept, entered_stranger, entered));

    // The outer check fails for what the inner one has refused before.
    let message = leak_message(|| {
        let message = leak_message(|| std::mem::forget(block(1234)));
        assert!(message.contains("1,234 B in 1 block was allocated"), "{message}");
    });
    assert!(message.contains("1,234 B in 1 block"), "{message}");
}

/// Guards that are dropped in another order than they were made.
fn order_of_guards() {
    let [a, b] = [Scope::new(), Scope::new()];
    let in_a = a.enter();
    let in_b = b.enter();
    drop(in_a);
    let first = block(1);
    drop(in_b);
    let second = block(2);
    assert_eq!((a.live(), b.live()), (live(0, 0), live(1, 1)));
    let in_a = a.enter();
    drop(a);
    // Inside of a scope that has ended, which has none around it.
    let third = block(3);
    assert_eq!(b.live(), live(1, 1));
    drop(in_a);
    drop((first, second, third));
    assert_eq!(b.live(), live(0, 0));
}

/// The thread is inside of the innermost scope that has not ended, whichever guards are still
/// there: its own blocks belong to that one, and so do those of its handle and of its new scopes.
fn ended_scopes() {
    let stranger = Scope::new();
    let outer = Scope::new();
    let in_outer = outer.enter();
    let inner = Scope::new();
    for scope in [inner, stranger] {
        let _in_ended = scope.enter();
        drop(scope);
        let own = block(9);
        assert_eq!(outer.live(), live(1, 9));
        let young = Scope::new();
        let in_young = young.enter();
        let other = block(11);
        assert_eq!((young.live(), outer.live()), (live(1, 11), live(2, 20)));
        drop((own, other, in_young, young));

        let handle = ScopeHandle::current();
        let kept = std::thread::spawn(move || block_in(handle, 600)).join().unwrap();
        let before = outer.live();
        drop(kept);
        let after = outer.live();
        assert_eq!((before.blocks - after.blocks, before.bytes - after.bytes), (1, 600));
        assert_eq!(after, live(0, 0));
    }
    let last = Scope::new();
    drop((in_outer, last.enter()));
    assert_eq!(outer.live(), live(0, 0));
}

fn too_deep() {
    let scope = Scope::new();
    let guards: Vec<_> = (0..32).map(|_| scope.enter()).collect();
    assert!(message_of(|| scope.enter()).contains("inside of 32 scopes"));
    drop(guards);
    drop(scope.enter());
}

/// Far more scopes than there are slots, one after the other and enclosed.
fn many_scopes() {
    let outer = Scope::new();
    let _entered = outer.enter();
    let mut kept = Vec::with_capacity(70);
    let before = outer.live();
    for round in 0..70_000 {
        let inner = Scope::new();
        let _entered = inner.enter();
        let list = block(16);
        if round % 1000 == 0 {
            kept.push(list);
        } else {
            drop(list);
        }
        assert_eq!(inner.live().blocks, u64::from(round % 1000 == 0));
    }
    let after = outer.live();
    assert_eq!((after.blocks - before.blocks, after.bytes - before.bytes), (70, 70 * 16));
    drop(kept);
    assert_eq!(outer.live(), live(0, 0));
}

/// Eight threads with a thousand scopes each. Every thread counts for itself what it keeps.
fn side_by_side() {
    let barrier = Barrier::new(8);
    std::thread::scope(|threads| {
        for seed in 0..8 {
            let barrier = &barrier;
            threads.spawn(move || {
                let mut lcg = Lcg(seed);
                barrier.wait();
                for _ in 0..1000 {
                    let scope = Scope::new();
                    let (mut expected, mut lists) = (live(0, 0), Vec::with_capacity(20));
                    let entered = scope.enter();
                    for _ in 0..20 {
                        match lcg.below(4) {
                            0 | 1 => {
                                let size = lcg.size();
                                lists.push(block(size));
                                expected.blocks += 1;
                                expected.bytes += size as u64;
                            }
                            2 => {
                                if let Some(mut list) = lists.pop() {
                                    expected.bytes -= list.capacity() as u64;
                                    list.reserve_exact(list.capacity() + 13);
                                    expected.bytes += list.capacity() as u64;
                                    lists.push(list);
                                }
                            }
                            _ => {
                                if let Some(list) = lists.pop() {
                                    expected.blocks -= 1;
                                    expected.bytes -= list.capacity() as u64;
                                }
                            }
                        }
                    }
                    drop(entered);
                    assert_eq!(scope.live(), expected);
                    lists.clear();
                    assert_eq!(scope.live(), live(0, 0));
                    assert_no_leaks(|| block(100));
                }
            });
        }
    });
}

/// Threads enter a scope by its handle. Those that do not are not followed.
fn handles() {
    let scope = Scope::new();
    let handle = scope.handle();
    let kept = std::thread::spawn(move || (block_in(handle, 600), block(7))).join().unwrap();
    assert_eq!(scope.live(), live(1, 600));
    drop(kept);
    assert_eq!(scope.live(), live(0, 0));

    let message = leak_message(|| {
        let scope = ScopeHandle::current();
        let thread = std::thread::spawn(move || {
            std::mem::forget(block(70_000));
            std::mem::forget(block_in(scope, 3000));
        });
        thread.join().unwrap();
    });
    assert!(message.contains("3,000 B in 1 block was allocated"), "{message}");

    let handle = scope.handle();
    drop(scope);
    // An ended scope is not entered, also if another one has taken its place.
    let other = Scope::new();
    let entered = handle.enter();
    let kept = block(10);
    assert_eq!(other.live(), live(0, 0));
    drop((kept, entered));
    let nowhere = ScopeHandle::current().enter();
    drop(block(10));
    drop(nowhere);
}

/// The result is dropped inside of the scope, and what it frees is not live.
fn results() {
    struct Result(#[expect(dead_code, reason = "it is freed with the result")] Vec<u8>, &'static AtomicBool);
    impl Drop for Result {
        fn drop(&mut self) {
            drop(block(10));
            self.1.store(true, Ordering::Relaxed);
        }
    }
    static DROPPED: AtomicBool = AtomicBool::new(false);
    assert_no_leaks(|| Result(block(1000), &DROPPED));
    assert!(DROPPED.swap(false, Ordering::Relaxed));
    LeakCheck::new().warm_up(2).run(|| Result(block(1000), &DROPPED));
    assert!(DROPPED.load(Ordering::Relaxed));
    assert_no_leaks(|| ());
    // What was there before may go inside.
    let older = block(5);
    assert_no_leaks(move || drop(older));
}

/// The closure's own panic is what the caller gets. Nothing is checked, and nothing stays behind.
fn panics() {
    set_hook(Box::new(|_| {}));
    let panicked = catch_unwind(|| {
        assert_no_leaks(|| {
            std::mem::forget(block(100));
            resume_unwind(Box::new(17u8));
        });
    });
    assert_eq!(panicked.unwrap_err().downcast_ref::<u8>(), Some(&17));
    assert_no_leaks(|| drop(block(100)));
    let message = leak_message(|| keep(2000));
    assert!(message.contains("2,000 B in 1 block"), "{message}");
    // The panics and messages of failed checks are no blocks of the scope around them.
    assert_no_leaks(|| {
        let scope = Scope::new();
        let _entered = scope.enter();
        drop(catch_unwind(|| resume_unwind(Box::new(1u8))));
    });
}

/// What is made once and kept is live after the first run, and older in the second.
fn lazy_statics() {
    static FIRST: OnceLock<Vec<u8>> = OnceLock::new();
    static SECOND: OnceLock<Vec<u8>> = OnceLock::new();
    let message = leak_message(|| FIRST.get_or_init(|| block(600)).capacity());
    assert!(message.contains("600 B in 1 block"), "{message}");
    assert_no_leaks(|| FIRST.get_or_init(|| block(600)).capacity());
    let mut runs = 0;
    LeakCheck::new().warm_up(1).run(|| {
        runs += 1;
        SECOND.get_or_init(|| block(600)).capacity()
    });
    assert_eq!(runs, 2);
}

thread_local! {
    static LAST: RefCell<Option<Noisy>> = const { RefCell::new(None) };
}

struct Noisy(#[expect(dead_code, reason = "it is freed with the thread")] Vec<u8>);

impl Drop for Noisy {
    fn drop(&mut self) {
        drop(block(50));
    }
}

/// Blocks in thread-locals go when their thread ends, and `std::thread::scope` does not wait for
/// that.
fn ends_of_threads() {
    for _ in 0..300 {
        assert_no_leaks(|| {
            let scope = ScopeHandle::current();
            std::thread::scope(|threads| {
                for _ in 0..4 {
                    threads.spawn(move || {
                        let _entered = scope.enter();
                        LAST.with(|last| *last.borrow_mut() = Some(Noisy(block(100))));
                    });
                }
            });
        });
    }
}

/// A stack deeper than what is kept of it.
fn deep_stacks() {
    #[inline(never)]
    fn descend(levels: usize) -> Vec<u8> {
        if levels == 0 {
            return block(40);
        }
        let list = descend(levels - 1);
        black_box(&list);
        list
    }
    assert_no_leaks(|| {
        for levels in [0, 10, 63, 64, 65, 1000, 10_000] {
            drop(descend(levels));
        }
    });
    let message = leak_message(|| std::mem::forget(descend(5000)));
    assert!(message.contains("40 B in 1 block: scopes::scenario::leak_checks::block at"), "{message}");
}

fn beside_a_recording() {
    report_at_exit();
    let (kept, change) = measure(|| {
        let scope = Scope::new();
        let _entered = scope.enter();
        let mut kept = Vec::with_capacity(500);
        for size in 1..=500 {
            let mut list = block(size);
            list.reserve_exact(2 * size);
            kept.push(list);
        }
        assert_eq!(scope.live(), live(501, 2 * 500 * 501 / 2 + 24 * 500));
        kept
    });
    assert_eq!((change.allocations, change.reallocations, change.net_blocks()), (501, 500, 501));
    drop(kept);
}

/// The dump has what the oracle has counted, and every stack is that of an independent walk.
fn check_beside_a_recording(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    let (ours, oracle) = (replay.counts, outcome.oracle());
    assert_eq!(ours.without_peak(), oracle.without_peak());
    assert_eq!(replay.different, 0);
}

/// Threads outside of the scope allocate and free all the time, some of what they free was born in
/// it.
fn events_of_all_threads() {
    let stop = AtomicBool::new(false);
    let events = AtomicU64::new(0);
    std::thread::scope(|threads| {
        let senders: Vec<_> = (0..3)
            .map(|seed| {
                let (give, take) = channel::<Vec<u8>>();
                let (stop, events) = (&stop, &events);
                threads.spawn(move || {
                    let mut lcg = Lcg(seed);
                    while !stop.load(Ordering::Relaxed) {
                        drop(take.try_recv());
                        let mut list = block(lcg.size());
                        list.reserve_exact(lcg.size());
                        events.fetch_add(1, Ordering::Relaxed);
                    }
                    take.into_iter().for_each(drop);
                });
                give
            })
            .collect();
        let scope = Scope::new();
        let mut lcg = Lcg(99);
        for round in 0..3000 {
            let list = block_in(scope.handle(), lcg.size());
            senders[round % 3].send(list).unwrap();
        }
        while scope.live() != live(0, 0) {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        drop(senders);
    });
    assert!(events.into_inner() > 0);
}
