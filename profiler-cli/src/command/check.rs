//! `profiler-cli check`: loads the runs of a program, compares their figures with budgets or with a
//! baseline, and fails if one is above its bound. With `--update` it writes the baseline.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};

use super::Failure;
use super::chosen_dumps::chosen_dumps;
use super::diff::run_table_of;
use super::emit::EmitArgs;
use super::input::{LoadedDump, SymbolArgs, dump_path};
use super::judged::{ListedBlocks, SnapshotChoice};
use super::output::{Audience, JsonArg, Target, text_width};
use super::print_message;
use super::sources::SourceFiles;
use crate::analyze::baseline::{Baseline, BaselineError};
use crate::analyze::budgets::{Budget, BudgetMetric, parse_budgets};
use crate::analyze::check::{
    Check, CheckedRuns, Measured, Unmeasured, check, measure, measure_lost, program_name,
};
use crate::analyze::filter::Filter;
use crate::analyze::gate::problem_for_budgets;
use crate::analyze::held::Verdict;
use crate::analyze::holders::JudgedBlocks;
use crate::analyze::leaks::{LeakSelection, VerdictSet, leaks};
use crate::analyze::site_table::SideTable;
use crate::analyze::suppressions::Suppressions;
use crate::dumps::snapshot::SnapshotFile;
use crate::io_error::plain;
use crate::load::LoadOptions;
use crate::render::{check_text, json};
use crate::source::SourceSearch;
use crate::units::{Safe, plural};

const EXAMPLES: &str = "\
Examples:
  profiler-cli check @last --budgets heap.toml
  profiler-cli check @last --baseline heap.baseline --update    make the baseline, or renew it
  profiler-cli check runs/ --baseline heap.baseline             each of several runs must pass
  profiler-cli check @last --budgets heap.toml --baseline heap.baseline --json
";

