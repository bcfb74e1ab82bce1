//! Recordings of a part of a program, which code begins and ends.

mod scenario;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use alloc_oracle::{Counting, report_at_exit, snapshot};
use alloc_tracker::{AllocTracker, Profiler, StartError};
use scenario::replay::{EventKind, Replay};
use scenario::{Outcome, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker<Gate>> = Counting::new(AllocTracker::new(Gate));

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "from_the_middle", child: from_the_middle, check: check_from_the_middle },
        Scenario { name: "one_at_a_time", child: one_at_a_time, check: check_one_at_a_time },
        Scenario {
            name: "one_after_the_other",
            child: one_after_the_other,
            check: check_one_after_the_other,
        },
        Scenario { name: "passive", child: passive, check: check_passive },
        Scenario { name: "never_ended", child: never_ended, check: check_never_ended },
        Scenario { name: "after_a_failure", child: after_a_failure, check: check_after_a_failure },
        Scenario { name: "cannot_be_created", child: cannot_be_created, check: check_cannot_be_created },
        Scenario {
            name: "move_under_way_at_the_start",
            child: move_at_the_start,
            check: check_move_at_the_start,
        },
        Scenario { name: "move_into_the_next", child: move_into_the_next, check: check_move_into_the_next },
        Scenario {
            name: "moves_of_two_threads",
            child: moves_of_two_threads,
            check: check_moves_of_two_threads,
        },
    ])
}

const MARK: usize = 9_100;

fn record(name: &str) -> Profiler {
    Profiler::builder().output(scenario::folder().join(name)).start().unwrap()
}

/// Records as soon as the recording before has failed. The drain process writes that one, so it
/// meets its limit some time after the events.
fn record_once_free(name: &str) -> Profiler {
    let waiting_since = Instant::now();
    loop {
        match Profiler::builder().output(scenario::folder().join(name)).start() {
            Err(StartError::AlreadyRecording) => {
                assert!(waiting_since.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(5));
            }
            started => return started.unwrap(),
        }
    }
}

fn mark(number: usize) {
    drop(black_box(Vec::<u8>::with_capacity(MARK + number)));
}

#[track_caller]
fn whole(outcome: &Outcome, name: &str) -> Replay {
    let path = outcome.folder().join(name);
    let replay = Replay::of(&path);
    replay.assert_whole();
    assert!(!path.with_extension("alloc.tail").exists());
    replay
}

fn from_the_middle() {
    let before: Vec<Vec<u8>> = (1..=100).map(Vec::with_capacity).collect();
    let mut grown = black_box(Vec::<u8>::with_capacity(700));
    let profiler = record("dump.alloc");
    assert!(profiler.owns_recording());
    drop(before);
    grown.reserve_exact(1400);
    mark(0);
    drop(profiler);
    mark(1);
    black_box(grown);
}

fn check_from_the_middle(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert!(!replay.from_first_event && replay.lost == 0);
    let mut sizes: Vec<u64> = replay
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Dealloc { sized: true })
        .map(|event| event.size)
        .collect();
    sizes.sort_unstable();
    assert!((1..=100).all(|size| sizes.binary_search(&size).is_ok()), "{sizes:?}");
    assert!(!replay.events.iter().any(|event| event.kind == EventKind::Dealloc { sized: false }));
    let moved = replay.events.iter().find(|event| event.size == 1400).unwrap();
    assert!(matches!(moved.kind, EventKind::Realloc { old_size: 700, .. }), "{moved:?}");
    assert_eq!((replay.allocs(MARK as u64).count(), replay.allocs(MARK as u64 + 1).count()), (1, 0));
}

fn one_at_a_time() {
    let first = record("dump.alloc");
    let second = Profiler::builder().output(scenario::folder().join("second.alloc")).start();
    assert!(matches!(second, Err(StartError::AlreadyRecording)), "{second:?}");
    mark(0);
    first.finish().unwrap();
}

fn check_one_at_a_time(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    assert_eq!(outcome.files(), ["dump.alloc"]);
    outcome.whole_replay().only_alloc(MARK as u64);
}

const SPANS: usize = 5;

/// Between the first and the second mark of each recording the dump has exactly the events that the
/// oracle counts.
fn one_after_the_other() {
    let (send, receive) = mpsc::channel::<usize>();
    let (answer, answers) = mpsc::channel();
    let worker = std::thread::Builder::new().name("the worker".into()).spawn(move || {
        for size in receive {
            drop(black_box(vec![0u8; size]));
            answer.send(size).unwrap();
        }
    });
    for span in 0..SPANS {
        let profiler = record(&format!("{span}.alloc"));
        mark(0);
        let before = snapshot();
        for size in 1..1000 {
            let mut list = black_box(Vec::<u8>::with_capacity(size));
            list.reserve_exact(2 * size);
            send.send(size).unwrap();
            assert_eq!(answers.recv().unwrap(), size);
        }
        std::thread::spawn(|| mark(5)).join().unwrap();
        let after = snapshot();
        mark(1);
        assert!(profiler.owns_recording());
        profiler.finish().unwrap();
        println!("events{span}={}", events(&after) - events(&before));
        println!("bytes{span}={}", after.allocated_bytes - before.allocated_bytes);
    }
    drop(send);
    worker.unwrap().join().unwrap();
}

