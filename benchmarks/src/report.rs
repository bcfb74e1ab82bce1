//! All measurements, and the file of `--json`. In: measurements. Out: JSON with every run, and with
//! the figures that the table shows.
//!
//! The file is written anew after each workload, so a benchmark that is interrupted keeps the
//! workloads that it has done.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Options;
use crate::figures;
use crate::loading::Loading;
use crate::measure::Measured;
use crate::memory::{self, Latency};
use crate::tools::CALLGRIND;

/// All measurements, of which the table is made.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: &'static str,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    /// Measured at the beginning.
    pub(crate) memory: Vec<Latency>,
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    pub(crate) workloads: Vec<Measured>,
    pub(crate) loading: Option<Loading>,
    /// Failures, one sentence each. A tool that is not installed is not a failure.
    pub(crate) failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Report {
        Report {
            schema: "benchmarks/1",
            processor: processor(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory::latencies(),
            rounds: options.rounds(),
            quick: options.quick,
            ..Report::default()
        }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        let tools = measured.tools.iter().map(|under| (under.tool, &under.trouble));
        for (tool, trouble) in tools.chain([(CALLGRIND.name, &measured.instructions_trouble)]) {
            if let Some(trouble) = trouble.as_ref().filter(|trouble| !trouble.starts_with("skipped")) {
                self.failures.push(format!("{} under {tool}: {trouble}", measured.workload.name));
            }
        }
        self.workloads.push(measured);
    }

    /// Writes the file of `--json`, if the flag is given.
    pub(crate) fn save(&self, options: &Options) -> Result<()> {
        let Some(path) = &options.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.with_figures()?)?;
        fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }

    /// Returns the report as JSON with the figures of each tool, which are computed from its runs.
    fn with_figures(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self)?;
        for (workload, measured) in self.workloads.iter().enumerate() {
            for (tool, under) in measured.tools.iter().enumerate() {
                value["workloads"][workload]["tools"][tool]["figures"] =
                    json!(figures::figures(&under.pairs, under.events));
            }
        }
        Ok(value)
    }
}

/// Returns the name of the processor, as the kernel reports it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    line.map_or("unknown processor", |(_, name)| name).to_owned()
}
