//! `profiler-cli diff`: loads two recordings, or several runs of two builds, and prints what
//! changed, as text, JSON, a picture, or in a form for reviewers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueHint};

use super::Failure;
use super::chosen_dumps::chosen_dumps;
use super::emit::EmitArgs;
use super::input::{InputArgs, LoadedDump, dump_path};
use super::output::{Audience, DEFAULT_TOP, FoldArgs, JsonArg, Target, format_of_output, text_width};
use super::sources::SourceFiles;
use crate::analyze::diff::{DiffOptions, diff};
use crate::analyze::diff_flame::diff_flame;
use crate::analyze::filter::Filter;
use crate::analyze::flame::{Flame, Metric, flame};
use crate::analyze::site::{SiteKeys, evidence};
use crate::analyze::site_table::{RunTable, SideTable};
use crate::load::{LoadOptions, Period};
use crate::names::evidence::KeptEvidence;
use crate::render::diff_svg::DrawnSide;
use crate::render::{diff_svg, diff_text, json};
use crate::source::SourceSearch;

const EXAMPLES: &str = "\
Examples:
  profiler-cli diff base.alloc new.alloc
  profiler-cli diff base/ new/                     folders with the dumps of repeated runs
  profiler-cli diff 'base.*.alloc' 'new.*.alloc'   the same with patterns
  profiler-cli diff base.alloc new.alloc -o growth.svg --metric allocated
  profiler-cli diff base/ new/ --emit markdown=comment.md --emit annotations
  profiler-cli diff server.alloc --from mark:warm --to mark:served
";

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct DiffArgs {
    /// The base: a dump, a folder, a pattern with * for file names, or several of these with
    /// commas.
    #[command(flatten)]
    pub input: InputArgs,
    /// What to compare with the base, given in the same way. Without it, two moments of one dump
    /// are compared: what had happened up to --from with what had happened up to --to.
    #[arg(value_name = "NEW", value_parser = dump_path(), value_hint = ValueHint::AnyPath)]
    pub new: Option<PathBuf>,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// Outputs for reviewers. One that goes to stdout replaces the text.
    #[command(flatten)]
    pub emit: EmitArgs,
    /// At most this many changed sites. [default: 10, with --json all]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Draw a flamegraph of the first run of each side into this file, and for what has shrunk one
    /// more beside it, with `.base` in its name.
    #[arg(short = 'o', long = "output", value_name = "FILE.svg", value_hint = ValueHint::FilePath)]
    pub picture: Option<PathBuf>,
    /// What the width of a frame means. [default: peak]
    #[arg(long, value_enum, requires = "picture")]
    pub metric: Option<Metric>,
}

