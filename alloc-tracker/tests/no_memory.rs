//! The kernel gives no more memory: the host gets its own blocks as before, and events that cannot
//! be recorded are counted.

mod scenario;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::{AllocTracker, Profiler, StartError};
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "for_the_tree", child: for_the_tree, check: check_for_the_tree },
        Scenario { name: "for_deep_stacks", child: for_deep_stacks, check: check_for_deep_stacks },
        Scenario { name: "for_threads", child: for_threads, check: check_for_threads },
        Scenario { name: "for_a_recording", child: for_a_recording, check: check_for_a_recording },
    ])
}

const CODE: i32 = 42;
const MARK: usize = 70;

/// Makes every further mapping fail. Memory that is mapped already stays usable.
fn map_no_more() {
    limit_address_space(1);
}

fn map_again() {
    limit_address_space(libc::RLIM_INFINITY);
}

fn limit_address_space(bytes: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limit is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

/// Gives the C library memory for the host's later blocks, so that it need not ask the kernel for
/// them.
fn stock_up() {
    let stock: Vec<Box<[u8; 64]>> = (0..10_000).map(|_| Box::new([1; 64])).collect();
    // The last block stays, so that the heap does not shrink.
    std::mem::forget(stock.into_iter().next_back());
}

/// Calls itself from one of two lines, depending on the bits of `path`. So each path is a stack of
/// its own.
#[inline(never)]
fn on_path(path: u32, depth: u32) {
    if depth == 0 {
        drop(black_box(Box::new([1u8; MARK])));
    } else if path & 1 == 0 {
        on_path(black_box(path >> 1), depth - 1);
    } else {
        on_path(black_box(path >> 1), depth - 1);
        black_box(depth);
    }
}

/// More stacks than the first table of the call tree has room for.
fn for_the_tree() {
    stock_up();
    on_path(0, 12);
    map_no_more();
    (0..4096).for_each(|path| on_path(path, 12));
    std::process::exit(CODE);
}

fn check_for_the_tree(name: &'static str) {
    Run::of(name).finish().assert_quiet(CODE);
    let outcome = Run::of(name).traced().finish();
    outcome.assert_one_line(CODE, &["stops here", "no memory", "the program goes on"]);
    let replay = outcome.replay();
    replay.assert_sound();
    assert!(!replay.complete && replay.from_sidecar && replay.stopped_errno == libc::ENOMEM);
    let paths = replay.allocs(MARK as u64).count();
    assert!((20..4096).contains(&paths), "{paths}");
}

/// A thread's first buffers have room for a thousand frames. This stack has more.
fn for_deep_stacks() {
    report_at_exit();
    stock_up();
    // The kernel must have mapped the stack itself before.
    sink_to(3000, false);
    map_no_more();
    sink_to(3000, true);
    sink_to(3, true);
    map_again();
    sink_to(3000, true);
}

#[inline(never)]
fn sink_to(depth: u32, allocate: bool) {
    if depth > 0 {
        sink_to(depth - 1, allocate);
        black_box(depth);
    } else if allocate {
        drop(black_box(Box::new([1u8; MARK])));
    } else {
        room_for_the_hook();
    }
}

#[inline(never)]
fn room_for_the_hook() {
    black_box([0u8; 64 << 10]);
}

fn check_for_deep_stacks(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts, outcome.oracle());
    // The allocation and the free with the one stack that was too deep while nothing could be
    // mapped.
    assert_eq!(replay.trailer.unwrap().totals.unwrap().truncated_stacks, 2);
    let depths: Vec<usize> =
        replay.allocs(MARK as u64).map(|event| replay.chain(event.stack).0.len()).collect();
    assert!(depths[0] < 3000 && depths[1] < 100 && depths[2] > 3000, "{depths:?}");
}

const THREADS: u32 = 40;
const PHASES: u32 = 3;
static PHASE: AtomicU32 = AtomicU32::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// A thread that C code has started. It has no event before these. In the second phase there is no
/// memory for its state and its ring.
extern "C" fn in_phases(number: *mut libc::c_void) -> *mut libc::c_void {
    for phase in 1..=PHASES {
        while PHASE.load(Ordering::SeqCst) < phase {
            std::thread::yield_now();
        }
        if phase > 1 || (number as usize) < 3 {
            drop(black_box(Box::new([1u8; MARK])));
        }
        ARRIVED.fetch_add(1, Ordering::SeqCst);
    }
    std::ptr::null_mut()
}

fn for_threads() {
    report_at_exit();
    stock_up();
    let threads: Vec<libc::pthread_t> = (0..THREADS)
        .map(|number| {
            let argument = std::ptr::without_provenance_mut(number as usize);
            // SAFETY: zeroed memory is a valid handle of a thread to write to.
            unsafe {
                let mut thread: libc::pthread_t = std::mem::zeroed();
                let started = libc::pthread_create(&raw mut thread, std::ptr::null(), in_phases, argument);
                assert_eq!(started, 0);
                thread
            }
        })
        .collect();
    for phase in 1..=PHASES {
        if phase == 2 {
            map_no_more()
        } else {
            map_again()
        }
        PHASE.store(phase, Ordering::SeqCst);
        while ARRIVED.load(Ordering::SeqCst) < phase * THREADS {
            std::thread::yield_now();
        }
    }
    for thread in threads {
        // SAFETY: the thread was started above and is joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, std::ptr::null_mut()) }, 0);
    }
}

fn check_for_threads(name: &'static str) {
    // With a single arena the C library serves all threads from the stock.
    let run = || Run::of(name).env("MALLOC_ARENA_MAX", "1");
    run().finish().assert_quiet(0);
    // In the second phase, with the drain process, only as many threads can take part as there was
    // memory for before: states of threads come in chunks of 16, and the first thread has one. The
    // drain process itself still maps rings. Without it only the threads of the first phase have a
    // ring to record into. In the third phase all threads take part.
    for (run, in_second) in [(run().traced(), 16 - 1), (run().traced().drained_by_caller(), 3)] {
        let outcome = run.finish();
        outcome.assert_quiet(0);
        let (replay, oracle) = (outcome.whole_replay(), outcome.oracle());
        assert_eq!(replay.counts.events() + replay.lost, oracle.events());
        assert_eq!(replay.lost, 2 * (u64::from(THREADS) - in_second));
        assert_eq!(replay.allocs(MARK as u64).count() as u64, 3 + in_second + u64::from(THREADS));
    }
}

fn for_a_recording() {
    stock_up();
    map_no_more();
    let path = scenario::folder().join("dump.alloc");
    let start = Profiler::builder().output(&path).start();
    assert!(matches!(start, Err(StartError::Create { .. })), "{start:?}");
    (0..1000).for_each(|path| on_path(path, 10));
    let (_, change) = alloc_tracker::measure(|| drop(black_box(Box::new([1u8; MARK]))));
    println!("counted={}", change.allocations);
    map_again();
    let profiler = Profiler::builder().output(&path).start().unwrap();
    drop(black_box(Box::new([1u8; MARK])));
    profiler.finish().unwrap();
    std::process::exit(CODE);
}

fn check_for_a_recording(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_one_line(CODE, &["not profiling", "cannot create"]);
    let replay = outcome.whole_replay();
    assert_eq!((replay.lost, replay.allocs(MARK as u64).count()), (0, 1));
}
