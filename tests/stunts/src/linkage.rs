//! What reaches the tracker depends on how the standard library is linked.

use std::hint::black_box;

use alloc_tracker::Profiler;

const BLOCKS: usize = 100;

/// Counts one allocation of this program's own code.
pub(crate) fn measures() {
    let ((), change) = alloc_tracker::measure(|| drop(black_box(Vec::<u8>::with_capacity(1000))));
    println!("{} {}", change.allocations, change.allocated_bytes);
}

/// Records blocks of the program's own code, and one that the standard library allocates. Prints
/// the installation and the size of that one.
pub(crate) fn records(dump: &str) {
    println!("{:?} {}", alloc_tracker::installation(), alloc_tracker::is_installed());
    let profiler = Profiler::builder().output(dump).start().unwrap();
    let own = allocate_own();
    let text = std::fs::read("/proc/self/exe").unwrap();
    println!("{}", text.len());
    profiler.finish().unwrap();
    drop((own, text));
}

#[inline(never)]
fn allocate_own() -> Vec<Box<[u8]>> {
    let list = (0..BLOCKS).map(|_| black_box(vec![1u8; 1000]).into_boxed_slice()).collect();
    // Otherwise the call could be a jump, and this function have no frame.
    black_box(list)
}
