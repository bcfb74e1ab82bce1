//! Threads in waves of five hundred at once, and ten thousand one after the other. Says after each how large the process
//! is, so that what the tracker keeps of threads that are gone can be told.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;

use alloc_oracle::{Counting, report_at_exit};
use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: Counting<AllocTracker> = Counting::new(AllocTracker::system());

const WAVE: usize = 500;
const SHORT: usize = 10_000;
/// So many of the short ones are there at once.
const BATCH: usize = 20;

fn main() {
    report_at_exit();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("waves") => (1..=4).for_each(|number| {
            wave(WAVE);
            say(&format!("wave{number}"));
        }),
        Some("short") => {
            // As many at once as there will ever be: what they need is there before the first look.
            wave(BATCH);
            (1..=4).for_each(|number| {
                (0..SHORT / 4 / BATCH).for_each(|_| short());
                say(&format!("short{number}"));
            });
        }
        other => panic!("unknown kind of threads {other:?}"),
    }
}

/// All are there at once: none ends before the last has begun.
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

/// With stacks that differ in depth, so that all that a thread has is used.
fn work(depth: usize) {
    let block = black_box(vec![1u8; 1 + depth]);
    if depth > 0 {
        work(depth - 1);
    }
    drop(block);
}

/// A moment later: the last threads' events may be on their way into the dump.
fn say(what: &str) {
    thread::sleep(std::time::Duration::from_millis(100));
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let kilobytes = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim().trim_end_matches(" kB").to_owned())
    };
    let status = read("/proc/self/status");
    // The pages themselves, counted. Some kernels are some hundred pages late in the other file.
    let resident = kilobytes(&read("/proc/self/smaps_rollup"), "Rss").or(kilobytes(&status, "VmRSS"));
    println!("{what} {} {}", kilobytes(&status, "VmSize").unwrap(), resident.unwrap());
}
