//! `profiler-cli`: parses the command line, runs the command, reports a failure in one line, and
//! chooses the exit status.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use profiler_cli::command::cli::{Cli, ColorWhen, Command};
use profiler_cli::command::config;
use profiler_cli::command::{self, Failure};
use profiler_cli::units::Safe;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let definitions = match config::with_defaults(Cli::command(), &config::start_folder(), &arguments) {
        Ok(definitions) => definitions,
        Err(error) => return fail(&error),
    };
    let matches = definitions.get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Err(error) = cli.reject_ignored_options(&matches) {
        error.exit();
    }
    match cli.color {
        ColorWhen::Auto => {}
        ColorWhen::Always => anstream::ColorChoice::Always.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
    let result = match cli.command {
        Command::Run(args) => command::run::run(&args),
        Command::Cargo(args) => command::cargo::run(&args),
        Command::Summary(args) => command::summary::run(&args),
        Command::Lines(args) => command::lines::run(&args),
        Command::Leaks(args) => command::leaks::run(&args),
        Command::Tree(args) => command::tree::run(&args),
        Command::Flamegraph(args) => command::flamegraph::run(&args),
        Command::Peaks(args) => command::peaks::run(&args),
        Command::Timeline(args) => command::timeline::run(&args),
        Command::Compress(args) => command::compress::run(&args),
        Command::Symbols(args) => command::symbols::run(&args),
        Command::Completions(args) => command::completions::run(&args),
        Command::Man(args) => command::man::run(&args),
    };
    match result {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    command::print_message(Safe(&format!("{error:#}")));
    ExitCode::from(2)
}
