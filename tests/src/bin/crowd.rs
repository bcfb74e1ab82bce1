//! Four hundred threads on the locks and maps of `parking_lot` and `dashmap`. Their parking table is one for the whole
//! process: a thread that makes it grow holds all of it, and allocates.

use std::hint::black_box;
use std::sync::Barrier;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;
use dashmap::DashMap;
use parking_lot::{Condvar, Mutex, RwLock};

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

const THREADS: usize = 400;
const ROUNDS: usize = 10;

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
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let (shared, map, start) = (&shared, &map, &start);
        let contend = |number| {
            scope.spawn(move || {
                start.wait();
                contend(number, shared, map);
            })
        };
        // Joined one by one: a scope does not wait for the destructors of its threads.
        let threads: Vec<_> = (0..THREADS).map(contend).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(shared.list.lock().len(), THREADS * ROUNDS);
    assert_eq!(map.len(), THREADS * ROUNDS + ROUNDS);
}

fn contend(number: usize, shared: &Shared, map: &DashMap<String, Vec<usize>>) {
    for round in 0..ROUNDS {
        {
            let mut list = shared.list.lock();
            list.push(format!("{number}"));
            if list.len().is_multiple_of(100) {
                // Let the others pile up and park.
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
