//! The dump is exact: all its figures equal those of an independent counter. And the tracker has
//! none of the side effects that an allocator must not have.

mod scenario;

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Mutex;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::replay::EventKind;
use scenario::{Lcg, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "single_thread", child: single_thread, check: check_single_thread },
        Scenario { name: "failed_calls", child: failed_calls, check: check_failed_calls },
        Scenario { name: "several_threads", child: several_threads, check: check_several_threads },
        Scenario { name: "lazy_zero_pages", child: lazy_zero_pages, check: check_lazy_zero_pages },
        Scenario { name: "errno_is_kept", child: errno_is_kept, check: check_errno_is_kept },
    ])
}

const EVENTS: usize = 150_000;

fn single_thread() {
    report_at_exit();
    let mut lcg = Lcg(1);
    let mut blocks: Vec<(*mut u8, Layout)> = Vec::new();
    for _ in 0..EVENTS {
        let victim = lcg.below(blocks.len().max(1) as u64) as usize;
        let align = 1 << lcg.below(7);
        match lcg.below(8) {
            0..=2 => blocks.push(allocate(Layout::from_size_align(lcg.size() | 1, align).unwrap(), false)),
            // Zeroed blocks have even sizes, so that the check can recognise them.
            3 => blocks.push(allocate(Layout::from_size_align(lcg.size() * 2, align).unwrap(), true)),
            4..=5 if !blocks.is_empty() => {
                let (block, layout) = &mut blocks[victim];
                let size = lcg.size();
                // SAFETY: the block is live and has this layout, and the size is not zero.
                *block = unsafe { realloc(*block, *layout, size) };
                *layout = Layout::from_size_align(size, layout.align()).unwrap();
            }
            _ if !blocks.is_empty() => free(blocks.swap_remove(victim)),
            _ => {}
        }
    }
    let kept = blocks.len() / 2;
    blocks.drain(kept..).for_each(free);
    black_box(&blocks);
    std::mem::forget(blocks);
}

fn check_single_thread(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts, outcome.oracle());
    assert!(replay.counts.events() > 100_000 && replay.frames > 3);
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert!(replay.from_first_event && replay.pid == outcome.pid);
    let held: u64 = replay.live.values().map(|block| block.size).sum();
    assert_eq!((replay.live.len() as u64, held), (replay.counts.live_blocks, replay.counts.live_bytes));
    let zeroed = |event: &&scenario::replay::Event| event.kind == EventKind::AllocZeroed;
    assert!(replay.events.iter().filter(zeroed).count() > EVENTS / 10);
    assert!(replay.events.iter().filter(zeroed).all(|event| event.size % 2 == 0));
    assert_eq!(replay.trailer.unwrap().totals.unwrap().truncated_stacks, 0);
}

fn failed_calls() {
    report_at_exit();
    // More bytes than any address space has.
    let too_much = isize::MAX as usize / 2;
    for _ in 0..100 {
        let mut list = black_box(Vec::<u8>::new());
        assert!(black_box(&mut list).try_reserve_exact(too_much).is_err());
        let mut list = black_box(vec![7u8; 1000]);
        assert!(black_box(&mut list).try_reserve_exact(too_much).is_err());
        assert!(list.iter().all(|byte| *byte == 7));
        // SAFETY: the layout is not empty.
        assert!(black_box(unsafe { alloc_zeroed(Layout::array::<u8>(too_much).unwrap()) }).is_null());
    }
}

fn check_failed_calls(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts, outcome.oracle());
    assert_eq!(replay.allocs(1000).count(), 100);
    assert!(replay.events.iter().all(|event| event.size < 1 << 30));
}

const THREADS: u64 = 4;
const ROUNDS: usize = 30_000;

