#[alloc_tracker::profile(fast)]
fn takes_no_arguments() {}

fn main() {}
