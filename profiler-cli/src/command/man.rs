//! `profiler-cli man`: prints the manual page, or writes one page for each command into a folder.
//! The pages are made from the same definitions as the help.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueHint};

use super::Failure;
use super::output::{Audience, Target};
use crate::command::cli::Cli;
use crate::io_error::plain;

const EXAMPLES: &str = "\
Examples:
  profiler-cli man | man -l -
  profiler-cli man -o /usr/local/share/man/man1
";

/// Options of `man`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct ManArgs {
    /// Folder for the pages of all commands.
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: Option<PathBuf>,
}

/// Runs `profiler-cli man`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    match &args.output {
        Some(folder) => {
            let written = std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
            written.map_err(|error| {
                anyhow::anyhow!("cannot write the pages into {}: {}", folder.display(), plain(&error))
            })?;
        }
        None => {
            let page = clap_mangen::Man::new(Cli::command());
            Target::Stdout.write(Audience::Programs, |mut out| page.render(&mut out))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
