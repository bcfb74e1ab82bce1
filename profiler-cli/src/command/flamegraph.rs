//! `profiler-cli flamegraph`: loads a dump, weighs its stacks by a metric, and draws an SVG.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use super::Failure;
use super::input::InputArgs;
use super::output::{Audience, FoldArgs, JsonArg, Target};
use crate::analyze::flame::{Metric, flame};
use crate::render::{flame_svg, json};

const EXAMPLES: &str = "\
Examples:
  profiler-cli flamegraph server.4711.alloc -o peak.svg
  profiler-cli flamegraph server.4711.alloc -o leaks.svg --metric live --full
  profiler-cli flamegraph server.4711.alloc -o ready.svg --at mark:ready
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
    /// File for the picture; - is stdout. [default: the dump's name with .svg]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
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

/// Runs `profiler-cli flamegraph`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &FlamegraphArgs) -> Result<ExitCode, Failure> {
    let (dump, filter) = args.input.load(None)?;
    let folding = args.fold.folding_of(&args.json);
    let flame = flame(&dump.profile, &dump.stacks, &filter, args.metric(), folding, args.top);
    if args.json.json {
        Target::Stdout.write(Audience::Programs, |out| json::write_flame(out, &flame))?;
    }
    if !args.json.json || args.output.is_some() {
        let dump_path = &args.input.dump.path;
        let path = args.output.clone().unwrap_or_else(|| default_svg_path(dump_path));
        Target::of_option(Some(&path), dump_path)
            .write(Audience::Programs, |out| flame_svg::write(out, &flame))?;
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

/// Returns the default file for the flamegraph of a dump.
pub fn default_svg_path(dump: &Path) -> PathBuf {
    let mut path = dump.with_extension("svg");
    if path == dump {
        path.as_mut_os_string().push(".svg");
    }
    path
}
