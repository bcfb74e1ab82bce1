//! Typical work, with the tracker linked.

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() {
    println!("{}", tests::workload::documents());
}
