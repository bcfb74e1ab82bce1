//! The workloads. In: a program, which lists those that it can do. Out: those that the flags
//! choose.

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
    /// Rounds of a whole run.
    pub(crate) rounds: u64,
    /// Name of the workload that does the same work on one thread, if this one has several.
    pub(crate) one_thread: Option<String>,
}

/// Returns the workloads that the flags choose.
pub(crate) fn chosen(options: &Options, programs: &Programs) -> Result<Vec<Workload>> {
    let list = Command::new(programs.path(Program::Untracked.file())?).output()?;
    let all: Vec<Workload> = serde_json::from_slice(&list.stdout).context("the list of workloads")?;
    Ok(all.into_iter().filter(|workload| options.wants_workload(&workload.name)).collect())
}
