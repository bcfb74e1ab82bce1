//! Completion scripts and manual pages, from the same definitions as the help.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;
use crate::cli::Cli;
use crate::io_error::plain;

/// `profiler-cli completions`.
///
/// # Errors
/// See [`Failure`].
pub fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "profiler-cli", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// `profiler-cli man`.
///
/// # Errors
/// See [`Failure`].
pub fn man(folder: Option<&Path>) -> Result<ExitCode, Failure> {
    match folder {
        Some(folder) => clap_mangen::generate_to(Cli::command(), folder).map_err(|error| {
            Failure::Input(anyhow::anyhow!("cannot write into {}: {}", folder.display(), plain(&error)))
        })?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            io::stdout().write_all(&page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
