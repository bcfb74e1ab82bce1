//! Records itself twice, into two files that are given, with functions annotated in and across
//! both.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::path::Path;

use alloc_tracker::{AllocTracker, Profiler, profile};

#[global_allocator]
static ALLOC: AllocTracker = AllocTracker::system();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dumps: Vec<_> = std::env::args_os().skip(1).collect();
    let [first, second] = dumps.as_slice() else { return Err("give two files".into()) };
    spans_both(first.as_ref(), second.as_ref())?;
    Ok(())
}

#[profile]
fn grows(bytes: usize) -> Vec<u8> {
    let scratch = vec![1u8; bytes]; // grows
    scratch.repeat(2) // repeats
} // frees

#[profile]
fn changes_over(second: &Path, first: Profiler) -> Result<Profiler, Box<dyn std::error::Error>> {
    let before = vec![0u8; 70]; // in the first
    first.finish()?;
    let profiler = Profiler::builder().output(second).start()?;
    black_box((before, vec![0u8; 80])); // in the second
    Ok(profiler)
}

#[profile]
fn spans_both(first: &Path, second: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let profiler = Profiler::builder().output(first).start()?;
    drop(black_box(grows(100)));
    let profiler = changes_over(second, profiler)?;
    for _ in 0..2 {
        drop(black_box(grows(300)));
    }
    profiler.finish()?;
    Ok(())
}