fn events(counts: &alloc_oracle::Counts) -> u64 {
    counts.allocations + counts.deallocations + counts.reallocations
}

fn check_one_after_the_other(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    for span in 0..SPANS {
        let replay = whole(&outcome, &format!("{span}.alloc"));
        let place = |size| replay.events.iter().position(|event| event.size == size as u64).unwrap();
        // The events behind the free of the first mark, up to the second mark.
        let between = &replay.events[place(MARK) + 2..place(MARK + 1)];
        assert_eq!(between.len() as u64, outcome.number(&format!("events{span}")));
        let allocated = between.iter().filter(|event| !matches!(event.kind, EventKind::Dealloc { .. }));
        assert_eq!(allocated.map(|event| event.size).sum::<u64>(), outcome.number(&format!("bytes{span}")));
        // The main thread, the worker of all spans, and the thread of this span.
        let names: Vec<&str> = replay.threads.values().map(|thread| thread.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"the worker"));
        assert_eq!(replay.threads.values().filter(|thread| thread.ended).count(), 1);
        // Each file defines its nodes anew. Every stack is whole, even the first one of a thread.
        let mut outermost = std::collections::BTreeSet::new();
        for event in &replay.events {
            outermost.insert((event.thread, replay.chain(event.stack).0.last().copied().unwrap_or(0)));
        }
        assert_eq!(outermost.len(), names.len(), "{outermost:x?}");
    }
}

fn passive() {
    report_at_exit();
    let profiler = record("other.alloc");
    assert!(!profiler.owns_recording());
    mark(0);
    drop(profiler);
    mark(1);
    record("other.alloc").finish().unwrap();
    mark(2);
}

fn check_passive(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    assert_eq!(outcome.files(), ["dump.alloc"]);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts, outcome.oracle());
    (0..3).for_each(|number| _ = replay.only_alloc((MARK + number) as u64));
}

fn never_ended() {
    let profiler = record("dump.alloc");
    mark(0);
    std::mem::forget(profiler);
    std::process::exit(4);
}

fn check_never_ended(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(4);
    outcome.whole_replay().only_alloc(MARK as u64);
}

fn cannot_be_created() {
    let path = scenario::folder().join("missing").join("dump.alloc");
    let Err(StartError::Create { path: said, source }) = Profiler::builder().output(&path).start() else {
        panic!("a dump in a folder that is not there");
    };
    assert_eq!((said.as_str(), source.kind()), (path.to_str().unwrap(), std::io::ErrorKind::NotFound));
    // No recording has begun, so another may begin.
    let profiler = record("dump.alloc");
    mark(0);
    profiler.finish().unwrap();
}

fn check_cannot_be_created(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_one_line(0, &["cannot create", "missing/dump.alloc"]);
    outcome.whole_replay().only_alloc(MARK as u64);
}

/// A recording that fails is over for its guard. The next recording has a drain process, and the
/// guard of the failed one does not end it.
fn after_a_failure() {
    let limit = |bytes: libc::rlim_t| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limit is valid.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    };
    limit(600 << 10);
    let failing = record("failing.alloc");
    for number in 0..60_000 {
        mark(number % 100);
    }
    limit(libc::RLIM_INFINITY);
    let profiler = record_once_free("dump.alloc");
    assert!(failing.finish().is_err());
    mark(0);
    // The drain process takes samples of the process from time to time, and these show that it
    // grows.
    for _ in 0..5 {
        std::mem::forget(black_box(vec![1u8; 4 << 20]));
        std::thread::sleep(Duration::from_millis(60));
    }
    mark(1);
    profiler.finish().unwrap();
}

fn check_after_a_failure(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_one_line(0, &["failing.alloc stops here", "File too large"]);
    let replay = outcome.whole_replay();
    for number in [0, 1] {
        replay.only_alloc((MARK + number) as u64);
    }
    // Without a drain process there would be one sample at the beginning and one at the end.
    assert!(replay.samples.len() >= 4, "{}", replay.samples.len());
}

/// The system's allocator, with a gate for two sizes. A realloc to [`GATED`] bytes frees the old
/// block, and then waits until the test lets it through. A realloc to [`GATED_AND_REFUSED`] bytes
/// waits and fails.
struct Gate;

const GATED: usize = 40_001;
const GATED_AND_REFUSED: usize = 40_002;

/// How many reallocs have come to the gate.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// How many reallocs may pass the gate.
static MAY_PASS: AtomicU32 = AtomicU32::new(0);
/// The address of the old block of the last realloc at the gate. The next allocation of its size
/// gets this address.
static FREED: AtomicUsize = AtomicUsize::new(0);

const SLOT: usize = 5_000;

