//! Signal handlers that allocate: nothing hangs, and events that cannot be recorded are counted.

#[path = "scenario/bump.rs"]
mod bump;
mod scenario;

use std::hint::black_box;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::{AllocTracker, LiveBlocks, Scope};
use bump::Bump;
use scenario::noted::{self, Noted};
use scenario::replay::Replay;
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Noted<Counting<AllocTracker<Bump>>> = Noted(Counting::new(AllocTracker::new(Bump)));

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "by_timer", child: by_timer, check: check_by_timer },
        Scenario { name: "in_a_scope", child: in_a_scope, check: check_in_a_scope },
        Scenario { name: "inside_the_hook", child: inside_the_hook, check: check_inside_the_hook },
        Scenario {
            name: "exit_inside_the_hook",
            child: exit_inside_the_hook,
            check: check_exit_inside_the_hook,
        },
        Scenario { name: "exit_at_any_time", child: exit_at_any_time, check: check_exit_at_any_time },
        Scenario { name: "on_another_stack", child: on_another_stack, check: check_on_another_stack },
    ])
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Causes four events, among them a realloc and a free.
extern "C" fn allocate(_: i32) {
    let mut list = black_box(Vec::<u8>::with_capacity(40));
    list.reserve_exact(4000);
    drop(black_box(vec![0u64; 3]));
    std::mem::forget(list);
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

const EVENTS_OF_HANDLER: u64 = 4;

fn handle(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: all-zero is a valid action; the handler has the right type and does not unwind.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

fn tick_every(microseconds: i64) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is valid, and a null pointer says that the timer before is not wanted.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}

fn work(round: usize) {
    let mut list = black_box(Vec::<u8>::with_capacity(50 + round % 7));
    list.reserve_exact(100);
    drop(black_box(list));
}

/// Frees all that it allocates.
extern "C" fn allocate_and_free(_: i32) {
    work(HANDLED.fetch_add(1, Ordering::SeqCst) as usize);
}

/// A handler that interrupts the hook is not followed; one that comes between two events is. Either
/// way nothing of it is live, and all of the thread's own blocks are.
fn in_a_scope() {
    const BLOCKS: usize = 1000;
    let scope = Scope::new();
    let mut kept = Vec::with_capacity(BLOCKS);
    handle(libc::SIGALRM, allocate_and_free, 0);
    let entered = scope.enter();
    // Longer than the handler takes, which walks through the frame of the signal.
    tick_every(2000);
    for round in 0..BLOCKS {
        kept.push(black_box(vec![1u8; 64]));
        (0..50).for_each(|_| work(round));
    }
    tick_every(0);
    drop(entered);
    assert_eq!(scope.live(), LiveBlocks { blocks: BLOCKS as u64, bytes: 64 * BLOCKS as u64 });
    drop(kept);
    assert_eq!(scope.live(), LiveBlocks::default());
    assert!(HANDLED.load(Ordering::SeqCst) > 0);
}

fn check_in_a_scope(name: &'static str) {
    Run::of(name).finish().assert_quiet(0);
    Run::of(name).traced().finish().assert_quiet(0);
}

fn work_for_ever() -> ! {
    for round in 0.. {
        work(round);
    }
    unreachable!("the handler leaves")
}

const TICKS: u64 = 3000;

/// Allocates, and stops the timer after enough ticks. Where a handler takes longer than the time
/// between two ticks, the program gets no further by itself: the next signal is there already.
extern "C" fn allocate_until_enough(signal: i32) {
    allocate(signal);
    if HANDLED.load(Ordering::SeqCst) >= TICKS {
        tick_every(0);
    }
}

fn by_timer() {
    report_at_exit();
    handle(libc::SIGALRM, allocate_until_enough, 0);
    tick_every(200);
    let until_enough = || (0..).take_while(|_| HANDLED.load(Ordering::SeqCst) < TICKS).for_each(work);
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(until_enough)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn check_by_timer(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let (replay, oracle) = (outcome.whole_replay(), outcome.oracle());
    assert_eq!(replay.counts.events() + replay.lost, oracle.events());
    assert!(oracle.events() > TICKS * EVENTS_OF_HANDLER && replay.lost > 0);
    assert!(replay.lost <= oracle.events() / 2);
}

/// Allocates until a handler has interrupted it, and a little more.
fn inside_the_hook() {
    report_at_exit();
    noted::note_in(&scenario::folder().join("notes"));
    handle(libc::SIGUSR1, allocate, 0);
    while HANDLED.load(Ordering::SeqCst) == 0 {
        (0..100).for_each(work);
    }
    noted::page().word.store(1, Ordering::SeqCst);
    (0..100).for_each(work);
}

/// The dump is a full pipe, so the hook is waiting in a write when the signal comes. All events of
/// the handler are lost and no others, and the recording continues.
fn check_inside_the_hook(name: &'static str) {
    let run = Run::of(name).traced();
    let mut pipe = fill_a_pipe_for(&run);
    let mut running = run.start();
    let notes = noted::open(&running.folder().join("notes"));
    let pid = running.pid();
    running.until(|| is_full(&pipe) && sleeps(pid));
    running.signal(libc::SIGUSR1);
    std::thread::sleep(Duration::from_millis(100));
    let mut dump = Vec::new();
    running.until(|| {
        drain(&mut pipe, &mut dump);
        notes.word.load(Ordering::SeqCst) == 1
    });
    static ENDED: AtomicBool = AtomicBool::new(false);
    let reader = std::thread::spawn(move || {
        // This process has the pipe open for writing too, so the pipe never ends by itself.
        while !ENDED.load(Ordering::SeqCst) {
            drain(&mut pipe, &mut dump);
            std::thread::sleep(Duration::from_millis(1));
        }
        drain(&mut pipe, &mut dump);
        dump
    });
    let outcome = running.wait();
    ENDED.store(true, Ordering::SeqCst);
    outcome.assert_quiet(0);
    let replay = Replay::from_reader(reader.join().unwrap().as_slice());
    replay.assert_whole();
    assert_eq!(replay.lost, EVENTS_OF_HANDLER);
    assert_eq!(replay.counts.events() + replay.lost, outcome.oracle().events());
}

/// Returns whether the first thread of a process sleeps. These programs sleep only in the hook.
/// Once the pipe is full and nothing can be written any more, they sleep for good.
fn sleeps(pid: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|state| state.starts_with('S'))
}

extern "C" fn leave(_: i32) {
    black_box(vec![1u8; 10]);
    // SAFETY: `exit` is not async-signal-safe, but real programs call it in handlers.
    unsafe { libc::exit(3) };
}

fn exit_inside_the_hook() {
    handle(libc::SIGUSR1, leave, 0);
    work_for_ever();
}

fn check_exit_inside_the_hook(name: &'static str) {
    let run = Run::of(name).traced().limit(Duration::from_secs(120));
    let pipe = fill_a_pipe_for(&run);
    let mut running = run.start();
    let pid = running.pid();
    running.until(|| is_full(&pipe) && sleeps(pid));
    running.signal(libc::SIGUSR1);
    running.wait().assert_quiet(3);
}

fn exit_at_any_time() {
    noted::note_in(&scenario::folder().join("notes"));
    handle(libc::SIGALRM, leave, 0);
    let delay: i64 = std::env::var("DELAY").unwrap().parse().unwrap();
    tick_every(delay);
    work_for_ever();
}

/// Wherever the exit came from, every completed event is in the dump or in its sidecar.
fn check_exit_at_any_time(name: &'static str) {
    let mut inside = 0;
    for round in 0..40 {
        let run = Run::of(name).traced().env("DELAY", (5000 + 137 * round).to_string());
        let outcome = run.limit(Duration::from_secs(120)).finish();
        outcome.assert_quiet(3);
        let notes = noted::open(&outcome.folder().join("notes"));
        let replay = outcome.replay();
        replay.assert_sound();
        inside += u32::from(!replay.complete);
        let done: u64 = notes.done.read().iter().sum();
        let begun: u64 = notes.begun.read().iter().sum();
        let recorded = replay.counts.events() + replay.lost;
        // Two events of the handler itself may be lost, and their count may not get into the dump
        // any more.
        let uncounted = if replay.complete { 0 } else { 2 };
        assert!((done.saturating_sub(uncounted)..=begun).contains(&recorded), "{done} {recorded} {begun}");
    }
    assert!(inside > 0, "no exit has interrupted the hook");
}

const MARK: usize = 12_345;
static STACKS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

extern "C" fn mark(_: i32) {
    let here = 0u8;
    STACKS[1].store(black_box(&raw const here) as usize, Ordering::SeqCst);
    black_box(vec![1u8; MARK]);
}

#[inline(never)]
fn interrupted() {
    let here = 0u8;
    STACKS[0].store(black_box(&raw const here) as usize, Ordering::SeqCst);
    black_box(vec![1u8; MARK + 1]);
    // SAFETY: the signal has a handler.
    unsafe { libc::raise(libc::SIGUSR1) };
    black_box(&here);
}

/// Runs the handler on a stack below the interrupted one, and then on a stack above it.
fn on_another_stack() {
    const LEN: usize = 64 << 10;
    handle(libc::SIGUSR1, mark, libc::SA_ONSTACK);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), LEN, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    let memory = memory as usize;
    let run = move || {
        let stack = libc::stack_t { ss_sp: memory as *mut libc::c_void, ss_flags: 0, ss_size: LEN };
        // SAFETY: the memory is mapped for good and used by one thread at a time.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }, 0);
        interrupted();
        let [own, handlers] = STACKS.each_ref().map(|address| address.load(Ordering::SeqCst));
        assert!((memory..memory + LEN).contains(&handlers));
        println!("above={}", u8::from(handlers > own));
    };
    // The main thread's stack lies above every mapping. The stack of a new thread lies below all
    // earlier mappings.
    run();
    std::thread::spawn(run).join().unwrap();
}

