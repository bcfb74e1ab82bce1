//! `profiler-cli flamegraph`: loads a dump, weighs its stacks by a metric, and draws an SVG, or
//! writes collapsed stacks for other programs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum, ValueHint};

use super::Failure;
use super::input::InputArgs;
use super::output::{Audience, FoldArgs, JsonArg, Target, format_of_output};
use crate::analyze::flame::{Metric, flame};
use crate::render::{flame_folded, flame_svg, json};

const EXAMPLES: &str = "\
Examples:
  profiler-cli flamegraph server.4711.alloc -o peak.svg
  profiler-cli flamegraph server.4711.alloc -o leaks.svg --metric live --full
  profiler-cli flamegraph server.4711.alloc -o ready.svg --at mark:ready
  profiler-cli flamegraph @last -o peak.folded       collapsed stacks for other programs
";

/// Options of `flamegraph`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct FlamegraphArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// JSON; with `output` the picture too.
    #[command(flatten)]
    pub json: JsonArg,
    /// File for the picture; - is stdout. [default: the dump's name with .METRIC.svg]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Format of the output. [default: by the extension of the file: .svg, .folded; else svg]
    #[arg(long, value_enum)]
    pub format: Option<FlameFormat>,
    /// What the width of a frame means. [default: peak, with --at live]
    #[arg(long, value_enum)]
    pub metric: Option<Metric>,
    /// Draw only the N widest stacks, and join all others into one. [default: all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Frames that are left out or folded.
    #[command(flatten)]
    pub fold: FoldArgs,
}

/// How `flamegraph` shows stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameFormat {
    /// A picture
    Svg,
    /// Collapsed stacks: a line for each, with `;` between its frames
    Folded,
}

/// The formats by the ending of the file's name; the first one is the default.
const ENDINGS: [(&str, FlameFormat); 2] = [("svg", FlameFormat::Svg), ("folded", FlameFormat::Folded)];

/// Runs `profiler-cli flamegraph`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &FlamegraphArgs) -> Result<ExitCode, Failure> {
    let format = format_of_output(args.format, args.output.as_deref(), &ENDINGS)?;
    let (dump, filter) = args.input.load(None)?;
    let folding = args.fold.folding_of(&args.json);
    let flame = flame(&dump.profile, &dump.stacks, &filter, args.metric(), folding, args.top);
    if args.json.json {
        Target::Stdout.write(Audience::Programs, |out| json::write_flame(out, &flame))?;
    }
    if !args.json.json || args.output.is_some() {
        let dump_path = &args.input.dump.path;
        let path = args.output.clone().unwrap_or_else(|| default_output(dump_path, args.metric(), format));
        Target::of_option(Some(&path), dump_path).write(Audience::Programs, |out| match format {
            FlameFormat::Svg => flame_svg::write(out, &flame),
            FlameFormat::Folded => flame_folded::write(out, &flame),
        })?;
    }
    dump.print_warnings();
    Ok(ExitCode::SUCCESS)
}

impl FlamegraphArgs {
    /// Returns the metric that the options ask for.
    fn metric(&self) -> Metric {
        let is_moment = self.input.time.at.is_some();
        self.metric.unwrap_or(if is_moment { Metric::Live } else { Metric::Peak })
    }
}

/// Returns the default file for the flamegraph of a dump: `server.4711.peak.svg` for
/// `server.4711.alloc`. Pictures of several metrics have different names.
pub fn default_output(dump: &Path, metric: Metric, format: FlameFormat) -> PathBuf {
    let metric = metric.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let ending = ENDINGS.iter().find(|(_, other)| *other == format).map_or("svg", |(ending, _)| ending);
    dump.with_extension(format!("{metric}.{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_has_the_metric() {
        let name = |dump: &str, metric, format| default_output(dump.as_ref(), metric, format);
        let peak = name("/d/server.4711.alloc", Metric::Peak, FlameFormat::Svg);
        assert_eq!(peak, Path::new("/d/server.4711.peak.svg"));
        let folded = name("a", Metric::Temporary, FlameFormat::Folded);
        assert_eq!(folded, Path::new("a.temporary.folded"));
    }
}
