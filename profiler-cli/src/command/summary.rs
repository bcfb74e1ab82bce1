//! `profiler-cli summary`: loads a dump, sums it up, and prints the summary as text or JSON.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::input::{InputArgs, ShortLivedArg, load_profile};
use super::output::{Audience, JsonArg, Target, text_width};
use crate::analyze::group_names::GroupBy;
use crate::analyze::groups::groups;
use crate::analyze::max_live::InexactSites;
use crate::analyze::summary::summary;
use crate::load::LoadOptions;
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
    /// Show one table by crate, module, file, function, site or thread instead of the top sites.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<GroupBy>,
    /// Read the dump once more, so that `max_live_bytes` of all shown sites is exact.
    ///
    /// Without it, the figure of a site with several stacks is an upper bound: the sum of what each
    /// stack held at most.
    #[arg(long, requires = "json")]
    pub exact_max_live: bool,
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
    if args.exact_max_live
        && let Some(sites) = InexactSites::of(&mut summary)
    {
        let groups = Some(sites.grouping(profile, stacks, &filter));
        let options = LoadOptions { groups, ..args.input.load_options() };
        let followed = load_profile(&args.input.dump.path, &options)?;
        if let Some(curve) = &followed.groups {
            sites.make_exact(&mut summary, curve);
        }
    }
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
