//! Lints find what they would find without the attribute.
#![deny(unused, unreachable_code)]

#[alloc_tracker::profile]
fn leaves_things_unused() -> usize {
    let nobody_reads_this = 1;
    let mut never_changed = 2;
    Some(3).map(|n| n + 1);
    std::fs::remove_file("x");
    return never_changed;
    never_changed + 1
}

fn main() {
    leaves_things_unused();
}
