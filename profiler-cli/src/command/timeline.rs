//! `profiler-cli timeline`: loads a dump and draws the process over time as text, SVG, CSV or JSON.
//! Symbols are needed only for groups of stacks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};

use super::Failure;
use super::input::{DumpArg, IntervalArgs, SymbolArgs, load_profile, print_recording_warnings};
use super::output::{Audience, JsonArg, Target, format_of_output, text_width};
use crate::analyze;
use crate::analyze::group_names::GroupBy;
use crate::analyze::heap_groups::{ChosenGroups, MAX_GROUPS, choose};
use crate::load::LoadOptions;
use crate::names::stacks::Stacks;
use crate::pattern::Pattern;
use crate::profile::{Profile, ShortLivedWithin};
use crate::render::plot::Series;
use crate::render::{json, timeline_csv, timeline_svg, timeline_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli timeline server.4711.alloc
  profiler-cli timeline server.4711.alloc -o memory.svg
  profiler-cli timeline server.4711.alloc --from mark:warm --to -1s
  profiler-cli timeline server.4711.alloc --series heap,rss,vsz,minor-faults
  profiler-cli timeline server.4711.alloc --by site --top 5
  profiler-cli timeline server.4711.alloc --csv > memory.csv
";

/// Options of `timeline`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct TimelineArgs {
    /// The dump.
    #[command(flatten)]
    pub dump: DumpArg,
    /// JSON instead of `format`.
    #[command(flatten)]
    pub json: JsonArg,
    /// Print one CSV table; the same as --format csv.
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub csv: bool,
    /// Format of the output. [default: text; with --output by its extension: .svg, .csv, .json,
    /// .txt]
    #[arg(long, value_enum, conflicts_with = "json")]
    pub format: Option<TimelineFormat>,
    /// File for the output; - is stdout.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Series that the picture shows; CSV and JSON have all of them.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SERIES", default_values_t = [Series::Heap, Series::Rss])]
    pub series: Vec<Series>,
    /// Only calls of annotated functions with a name that matches.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub function: Option<Pattern>,
    /// Only calls on threads with a name that matches; the heap is always that of the process.
    #[arg(long, value_name = "PATTERN", help_heading = "Filters")]
    pub thread: Option<Pattern>,
    /// Show who makes up the live heap, instead of the series: stacked, in every format.
    #[arg(long, value_enum, value_name = "GROUPS", conflicts_with_all = ["series", "thread"])]
    pub by: Option<GroupBy>,
    /// Number of groups with --by; all others become one.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse_top)]
    pub top: usize,
    /// Where names come from; only for --by.
    #[command(flatten)]
    pub symbols: SymbolArgs,
    /// The part of the recording.
    #[command(flatten)]
    pub interval: IntervalArgs,
    /// Columns of the text. [default: those of the terminal, else 100]
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(30..=1000))]
    pub width: Option<u16>,
    /// Rows of the text's first panel.
    #[arg(long, value_name = "ROWS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(4..=200))]
    pub height: u16,
}

fn parse_top(text: &str) -> Result<usize, String> {
    let top = text.parse().ok().filter(|top| (1..=MAX_GROUPS).contains(top));
    top.ok_or_else(|| format!("give a number from 1 to {MAX_GROUPS}"))
}

/// How `timeline` shows the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineFormat {
    /// A plot made of characters
    Text,
    /// A picture
    Svg,
    /// One table
    Csv,
    /// The same as --json
    Json,
}

/// Runs `profiler-cli timeline`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &TimelineArgs) -> Result<ExitCode, Failure> {
    let (threads, period) = (args.thread.clone(), args.interval.period());
    let options = LoadOptions { threads, period, ..LoadOptions::default() };
    // The groups that held most are chosen by what their stacks held at most.
    let short_lived = args.by.map(|_| ShortLivedWithin::default());
    let first = load_profile(&args.dump.path, &LoadOptions { short_lived, ..options.clone() })?;
    let (profile, groups) = match args.by {
        None => (first, None),
        Some(by) => {
            let chosen = chosen_groups(args, &first, by)?;
            // The second profile needs as much memory as this one.
            drop(first);
            let options = LoadOptions { groups: Some(chosen.grouping.clone()), ..options };
            (load_profile(&args.dump.path, &options)?, Some(chosen))
        }
    };
    if let Some(pattern) = &args.function {
        analyze::timeline::check(&profile, pattern)
            .map_err(anyhow::Error::msg)
            .with_context(|| args.dump.path.display().to_string())?;
    }
    let mut timeline = analyze::timeline::timeline(&profile, args.function.as_ref());
    timeline.groups = groups.and_then(|chosen| chosen.over_time(&profile));
    let format = args.chosen_format()?;
    let audience = match format {
        TimelineFormat::Text => Audience::People,
        TimelineFormat::Svg | TimelineFormat::Csv | TimelineFormat::Json => Audience::Programs,
    };
    Target::of_option(args.output.as_deref(), &args.dump.path).write(audience, |out| match format {
        TimelineFormat::Text => timeline_text::write(out, &timeline, &args.series, size(args)),
        TimelineFormat::Svg => timeline_svg::write(out, &timeline, &args.series),
        TimelineFormat::Csv => timeline_csv::write(out, &timeline),
        TimelineFormat::Json => json::write(out, &timeline),
    })?;
    print_recording_warnings(&profile);
    Ok(ExitCode::SUCCESS)
}

/// Chooses the groups of `--by`. Groups of threads need no names of stacks.
fn chosen_groups(args: &TimelineArgs, profile: &Profile, by: GroupBy) -> anyhow::Result<ChosenGroups> {
    if by == GroupBy::Thread {
        return Ok(choose(profile, None, by, args.top));
    }
    let path = &args.dump.path;
    let stacks = Stacks::resolve(profile, args.symbols.options(), &|_, _| {})
        .with_context(|| path.display().to_string())?;
    Ok(choose(profile, Some(&stacks), by, args.top))
}

impl TimelineArgs {
    /// Returns the format that `--json`, `--csv` or `--format` asks for, or else that of the file's
    /// extension.
    ///
    /// # Errors
    /// If the options and the extension contradict each other, or if neither names a format.
    fn chosen_format(&self) -> anyhow::Result<TimelineFormat> {
        let by_option = match (self.json.json, self.csv) {
            (true, _) => Some(TimelineFormat::Json),
            (_, true) => Some(TimelineFormat::Csv),
            _ => self.format,
        };
        format_of_output(by_option, self.output.as_deref(), &ENDINGS)
    }
}

const ENDINGS: [(&str, TimelineFormat); 4] = [
    ("txt", TimelineFormat::Text),
    ("svg", TimelineFormat::Svg),
    ("csv", TimelineFormat::Csv),
    ("json", TimelineFormat::Json),
];

fn size(args: &TimelineArgs) -> timeline_text::PlotSize {
    let of_terminal = || match text_width(std::io::stdout()).columns() {
        usize::MAX => DEFAULT_WIDTH,
        columns => columns.min(1000),
    };
    let width = args.width.map_or_else(of_terminal, usize::from);
    timeline_text::PlotSize { width, height: usize::from(args.height) }
}

/// Columns of the text if it goes to no terminal.
const DEFAULT_WIDTH: usize = 100;
