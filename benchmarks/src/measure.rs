//! Runs a workload under all tools, round by round. In: a workload. Out: [`Measured`], with every
//! pair of runs.
//!
//! In each round every tool runs once. Each round has another order, which is the same in every run
//! of the benchmark. The untracked program runs once for each amount of work that the tools of the
//! round do.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::Options;
use crate::figures::{Pair, Run};
use crate::instructions::{self, Instructions};
use crate::launch::{self, Cores};
use crate::programs::Programs;
use crate::tools::{self, ANNOTATED, CALLGRIND, CHECK, COUNTED, Job, TRACE, Tool, UNTRACKED};
use crate::workloads::Workload;

/// All measurements of one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) workload: Workload,
    /// The whole work divided by the work that the runs of `untracked` did.
    pub(crate) fraction: u64,
    /// The untracked runs, one for each round.
    pub(crate) untracked: Vec<Run>,
    /// Heap events of an untracked run, as the counting allocator counts them.
    pub(crate) events: u64,
    pub(crate) tools: Vec<UnderTool>,
    pub(crate) instructions: Option<Instructions>,
    /// Why instructions were not counted although the flags ask for them.
    pub(crate) instructions_trouble: Option<String>,
}

/// All measurements of one workload under one tool.
#[derive(Debug, Serialize)]
pub(crate) struct UnderTool {
    pub(crate) tool: &'static str,
    /// The whole work divided by the work that the tool's runs did.
    pub(crate) fraction: u64,
    /// Heap events of one run, as the counting allocator counts them.
    pub(crate) events: u64,
    pub(crate) pairs: Vec<Pair>,
    /// Whether the tool runs in the first rounds only.
    pub(crate) rare: bool,
    /// The summary of the last dump, if the tool wrote one.
    pub(crate) dump: Option<DumpFacts>,
    /// Why there are no runs, or fewer than rounds.
    pub(crate) trouble: Option<String>,
}

/// The fields of `profiler-cli summary --json` that are of interest here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DumpFacts {
    allocations: u64,
    deallocations: u64,
    reallocations: u64,
    pub(crate) exact: bool,
    pub(crate) lost_events: u64,
    pub(crate) truncated_stacks: u64,
    pub(crate) checked_stacks: u64,
    pub(crate) different_stacks: u64,
}

impl DumpFacts {
    /// Returns the number of heap events in the dump.
    pub(crate) fn events(&self) -> u64 {
        self.allocations + self.deallocations + self.reallocations
    }
}