fn check_on_another_stack(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    assert_eq!(outcome.stdout, "above=0\nabove=1\n");
    let replay = outcome.whole_replay();
    assert_eq!(replay.trailer.unwrap().totals.unwrap().truncated_stacks, 0);
    let chains = |size: usize| -> Vec<Vec<u64>> {
        replay.allocs(size as u64).map(|event| replay.chain(event.stack).0).collect()
    };
    let (handlers, interrupted) = (chains(MARK), chains(MARK + 1));
    assert_eq!((handlers.len(), interrupted.len()), (2, 2));
    for (handler, interrupted) in handlers.iter().zip(&interrupted) {
        // The callers of `interrupted`, several frames, are the same in both stacks.
        let shared = handler.iter().rev().zip(interrupted.iter().rev()).take_while(|(a, b)| a == b).count();
        assert!(shared >= 5, "{handler:x?}\n{interrupted:x?}");
        // The other frames are `interrupted` itself, the C library's for `raise` and the signal,
        // and the handler.
        assert!(handler.len() >= shared + 4, "{handler:x?}");
    }
}

const PIPE: i32 = 64 << 10;

/// Makes the dump of this run a pipe. The process will wait once it has written [`PIPE`] bytes.
fn fill_a_pipe_for(run: &Run) -> std::fs::File {
    let path = std::ffi::CString::new(run.dump().as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let pipe = std::fs::File::options().read(true).write(true).open(run.dump()).unwrap();
    // SAFETY: the descriptor is open.
    unsafe {
        assert_eq!(libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE), PIPE);
        assert_eq!(libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK), 0);
    }
    pipe
}

/// Returns whether a write to the pipe waits. The kernel may keep the dump's header in a page of
/// its own.
fn is_full(pipe: &std::fs::File) -> bool {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and `bytes` is valid for the number that the call writes.
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }, 0);
    bytes > PIPE - 4096
}

fn drain(pipe: &mut std::fs::File, into: &mut Vec<u8>) {
    match pipe.read_to_end(into) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        other => panic!("a pipe that we hold open ended: {other:?}"),
    }
}
