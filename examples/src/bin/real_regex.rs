//! A real library used in the way its manual warns of: every chunk of work compiles its regular
//! expression anew.
//!
//! What a profile must show:
//!
//! - `WORKERS` threads, named `worker-0` to `worker-3`, which do `CHUNKS` = 10 chunks of work each.
//! - `Regex::new` is called `WORKERS * CHUNKS` = 40 times, always for the same pattern; one call
//!   would do. The allocations through the line marked `PLANTED: compile` in `search` are the same
//!   number in each thread, and a multiple of 40 in all. They are most of the program's allocations
//!   and of its allocated bytes.
//! - One text of `TEXT_BYTES` for each chunk from the line marked `PLANTED: text` in `log_text`, so
//!   `WORKERS * CHUNKS` blocks. As many blocks of `4 * LINES` bytes from the line `PLANTED: hits`.
//! - Nothing leaks.
//!
//! The peak depends on how the threads overlap; no other figure does. With `rounds` as first
//! argument, each thread does `CHUNKS * rounds` chunks.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::thread;

use examples::Lcg;
use regex::Regex;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const WORKERS: usize = 4;
const CHUNKS: usize = 10;
const LINES: usize = 200;
const LINE_BYTES: usize = "10.20.30.40 GET /items/1000 500\n".len();
const TEXT_BYTES: usize = LINES * LINE_BYTES;
const PATTERN: &str = r"(?m)^(\d+\.\d+\.\d+\.\d+) (GET|PUT|POST) /(?:items|users)/([0-9a-f]+) 5\d\d$";

fn main() {
    examples::begin();
    let chunks = CHUNKS * examples::rounds();

    let errors: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let thread = thread::Builder::new().name(format!("worker-{worker}"));
                thread.spawn_scoped(scope, move || work(chunks)).expect("a thread starts")
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum()
    });
    println!("{errors} errors in {} lines", WORKERS * chunks * LINES);
}

/// Searches the texts, which are the same for every worker, so that all threads do the same work.
#[inline(never)]
fn work(chunks: usize) -> usize {
    (0..chunks).map(|chunk| search(&log_text(chunk as u64)).len()).sum()
}

#[inline(never)]
fn log_text(seed: u64) -> String {
    let mut numbers = Lcg::new(seed);
    let mut text = String::with_capacity(TEXT_BYTES); // PLANTED: text
    for _ in 0..LINES {
        let host = 10 + numbers.below(90);
        let item = 1000 + numbers.below(9000);
        let status = 100 * (2 + numbers.below(4));
        writeln!(text, "10.20.30.{host} GET /items/{item} {status}")
            .expect("a String takes all that is written");
    }
    text
}

/// Returns the offsets in `text` of the lines that report errors.
#[inline(never)]
fn search(text: &str) -> Vec<u32> {
    let pattern = Regex::new(PATTERN).expect("our own pattern"); // PLANTED: compile
    let mut hits = Vec::with_capacity(LINES); // PLANTED: hits
    hits.extend(pattern.find_iter(text).map(|error| error.start() as u32));
    hits
}
