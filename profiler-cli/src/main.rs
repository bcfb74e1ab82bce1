//! `profiler-cli`: parse, run the command, say in one line what went wrong, and choose the exit status.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use profiler_cli::cli::{Cli, ColorWhen, Command};
use profiler_cli::command::{self, Failure};
use profiler_cli::config;
use profiler_cli::units::Safe;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let definitions = match config::with_defaults(Cli::command(), &config::start(), &arguments) {
        Ok(definitions) => definitions,
        Err(error) => return refuse(&error),
    };
    let matches = definitions.get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = cli.check(&matches) {
        error.exit();
    }
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
        Command::Timeline(args) => command::timeline::timeline(&args),
        Command::Compress(args) => command::compress::compress(&args),
        Command::Completions { shell } => command::manual::completions(shell),
        Command::Man { output } => command::manual::man(output.as_deref()),
    };
    match done {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => refuse(&error),
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    command::say(Safe(&format!("{error:#}")));
    ExitCode::from(2)
}
