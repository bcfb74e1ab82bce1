//! `profiler-cli leaks`: loads dumps, finds what is live at the end of each, and prints it as text
//! or JSON. With `--fail-on` the exit status is the result of a check.

pub mod growth_args;
mod suppression_files;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueHint};

use self::growth_args::{GrowthArgs, ListedSites};
use self::suppression_files::{UnusedPatterns, read_suppressions};
use super::chosen_dumps::chosen_dumps;
use super::input::{InputArgs, LoadedDump, dump_path};
use super::judged::{ListedBlocks, NO_SNAPSHOT, SnapshotChoice};
use super::output::{Audience, DEFAULT_TOP, FoldArgs, JsonArg, Target, text_width};
use super::sources::SourceFiles;
use super::{Failure, print_message};
use crate::analyze::gate::{GateCondition, complaints};
use crate::analyze::held::Verdict;
use crate::analyze::leaks::{LeakSelection, Leaks, VerdictSet, leaks};
use crate::analyze::shown::Folding;
use crate::analyze::summary::warnings;
use crate::analyze::suppressions::Suppressions;
use crate::dumps::open::check_header;
use crate::load::{LoadOptions, MomentSpec, Period};
use crate::render::leaks_text::{self, LeaksShape};
use crate::render::{holders_text, json};
use crate::source::SourceSearch;
use crate::units::{Safe, parse_bytes, plural};

const EXAMPLES: &str = "\
Examples:
  profiler-cli leaks server.4711.alloc
  profiler-cli leaks server.4711.alloc --from mark:warm --to -1s
  profiler-cli leaks server.4711.alloc --from mark:warm --to 60s --still-live
  profiler-cli leaks server.4711.alloc --growing --windows-from mark:request
  profiler-cli leaks server.4711.alloc --verdict lost     what nothing holds any more
  profiler-cli leaks server.4711.alloc --why 1            what holds the first row
  profiler-cli leaks server.4711.alloc --suppressions leaks.supp --fail-on live:64KiB
  profiler-cli leaks @run --fail-on live:0
";

/// Options of `leaks`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct LeaksArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// More dumps. A folder stands for all dumps in it, @run for those of the last run.
    ///
    /// Each dump gets its own report, and a check fails if it fails for one of them. @run means all
    /// dumps that the last `run` or `cargo` command of this workspace has written there: a test run
    /// writes one for each test program.
    #[arg(value_name = "DUMP", value_parser = dump_path(), value_hint = ValueHint::AnyPath)]
    pub more: Vec<PathBuf>,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// At most this many sites. [default: 10, with --json 10000]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Frames that are left out or folded. With --full the blocks of the runtime are listed too,
    /// unless they are suppressed.
    #[command(flatten)]
    pub fold: FoldArgs,
    /// The snapshot that tells what holds the blocks.
    #[command(flatten)]
    pub snapshot: SnapshotChoice,
    /// Only rows with this verdict of the snapshot; may be given several times.
    #[arg(long, value_enum, value_name = "VERDICT", help_heading = "Snapshot")]
    pub verdict: Vec<Verdict>,
    /// Print what holds the row with this number: each way from a root to its largest block.
    #[arg(long, value_name = "N", conflicts_with = "json", help_heading = "Snapshot")]
    pub why: Option<usize>,
    /// What was born between --from and --to and is live at the end of the recording.
    ///
    /// Without it, live means live at --to: buffers of the request that sets the mark count, too.
    #[arg(long, requires = "IntervalArgs", help_heading = "Time")]
    pub still_live: bool,
    /// Hide blocks that a line leak:PATTERN of this file matches; may be given several times.
    ///
    /// The format is that of LeakSanitizer: a pattern is part of the name of a function, a source
    /// file or a module of any frame of the stack. * stands for any text, ^ for the start and $ for
    /// the end of a name; lines that begin with # are comments.
    ///
    /// A comment `// leak: ok because ...` in the source, on the line of a site or directly above
    /// it, hides the blocks of that site.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Suppressions")]
    pub suppressions: Vec<PathBuf>,
    /// Count what the standard library keeps for itself until the end.
    #[arg(long, help_heading = "Suppressions")]
    pub no_default_suppressions: bool,
    /// Exit with 1 on a condition: live:SIZE, lost, lost:SIZE, growing; separated by commas.
    ///
    /// `live:64KiB` fails if more than that is live. It also fails if the recording is not exact,
    /// or if a limit has ended the recording before the program.
    ///
    /// A recording is not exact if events are missing, if code such as a dynamically linked libstd
    /// did not call alloc-tracker, or if it has no event and does not say that alloc-tracker was
    /// the program's global allocator.
    ///
    /// With a filter such as --crate, only the stacks that the filter accepts count. Suppressed
    /// blocks never count.
    #[arg(long, value_name = "CONDITION", value_delimiter = ',', help_heading = "Check")]
    pub fail_on: Vec<GateCondition>,
    /// Exit with 1 if more than SIZE is live at the end: the same as --fail-on live:SIZE.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = "Check")]
    pub fail_on_leak: Option<u64>,
    /// Which sites grow.
    #[command(flatten)]
    pub growth: GrowthArgs,
}

