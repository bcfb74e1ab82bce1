//! Events before `main`, after it, and in the destructors of thread-locals are all recorded.

mod scenario;

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use scenario::{Outcome, Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "before_main", child: before_main, check: check_before_main },
        Scenario { name: "after_main", child: after_main, check: check_after_main },
        Scenario { name: "thread_locals", child: thread_locals, check: check_thread_locals },
        Scenario { name: "foreign_key", child: foreign_key, check: check_foreign_key },
        Scenario { name: "only_destructors", child: only_destructors, check: check_only_destructors },
        Scenario { name: "smallest_stack", child: smallest_stack, check: check_smallest_stack },
        Scenario { name: "cancelled", child: cancelled, check: check_cancelled },
    ])
}

/// Asserts that the dump is whole and its counts are the oracle's. Returns the replay.
#[track_caller]
fn exact_replay(outcome: &Outcome) -> scenario::replay::Replay {
    outcome.assert_quiet(0);
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    replay
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}

/// The value in `pthread.h`.
const PTHREAD_CANCEL_DISABLE: libc::c_int = 1;

/// A thread that is to end at its next cancellation point. An allocation is no cancellation point.
extern "C" fn allocate_when_cancelled(_: *mut libc::c_void) -> *mut libc::c_void {
    let mut before = 0;
    // SAFETY: the calling thread cancels itself, which takes effect later.
    unsafe {
        libc::pthread_cancel(libc::pthread_self());
    }
    // With its first event the thread gets a ring, for which the tracker makes a write. There are
    // so many events that they have to be drained.
    for _ in 0..CANCELLED_EVENTS {
        drop(black_box(vec![1u8; CANCELLED]));
    }
    // SAFETY: `before` is valid to write to. The thread then ends as any other.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    std::ptr::null_mut()
}

fn cancelled() {
    report_at_exit();
    // SAFETY: the attributes are the default ones, the function has the right type, and the thread
    // is joined once.
    unsafe {
        let mut thread: libc::pthread_t = 0;
        let (defaults, nothing) = (std::ptr::null(), std::ptr::null_mut());
        assert_eq!(libc::pthread_create(&raw mut thread, defaults, allocate_when_cancelled, nothing), 0);
        let mut result = std::ptr::null_mut();
        assert_eq!(libc::pthread_join(thread, &raw mut result), 0);
        assert!(result.is_null(), "the thread was cancelled");
    }
}

const CANCELLED: usize = 7_777;
const CANCELLED_EVENTS: usize = 20_000;

fn check_cancelled(name: &'static str) {
    for drainer in ["process", "caller"] {
        let replay = exact_replay(&Run::of(name).traced().env("ALLOC_TRACKER_DRAINER", drainer).finish());
        assert_eq!(replay.allocs(CANCELLED as u64).count(), CANCELLED_EVENTS);
    }
}

const BEFORE_MAIN: usize = 11_111;

extern "C" fn initialise() {
    std::mem::forget(black_box(vec![1u8; BEFORE_MAIN]));
}

#[used]
#[unsafe(link_section = ".init_array")]
static INITIALISE: extern "C" fn() = initialise;

fn before_main() {
    report_at_exit();
    black_box(vec![1u8; BEFORE_MAIN + 1]);
}

fn check_before_main(name: &'static str) {
    let replay = exact_replay(&Run::of(name).traced().finish());
    let before = replay.only_alloc(BEFORE_MAIN as u64);
    let inside = replay.only_alloc(BEFORE_MAIN as u64 + 1);
    assert!(replay.live.contains_key(&before.addr));
    assert_eq!(before.thread, inside.thread);
    // This is the first event of the process. If there had been one before, the oracle would have
    // counted it.
    assert_eq!(replay.events[0].size, BEFORE_MAIN as u64);
}

const AFTER_MAIN: usize = 22_222;

extern "C" fn handler() {
    std::mem::forget(black_box(vec![1u8; AFTER_MAIN]));
    let mut list = black_box(vec![1u8; AFTER_MAIN + 1]);
    list.reserve_exact(AFTER_MAIN * 2);
    // SAFETY: a handler may register another, which runs next.
    unsafe { libc::atexit(last_handler) };
}

extern "C" fn last_handler() {
    std::mem::forget(black_box(vec![1u8; AFTER_MAIN + 2]));
}

fn after_main() {
    report_at_exit();
    // SAFETY: the handler is a plain function that does not unwind.
    assert_eq!(unsafe { libc::atexit(handler) }, 0);
}

fn check_after_main(name: &'static str) {
    let replay = exact_replay(&Run::of(name).traced().finish());
    for (more, live) in [(0, true), (1, false), (2, true)] {
        let event = replay.only_alloc((AFTER_MAIN + more) as u64);
        let held = replay.live.get(&event.addr).is_some_and(|block| block.size == event.size);
        assert_eq!(held, live);
    }
}

const LOCAL: usize = 33_333;

/// Allocates when it is dropped, and uses another thread-local that may be gone by then.
struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        std::mem::forget(black_box(vec![1u8; LOCAL]));
        drop(black_box(vec![1u8; LOCAL + 1]));
        let _ = LIST.try_with(|list| list.borrow_mut().push("of the last".repeat(5)));
    }
}

