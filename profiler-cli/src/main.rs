//! `profiler-cli`: parse, run the command, say in one line what went wrong, and choose the exit status.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use profiler_cli::cli::{Cli, ColorWhen, Command};
use profiler_cli::command::{self, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.color {
        ColorWhen::Auto => {}
        ColorWhen::Always => anstream::ColorChoice::Always.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
    let done = match cli.command {
        Command::Run(args) => command::run::run(&args),
        Command::Cargo(args) => command::cargo::cargo(&args),
        Command::Summary(args) => command::read::summary(&args),
        Command::Lines(args) => command::read::lines(&args),
        Command::Leaks(args) => command::read::leaks(&args),
        Command::Flamegraph(args) => command::read::flamegraph(&args),
        Command::Completions { shell } => command::manual::completions(shell),
        Command::Man { output } => command::manual::man(output.as_deref()),
    };
    match done {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => {
            anstream::eprintln!("profiler-cli: {error:#}");
            ExitCode::from(2)
        }
    }
}
