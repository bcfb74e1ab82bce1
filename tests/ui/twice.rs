#[alloc_tracker::profile]
#[alloc_tracker::profile]
fn is_announced_twice() {}

fn main() {}
