#[alloc_tracker::profile]
#[alloc_tracker::profile]
fn is_annotated_twice() {}

fn main() {}
