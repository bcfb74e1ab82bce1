//! The workloads without any tool; all other programs are compared with this one.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: System = System;

fn main() -> ExitCode {
    workloads::main()
}
