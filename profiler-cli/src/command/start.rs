//! The main function of `profiler-cli`, and of `cargo alloc`: parses the command line, runs the
//! command, reports a failure in one line, and chooses the exit status.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use super::cargo::{self, RECORD_PROCESS};
use super::cli::{Cli, ColorWhen, Command};
use super::run::{COMPRESS_PROCESS, REPORT_PROCESS};
use super::{Failure, config, print_message};
use crate::units::Safe;

/// Runs a command line. The first argument is the name of the program.
pub fn start(arguments: Vec<OsString>) -> ExitCode {
    // Processes that this program starts for itself. They have no options and no settings.
    match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some(RECORD_PROCESS) => return cargo::record_process(&arguments[2..]),
        Some(REPORT_PROCESS) => return super::run::report_process(arguments.get(2)),
        Some(COMPRESS_PROCESS) => return super::run::compress_process(&arguments[2..]),
        _ => {}
    }
    let arguments = cargo::split(&Cli::command(), arguments);
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
        Command::Run(args) => super::run::run(&args),
        Command::Cargo(args) => super::cargo::run(&args),
        Command::Summary(args) => super::summary::run(&args),
        Command::Lines(args) => super::lines::run(&args),
        Command::Leaks(args) => super::leaks::run(&args),
        Command::Check(args) => super::check::run(&args),
        Command::Diff(args) => super::diff::run(&args),
        Command::Retained(args) => super::retained::run(&args),
        Command::Tree(args) => super::tree::run(&args),
        Command::Flamegraph(args) => super::flamegraph::run(&args),
        Command::Snapshot(args) => super::snapshot::run(&args),
        Command::Maps(args) => super::maps::run(&args),
        Command::Peaks(args) => super::peaks::run(&args),
        Command::Timeline(args) => super::timeline::run(&args),
        Command::Compress(args) => super::compress::run(&args),
        Command::Symbols(args) => super::symbols::run(&args),
        Command::Completions(args) => super::completions::run(&args),
        Command::Man(args) => super::man::run(&args),
    };
    match result {
        Ok(status) => status,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Input(error)) => fail(&error),
    }
}

/// Returns the arguments of `profiler-cli` that do the same as those of `cargo alloc`. Cargo's
/// commands come without the word `cargo`, and so does the short form, which begins with an option.
///
/// ```
/// use profiler_cli::command::start::of_cargo_alloc;
/// let same = |line: &str| of_cargo_alloc(line.split(' ').map(Into::into).collect()).join(" ".as_ref());
/// assert_eq!(same("cargo-alloc alloc test -p a"), "cargo-alloc cargo test -p a");
/// assert_eq!(same("cargo-alloc alloc --release"), "cargo-alloc cargo --release");
/// assert_eq!(same("cargo-alloc alloc leaks @last"), "cargo-alloc leaks @last");
/// assert_eq!(same("cargo-alloc alloc --help"), "cargo-alloc --help");
/// ```
pub fn of_cargo_alloc(mut arguments: Vec<OsString>) -> Vec<OsString> {
    // Cargo repeats the name of the command.
    if arguments.get(1).is_some_and(|argument| argument == "alloc") {
        arguments.remove(1);
    }
    let first = arguments.get(1).map(|argument| argument.to_string_lossy().into_owned()).unwrap_or_default();
    let is_ours = ["-h", "--help", "-V", "--version", RECORD_PROCESS, REPORT_PROCESS, COMPRESS_PROCESS]
        .contains(&&*first);
    if !is_ours && (cargo::is_command(&first) || first.starts_with(['-', '+'])) {
        arguments.insert(1, "cargo".into());
    }
    arguments
}

fn fail(error: &anyhow::Error) -> ExitCode {
    print_message(Safe(&format!("{error:#}")));
    ExitCode::from(2)
}