/// Runs `profiler-cli leaks`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &LeaksArgs) -> Result<ExitCode, Failure> {
    let suppressions = read_suppressions(&args.suppressions, !args.no_default_suppressions)?;
    let given = std::iter::once(&args.input.dump.path).chain(&args.more);
    let dumps = chosen_dumps(given.map(PathBuf::as_path))?;
    let several = dumps.len() > 1;
    if several {
        if args.why.is_some() {
            return Err(anyhow::anyhow!("--why is about one dump; give one").into());
        }
        // Before half of the reports is printed.
        dumps.iter().try_for_each(|dump| check_header(dump)).map_err(anyhow::Error::from)?;
    }
    let mut reports = Reports {
        args,
        suppressions,
        rest: dumps.into_iter(),
        several,
        unused: UnusedPatterns::default(),
        has_complaint: false,
        filter: FilterUse::Unknown,
        messages: Vec::new(),
        failure: None,
    };
    reports.print()?;
    if let Some(failure) = reports.failure {
        return Err(failure);
    }
    if let FilterUse::NoMatch(error) = reports.filter {
        return Err(error.into());
    }
    if args.input.filter_options().is_empty() && args.input.time.period().is_none() {
        reports.unused.warnings().for_each(|warning| print_message(Safe(&warning)));
    }
    Ok(if reports.has_complaint { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Checks that `--why` can be answered.
fn check_why(number: usize, leaks: &Leaks) -> anyhow::Result<()> {
    if leaks.snapshot.is_none() {
        anyhow::bail!("--why {number}: {NO_SNAPSHOT}");
    }
    if number == 0 || number > leaks.leaks.len() {
        anyhow::bail!("--why {number}: the report has {}", plural(leaks.leaks.len() as u64, "row"));
    }
    Ok(())
}

/// The most sites in JSON unless the user asks for more.
const JSON_TOP: usize = 10_000;
/// The most stacks of a site in JSON. A million stacks would be gigabytes.
const JSON_STACKS: usize = 100;

/// Makes the report of one dump after the other. No more than one dump is loaded at a time.
struct Reports<'a> {
    args: &'a LeaksArgs,
    suppressions: Suppressions,
    rest: std::vec::IntoIter<PathBuf>,
    several: bool,
    unused: UnusedPatterns,
    /// Whether a check has failed.
    has_complaint: bool,
    filter: FilterUse,
    /// What is to be printed to stderr after the last report.
    messages: Vec<String>,
    /// Why there are no more reports.
    failure: Option<Failure>,
}

/// Whether the filter has accepted any frame of the dumps so far.
enum FilterUse {
    /// No dump was loaded.
    Unknown,
    /// It accepts nothing in any of the dumps.
    NoMatch(anyhow::Error),
    /// It accepts something.
    Matches,
}

impl Iterator for Reports<'_> {
    type Item = Leaks;

    fn next(&mut self) -> Option<Leaks> {
        self.print_messages();
        let dump = self.rest.next()?;
        match self.report(&dump) {
            Ok(leaks) => Some(leaks),
            Err(failure) => {
                self.rest = Vec::new().into_iter();
                self.failure = Some(failure);
                None
            }
        }
    }
}

