//! `profiler-cli timeline`: loads a dump and draws the process over time as text, SVG, CSV or JSON.
//! Symbols are not needed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};

use super::Failure;
use super::input::{DumpArg, IntervalArgs, load_profile, print_recording_warnings};
use super::output::{Audience, JsonArg, Target, format_of_output};
use crate::analyze;
use crate::load::LoadOptions;
use crate::pattern::Pattern;
use crate::render::plot::Series;
use crate::render::{json, timeline_csv, timeline_svg, timeline_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli timeline server.4711.alloc
  profiler-cli timeline server.4711.alloc -o memory.svg
  profiler-cli timeline server.4711.alloc --from mark:warm --to -1s
  profiler-cli timeline server.4711.alloc --series heap,rss,vsz,minor-faults
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
    let profile = load_profile(&args.dump.path, &options)?;
    if let Some(pattern) = &args.function {
        analyze::timeline::check(&profile, pattern)
            .map_err(anyhow::Error::msg)
            .with_context(|| args.dump.path.display().to_string())?;
    }
    let timeline = analyze::timeline::timeline(&profile, args.function.as_ref());
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
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0.clamp(30, 1000));
    let width = args.width.or_else(terminal).unwrap_or(100);
    timeline_text::PlotSize { width: usize::from(width), height: usize::from(args.height) }
}