/// Runs `profiler-cli diff`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &DiffArgs) -> Result<ExitCode, Failure> {
    args.check_outputs()?;
    let [base, new] = args.sides()?;
    let (base, new) = (args.load_side(&base)?, args.load_side(&new)?);
    // What only one side has is new or gone.
    if let (Some(error), Some(_)) = (base.no_match, new.no_match) {
        return Err(error.into());
    }
    let (base_flame, new_flame) = (base.picture, new.picture);
    let (base, new) = (base.table, new.table);
    let compared = |top| diff(&base, &new, DiffOptions { top, is_one_recording: args.new.is_none() });
    if args.output.json {
        let diff = compared(args.top);
        Target::Stdout.write(Audience::Programs, |out| json::write(out, &diff))?;
    } else if !args.emit.uses_stdout() {
        let diff = compared(Some(args.top.unwrap_or(DEFAULT_TOP)));
        Target::Stdout
            .write(Audience::People, |out| diff_text::write(out, &diff, text_width(std::io::stdout())))?;
    }
    args.emit.write(&compared(args.top).review())?;
    if let (Some(path), Some(base), Some(new)) = (&args.picture, base_flame, new_flame) {
        let both = diff_flame(&base, &new);
        let base_path = path.with_extension("base.svg");
        for (path, side) in [(path.as_path(), DrawnSide::New), (&base_path, DrawnSide::Base)] {
            Target::of_option(Some(path), &args.input.dump.path)
                .write(Audience::Programs, |out| diff_svg::write(out, &both, side))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The dumps of one side, and the part of them that counts.
struct Side {
    dumps: Vec<PathBuf>,
    period: Option<Period>,
}

/// The runs of one side.
struct LoadedSide {
    table: SideTable,
    /// The flamegraph of the first run, if a picture is asked for.
    picture: Option<Flame>,
    /// Why the filter accepts nothing in any of the runs; `None` if it accepts something.
    no_match: Option<anyhow::Error>,
}

impl DiffArgs {
    /// Checks that the outputs can be written, before dumps are read.
    fn check_outputs(&self) -> Result<(), Failure> {
        self.emit.check()?;
        if self.output.json && self.emit.uses_stdout() {
            return Err(anyhow::anyhow!("--json and an output of --emit go to stdout: give it a file").into());
        }
        if let Some(picture) = &self.picture {
            format_of_output(None, Some(picture), &[("svg", ())])?;
        }
        if self.metric == Some(Metric::Retained) {
            return Err(
                anyhow::anyhow!("what is retained cannot be compared: choose another --metric").into()
            );
        }
        Ok(())
    }

    /// Returns the base and the new side.
    fn sides(&self) -> anyhow::Result<[Side; 2]> {
        let period = self.input.time.period();
        let base = dumps_of_side(&self.input.dump.path)?;
        if let Some(new) = &self.new {
            let new = dumps_of_side(new)?;
            return Ok([Side { dumps: base, period: period.clone() }, Side { dumps: new, period }]);
        }
        match period {
            Some(Period { from: Some(from), to }) => {
                let up_to = |moment| Some(Period { from: None, to: moment });
                Ok([
                    Side { dumps: base.clone(), period: up_to(from) },
                    Side { dumps: base, period: up_to(to) },
                ])
            }
            _ => bail!("give two sides, or --from and --to for two moments of one dump"),
        }
    }

    /// Loads all runs of a side, one after the other.
    fn load_side(&self, side: &Side) -> anyhow::Result<LoadedSide> {
        let (mut runs, mut picture, mut no_match, mut has_match) = (Vec::new(), None, None, false);
        for path in &side.dumps {
            let loading = LoadOptions { period: side.period.clone(), ..self.input.load_options() };
            let dump = self.input.open_another(path, loading)?;
            match self.input.unchecked_filter(&dump).check(&dump.stacks, &[]) {
                Ok(()) => has_match = true,
                Err(error) => no_match = Some(anyhow::Error::from(error).context(path.display().to_string())),
            }
            if picture.is_none() && self.picture.is_some() {
                picture = Some(self.flame_of(&dump));
            }
            runs.push(run_table(&self.input, &dump));
        }
        let no_match = no_match.filter(|_| !has_match);
        Ok(LoadedSide { table: SideTable::of(runs), picture, no_match })
    }

    fn flame_of(&self, dump: &LoadedDump) -> Flame {
        let filter = self.input.unchecked_filter(dump);
        let folding = FoldArgs::default().folding_of(&self.output);
        flame(&dump.profile, &dump.stacks, &filter, self.metric.unwrap_or(Metric::Peak), folding, None)
    }
}

/// Makes the table of a loaded run, of what the options let through.
pub(super) fn run_table(input: &InputArgs, dump: &LoadedDump) -> RunTable {
    run_table_of(dump, &input.unchecked_filter(dump), input.symbols.options().cache_dir)
}

/// Makes the table of a loaded run, with the evidence that this folder keeps.
pub(super) fn run_table_of(dump: &LoadedDump, filter: &Filter, cache: Option<PathBuf>) -> RunTable {
    let LoadedDump { profile, stacks } = dump;
    let keys = SiteKeys::of(profile, stacks);
    let build_ids = profile.modules.iter().map(|module| module.build_id.as_slice());
    let kept = cache.map_or_else(KeptEvidence::default, |folder| KeptEvidence::load(&folder, build_ids));
    let sources = SourceFiles::of(profile, SourceSearch::default());
    let evidence = evidence(profile, stacks, &keys, &kept, &sources);
    RunTable::of(profile, stacks, filter, &keys, &evidence)
}

/// Returns the dumps that an argument means.
pub(super) fn dumps_of_side(argument: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = argument.to_string_lossy();
    // A file may have a comma in its name.
    if argument.exists() || !text.contains(',') {
        return chosen_dumps([argument].into_iter());
    }
    let parts: Vec<PathBuf> = text.split(',').filter(|part| !part.is_empty()).map(PathBuf::from).collect();
    if parts.is_empty() {
        bail!("'{text}' names no dump");
    }
    chosen_dumps(parts.iter().map(PathBuf::as_path))
}