thread_local! {
    static LAST: Last = const { Last };
    static LIST: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn thread_locals() {
    report_at_exit();
    for _ in 0..50 {
        std::thread::spawn(use_locals).join().unwrap();
    }
    use_locals();
}

fn use_locals() {
    LIST.with(|list| list.borrow_mut().extend((0..10).map(|n| n.to_string())));
    LAST.with(|_| {});
}

fn check_thread_locals(name: &'static str) {
    let replay = exact_replay(&Run::of(name).checked().finish());
    assert_eq!(replay.allocs(LOCAL as u64).count(), 51);
    assert_eq!(replay.allocs(LOCAL as u64 + 1).count(), 51);
    // The events of a thread's destructors belong to that thread.
    let threads: std::collections::BTreeSet<u32> =
        replay.allocs(LOCAL as u64).map(|event| event.thread).collect();
    assert_eq!((threads.len(), replay.threads.len()), (51, 51));
    assert_eq!(replay.threads.values().filter(|thread| thread.ended).count(), 50);
}

const KEY: usize = 44_444;
const KEY_THREADS: usize = 200;
/// The C library calls destructors again as long as there are values, but at most so often.
const ROUNDS: usize = 4;

static FOREIGN_KEY: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static ROUNDS_SEEN: Cell<usize> = const { Cell::new(0) };
}

/// Allocates in every round of destructors.
extern "C" fn allocate_in_every_round(value: *mut libc::c_void) {
    let round = ROUNDS_SEEN.get();
    ROUNDS_SEEN.set(round + 1);
    std::mem::forget(black_box(vec![1u8; KEY + round]));
    drop(black_box(vec![1u8; 10]));
    set_foreign_value(value);
}

/// Allocates once, as destructors usually do.
extern "C" fn allocate_once(_: *mut libc::c_void) {
    std::mem::forget(black_box(vec![1u8; KEY]));
}

fn create_foreign_key(destructor: extern "C" fn(*mut libc::c_void)) {
    let mut key = 0;
    // SAFETY: `key` is valid to write to, and the destructor has the right type and does not
    // unwind.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) }, 0);
    FOREIGN_KEY.store(key, Ordering::Relaxed);
}

extern "C" fn set_foreign_value(_: *mut libc::c_void) {
    let value = std::ptr::without_provenance(1);
    // SAFETY: the key exists for as long as the process does.
    unsafe { libc::pthread_setspecific(FOREIGN_KEY.load(Ordering::Relaxed), value) };
}

extern "C" fn only_a_value(argument: *mut libc::c_void) -> *mut libc::c_void {
    set_foreign_value(argument);
    std::ptr::null_mut()
}

/// Runs threads that C code has started. They have no event before their destructors run.
fn run_foreign_threads(count: usize) {
    for _ in 0..count {
        // SAFETY: zeroed memory is a valid handle of a thread to write to. The thread is joined
        // before the next one begins.
        unsafe {
            let mut thread: libc::pthread_t = std::mem::zeroed();
            let (defaults, argument) = (std::ptr::null(), std::ptr::null_mut());
            assert_eq!(libc::pthread_create(&raw mut thread, defaults, only_a_value, argument), 0);
            assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
        }
    }
}

fn foreign_key() {
    report_at_exit();
    create_foreign_key(allocate_in_every_round);
    for _ in 0..KEY_THREADS {
        std::thread::spawn(|| set_foreign_value(std::ptr::null_mut())).join().unwrap();
    }
}

fn check_foreign_key(name: &'static str) {
    let replay = exact_replay(&Run::of(name).traced().finish());
    for round in 0..ROUNDS {
        assert_eq!(replay.allocs((KEY + round) as u64).count(), KEY_THREADS, "round {round}");
    }
    assert_eq!(replay.threads.values().filter(|thread| thread.ended).count(), KEY_THREADS);
}

fn only_destructors() {
    report_at_exit();
    create_foreign_key(allocate_once);
    run_foreign_threads(KEY_THREADS);
}

/// A thread whose first event comes from a destructor is a thread like any other. The dump has its
/// end, and the next thread gets the state that the tracker has kept for it.
fn check_only_destructors(name: &'static str) {
    let outcome = Run::of(name).traced().finish();
    let replay = exact_replay(&outcome);
    let threads: std::collections::BTreeSet<u32> =
        replay.allocs(KEY as u64).map(|event| event.thread).collect();
    assert_eq!((replay.allocs(KEY as u64).count(), threads.len()), (KEY_THREADS, KEY_THREADS));
    assert_eq!(replay.threads.values().filter(|thread| thread.ended).count(), KEY_THREADS);
}

/// The smallest stack that the C library allows must be enough for the tracker too.
fn smallest_stack() {
    report_at_exit();
    for round in 0..20 {
        let work = move || {
            let mut list = Vec::<u8>::with_capacity(55_000 + round);
            list.reserve_exact(100_000);
            // Wait until the next sample and the next look at the modules are due.
            std::thread::sleep(std::time::Duration::from_millis(15));
            black_box(list);
        };
        std::thread::Builder::new().stack_size(libc::PTHREAD_STACK_MIN).spawn(work).unwrap().join().unwrap();
    }
}

fn check_smallest_stack(name: &'static str) {
    let untracked = Run::of(name).finish();
    untracked.assert_code(0);
    let replay = exact_replay(&Run::of(name).traced().finish());
    assert!((0..20).all(|round| replay.allocs(55_000 + round).count() == 1));
}
