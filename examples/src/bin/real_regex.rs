//! A real library used in the way its manual warns of: every piece of work compiles its regular expression anew.
//!
//! What a profile must show:
//!
//! - `WORKERS` threads, named `worker-0` to `worker-3`, of `CHUNKS` = 10 pieces of work each.
//! - `Regex::new` is called `WORKERS * CHUNKS` = 40 times, always for the same pattern: the allocations through the line
//!   marked `PLANTED: compile` in `search` are the same number in each thread and a multiple of 40 in all, and most
//!   of the program's allocations and allocated bytes. One compiled for all would do.
//! - Beside it, one text of `TEXT_BYTES` a piece from the line marked `PLANTED: text` in `lines_of_log`, so
//!   `WORKERS * CHUNKS` blocks, and from the line marked `PLANTED: hits` as many blocks of `4 * LINES` bytes.
//! - Nothing leaks.
//!
//! The peak depends on how the threads meet; all other figures do not. With `rounds` as first argument,
//! `CHUNKS * rounds` pieces a thread.
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

    let found: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let thread = thread::Builder::new().name(format!("worker-{worker}"));
                thread.spawn_scoped(scope, move || work(chunks)).expect("a thread starts")
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum()
    });
    println!("{found} errors in {} lines", WORKERS * chunks * LINES);
}

/// Every worker gets the same texts, so that all threads do the same.
#[inline(never)]
fn work(chunks: usize) -> usize {
    (0..chunks).map(|chunk| search(&lines_of_log(chunk as u64)).len()).sum()
}

#[inline(never)]
fn lines_of_log(seed: u64) -> String {
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

/// Where in `text` the errors are: the offsets of their lines.
#[inline(never)]
fn search(text: &str) -> Vec<u32> {
    let pattern = Regex::new(PATTERN).expect("our own pattern"); // PLANTED: compile
    let mut hits = Vec::with_capacity(LINES); // PLANTED: hits
    hits.extend(pattern.find_iter(text).map(|error| error.start() as u32));
    hits
}
