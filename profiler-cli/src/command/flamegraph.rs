//! `profiler-cli flamegraph`: loads a dump, weighs its stacks by a metric, and draws an SVG, or
//! writes collapsed stacks for other programs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum, ValueHint};

use super::Failure;
use super::input::{InputArgs, LoadedDump};
use super::judged::{ListedBlocks, NO_SNAPSHOT, SnapshotChoice};
use super::output::{Audience, FoldArgs, JsonArg, Target, format_of_output};
use crate::analyze::flame::{Flame, Metric, flame};
use crate::analyze::retention_flame::retention_flame;
use crate::render::{flame_folded, flame_svg, json};

const EXAMPLES: &str = "\
Examples:
  profiler-cli flamegraph server.4711.alloc -o peak.svg
  profiler-cli flamegraph server.4711.alloc -o leaks.svg --metric live --full
  profiler-cli flamegraph server.4711.alloc -o ready.svg --at mark:ready
  profiler-cli flamegraph server.4711.alloc --metric retained    what retains what, by a snapshot
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
    /// The snapshot for --metric retained.
    #[command(flatten)]
    pub snapshot: SnapshotChoice,
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
    let (dump, flame) = args.flame()?;
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
    /// Loads the dump and weighs its stacks.
    fn flame(&self) -> anyhow::Result<(LoadedDump, Flame)> {
        if self.metric() == Metric::Retained {
            return self.retained_flame();
        }
        if self.snapshot.snapshot.is_some() {
            anyhow::bail!("--snapshot is for --metric retained");
        }
        let (dump, filter) = self.input.load(None)?;
        let folding = self.fold.folding_of(&self.json);
        let flame = flame(&dump.profile, &dump.stacks, &filter, self.metric(), folding, self.top);
        Ok((dump, flame))
    }

    fn retained_flame(&self) -> anyhow::Result<(LoadedDump, Flame)> {
        let (dump, snapshot, filter) = self.snapshot.load(&self.input, self.input.load_options())?;
        let symbols = self.input.symbols.options();
        let flame =
            self.snapshot.judge(&dump, snapshot.as_ref(), symbols, ListedBlocks::AtSnapshot, |judged| {
                judged.map(|judged| retention_flame(&dump.profile, &dump.stacks, &filter, judged, self.top))
            })?;
        let flame =
            flame.ok_or_else(|| anyhow::anyhow!("{}: {NO_SNAPSHOT}", self.input.dump.path.display()))?;
        Ok((dump, flame))
    }

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
