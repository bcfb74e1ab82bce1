//! jemalloc, whose own profiler is switched on and told where to write by `_RJEM_MALLOC_CONF`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    workloads::main()
}
