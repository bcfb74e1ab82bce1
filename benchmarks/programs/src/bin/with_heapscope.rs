//! The workloads under heapscope, which needs a build with frame pointers. The profile goes to the
//! file that `BENCHMARK_PROFILE` names.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOC: heapscope::Alloc = heapscope::Alloc::system();

fn main() -> ExitCode {
    let profile = std::env::var_os("BENCHMARK_PROFILE").unwrap_or_else(|| "heapscope.json".into());
    match heapscope::Profiler::builder().output(heapscope::Output::dhat_v2(profile)).build() {
        Ok(_profiler) => workloads::main(),
        Err(error) => {
            eprintln!("heapscope: {error}");
            ExitCode::FAILURE
        }
    }
}
