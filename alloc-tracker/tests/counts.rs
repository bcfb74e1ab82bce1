//! Counts without a dump. They are exact, and the same with and without a recording. Those of a
//! region count one thread alone.

mod scenario;

use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook};
use std::process::ExitCode;

use alloc_oracle::{Counting, snapshot};
use alloc_tracker::{AllocTracker, Change, Region, assert_no_alloc, measure, measure_process, stats};
use scenario::{Lcg, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system().counting());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "totals", child: totals, check },
        Scenario { name: "totals_of_threads", child: totals_of_threads, check },
        Scenario { name: "measured", child: measured, check },
        Scenario { name: "peaks", child: peaks, check },
        Scenario { name: "regions_of_threads", child: regions_of_threads, check },
    ])
}

/// Runs the child, which makes the assertions: without a recording, with counting asked for twice,
/// and with a recording.
fn check(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
    Run::of(name).env("ALLOC_TRACKER", "count").finish().assert_quiet(0);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    outcome.whole_replay();
}

/// A peak is that of the closure and its thread, also inside of another one and after a panic. That
/// of the process has the blocks of all threads.
fn peaks() {
    let block = |size: usize| black_box(vec![1u8; size]);
    let (kept, outer) = measure(|| {
        drop(block(700));
        let kept = block(100);
        let (_, inner) = measure(|| drop(block(300)));
        assert_eq!(inner.peak_bytes, Some(300));
        // The unwinder itself needs less than two kilobytes.
        let panicked = catch_unwind(|| {
            measure(|| {
                let _block = block(5000);
                resume_unwind(Box::new(1u8));
            })
        });
        assert!(panicked.is_err());
        kept
    });
    assert!((Some(5100)..Some(7000)).contains(&outer.peak_bytes), "{outer:?}");
    let (_, freed) = measure(|| drop(kept));
    assert_eq!((freed.peak_bytes, freed.net_bytes()), (Some(0), -100));

    let (_, process) = measure_process(|| {
        let own = block(10_000);
        std::thread::scope(|scope| scope.spawn(|| drop(block(50_000))).join().unwrap());
        drop(own);
    });
    // The thread itself needs some kilobytes.
    assert!((Some(60_000)..Some(80_000)).contains(&process.peak_bytes), "{process:?}");
    let Change { allocations, allocated_bytes, .. } = process;
    assert!(allocations >= 2 && (60_000..80_000).contains(&allocated_bytes), "{process:?}");

    let mut list = Vec::with_capacity(2);
    assert_no_alloc!(list.push(block as fn(usize) -> _ as usize));
    set_hook(Box::new(|_| {}));
    let refused = catch_unwind(AssertUnwindSafe(|| assert_no_alloc!(list.reserve_exact(9))));
    let message = *refused.unwrap_err().downcast::<String>().unwrap();
    // One word becomes room for ten.
    assert!(message.contains("0 allocations and 1 reallocations, 80 bytes"), "{message}");
}

fn work(seed: u64, rounds: usize) {
    let mut lcg = Lcg(seed);
    let mut lists: Vec<Vec<u8>> = (0..50).map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        let at = lcg.below(50) as usize;
        match lcg.below(4) {
            0 => lists[at] = Vec::with_capacity(lcg.size()),
            1 => lists[at] = vec![0; lcg.size()],
            2 => lists[at].reserve_exact(lcg.size()),
            _ => lists[at].shrink_to(lcg.size() / 4),
        }
    }
    black_box(lists);
}

/// Asserts that the tracker's counts equal the oracle's. Nothing allocates between reading the two.
fn assert_equal(with_peak: bool) {
    let (ours, oracle) = (stats(), snapshot());
    assert!(ours.from_first_event);
    assert_eq!(
        [ours.allocations, ours.deallocations, ours.reallocations, ours.allocated_bytes, ours.freed_bytes],
        [
            oracle.allocations,
            oracle.deallocations,
            oracle.reallocations,
            oracle.allocated_bytes,
            oracle.freed_bytes
        ]
    );
    assert_eq!((ours.live_bytes as u64, ours.live_blocks as u64), (oracle.live_bytes, oracle.live_blocks));
    assert!(!with_peak || ours.peak_bytes as u64 == oracle.peak_bytes, "{ours:?} {oracle:?}");
}

fn totals() {
    for seed in 0..10 {
        assert_equal(true);
        work(seed, 1000);
    }
    black_box(vec![0u8; 10 << 20]);
    assert!(Vec::<u8>::new().try_reserve_exact(isize::MAX as usize / 2).is_err());
    assert_equal(true);
    assert!(stats().peak_bytes > 10 << 20 && stats().live_bytes < 1 << 20);
}

fn totals_of_threads() {
    for round in 0..5 {
        let threads: Vec<_> =
            (0..4).map(|seed| std::thread::spawn(move || work(seed + round, 2000))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_equal(false);
    }
}

fn measured() {
    let (kept, outer) = measure(|| {
        let kept = black_box(Vec::<u8>::with_capacity(1000));
        let ((), inner) = measure(|| {
            let mut list = black_box(vec![0u8; 300]);
            list.reserve_exact(500);
            assert_eq!(list.capacity(), 800);
        });
        assert_eq!((inner.allocations, inner.deallocations, inner.reallocations), (1, 1, 1));
        assert_eq!((inner.allocated_bytes, inner.freed_bytes), (300 + 800, 300 + 800));
        assert_eq!((inner.net_bytes(), inner.net_blocks()), (0, 0));
        kept
    });
    assert_eq!((outer.allocations, outer.deallocations, outer.reallocations), (2, 1, 1));
    assert_eq!((outer.net_bytes(), outer.net_blocks()), (1000, 1));
    let region = Region::new();
    drop(kept);
    let change = region.change();
    assert_eq!((change.allocations, change.deallocations, change.net_bytes()), (0, 1, -1000));
    // A call that failed is not counted.
    let ((), change) = measure(|| {
        let mut list = black_box(vec![1u8; 10]);
        assert!(list.try_reserve_exact(isize::MAX as usize / 2).is_err());
        std::mem::forget(list);
    });
    assert_eq!((change.allocations, change.reallocations, change.net_bytes()), (1, 0, 10));
    let ((), change) = measure(|| {});
    assert_eq!((change.allocations, change.deallocations, change.reallocations), (0, 0, 0));
    assert_eq!((change.allocated_bytes, change.freed_bytes, change.peak_bytes), (0, 0, Some(0)));
}

fn regions_of_threads() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                work(7, 100);
            }
        });
        for size in 1..2000 {
            let ((), change) = measure(|| drop(black_box(Vec::<u8>::with_capacity(size))));
            assert_eq!((change.allocations, change.allocated_bytes), (1, size as u64));
            assert_eq!((change.deallocations, change.freed_bytes), (1, size as u64));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // A new thread takes over the counters of an older one. Its region begins at zero all the same.
    for size in 1..100 {
        let measured = move || measure(|| std::mem::forget(black_box(Vec::<u8>::with_capacity(size)))).1;
        let change = std::thread::spawn(measured).join().unwrap();
        assert_eq!((change.allocations, change.net_bytes()), (1, size as i64));
    }
}
