//! The commands: the only part that reads arguments, opens files and prints.

pub mod cargo;
pub mod compress;
pub mod manual;
pub mod progress;
pub mod read;
pub mod run;
pub mod sources;
pub mod timeline;

use std::fmt;
use std::io::{self, Write};

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// Whoever reads our output has enough of it; that is fine.
    ClosedPipe,
    /// Wrong usage, or input or output that cannot be used: one line says what.
    Input(anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Input(anyhow::anyhow!("cannot write: {}", crate::io_error::plain(&error))),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Input(error)
    }
}

/// Says one line on stderr. Whoever does not listen any more stops nothing.
pub fn say(text: impl fmt::Display) {
    let _ = writeln!(anstream::stderr(), "profiler-cli: {text}");
}
