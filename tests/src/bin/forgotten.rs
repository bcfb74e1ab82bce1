//! Somebody has added the dependency and a budget, and forgotten `#[global_allocator]`. The first
//! argument is a folder for a dump.

use std::hint::black_box;

fn main() {
    let folder = std::path::PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    match alloc_tracker::Profiler::builder().output(folder.join("forgotten.alloc")).start() {
        Ok(profiler) => println!("recorded: {:?}", profiler.finish()),
        Err(error) => println!("not recorded: {error}"),
    }
    let ((), change) = alloc_tracker::measure(|| drop(black_box(vec![1u8; 1000])));
    assert!(change.allocations <= 5, "the budget");
    println!("within the budget");
}
