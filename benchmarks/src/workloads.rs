//! The workloads, as the programs themselves list them.

use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::Options;
use crate::programs::Programs;
use crate::tools::Program;

/// A piece of work that every program can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) about: String,
    /// How often a whole run does it.
    pub(crate) rounds: u64,
    /// The workload that does the same on one thread, if this one has more.
    pub(crate) one_thread: Option<String>,
}

/// Those that the flags ask for.
pub(crate) fn chosen(options: &Options, programs: &Programs) -> Result<Vec<Workload>> {
    let list = Command::new(programs.path(Program::Untracked.file())?).output()?;
    let all: Vec<Workload> = serde_json::from_slice(&list.stdout).context("the list of workloads")?;
    Ok(all.into_iter().filter(|workload| options.wants_workload(&workload.name)).collect())
}
