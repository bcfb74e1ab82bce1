//! A program that keeps blocks at known places: by a helper such as one of a C library, in a static
//! cache, and at sites with comments. The sizes are distinct powers of two, so that every sum says
//! which of them it counts.

use std::hint::black_box;
use std::sync::Mutex;

use alloc_tracker::AllocTracker;

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

static CACHE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

fn main() {
    CACHE.lock().unwrap().reserve_exact(32); // the table of the cache: 512 bytes
    alloc_tracker::mark("warm");
    keep_in_cache();
    codec_open();
    explained();
    unexplained();
    // A buffer of the request that is under way when the mark is set.
    let buffer = black_box(vec![1u8; 32 << 10]);
    alloc_tracker::mark("served");
    drop(buffer);
    lost(); // after the interval
}

#[inline(never)]
fn keep_in_cache() {
    let entry = black_box(vec![1u8; 1 << 10]); // the entry of the cache
    CACHE.lock().unwrap().push(entry.into_boxed_slice());
}

#[inline(never)]
extern "C" fn codec_open() {
    codec_alloc(2 << 10);
}

#[inline(never)]
fn codec_alloc(size: usize) {
    std::mem::forget(black_box(vec![1u8; size])); // the block of the codec
}

#[inline(never)]
fn explained() {
    // leak: ok because the table of the planted program lives
    // as long as the process
    std::mem::forget(black_box(vec![1u8; 4 << 10])); // the explained block
}

#[inline(never)]
fn unexplained() {
    // leak: ok
    std::mem::forget(black_box(vec![1u8; 8 << 10])); // the unexplained block
}

#[inline(never)]
fn lost() {
    std::mem::forget(black_box(vec![1u8; 16 << 10])); // the lost block
}
