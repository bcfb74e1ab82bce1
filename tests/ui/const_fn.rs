#[alloc_tracker::profile]
const fn may_run_in_the_compiler() -> usize {
    7
}

fn main() {}
