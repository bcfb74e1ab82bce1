//! `profiler-cli summary`: loads a dump, sums it up, and prints the summary as text or JSON.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::input::{InputArgs, ShortLivedArg};
use super::output::{Audience, JsonArg, Target};
use crate::analyze::summary::summary;
use crate::render::{json, summary_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli summary server.4711.alloc
  profiler-cli summary server.4711.alloc --json | jq .peak_bytes
  profiler-cli summary server.4711.alloc --from mark:request#1 --to mark:request#2
";

/// Options of `summary`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct SummaryArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// What short-lived means.
    #[command(flatten)]
    pub short_lived: ShortLivedArg,
    /// Rows in each table of sites.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top: usize,
}

/// Runs `profiler-cli summary`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &SummaryArgs) -> Result<ExitCode, Failure> {
    let (dump, filter) = args.input.load(Some(args.short_lived.within()))?;
    let summary = summary(&dump.profile, &dump.stacks, &filter, args.top);
    if args.output.json {
        Target::Stdout.write(Audience::Programs, |out| json::write(out, &summary))?;
    } else {
        Target::Stdout.write(Audience::People, |out| summary_text::write(out, &summary))?;
    }
    Ok(ExitCode::SUCCESS)
}
