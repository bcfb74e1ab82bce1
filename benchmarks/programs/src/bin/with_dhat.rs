//! The workloads under dhat, with its default of ten frames for each stack. The profile goes to the
//! file that `BENCHMARK_PROFILE` names.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

fn main() -> ExitCode {
    let profile = std::env::var_os("BENCHMARK_PROFILE").unwrap_or_else(|| "dhat-heap.json".into());
    let _profiler = dhat::Profiler::builder().file_name(profile).build();
    workloads::main()
}
