//! The workloads under alloc-tracker, which the environment switches on or off.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() -> ExitCode {
    workloads::main()
}
