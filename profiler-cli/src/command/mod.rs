//! The commands. Only this part of the package reads arguments, opens files and prints.
//!
//! There is one file for each command: its options, its examples, and the function that runs it.
//! [`input`] opens the dump for all commands, and [`output`] writes the result for all commands.

pub mod cargo;
pub mod check;
mod chosen_dumps;
pub mod cli;
pub mod completions;
pub mod compress;
pub mod config;
pub mod diff;
pub mod emit;
pub mod flamegraph;
pub mod input;
pub mod judged;
pub mod leaks;
pub mod lines;
pub mod man;
pub mod maps;
pub mod output;
pub mod peaks;
pub mod progress;
pub mod retained;
pub mod run;
pub mod snapshot;
pub mod sources;
pub mod start;
pub mod summary;
pub mod symbols;
pub mod timeline;
pub mod tree;

use std::fmt;
use std::io::{self, Write};

/// Why a command stopped early.
#[derive(Debug)]
pub enum Failure {
    /// The reader of our output closed the pipe. That is a success.
    ClosedPipe,
    /// Wrong usage, or input or output that cannot be used. The error is one line for a person.
    Input(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => {
                Failure::Input(anyhow::anyhow!("cannot write the output: {}", crate::io_error::plain(&error)))
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Input(error)
    }
}

/// Prints one line to stderr, after the name of this program. A closed stderr is no error.
pub fn print_message(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "profiler-cli: {text}");
}
