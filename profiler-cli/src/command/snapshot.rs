//! `profiler-cli snapshot`: takes a snapshot of a program that is being recorded. In: a process id
//! or a dump. Out: a file beside the dump, and a line on stderr. The program goes on.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::input::dump_path;
use super::{Failure, print_message};
use crate::dumps::snapshot::{SnapshotOptions, dump_of_process, take};
use crate::units::Safe;

const EXAMPLES: &str = "\
Examples:
  profiler-cli snapshot 4711
  profiler-cli snapshot @last
  profiler-cli snapshot server.4711.alloc --name warm
  profiler-cli leaks server.4711.alloc                 with what holds each block at the snapshot
";

/// Options of `snapshot`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct SnapshotArgs {
    /// The id of a process that is being recorded, or the dump that it writes; @last is the newest
    /// one of this workspace.
    #[arg(value_name = "PID|DUMP", value_parser = dump_path(), value_hint = ValueHint::FilePath)]
    pub target: PathBuf,
    /// A name for the snapshot, by which `leaks --snapshot` finds it.
    #[arg(long, value_name = "NAME", default_value = "snapshot")]
    pub name: String,
    /// Make one copy of the process and not two. Then no block is called lost: the only pointer to
    /// it may have been in a register.
    #[arg(long)]
    pub once: bool,
    /// Take the snapshot even if memory is short.
    ///
    /// While the copy is read, each page that the program writes to is in memory twice.
    #[arg(long)]
    pub force: bool,
}

/// Runs `profiler-cli snapshot`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &SnapshotArgs) -> Result<ExitCode, Failure> {
    let pid = args.target.to_str().and_then(|text| text.parse::<u32>().ok());
    let dump = match pid {
        // A file may have such a name.
        Some(pid) if !args.target.exists() => dump_of_process(pid).map_err(anyhow::Error::from)?,
        _ => args.target.clone(),
    };
    let options =
        SnapshotOptions { name: args.name.clone().into_bytes(), force: args.force, once: args.once };
    let taken = take(&dump, &options).map_err(anyhow::Error::from)?;
    print_message(Safe(&taken.described()));
    Ok(ExitCode::SUCCESS)
}
