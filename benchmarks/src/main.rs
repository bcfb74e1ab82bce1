//! Measures what tracking costs: runs every workload under every tool, in rounds, and prints one
//! table.
//!
//! In: flags. Out: the table on stdout, progress on stderr; with `--json` a file with every single
//! run. Nothing here measures inside the programs. When they have ended, the kernel tells what they
//! used (`launch`); they report only what the kernel cannot tell.
#![forbid(unsafe_code)]

mod annotate;
mod cli;
mod figures;
mod instructions;
mod launch;
mod loading;
mod measure;
mod memory;
mod programs;
mod report;
mod table;
mod tools;
mod workloads;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::cli::Options;
use crate::measure::Bench;
use crate::programs::Programs;
use crate::report::Report;

fn main() -> ExitCode {
    if let Some(arguments) = launch::launcher_arguments() {
        return launch::launch(arguments);
    }
    match run(&Options::parse()) {
        Ok(Report { failures, .. }) if failures.is_empty() => ExitCode::SUCCESS,
        Ok(report) => {
            report.failures.iter().for_each(|failure| eprintln!("benchmarks: {failure}"));
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("benchmarks: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<Report> {
    let tools = tools::chosen(options);
    if tools.is_empty() {
        bail!("no tool matches; `--list` shows their names");
    }
    let programs = Programs::build(if options.list { &[] } else { &tools })?;
    let workloads = workloads::chosen(options, &programs)?;
    if workloads.is_empty() && !loading::chosen(options) {
        bail!("no workload matches; `--list` shows their names");
    }
    if options.list {
        print!("{}", cli::list(&workloads));
        return Ok(Report::default());
    }
    let bench = Bench::new(options, &programs)?;
    let mut report = Report::new(options);
    // If the file cannot be written, the user should know before the measurements.
    report.save(options)?;
    for workload in &workloads {
        report.add(bench.measure(workload)?);
        report.save(options)?;
    }
    if loading::chosen(options) {
        report.loading = Some(loading::measure(&programs, options.loading_events())?);
        report.save(options)?;
    }
    print!("{}", table::render(&report, options.markdown));
    Ok(report)
}
