//! `cargo alloc`: what `profiler-cli` does, as a command of cargo.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use profiler_cli::command::start::{of_cargo_alloc, start};

fn main() -> ExitCode {
    start(of_cargo_alloc(std::env::args_os().collect()))
}
