//! Four hundred threads on the locks and maps of `parking_lot` and `dashmap`. The whole process has
//! one parking table: a thread that makes it grow holds all of it, and allocates. A few other
//! threads never park and only allocate. So whatever the hook could wait for is locked at that
//! moment.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex, RwLock};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

const THREADS: usize = 400;
const GATE: &str = "gate";
const BUSY: usize = 3;
const ROUNDS: usize = 5;

#[derive(Default)]
struct Shared {
    list: Mutex<Vec<String>>,
    latest: RwLock<String>,
    turn: (Mutex<usize>, Condvar),
}

fn main() {
    report_at_exit();
    let shared = Shared::default();
    let map = DashMap::with_shard_amount(4);
    let start = Barrier::new(THREADS + 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (shared, map, start) = (&shared, &map, &start);
        let contend = |number| {
            scope.spawn(move || {
                start.wait();
                contend(number, shared, map);
            })
        };
        // Joined one by one: a scope does not wait for the destructors of its threads.
        let busy = [(); BUSY].map(|()| scope.spawn(|| allocate_until(&stop)));
        let threads: Vec<_> = (0..THREADS).map(contend).collect();
        // Makes all of them park at once, for the first time.
        map.insert(GATE.to_owned(), Vec::new());
        let gates = (map.get_mut(GATE), shared.list.lock());
        start.wait();
        std::thread::sleep(Duration::from_millis(20));
        drop(gates);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        stop.store(true, Relaxed);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(shared.list.lock().len(), THREADS * ROUNDS);
    assert_eq!(map.len(), THREADS * ROUNDS + ROUNDS + 1);
}

fn allocate_until(stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        (1..20).for_each(|size| drop(black_box(vec![1u8; size])));
        // Leaves a core to the other threads.
        std::thread::yield_now();
    }
}

fn contend(number: usize, shared: &Shared, map: &DashMap<String, Vec<usize>>) {
    // Dashmap may have a parking table of its own.
    drop((map.get(GATE), shared.list.lock()));
    for round in 0..ROUNDS {
        {
            let mut list = shared.list.lock();
            list.push(format!("{number}"));
            if list.len().is_multiple_of(100) {
                // Lets the other threads queue up and park.
                std::thread::yield_now();
            }
        }
        map.insert(format!("{number} {round}"), vec![number; 10]);
        map.entry(format!("shared {round}")).or_default().push(round);
        if number % 8 == round % 8 {
            *shared.latest.write() = format!("{number}");
        } else {
            black_box(shared.latest.read().clone());
        }
    }
    let (count, changed) = &shared.turn;
    let mut count = count.lock();
    *count += 1;
    changed.notify_all();
    while *count < THREADS {
        changed.wait(&mut count);
    }
}