/// The threads share the slots of the blocks. So another thread than the one that allocated a block
/// frees most of the blocks, and moves many.
fn several_threads() {
    report_at_exit();
    let slots: Vec<Mutex<Vec<u8>>> = (0..64).map(|_| Mutex::new(Vec::new())).collect();
    std::thread::scope(|scope| {
        let thread = |seed| {
            let slots = &slots;
            scope.spawn(move || {
                let mut lcg = Lcg(seed);
                for _ in 0..ROUNDS {
                    let slot = &slots[lcg.below(64) as usize];
                    let mut block = std::mem::take(&mut *slot.lock().unwrap());
                    match lcg.below(8) {
                        0..=1 => block = Vec::with_capacity(lcg.size()),
                        // Sizes go from below glibc's threshold for mappings to above it, and back.
                        2 => block.reserve_exact(150_000),
                        3..=6 => {
                            let size = lcg.size();
                            block.reserve_exact(size);
                            block.shrink_to(size / 2);
                        }
                        _ => block.shrink_to(1),
                    }
                    let before = std::mem::replace(&mut *slot.lock().unwrap(), block);
                    drop(before);
                }
            })
        };
        // The threads are joined one by one, because a scope does not wait for the destructors of
        // its threads.
        let threads: Vec<_> = (0..THREADS).map(thread).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    std::mem::forget(slots);
}

fn check_several_threads(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    let held: u64 = replay.live.values().map(|block| block.size).sum();
    assert_eq!((replay.live.len() as u64, held), (replay.counts.live_blocks, replay.counts.live_bytes));
    // The scenario tests something only if the threads really were in each other's way.
    assert_eq!(replay.threads.len() as u64, 1 + THREADS);
    assert!(replay.counts.reallocations > 30_000 && replay.split_reallocs > 0, "{:?}", replay.counts);
    assert!(replay.threads.values().filter(|thread| thread.ended).count() as u64 == THREADS);
}

const HUGE: usize = 256 << 20;

fn lazy_zero_pages() {
    let before = resident();
    let block = black_box(vec![0u8; HUGE]);
    let after = resident();
    println!("grown={}", after - before);
    assert_eq!((block[HUGE / 2], block.len()), (0, HUGE));
}

fn check_lazy_zero_pages(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    assert!(outcome.number("grown") < HUGE as u64 / 16, "{}", outcome.stdout);
    let replay = outcome.whole_replay();
    assert_eq!(replay.only_alloc(HUGE as u64).kind, EventKind::AllocZeroed);
    assert!(replay.counts.peak_bytes >= HUGE as u64);
}

/// Causes events for several frames and samples, so that the tracker makes all of its system calls
/// in between.
fn errno_is_kept() {
    let layout = Layout::from_size_align(100, 8).unwrap();
    for round in 0..60_000 {
        let mark = 1000 + round % 100;
        set_errno(mark);
        let (block, _) = allocate(layout, round % 2 == 0);
        assert_eq!(errno(), mark, "alloc");
        // SAFETY: the block is live and has this layout.
        let block = unsafe { realloc(block, layout, 200) };
        assert_eq!(errno(), mark, "realloc");
        free((block, Layout::from_size_align(200, 8).unwrap()));
        assert_eq!(errno(), mark, "dealloc");
    }
    std::thread::spawn(|| {
        set_errno(77);
        drop(black_box(vec![1u8; 10]));
        assert_eq!(errno(), 77, "the first event of a thread");
    })
    .join()
    .unwrap();
}

fn check_errno_is_kept(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert!(replay.frames >= 3 && replay.samples.len() >= 3, "{} frames", replay.frames);
}

fn allocate(layout: Layout, zeroed: bool) -> (*mut u8, Layout) {
    // SAFETY: no layout of this program is empty.
    let block = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
    assert!(!block.is_null());
    (black_box(block), layout)
}

fn free((block, layout): (*mut u8, Layout)) {
    // SAFETY: blocks come from `allocate` or a realloc with this layout, and are freed once.
    unsafe { dealloc(block, layout) };
}

/// Returns the resident set in bytes, from a count of the pages. The number in `statm` may be some
/// hundred pages late.
fn resident() -> u64 {
    let smaps = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = smaps.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn set_errno(value: i32) {
    // SAFETY: the C library returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = value };
}
