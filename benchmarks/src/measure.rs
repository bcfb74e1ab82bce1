//! Runs a workload under all tools, round by round. In: a workload. Out: [`Measured`]: every pair of runs.
//!
//! In each round every tool runs once, in an order that is shuffled anew but the same whenever the benchmark is run. The
//! untracked program runs once for each amount of work that the tools of the round do.

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

/// Everything about one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) workload: Workload,
    /// How many times less work than the whole was done.
    pub(crate) fraction: u64,
    /// The untracked runs of this much work.
    pub(crate) untracked: Vec<Run>,
    /// Heap events of it, as the counting allocator counts them.
    pub(crate) events: u64,
    pub(crate) tools: Vec<UnderTool>,
    pub(crate) instructions: Option<Instructions>,
    /// Why no instructions were counted although they should have been.
    pub(crate) instructions_trouble: Option<String>,
}

/// Everything about one workload under one tool.
#[derive(Debug, Serialize)]
pub(crate) struct UnderTool {
    pub(crate) tool: &'static str,
    /// How many times less work than the whole it did.
    pub(crate) fraction: u64,
    /// Heap events of this much work, as the counting allocator counts them.
    pub(crate) events: u64,
    pub(crate) pairs: Vec<Pair>,
    /// Whether it runs in the first rounds only.
    pub(crate) rare: bool,
    /// What the summary of the last dump says, if the tool wrote one.
    pub(crate) dump: Option<DumpFacts>,
    /// Why there are no runs, or fewer.
    pub(crate) trouble: Option<String>,
}

/// What `profiler-cli summary --json` says, in part.
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
    /// Heap events.
    pub(crate) fn events(&self) -> u64 {
        self.allocations + self.deallocations + self.reallocations
    }
}

/// What stays the same from workload to workload.
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

    /// All rounds of one workload.
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
                    let run = self.run(&UNTRACKED, workload, self.work(workload, fraction), |_| Ok(()))?;
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
        let beside = |fraction| {
            let run = untracked.iter().find(|(of, _)| *of == fraction).map(|(_, run)| *run);
            run.context("every amount of work has an untracked run")
        };
        measured.untracked.push(beside(measured.fraction)?.0);
        for (index, (tool, result)) in runs {
            let under = &mut measured.tools[index];
            let (untracked, expected) = beside(under.fraction)?;
            if result == expected {
                under.pairs.push(Pair { tool, untracked });
            } else {
                under.trouble = Some(format!("failed: the work came to {result} instead of {expected}"));
            }
        }
        Ok(())
    }

    fn under_tool(&self, workload: &Workload, under: &mut UnderTool, last: bool) -> Result<(Run, u64)> {
        let tool = self.tools.iter().find(|tool| tool.name == under.tool).context("a tool of this run")?;
        let dump = &mut under.dump;
        self.run(tool, workload, self.work(workload, under.fraction), |job| {
            // Reading a dump takes its time; those of all rounds say the same, but for check.
            if **tool == CHECK || ([TRACE, ANNOTATED].contains(tool) && last) {
                let facts = self.facts(&tools::profile(job))?;
                ensure!(facts.different_stacks == 0, "{} stacks differ", facts.different_stacks);
                *dump = Some(facts);
            }
            Ok(())
        })
    }

    /// One run, and what the work came to. `afterwards` may look at what the tool has left.
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

    /// Heap events of a part of the work, by the counting allocator.
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

    fn events(&self, workload: &Workload, fraction: u64) -> Result<u64> {
        self.events_of_rounds(workload, self.work(workload, fraction))
    }

    fn facts(&self, dump: &Path) -> Result<DumpFacts> {
        let mut summary = std::process::Command::new(self.programs.path("profiler-cli")?);
        let summary = summary.args(["summary", "--json"]).arg(dump).output()?;
        serde_json::from_slice(&summary.stdout).context("the summary of the dump")
    }

    /// That the tool is not there, if it is not.
    fn missing(&self, tool: &Tool, workload: &Workload) -> Option<String> {
        let job = Job { workload: &workload.name, rounds: 1, folder: self.folder.path() };
        tool.command(self.programs, &job).err().map(|error| error.to_string())
    }

    fn fraction(&self, tool: &Tool) -> u64 {
        if tool.slow || self.quick { SLOW } else { 1 }
    }

    fn work(&self, workload: &Workload, fraction: u64) -> u64 {
        (workload.rounds / fraction).max(1)
    }
}

/// Whether a workload has a row of this tool.
fn is_row(tool: &Tool, workload: &Workload) -> bool {
    *tool != UNTRACKED && *tool != CALLGRIND && tool.only.is_none_or(|only| only == workload.name)
}

enum Step {
    Untracked(u64),
    /// By its place in the list.
    Tool(usize),
}

/// What a program writes at its end.
#[derive(Deserialize)]
struct ProgramReport {
    result: u64,
    application_cpu_ns: u64,
}

/// Rare tools run in so many rounds.
const RARE_ROUNDS: u32 = 2;
/// Slow tools do this fraction of the work.
const SLOW: u64 = 8;
