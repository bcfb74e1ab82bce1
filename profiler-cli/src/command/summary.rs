//! `profiler-cli summary`: loads a dump, sums it up, and prints the summary as text or JSON.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::input::{InputArgs, ShortLivedArg};
use super::output::{Audience, JsonArg, Target, text_width};
use crate::analyze::groups::{GroupBy, groups};
use crate::analyze::summary::summary;
use crate::render::{json, summary_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli summary server.4711.alloc
  profiler-cli summary server.4711.alloc --by crate
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
    /// Rows in each table. [default: 5, with --by 20]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Show one table by crate, module, file, function or thread instead of the top sites.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<GroupBy>,
}

/// Runs `profiler-cli summary`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &SummaryArgs) -> Result<ExitCode, Failure> {
    let (dump, filter) = args.input.load(Some(args.short_lived.within()))?;
    let (profile, stacks) = (&dump.profile, &dump.stacks);
    let mut summary = summary(profile, stacks, &filter, args.top.unwrap_or(SITES));
    let rows = args.top.unwrap_or(GROUPS);
    summary.groups = args.by.map(|by| groups(profile, stacks, &filter, by, rows));
    if args.output.json {
        Target::Stdout.write(Audience::Programs, |out| json::write(out, &summary))?;
    } else {
        Target::Stdout.write(Audience::People, |out| {
            summary_text::write(out, &summary, text_width(std::io::stdout()))
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows in each table of sites by default.
const SITES: usize = 5;
/// Rows in a table of groups by default.
const GROUPS: usize = 20;
