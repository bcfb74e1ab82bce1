//! The hook shares no lock with the program. It does not use the parking table of `parking_lot`: a
//! thread that grows the table holds it and allocates. Nor does it take the loader's lock.

mod scenario;

use std::collections::HashSet;
use std::ffi::CStr;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex, RwLock};
use scenario::{Run, Scenario};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

fn main() -> ExitCode {
    scenario::main(&[
        Scenario { name: "parking_tables", child: parking_tables, check: check_parking_tables },
        Scenario { name: "loading_libraries", child: loading_libraries, check: check_loading_libraries },
    ])
}

/// The parking table grows each time that a few more threads park for the first time.
const THREADS: usize = 400;
const ROUNDS: usize = 25;
/// A hook with a table of the same family hung in two of three of these processes.
const PROCESSES: usize = 10;

fn parking_tables() {
    report_at_exit();
    let start = Arc::new(Barrier::new(THREADS));
    let list = Arc::new(Mutex::new(Vec::new()));
    let latest = Arc::new(RwLock::new(String::new()));
    let turn = Arc::new((Mutex::new(0usize), Condvar::new()));
    let map = Arc::new(DashMap::with_shard_amount(4));
    let contend = |number: usize| {
        let (start, list, latest) = (start.clone(), list.clone(), latest.clone());
        let (turn, map) = (turn.clone(), map.clone());
        move || {
            start.wait();
            for round in 0..ROUNDS {
                {
                    let mut list = list.lock();
                    list.push(Box::new([number, round]));
                    if list.len() % 1000 == 0 {
                        // Let other threads come to the lock and park.
                        std::thread::yield_now();
                    }
                }
                map.insert(format!("{number} {round}"), vec![number; 10]);
                map.entry(format!("shared {round}")).or_insert_with(Vec::new).push(round);
                if number % 8 == round % 8 {
                    *latest.write() = format!("{number}");
                } else {
                    black_box(latest.read().clone());
                }
            }
            let (count, changed) = &*turn;
            *count.lock() += 1;
            changed.notify_all();
            let mut count = count.lock();
            while *count < THREADS {
                changed.wait(&mut count);
            }
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|number| std::thread::spawn(contend(number))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(list.lock().len(), THREADS * ROUNDS);
    assert_eq!(map.len(), THREADS * ROUNDS + ROUNDS);
}

fn check_parking_tables(name: &'static str) {
    for _ in 0..PROCESSES {
        let outcome = Run::of(name).traced().limit(Duration::from_secs(120)).finish();
        outcome.assert_quiet(0);
        let replay = outcome.whole_replay();
        assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
        assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
    }
}

const LIBRARIES: [&CStr; 4] = [c"libz.so.1", c"libexpat.so.1", c"libbz2.so.1.0", c"liblzma.so.5"];
const LOADS: usize = 1000;
/// How many rounds the other threads do at least.
const WORK: usize = 20_000;

/// Loads and unloads libraries while other threads allocate and unwind. All of this uses the
/// loader's tables.
fn loading_libraries() {
    report_at_exit();
    let absent = |name: &&&CStr| {
        // SAFETY: the names are C strings. The first call loads nothing. The second runs only the
        // initialisers of the library.
        unsafe {
            libc::dlopen(name.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW).is_null()
                && !libc::dlopen(name.as_ptr(), libc::RTLD_LAZY).is_null()
        }
    };
    let Some(library) = LIBRARIES.iter().find(absent) else {
        println!("skipped: no library to load");
        return;
    };
    // SAFETY: `absent` has opened the library, and nothing of it is in use.
    unsafe { libc::dlclose(libc::dlopen(library.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW)) };
    std::panic::set_hook(Box::new(|_| {}));
    let (stop, worked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let work = |unwind: bool| {
        let (stop, worked) = (stop.clone(), worked.clone());
        move || {
            let mut seen = HashSet::new();
            while !stop.load(Ordering::Relaxed) {
                worked.fetch_add(1, Ordering::Relaxed);
                seen.insert(format!("{}", seen.len() % 100));
                if unwind {
                    assert!(std::panic::catch_unwind(|| std::panic::panic_any(black_box(1))).is_err());
                }
            }
        }
    };
    let threads: Vec<_> = [false, false, true].map(|unwind| std::thread::spawn(work(unwind))).into();
    let mut loads = 0;
    while loads < LOADS || worked.load(Ordering::Relaxed) < WORK {
        loads += 1;
        // SAFETY: the name is a C string, and nothing of the library is in use when it is closed.
        unsafe {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null());
            black_box(vec![1u8; 100]);
            libc::dlclose(handle);
        }
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("loaded {library:?}");
}

fn check_loading_libraries(name: &'static str) {
    let outcome = Run::of(name).checked().limit(Duration::from_secs(120)).finish();
    outcome.assert_quiet(0);
    if outcome.stdout.starts_with("skipped") {
        print!("{}", outcome.stdout);
        return;
    }
    let replay = outcome.whole_replay();
    assert_eq!(replay.counts.without_peak(), outcome.oracle().without_peak());
    assert_eq!((replay.lost, replay.foreign_frees), (0, 0));
}
