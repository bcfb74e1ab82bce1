//! `profiler-cli peaks`: loads a dump and lists the highest local peaks of the live heap, as text or
//! JSON. Symbols are not needed.

use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::input::{DumpArg, IntervalArgs, load_profile, print_recording_warnings};
use super::output::{Audience, DEFAULT_TOP, JsonArg, Target};
use crate::analyze;
use crate::load::LoadOptions;
use crate::render::{json, peaks_text};

const EXAMPLES: &str = "\
Examples:
  profiler-cli peaks server.4711.alloc
  profiler-cli peaks server.4711.alloc --drop 50 --top 3
  profiler-cli flamegraph server.4711.alloc --at event:81250     who made the second peak
";

/// Options of `peaks`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct PeaksArgs {
    /// The dump.
    #[command(flatten)]
    pub dump: DumpArg,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// The part of the recording.
    #[command(flatten)]
    pub interval: IntervalArgs,
    /// At most this many peaks.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_TOP)]
    pub top: usize,
    /// By how much the heap falls on both sides of a peak, in percent of the peak.
    ///
    /// The beginning and the end of the recording count as valleys.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub drop: u8,
}

/// Runs `profiler-cli peaks`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &PeaksArgs) -> Result<ExitCode, Failure> {
    let (period, peaks) = (args.interval.period(), Some(args.drop));
    let profile = load_profile(&args.dump.path, &LoadOptions { period, peaks, ..LoadOptions::default() })?;
    let peaks = analyze::peaks::peaks(&profile, args.drop, args.top);
    match args.output.json {
        true => Target::Stdout.write(Audience::Programs, |out| json::write(out, &peaks))?,
        false => Target::Stdout.write(Audience::People, |out| peaks_text::write(out, &peaks))?,
    }
    print_recording_warnings(&profile);
    Ok(ExitCode::SUCCESS)
}
