//! `profiler-cli tree`: loads a dump, and prints its call tree with figures as text or JSON.

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::Failure;
use super::input::InputArgs;
use super::output::{Audience, FoldArgs, JsonArg, Target, text_width};
use crate::analyze::flame::Metric;
use crate::analyze::tree::{TreeSelection, tree};
use crate::render::{json, tree_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli tree server.4711.alloc
  profiler-cli tree server.4711.alloc --metric live --callers
  profiler-cli tree server.4711.alloc --metric temporary --crate server --depth 4
";

/// Options of `tree`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct TreeArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// What the figures count.
    #[arg(long, value_parser = metric_of_stacks(), default_value = "peak")]
    pub metric: Metric,
    /// Begin with the functions that allocate, and show their callers below them.
    #[arg(long)]
    pub callers: bool,
    /// At most this many levels. [default: all, with --callers 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub depth: Option<u32>,
    /// Sum up calls with less than this part of the total.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = parse_percent)]
    pub min_percent: f64,
    /// Frames that are left out or folded.
    #[command(flatten)]
    pub fold: FoldArgs,
}

/// Parses a metric whose figures are those of stacks: what a block retains is not.
fn metric_of_stacks() -> impl TypedValueParser<Value = Metric> {
    let metrics = Metric::value_variants().iter().filter(|metric| **metric != Metric::Retained);
    PossibleValuesParser::new(metrics.filter_map(Metric::to_possible_value))
        .try_map(|name| Metric::from_str(&name, false))
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100".to_owned()),
    }
}

/// Runs `profiler-cli tree`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &TreeArgs) -> Result<ExitCode, Failure> {
    let (dump, filter) = args.input.load(None)?;
    let default_depth = if args.callers { CALLER_LEVELS } else { u32::MAX };
    let selection = TreeSelection {
        metric: args.metric,
        callers: args.callers,
        folding: args.fold.folding_of(&args.output),
        depth: args.depth.unwrap_or(default_depth) as usize,
        min_percent: args.min_percent,
    };
    let tree = tree(&dump.profile, &dump.stacks, &filter, &selection);
    if args.output.json {
        Target::Stdout.write(Audience::Programs, |out| json::write(out, &tree))?;
    } else {
        let width = text_width(std::io::stdout());
        Target::Stdout.write(Audience::People, |out| tree_text::write(out, &tree, width))?;
    }
    dump.print_warnings();
    Ok(ExitCode::SUCCESS)
}

/// Levels of callers that are shown by default.
const CALLER_LEVELS: u32 = 8;
