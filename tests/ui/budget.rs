#[alloc_tracker::budget(alocations = 3)]
fn misspelled() {}

#[alloc_tracker::budget(speed = 3)]
fn unknown() {}

#[alloc_tracker::budget(allocations = "64KiB")]
fn a_count_has_no_size() {}

#[alloc_tracker::budget(peak = "64KB")]
fn an_unknown_unit() {}

#[alloc_tracker::budget(peak = -1)]
fn below_zero() {}

#[alloc_tracker::budget(peak = 1, peak = 2)]
fn twice() {}

#[alloc_tracker::budget(peak = 1, threads = "some")]
fn threads() {}

#[alloc_tracker::budget()]
fn no_bound() {}

#[alloc_tracker::budget(peak = 1)]
struct NoFunction;

#[alloc_tracker::budget(peak = 1)]
fn error_of_the_user() -> u32 {
    "text"
}

fn main() {
    alloc_tracker::block::budget! { leak = 0; () }
}
