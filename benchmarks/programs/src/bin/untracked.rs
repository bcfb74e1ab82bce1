//! No tool at all: what the others are compared with.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: System = System;

fn main() -> ExitCode {
    workloads::main()
}