// SAFETY: the methods forward to the system's allocator, or do the steps of a realloc one by one.
unsafe impl GlobalAlloc for Gate {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let freed = if layout.size() == SLOT { FREED.swap(0, SeqCst) } else { 0 };
        if freed != 0 {
            return freed as *mut u8;
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size != GATED && new_size != GATED_AND_REFUSED {
            // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is passed on unchanged.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        let mut moved = std::ptr::null_mut();
        if new_size == GATED {
            // SAFETY: the caller keeps the contract of `GlobalAlloc`. The blocks do not overlap,
            // and the old one is not used any more.
            unsafe {
                moved = System.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
                moved.copy_from_nonoverlapping(block, layout.size());
            }
            FREED.store(block as usize, SeqCst);
        }
        let number = ARRIVED.fetch_add(1, SeqCst);
        while MAY_PASS.load(SeqCst) <= number {
            std::thread::yield_now();
        }
        moved
    }
}

/// Starts a thread that allocates a block of [`SLOT`] bytes, moves it through the gate, and frees
/// it. Returns once the thread is at the gate.
fn start_move(size: usize) -> std::thread::JoinHandle<()> {
    let before = ARRIVED.load(SeqCst);
    let thread = std::thread::spawn(move || {
        let mut list = black_box(Vec::<u8>::with_capacity(SLOT));
        assert_eq!(list.try_reserve_exact(size).is_ok(), size == GATED);
        drop(black_box(list));
    });
    while ARRIVED.load(SeqCst) == before {
        std::thread::yield_now();
    }
    thread
}

fn let_through(thread: std::thread::JoinHandle<()>) {
    MAY_PASS.fetch_add(1, SeqCst);
    thread.join().unwrap();
}

/// The old address belongs to another block by the time that the realloc ends.
fn move_at_the_start() {
    let mover = start_move(GATED);
    let profiler = record("dump.alloc");
    let reused = black_box(Vec::<u8>::with_capacity(SLOT));
    let_through(mover);
    drop(reused);
    mark(0);
    profiler.finish().unwrap();
}

/// In a program that counts, the hook sees the second half of the realloc, which is then lost. In
/// another program the hook does not see it.
fn check_move_at_the_start(name: &'static str) {
    for (mode, lost) in [("off", 0), ("count", 1)] {
        let outcome = Run::of(name).env("ALLOC_TRACKER", mode).finish();
        outcome.assert_quiet(0);
        let replay = outcome.whole_replay();
        assert_eq!(replay.lost, lost);
        assert!(!replay.events.iter().any(|event| event.size == GATED as u64 && event.kind != SIZED));
        let reused = replay.only_alloc(SLOT as u64);
        let of_it: Vec<_> = replay.events.iter().filter(|event| event.addr == reused.addr).collect();
        assert_eq!(of_it.len(), 2, "{of_it:?}");
        assert!(of_it[1].kind == SIZED && of_it[1].thread == reused.thread);
        assert!(!replay.live.contains_key(&reused.addr));
    }
}

const SIZED: EventKind = EventKind::Dealloc { sized: true };

fn move_into_the_next() {
    let first = record("first.alloc");
    let movers = [start_move(GATED), start_move(GATED_AND_REFUSED)];
    mark(0);
    first.finish().unwrap();
    let second = record("second.alloc");
    let reused = black_box(Vec::<u8>::with_capacity(SLOT));
    MAY_PASS.fetch_add(2, SeqCst);
    movers.into_iter().for_each(|mover| mover.join().unwrap());
    drop(reused);
    mark(0);
    second.finish().unwrap();
}

fn check_move_into_the_next(name: &'static str) {
    let outcome = Run::of(name).finish();
    outcome.assert_quiet(0);
    let first = whole(&outcome, "first.alloc");
    assert_eq!((first.lost, first.split_reallocs, first.failed_reallocs), (0, 0, 0));
    // The lost event is the realloc that succeeded. The one that failed has changed nothing.
    let second = whole(&outcome, "second.alloc");
    assert_eq!((second.lost, second.split_reallocs, second.failed_reallocs), (1, 0, 0));
}

/// One realloc succeeds and one fails. An event of another thread comes in the middle of each. In
/// the first it is an allocation at the realloc's old address.
fn moves_of_two_threads() {
    report_at_exit();
    let mover = start_move(GATED);
    let reused = black_box(Vec::<u8>::with_capacity(SLOT));
    let_through(mover);
    mark(0);
    let mover = start_move(GATED_AND_REFUSED);
    mark(1);
    let_through(mover);
    drop(reused);
}

fn check_moves_of_two_threads(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    assert!(replay.split_reallocs >= 1 && replay.failed_reallocs == 1);
    let moved = replay.events.iter().find(|event| event.size == GATED as u64).unwrap();
    let EventKind::Realloc { old, old_size } = moved.kind else { panic!("{moved:?}") };
    assert_eq!(old_size, SLOT as u64);
    // The mover allocates the first, and the main thread the second at the same address before the
    // realloc ends. The third is the block of the realloc that fails.
    let slots: Vec<_> = replay.allocs(SLOT as u64).collect();
    assert_eq!(slots.len(), 3);
    assert_eq!((slots[0].addr, slots[1].addr), (old, old));
}
