//! `profiler-cli leaks`: loads a dump, finds what is live at the end, and prints it as text or
//! JSON. With `--fail-on-leak` the exit status is the result of a check.

use std::process::ExitCode;

use clap::Args;

use super::input::{InputArgs, LoadedDump};
use super::judged::{ListedBlocks, NO_SNAPSHOT, SnapshotChoice};
use super::output::{Audience, DEFAULT_TOP, FoldArgs, JsonArg, Target, text_width};
use super::{Failure, print_message};
use crate::analyze::held::Verdict;
use crate::analyze::leaks::{LeakSelection, Leaks, VerdictSet, judged_leaks};
use crate::analyze::summary::warnings_of_recording;
use crate::load::LoadOptions;
use crate::profile::Profile;
use crate::render::{holders_text, json, leaks_text};
use crate::units::{parse_bytes, plural};

const EXAMPLES: &str = "\
Examples:
  profiler-cli leaks server.4711.alloc
  profiler-cli leaks server.4711.alloc --fail-on-leak 1000000
  profiler-cli leaks server.4711.alloc --from mark:warm --to -1s
  profiler-cli leaks server.4711.alloc --verdict lost     what nothing holds any more
  profiler-cli leaks server.4711.alloc --why 1            what holds the first row
";

/// Options of `leaks`.
#[derive(Debug, Args)]
#[command(before_help = EXAMPLES)]
pub struct LeaksArgs {
    /// What to read.
    #[command(flatten)]
    pub input: InputArgs,
    /// Text or JSON.
    #[command(flatten)]
    pub output: JsonArg,
    /// At most this many sites. [default: 10, with --json 10000]
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Frames that are left out or folded. With --full the blocks of the runtime are listed too.
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
    /// Exit with 1 if more than SIZE is live at the end, or if the recording is not exact.
    ///
    /// It also fails if a limit has ended the recording before the program.
    ///
    /// A recording is not exact if events are missing, if code such as a dynamically linked libstd
    /// did not call alloc-tracker, or if it has no event and does not say that alloc-tracker was
    /// the program's global allocator.
    ///
    /// The standard library itself keeps a few hundred bytes. With a filter such as --crate, only
    /// the stacks that the filter accepts count.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub fail_on_leak: Option<u64>,
}

/// Runs `profiler-cli leaks`.
///
/// # Errors
/// See [`Failure`].
pub fn run(args: &LeaksArgs) -> Result<ExitCode, Failure> {
    let loading = LoadOptions { resizes: true, ..args.input.load_options() };
    let (dump, snapshot, filter) = args.snapshot.load(&args.input, loading)?;
    let (default_top, stacks) = match args.output.json {
        true => (JSON_TOP, JSON_STACKS),
        false => (DEFAULT_TOP, leaks_text::STACKS),
    };
    let selection = LeakSelection {
        folding: args.fold.folding_of(&args.output),
        top: Some(args.top.unwrap_or(default_top).max(args.why.unwrap_or(0))),
        stacks: Some(stacks),
        verdicts: VerdictSet::of(&args.verdict),
    };
    let symbols = args.input.symbols.options();
    let leaks = args.snapshot.judge(&dump, snapshot.as_ref(), symbols, ListedBlocks::AtEnd, |judged| {
        judged_leaks(&dump.profile, &dump.stacks, &filter, selection, judged)
    })?;
    if let Some(number) = args.why {
        return why(number, &leaks, &dump);
    }
    let complaint = args.fail_on_leak.and_then(|limit| complaint(&leaks, &dump.profile, limit));
    let verdict = if complaint.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let written = match args.output.json {
        true => Target::Stdout.write(Audience::Programs, |out| json::write(out, &leaks)),
        false => Target::Stdout
            .write(Audience::People, |out| leaks_text::write(out, &leaks, text_width(std::io::stdout()))),
    };
    match written {
        // The exit status is still the verdict if the reader closed the pipe.
        Err(Failure::ClosedPipe) => return Ok(verdict),
        other => other?,
    }
    dump.print_warnings();
    if let Some(complaint) = complaint {
        print_message(complaint);
    }
    Ok(verdict)
}

/// Prints what holds a row.
fn why(number: usize, leaks: &Leaks, dump: &LoadedDump) -> Result<ExitCode, Failure> {
    let Some(row) = number.checked_sub(1).and_then(|at| leaks.leaks.get(at)) else {
        let rows = plural(leaks.leaks.len() as u64, "row");
        return Err(anyhow::anyhow!("--why {number}: the report has {rows}").into());
    };
    if leaks.snapshot.is_none() {
        return Err(anyhow::anyhow!("--why {number}: {NO_SNAPSHOT}").into());
    }
    Target::Stdout.write(Audience::People, |out| holders_text::write_why(out, number, row, leaks))?;
    dump.print_warnings();
    Ok(ExitCode::SUCCESS)
}

/// The most sites in JSON unless the user asks for more.
const JSON_TOP: usize = 10_000;
/// The most stacks of a site in JSON. A million stacks would be gigabytes.
const JSON_STACKS: usize = 100;

/// Returns why `--fail-on-leak` fails, or `None` if it passes.
fn complaint(leaks: &Leaks, profile: &Profile, limit: u64) -> Option<String> {
    let bytes = leaks.total_bytes.saturating_add(leaks.grown_bytes);
    if bytes > limit {
        let then = match &leaks.interval {
            None => "at the end".to_owned(),
            Some(interval) => format!("that were born, or that older blocks grew by, {}", interval.name()),
        };
        return Some(format!("{bytes} bytes are live {then}; --fail-on-leak allows {limit}"));
    }
    let has_all_events =
        profile.trust.limit.is_none() || profile.interval.as_ref().is_some_and(|i| i.to != "end");
    let problem = match profile.trust.is_exact() {
        false => "is not exact",
        true if !has_all_events => "ended before the program",
        true => return None,
    };
    let reasons = warnings_of_recording(profile);
    let reason = reasons.first().map_or("see the summary", String::as_str);
    Some(format!("--fail-on-leak fails because the recording {problem}: {reason}"))
}
