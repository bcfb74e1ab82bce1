//! `profiler-cli completions`: prints a completion script, made from the same definitions as the
//! help.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Failure;
use super::output::{Audience, Target};
use crate::command::cli::Cli;

const EXAMPLES: &str = "\
Examples:
  profiler-cli completions bash > /etc/bash_completion.d/profiler-cli
";

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs `profiler-cli completions`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    // The generator panics if it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "profiler-cli", &mut script);
    Target::Stdout.write(Audience::Programs, |out| out.write_all(&script))?;
    Ok(ExitCode::SUCCESS)
}
