//! Starts waves of five hundred threads at once, or ten thousand threads in small batches. Prints
//! the size of the process after each wave or series, which shows what the tracker keeps of ended
//! threads.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

const WAVE: usize = 500;
const SHORT: usize = 10_000;
/// Short threads that run at once.
const BATCH: usize = 20;

fn main() {
    report_at_exit();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("waves") => (1..=4).for_each(|number| {
            wave(WAVE);
            print_size(&format!("wave{number}"));
        }),
        Some("short") => {
            // As many at once as there will ever be: their memory is there before the first size is
            // printed.
            wave(BATCH);
            (1..=4).for_each(|number| {
                (0..SHORT / 4 / BATCH).for_each(|_| short());
                print_size(&format!("short{number}"));
            });
        }
        other => panic!("unknown kind of threads {other:?}"),
    }
}

/// Runs threads that all exist at once: none ends before the last one has begun.
fn wave(count: usize) {
    let all = Barrier::new(count);
    thread::scope(|scope| {
        let work = || {
            work(20);
            all.wait();
            work(20);
        };
        // Joined one by one: a scope does not wait for the destructors of its threads.
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

fn short() {
    let threads: Vec<_> = (0..BATCH).map(|_| thread::spawn(|| work(5))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Allocates at every depth, so that all memory that the tracker gives a thread is used.
fn work(depth: usize) {
    let block = black_box(vec![1u8; 1 + depth]);
    if depth > 0 {
        work(depth - 1);
    }
    drop(block);
}

/// Prints the size of the process, after a moment: the events of the last threads may not be in the
/// dump yet.
fn print_size(name: &str) {
    thread::sleep(std::time::Duration::from_millis(100));
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let kilobytes = |text: &str, field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim_start_matches(':').trim().trim_end_matches(" kB").to_owned())
    };
    let status = read("/proc/self/status");
    // `smaps_rollup` counts the pages themselves. In `status` some kernels are hundreds of pages
    // late.
    let resident = kilobytes(&read("/proc/self/smaps_rollup"), "Rss").or(kilobytes(&status, "VmRSS"));
    println!("{name} {} {}", kilobytes(&status, "VmSize").unwrap(), resident.unwrap());
}