impl Reports<'_> {
    /// Prints the reports of all dumps.
    fn print(&mut self) -> Result<(), Failure> {
        let is_json = self.args.output.json;
        let written = match (is_json, self.several) {
            (true, true) => {
                Target::Stdout.write(Audience::Programs, |out| json::write_leaks_list(out, &mut *self))
            }
            (true, false) => self.next().map_or(Ok(()), |leaks| {
                Target::Stdout.write(Audience::Programs, |out| json::write(out, &leaks))
            }),
            (false, _) => self.print_texts(),
        };
        // The exit status is still the verdict on all dumps if the reader closed the pipe.
        self.by_ref().for_each(drop);
        match written {
            Err(Failure::ClosedPipe) => Ok(()),
            other => other,
        }
    }

    fn print_texts(&mut self) -> Result<(), Failure> {
        let shape = LeaksShape {
            width: text_width(std::io::stdout()),
            with_heading: self.several,
            whole_stacks: self.folding() == Folding::None,
        };
        let (mut is_first, why) = (true, self.args.why);
        for leaks in self.by_ref() {
            Target::Stdout.write(Audience::People, |out| {
                if !std::mem::take(&mut is_first) {
                    writeln!(out)?;
                }
                match why.and_then(|number| Some((number, leaks.leaks.get(number.checked_sub(1)?)?))) {
                    Some((number, row)) => holders_text::write_why(out, number, row, &leaks),
                    None => leaks_text::write(out, &leaks, &shape),
                }
            })?;
        }
        Ok(())
    }

    fn print_messages(&mut self) {
        self.messages.drain(..).for_each(|message| print_message(Safe(&message)));
    }

    fn folding(&self) -> Folding {
        self.args.fold.folding_of(&self.args.output)
    }

    /// Makes the report of a dump, and the messages that come after it.
    fn report(&mut self, path: &Path) -> Result<Leaks, Failure> {
        let args = self.args;
        let snapshot = args.snapshot.find(path)?;
        let loading = LoadOptions {
            resizes: true,
            still_live: args.still_live,
            mark_times: args.growth.marks(),
            blocks: SnapshotChoice::blocks_for(snapshot.as_ref()),
            ..args.input.load_options()
        };
        let dump = self.open(path, loading)?;
        let filter = args.input.unchecked_filter(&dump);
        match filter.check(&dump.stacks, &[]) {
            Ok(()) => self.filter = FilterUse::Matches,
            Err(no_match) if matches!(self.filter, FilterUse::Unknown) => {
                let error = anyhow::Error::from(no_match).context(path.display().to_string());
                if !self.several {
                    return Err(error.into());
                }
                // One of several programs may not have the function.
                self.filter = FilterUse::NoMatch(error);
            }
            Err(_) => {}
        }
        let sources = SourceFiles::of(&dump.profile, SourceSearch::default());
        let suppressed = self.suppressions.apply(&dump.profile, &dump.stacks, &sources);
        let is_json = args.output.json;
        let (default_top, stacks) =
            if is_json { (JSON_TOP, JSON_STACKS) } else { (DEFAULT_TOP, leaks_text::STACKS) };
        let listed = ListedSites { filter: &filter, folding: self.folding(), suppressed: &suppressed };
        let is_checked = args.fail_on.contains(&GateCondition::Growing);
        let growing = args.growth.judge(path, &args.input, &dump, &listed, is_checked)?;
        let top = args.top.unwrap_or(default_top).max(args.why.unwrap_or(0));
        let symbols = args.input.symbols.options();
        let mut leaks =
            args.snapshot.judge(&dump, snapshot.as_ref(), symbols, ListedBlocks::AtEnd, |judged| {
                let selection = LeakSelection {
                    folding: self.folding(),
                    top: Some(top),
                    stacks: Some(stacks),
                    whole_stacks: !is_json && self.folding() == Folding::None,
                    suppressed: Some(&suppressed),
                    growing: growing.as_ref(),
                    judged,
                    verdicts: VerdictSet::of(&args.verdict),
                };
                leaks(&dump.profile, &dump.stacks, &filter, selection)
            })?;
        leaks.dump = path.to_string_lossy().into_owned();
        if let Some(number) = args.why {
            check_why(number, &leaks)?;
        }
        self.unused.note(&leaks);
        self.check(&leaks, &dump)?;
        Ok(leaks)
    }

    /// Loads a dump. A report about growth ends where the program began to free its memory: at a
    /// clean end, no site holds anything.
    fn open(&self, path: &Path, loading: LoadOptions) -> Result<LoadedDump, Failure> {
        let args = self.args;
        let dump = args.input.open_another(path, loading.clone())?;
        let is_about_growth = args.growth.growing || args.fail_on.contains(&GateCondition::Growing);
        if !is_about_growth || loading.period.is_some() || dump.profile.teardown.is_none() {
            return Ok(dump);
        }
        if self
            .conditions()
            .any(|condition| matches!(condition, GateCondition::Leak(_) | GateCondition::Live(_)))
        {
            print_message(format_args!(
                "{}: growth is judged up to the end, where the program has freed its memory: check it \
                 apart from what is live, or with --to teardown",
                Safe(&path.to_string_lossy())
            ));
            return Ok(dump);
        }
        let period = Some(Period { from: None, to: MomentSpec::teardown() });
        Ok(args.input.open_another(path, LoadOptions { period, ..loading })?)
    }

    /// The conditions of the check.
    fn conditions(&self) -> impl Iterator<Item = GateCondition> {
        let live = self.args.fail_on_leak.map(GateCondition::Leak);
        live.into_iter().chain(self.args.fail_on.clone())
    }

    /// Notes what is wrong with the recording, and why the check fails.
    fn check(&mut self, leaks: &Leaks, dump: &LoadedDump) -> Result<(), Failure> {
        let conditions: Vec<GateCondition> = self.conditions().collect();
        let filter = self.args.input.filter_options();
        let complaints = complaints(leaks, &dump.profile, &conditions, &filter)
            .map_err(|undecided| anyhow::Error::from(undecided).context(leaks.dump.clone()))?;
        self.has_complaint |= !complaints.is_empty();
        let mut messages = warnings(&dump.profile, &dump.stacks);
        messages.extend(leaks.suppressed.warnings.iter().cloned());
        messages.extend(complaints);
        let prefix = if self.several { format!("{}: ", leaks.dump) } else { String::new() };
        self.messages.extend(messages.into_iter().map(|message| format!("{prefix}{message}")));
        Ok(())
    }
}
