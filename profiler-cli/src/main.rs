//! `profiler-cli`: see [`profiler_cli::command`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    profiler_cli::command::start::start(std::env::args_os().collect())
}
