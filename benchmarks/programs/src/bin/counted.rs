//! The workloads under the counting allocator of the tests. It writes how many heap events a
//! workload has to the file that `ALLOC_ORACLE_OUT` names.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: alloc_oracle::Counting<System> = alloc_oracle::Counting::new(System);

fn main() -> ExitCode {
    alloc_oracle::report_at_exit();
    workloads::main()
}
