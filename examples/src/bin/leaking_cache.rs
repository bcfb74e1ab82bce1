//! A cache that is never emptied: one entry for every request id, and no request id comes twice.
//!
//! What a profile must show:
//! - `leaks`: the first row is `ENTRIES` blocks, together `ENTRIES * ENTRY_BYTES` = 4,096,000 bytes
//!   from the line marked `PLANTED: leak` in `render`. They are still reachable, through the static
//!   `CACHE`: a leak by neglect.
//! - A smaller row is the tree of the cache itself, from `store`. There are as many request lines
//!   (`PLANTED: freed`), and none of them is left.
//!
//! With `rounds` as first argument: `ENTRIES * rounds` entries. README.md names lines by number.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const ENTRIES: usize = 1000;
const ENTRY_BYTES: usize = 4096;
const LINE_BYTES: usize = 128;

static CACHE: Mutex<BTreeMap<usize, Box<[u8]>>> = Mutex::new(BTreeMap::new());

fn main() {
    examples::begin();
    let entries = ENTRIES * examples::rounds();

    let answered: usize = (0..entries).map(handle).sum();
    println!("{entries} requests answered with {answered} bytes; the cache holds {}", cached_bytes());
}

/// Handles one request: its line is a temporary of a fixed size, its answer is cached for good.
#[inline(never)]
fn handle(id: usize) -> usize {
    let mut line = String::with_capacity(LINE_BYTES); // PLANTED: freed
    line.push_str("GET /item/");
    line.push_str(if id.is_multiple_of(2) { "even" } else { "odd" });
    let body = render(black_box(&line), id);
    let answered = body.len();
    store(id, body);
    answered
}

#[inline(never)]
fn render(line: &str, id: usize) -> Box<[u8]> {
    let fill = (line.len() + id) as u8 | 1;
    vec![fill; ENTRY_BYTES].into_boxed_slice() // PLANTED: leak
}

#[inline(never)]
fn store(id: usize, body: Box<[u8]>) {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner).insert(id, body);
}

fn cached_bytes() -> usize {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner).values().map(|body| body.len()).sum()
}
