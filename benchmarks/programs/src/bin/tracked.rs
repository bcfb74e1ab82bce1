//! alloc-tracker, off or on as the environment asks for.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

fn main() -> ExitCode {
    workloads::main()
}
