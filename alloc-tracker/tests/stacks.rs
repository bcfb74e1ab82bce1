//! The stacks in a dump are the real ones: they have all frames, in order, without the tracker's
//! own.

mod scenario;
#[path = "scenario/symbols.rs"]
mod symbols;

use std::hint::black_box;
use std::process::ExitCode;

use alloc_dump::layout::StackId;
use alloc_tracker::AllocTracker;
use scenario::{Run, Scenario};
use symbols::Symbols;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "in_order", child: in_order, check: check_in_order },
        Scenario { name: "while_unwinding", child: while_unwinding, check: check_while_unwinding },
        Scenario { name: "without_proc", child: without_proc, check: check_without_proc },
        Scenario { name: "deep_recursion", child: deep_recursion, check: check_deep_recursion },
    ])
}

const MARK: usize = 23_456;

#[inline(never)]
fn outer_function() {
    middle_function();
    black_box(0);
}

#[inline(never)]
fn middle_function() {
    inner_function(MARK);
    inner_function(MARK + 1);
    // This must not be a tail call, which would leave no frame.
    black_box(0);
}

#[inline(never)]
fn inner_function(size: usize) {
    let mut list = black_box(Vec::<u8>::with_capacity(size));
    list.reserve_exact(2 * MARK + size);
    drop(black_box(list));
}

fn in_order() {
    outer_function();
    black_box(0);
}

fn check_in_order(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let (replay, symbols) = (outcome.whole_replay(), Symbols::own());
    let at = |size: usize| replay.events.iter().position(|event| event.size == size as u64).unwrap();
    assert_eq!(replay.checked, replay.counts.events());
    // There are two rounds of an allocation, its realloc and its free. They differ only in the line
    // of `middle_function`.
    for first in [at(MARK), at(MARK + 1)] {
        for event in &replay.events[first..first + 3] {
            let (chain, root) = replay.chain(event.stack);
            assert_eq!((event.thread, root), (1, StackId::ROOT));
            let names = symbols.names(&replay, &chain);
            let places: Vec<usize> =
                ["inner_function", "middle_function", "outer_function", "in_order", "4main"]
                    .iter()
                    .map(|function| names.iter().position(|name| name.contains(function)).expect(function))
                    .collect();
            assert!(places.is_sorted(), "{names:#?}");
            assert_eq!((places[1], places[2], places[3]), (places[0] + 1, places[0] + 2, places[0] + 3));
            // The frames that the program's function has called lead to the allocator, and end
            // before the hook.
            let ours = ["hook", "capture", "recorder", "portable", "backtrace"];
            let inner = &names[..places[0]];
            assert!(!inner.iter().any(|name| ours.iter().any(|own| name.contains(own))), "{inner:#?}");
        }
    }
    let chain = |size| replay.chain(replay.events[at(size)].stack).0;
    let (first, second) = (chain(MARK), chain(MARK + 1));
    assert_eq!(first.iter().zip(&second).filter(|(a, b)| a != b).count(), 1);
}

struct AllocatesWhenDropped;

impl Drop for AllocatesWhenDropped {
    fn drop(&mut self) {
        black_box(vec![1u8; MARK]);
    }
}

#[inline(never)]
fn function_that_panics() {
    let _guard = AllocatesWhenDropped;
    std::panic::panic_any(black_box(1));
}

fn while_unwinding() {
    std::panic::set_hook(Box::new(|_| {}));
    assert!(std::panic::catch_unwind(function_that_panics).is_err());
}

fn check_while_unwinding(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let (replay, symbols) = (outcome.whole_replay(), Symbols::own());
    let (chain, root) = replay.chain(replay.only_alloc(MARK as u64).stack);
    assert_eq!(root, StackId::ROOT);
    let names = symbols.names(&replay, &chain);
    let place = |function| names.iter().position(|name| name.contains(function)).expect(function);
    assert!(place("function_that_panics") < place("while_unwinding"), "{names:#?}");
}

const THREADS: usize = 20;

/// Hides `/proc` and then starts threads.
fn without_proc() {
    println!("hidden={}", u8::from(hide_proc()));
    for number in 0..THREADS {
        let work = move || {
            outer_function();
            drop(black_box(vec![1u8; 3 * MARK + number]));
        };
        std::thread::spawn(work).join().unwrap();
    }
}

/// Mounts an empty file system over `/proc`, which this thread and those that it starts see; false
/// if the program may not.
fn hide_proc() -> bool {
    // SAFETY: the strings are C strings, and nothing else is passed by address.
    unsafe {
        let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, none) == 0
            && libc::mount(c"none".as_ptr(), c"/proc".as_ptr(), c"tmpfs".as_ptr(), 0, none) == 0
    }
}

/// New threads need no file to find out where their stacks are. A stack that the platform's
/// unwinder walks is not compared, so all are compared exactly if the tracker has walked all.
fn check_without_proc(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    if outcome.number("hidden") == 0 {
        println!("skipped: hiding /proc needs root");
    }
    let replay = outcome.whole_replay();
    assert_eq!(replay.threads.len(), 1 + THREADS);
    assert_eq!(replay.checked, replay.counts.events());
    for number in 0..THREADS {
        assert_eq!(replay.allocs((3 * MARK + number) as u64).count(), 1);
    }
}

const DEPTH: usize = 50_000;

/// Allocates at the leaf of a deep recursion, and walks the stack there with the `backtrace` crate
/// too.
#[inline(never)]
fn descend(depth: usize, walk: &mut Vec<u64>) -> usize {
    if depth == 0 {
        black_box(vec![1u8; MARK]);
        // SAFETY: no other thread walks its stack at the same time.
        unsafe {
            backtrace::trace_unsynchronized(|frame| {
                walk.push(frame.ip() as u64);
                true
            });
        }
        return 0;
    }
    let below = descend(depth - 1, walk);
    black_box(below) + 1
}

fn deep_recursion() {
    let deep = || {
        let mut walk = Vec::with_capacity(2 * DEPTH);
        assert_eq!(descend(DEPTH, &mut walk), DEPTH);
        let bytes: Vec<u8> = walk.iter().flat_map(|address| address.to_le_bytes()).collect();
        std::fs::write(scenario::folder().join("walk"), bytes).unwrap();
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(deep).unwrap().join().unwrap();
}

fn check_deep_recursion(name: &'static str) {
    let outcome = Run::of(name).checked().finish();
    outcome.assert_quiet(0);
    let (replay, symbols) = (outcome.whole_replay(), Symbols::own());
    assert_eq!(replay.trailer.unwrap().totals.unwrap().truncated_stacks, 0);
    let (chain, root) = replay.chain(replay.only_alloc(MARK as u64).stack);
    assert_eq!(root, StackId::ROOT);
    let walk = std::fs::read(outcome.folder().join("walk")).unwrap();
    let mut walk: Vec<u64> =
        walk.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
    // The zero at the end of the stack is no frame.
    walk.retain(|address| *address != 0);
    // The two walks differ in the line of the innermost `descend` and in the frames that it called.
    // They do not differ in its callers.
    let shared = chain.iter().rev().zip(walk.iter().rev()).take_while(|(a, b)| a == b).count();
    assert!(shared > DEPTH, "{shared} frames of {} and {} are the same", chain.len(), walk.len());
    let innermost =
        |frames: &[u64]| symbols.name(&replay, frames[frames.len() - shared - 1]).contains("descend");
    assert!(innermost(&chain) && innermost(&walk));
    let names = symbols.names(&replay, &chain);
    assert_eq!(names.iter().filter(|name| name.contains("7descend")).count(), DEPTH + 1);
}