/// Options of `check`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct CheckArgs {
    /// Dumps of one program: files, folders, patterns with * for file names, @last, or @run. Each
    /// run must pass.
    #[arg(value_name = "DUMP", value_parser = dump_path(), value_hint = ValueHint::AnyPath)]
    pub dumps: Vec<PathBuf>,
    /// TOML file with bounds, in tables such as `[total]`, `[[function]]`, `[[crate]]`, `[[file]]`,
    /// `[[thread]]` and `[[per_call]]`.
    ///
    /// `peak = "64 MiB"` below `[total]` is a bound. Other figures are live, allocated,
    /// allocations, temporary, rss_peak, and lost, which needs a snapshot. `live = "+5 %"`
    /// allows 5 % more than the baseline has. A `[[function]]` has a `name`, which is a pattern as
    /// for --function of the other commands, and so have `[[crate]]`, `[[file]]` and `[[thread]]`.
    /// `[[per_call]]` has a `function` with `#[profile]`, and bounds the average of its calls.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub budgets: Option<PathBuf>,
    /// Text file with the figures that budgets are relative to.
    ///
    /// Without --budgets, each total and each site may be above this file by 1 %, or by 4 KiB or 10
    /// allocations if that is more.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub baseline: Option<PathBuf>,
    /// Write the figures of these dumps into the file of --baseline.
    #[arg(long, requires = "baseline")]
    pub update: bool,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// Outputs for reviewers. One that goes to stdout replaces the text.
    #[command(flatten)]
    pub emit: EmitArgs,
    /// Where names come from.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Runs `profiler-cli check`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &CheckArgs) -> Result<ExitCode, Failure> {
    args.emit.check()?;
    if args.output.json && args.emit.uses_stdout() {
        return Err(anyhow::anyhow!("--json and an output of --emit go to stdout: give it a file").into());
    }
    let budgets = args.read_budgets()?;
    let old = args.read_baseline()?;
    let dumps = chosen_dumps(args.dumps.iter().map(PathBuf::as_path))?;
    let (runs, program) = args.load(&dumps, &budgets, old.as_ref())?;
    let new = args.update.then(|| Baseline::of(&program, &runs.side, runs.figures_for_baseline(&budgets)));
    let mut check: Check = check(&runs, &budgets, new.as_ref().or(old.as_ref()))
        .map_err(|error| anyhow::anyhow!("{}:{error}", args.budget_file()))?;
    check.budget_file = args.budgets.is_some().then(|| args.budget_file());
    // A baseline of a recording that is not whole would let everything pass later.
    if let (Some(new), Some(path), [first, ..], true) =
        (new, &args.baseline, dumps.as_slice(), check.recordings.is_empty() && check.unmatched.is_empty())
    {
        let text = new.text();
        Target::File { path, dump: first }.write(Audience::Programs, |out| out.write_all(text.as_bytes()))?;
    }
    let written = match args.output.json {
        true => Target::Stdout.write(Audience::Programs, |out| json::write(out, &check)),
        false if args.emit.uses_stdout() => Ok(()),
        false => Target::Stdout
            .write(Audience::People, |out| check_text::write(out, &check, text_width(std::io::stdout()))),
    };
    match written {
        // The exit status is still the verdict if the reader closed the pipe.
        Ok(()) | Err(Failure::ClosedPipe) => {}
        Err(failure) => return Err(failure),
    }
    match args.emit.write(&check.review()) {
        Ok(()) | Err(Failure::ClosedPipe) => {}
        Err(failure) => return Err(failure),
    }
    if let Some(first) = check.unmatched.first() {
        let place = format!("{}:{}", args.budget_file(), first.budget_line);
        let others = match check.unmatched.len() as u64 - 1 {
            0 => String::new(),
            others => format!("; {} matched nothing, too", plural(others, "other budget")),
        };
        return Err(anyhow::anyhow!("{place}: {}{others}", first.reason).into());
    }
    Ok(if check.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl CheckArgs {
    fn budget_file(&self) -> String {
        self.budgets.as_deref().unwrap_or(Path::new("")).display().to_string()
    }

    /// Reads the budgets, and checks that the command line makes sense.
    fn read_budgets(&self) -> anyhow::Result<Vec<Budget>> {
        if self.dumps.is_empty() {
            bail!("give a dump, a folder with dumps, @last or @run");
        }
        let Some(path) = &self.budgets else {
            if self.baseline.is_none() {
                bail!("give bounds with --budgets FILE, or figures to compare with by --baseline FILE");
            }
            return Ok(Vec::new());
        };
        let text = read_text(path)?;
        let budgets = parse_budgets(&text).map_err(|error| anyhow::anyhow!("{}:{error}", path.display()))?;
        let relative = budgets.iter().find(|budget| budget.bound.is_relative());
        if let (Some(budget), None) = (relative, &self.baseline) {
            bail!(
                "{}:{}: the bound for {} of {} is relative: give --baseline FILE, too",
                path.display(),
                budget.line,
                budget.metric.key(),
                budget.label()
            );
        }
        Ok(budgets)
    }

    /// Reads the baseline; `None` if there is none, or if it is to be made anew.
    fn read_baseline(&self) -> anyhow::Result<Option<Baseline>> {
        let Some(path) = &self.baseline else { return Ok(None) };
        if !path.exists() {
            if self.update {
                return Ok(None);
            }
            bail!(
                "there is no baseline {}: make it with `profiler-cli check DUMP --baseline {0} --update`",
                path.display()
            );
        }
        match Baseline::parse(&read_text(path)?) {
            Ok(old) if self.update && self.budgets.is_none() && !old.budgets.is_empty() => bail!(
                "{} has figures for budgets, which --update would remove: give --budgets FILE, too",
                path.display()
            ),
            Ok(baseline) => Ok(Some(baseline)),
            Err(BaselineError::Line(_) | BaselineError::Twice(_) | BaselineError::NoTotal) if self.update => {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Loads one run after the other. Returns also the name of the program.
    fn load(
        &self,
        dumps: &[PathBuf],
        budgets: &[Budget],
        baseline: Option<&Baseline>,
    ) -> anyhow::Result<(CheckedRuns, String)> {
        let asks_what_is_lost = budgets.iter().any(|budget| budget.metric == BudgetMetric::Lost);
        let choice = SnapshotChoice::default();
        let mut runs = CheckedRuns::default();
        let mut tables = Vec::new();
        let known = baseline.zip(self.baseline.as_deref());
        let mut known = known.map(|(baseline, path)| (baseline.program.clone(), path.to_owned()));
        for path in dumps {
            let snapshot = if asks_what_is_lost { choice.find(path)? } else { None };
            let blocks = SnapshotChoice::blocks_for(snapshot.as_ref());
            let loading = LoadOptions { blocks, ..LoadOptions::default() };
            let dump = LoadedDump::open(path, loading, self.symbols.options())?;
            let program = program_name(&dump.profile);
            match &known {
                Some((name, of)) if *name != program => bail!(
                    "{} is of the program '{program}', and {} of '{name}': check the runs of one program",
                    path.display(),
                    of.display()
                ),
                _ => known = Some((program, path.clone())),
            }
            let of_dump = if dumps.len() > 1 { format!("{}: ", path.display()) } else { String::new() };
            runs.recordings
                .extend(problem_for_budgets(&dump.profile).map(|problem| format!("{of_dump}{problem}")));
            let lost = asks_what_is_lost.then(|| self.lost(&dump, snapshot.as_ref())).transpose()?;
            runs.figures.push(measure(budgets, &dump.profile, &dump.stacks, lost.as_ref()));
            tables.push(run_table_of(&dump, &Filter::default(), self.symbols.options().cache_dir));
        }
        runs.side = SideTable::of(tables);
        for warning in &runs.side.warnings {
            print_message(Safe(warning));
        }
        Ok((runs, known.map(|(name, _)| name).unwrap_or_default()))
    }
}

impl CheckArgs {
    /// Measures what is lost, as `leaks --fail-on lost` does.
    fn lost(
        &self,
        dump: &LoadedDump,
        snapshot: Option<&SnapshotFile>,
    ) -> anyhow::Result<Result<Measured, Unmeasured>> {
        let sources = SourceFiles::of(&dump.profile, SourceSearch::default());
        let suppressed = Suppressions::defaults().apply(&dump.profile, &dump.stacks, &sources);
        let judge = |judged: Option<&JudgedBlocks<'_>>| {
            let selection = LeakSelection {
                judged,
                suppressed: Some(&suppressed),
                top: Some(1),
                stacks: Some(1),
                verdicts: VerdictSet::of(&[Verdict::Lost]),
                ..LeakSelection::default()
            };
            measure_lost(&leaks(&dump.profile, &dump.stacks, &Filter::default(), selection))
        };
        SnapshotChoice::default().judge(dump, snapshot, self.symbols.options(), ListedBlocks::AtEnd, judge)
    }
}

/// Reads a text file of a repository.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        bail!("cannot read {}: {}", path.display(), plain(&error));
    }
    if bytes.len() as u64 > MAX_BYTES {
        bail!("{} is larger than 16 MiB: give a file with budgets, or a baseline", path.display());
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{} is no text in UTF-8", path.display()))
}

/// The most bytes of a file.
const MAX_BYTES: u64 = 16 << 20;