/// What all workloads have in common.
pub(crate) struct Bench<'a> {
    programs: &'a Programs,
    tools: Vec<&'static Tool>,
    rounds: u32,
    quick: bool,
    folder: TempDir,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(options: &Options, programs: &'a Programs) -> Result<Bench<'a>> {
        Ok(Bench {
            programs,
            tools: tools::chosen(options),
            rounds: options.rounds(),
            quick: options.quick,
            folder: tempfile::tempdir().context("no temporary folder")?,
        })
    }

    /// Runs all rounds of one workload.
    pub(crate) fn measure(&self, workload: &Workload) -> Result<Measured> {
        let fraction = self.fraction(&UNTRACKED);
        let mut measured = Measured {
            workload: workload.clone(),
            fraction,
            untracked: Vec::new(),
            events: self.events(workload, fraction)?,
            tools: Vec::new(),
            instructions: None,
            instructions_trouble: None,
        };
        for tool in self.tools.iter().filter(|tool| is_row(tool, workload)) {
            let fraction = self.fraction(tool);
            measured.tools.push(UnderTool {
                tool: tool.name,
                fraction,
                events: self.events(workload, fraction)?,
                pairs: Vec::new(),
                rare: tool.rare,
                dump: None,
                trouble: self.missing(tool, workload),
            });
        }
        for round in 0..self.rounds {
            eprintln!("{}: round {} of {}", workload.name, round + 1, self.rounds);
            self.round(workload, round, &mut measured)?;
        }
        if self.tools.contains(&&CALLGRIND) {
            eprintln!("{}: instructions", workload.name);
            match instructions::measure(self, workload) {
                Ok(instructions) => measured.instructions = Some(instructions),
                Err(error) => {
                    let missing = self.missing(&CALLGRIND, workload);
                    let failed = || format!("failed: {error:#}");
                    measured.instructions_trouble = Some(missing.unwrap_or_else(failed));
                }
            }
        }
        Ok(measured)
    }

    fn round(&self, workload: &Workload, round: u32, measured: &mut Measured) -> Result<()> {
        let mut fractions: Vec<u64> = measured.tools.iter().map(|under| under.fraction).collect();
        fractions.push(measured.fraction);
        fractions.sort_unstable();
        fractions.dedup();

        let mut steps: Vec<Step> = (0..measured.tools.len())
            .filter(|index| {
                let under = &measured.tools[*index];
                under.trouble.is_none() && (round < RARE_ROUNDS || !under.rare)
            })
            .map(Step::Tool)
            .chain(fractions.into_iter().map(Step::Untracked))
            .collect();
        fastrand::Rng::with_seed(round.into()).shuffle(&mut steps);

        let (mut untracked, mut runs) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Untracked(fraction) => {
                    let run =
                        self.run(&UNTRACKED, workload, self.rounds_of(workload, fraction), |_| Ok(()))?;
                    untracked.push((fraction, run));
                }
                Step::Tool(index) => {
                    let under = &mut measured.tools[index];
                    let last = round + 1 == self.rounds;
                    match self.under_tool(workload, under, last) {
                        Ok(run) => runs.push((index, run)),
                        Err(error) => under.trouble = Some(format!("failed: {error:#}")),
                    }
                }
            }
        }
        let untracked_run = |fraction| {
            let run = untracked.iter().find(|(of_run, _)| *of_run == fraction).map(|(_, run)| *run);
            run.context("every amount of work has an untracked run")
        };
        measured.untracked.push(untracked_run(measured.fraction)?.0);
        for (index, (tool, result)) in runs {
            let under = &mut measured.tools[index];
            let (untracked, expected) = untracked_run(under.fraction)?;
            if result == expected {
                under.pairs.push(Pair { tool, untracked });
            } else {
                under.trouble =
                    Some(format!("failed: the result of the work is {result} instead of {expected}"));
            }
        }
        Ok(())
    }

    fn under_tool(&self, workload: &Workload, under: &mut UnderTool, last: bool) -> Result<(Run, u64)> {
        let tool = self.tools.iter().find(|tool| tool.name == under.tool).context("a tool of this run")?;
        let dump = &mut under.dump;
        self.run(tool, workload, self.rounds_of(workload, under.fraction), |job| {
            // Reading a dump takes long. Except for `check`, the dumps of all rounds have the same
            // summary.
            if **tool == CHECK || ([TRACE, ANNOTATED].contains(tool) && last) {
                let facts = self.dump_facts(&tools::profile(job))?;
                ensure!(facts.different_stacks == 0, "{} stacks differ", facts.different_stacks);
                *dump = Some(facts);
            }
            Ok(())
        })
    }

    /// Makes one run. Returns it and the result of the work. `afterwards` may read the files that
    /// the tool wrote.
    pub(crate) fn run(
        &self,
        tool: &Tool,
        workload: &Workload,
        rounds: u64,
        afterwards: impl FnOnce(&Job<'_>) -> Result<()>,
    ) -> Result<(Run, u64)> {
        self.in_folder(workload, rounds, |job| {
            let usage = launch::run(&tool.command(self.programs, job)?, Cores::All, job.folder)?;
            let report: ProgramReport = serde_json::from_slice(&fs::read(tools::report(job))?)?;
            let run = Run {
                usage,
                application_cpu_ns: report.application_cpu_ns,
                output_bytes: tool.output_bytes(job)?,
            };
            afterwards(job)?;
            Ok((run, report.result))
        })
    }

    /// Counts the heap events of some rounds with the counting allocator.
    pub(crate) fn events_of_rounds(&self, workload: &Workload, rounds: u64) -> Result<u64> {
        self.in_folder(workload, rounds, |job| {
            let counts = job.folder.join("counts.json");
            let mut command = COUNTED.command(self.programs, job)?;
            command.env("ALLOC_ORACLE_OUT", &counts);
            launch::run(&command, Cores::All, job.folder)?;
            let counts: Value = serde_json::from_slice(&fs::read(counts)?)?;
            let kinds = ["allocations", "deallocations", "reallocations"];
            Ok(kinds.iter().filter_map(|kind| counts[*kind].as_u64()).sum())
        })
    }

    fn in_folder<T>(
        &self,
        workload: &Workload,
        rounds: u64,
        work: impl FnOnce(&Job<'_>) -> Result<T>,
    ) -> Result<T> {
        let folder = tempfile::tempdir_in(self.folder.path())?;
        work(&Job { workload: &workload.name, rounds, folder: folder.path() })
    }

    /// Counts the heap events of a fraction of the whole work.
    fn events(&self, workload: &Workload, fraction: u64) -> Result<u64> {
        self.events_of_rounds(workload, self.rounds_of(workload, fraction))
    }

    fn dump_facts(&self, dump: &Path) -> Result<DumpFacts> {
        let mut summary = std::process::Command::new(self.programs.path("profiler-cli")?);
        let summary = summary.args(["summary", "--json"]).arg(dump).output()?;
        serde_json::from_slice(&summary.stdout).context("the summary of the dump")
    }

    /// Returns why the tool cannot run, if a program is missing.
    fn missing(&self, tool: &Tool, workload: &Workload) -> Option<String> {
        let job = Job { workload: &workload.name, rounds: 1, folder: self.folder.path() };
        tool.command(self.programs, &job).err().map(|error| error.to_string())
    }

    /// Returns by what the whole work is divided for this tool.
    fn fraction(&self, tool: &Tool) -> u64 {
        if tool.slow || self.quick { SLOW } else { 1 }
    }

    /// Returns the rounds that are this fraction of the whole work.
    fn rounds_of(&self, workload: &Workload, fraction: u64) -> u64 {
        (workload.rounds / fraction).max(1)
    }
}

/// Whether the rows of a workload include one of this tool.
fn is_row(tool: &Tool, workload: &Workload) -> bool {
    *tool != UNTRACKED && *tool != CALLGRIND && tool.only.is_none_or(|only| only == workload.name)
}

/// One run of a round.
enum Step {
    /// The untracked program does this fraction of the work.
    Untracked(u64),
    /// The tool with this index in [`Measured::tools`] runs.
    Tool(usize),
}

/// The report that a program writes at its end.
#[derive(Deserialize)]
struct ProgramReport {
    result: u64,
    application_cpu_ns: u64,
}

/// Number of rounds in which rare tools run.
const RARE_ROUNDS: u32 = 2;
/// Slow tools do the whole work divided by this.
const SLOW: u64 = 8;
