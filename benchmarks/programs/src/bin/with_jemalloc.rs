//! The workloads under jemalloc. `_RJEM_MALLOC_CONF` switches its profiler on and names the file of
//! the profile.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    workloads::main()
}
