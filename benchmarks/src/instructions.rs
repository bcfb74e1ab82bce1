//! Counts instructions with Valgrind's callgrind: unlike times, they are the same in every run. In:
//! a workload. Out: how many instructions tracking adds to it.
//!
//! Two amounts of work are counted and the smaller count is subtracted from the larger. So
//! instructions that a process runs only once, such as those of its start, are not included.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::figures::added;
use crate::measure::Bench;
use crate::tools::{self, OFF, TRACE, Tool, UNTRACKED};
use crate::workloads::Workload;

/// Instructions of one amount of work, and its heap events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Instructions {
    pub(crate) events: u64,
    pub(crate) untracked: u64,
    pub(crate) off: u64,
    pub(crate) trace: u64,
}

impl Instructions {
    /// Returns the share of instructions that the linked tracker adds when it is off: 0.01 is one
    /// in a hundred instructions of the untracked program.
    pub(crate) fn off_share(&self) -> f64 {
        added(self.off, self.untracked) / self.untracked.max(1) as f64
    }

    /// Returns the instructions that the tracker adds to an event when it is off.
    pub(crate) fn off_per_event(&self) -> f64 {
        added(self.off, self.untracked) / self.events.max(1) as f64
    }

    /// Returns the instructions that recording adds to an event.
    pub(crate) fn trace_per_event(&self) -> f64 {
        added(self.trace, self.untracked) / self.events.max(1) as f64
    }
}

/// Counts the instructions of a small amount of work and of three times as much. The amount is
/// small because callgrind takes fifty times as long as the processor.
pub(crate) fn measure(bench: &Bench<'_>, workload: &Workload) -> Result<Instructions> {
    let little = (workload.rounds / 40).max(1);
    let more = 3 * little;
    let instructions = |tool: Tool| -> Result<u64> {
        let tool = tool.under_callgrind();
        let [little, more] = [little, more].map(|rounds| count(bench, &tool, workload, rounds));
        Ok(more?.saturating_sub(little?))
    };
    let [few, many] = [little, more].map(|rounds| bench.events_of_rounds(workload, rounds));
    Ok(Instructions {
        events: many?.saturating_sub(few?),
        untracked: instructions(UNTRACKED)?,
        off: instructions(OFF)?,
        trace: instructions(TRACE)?,
    })
}

fn count(bench: &Bench<'_>, tool: &Tool, workload: &Workload, rounds: u64) -> Result<u64> {
    let mut counted = None;
    bench.run(tool, workload, rounds, |job| {
        counted = total(&fs::read_to_string(tools::callgrind_profile(job))?);
        Ok(())
    })?;
    counted.context("the output of callgrind has no total")
}

/// Returns N from the line `totals: N`, or `summary: N`, of callgrind's output.
fn total(output: &str) -> Option<u64> {
    let line =
        output.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_either_line() {
        assert_eq!(total("events: Ir\nfn=(1)\n12 5\ntotals: 1234567\n"), Some(1_234_567));
        assert_eq!(total("summary: 99\nfn=(1)\n"), Some(99));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn shares_and_instructions_per_event_are_differences_to_untracked() {
        let counted = Instructions { events: 1000, untracked: 200_000, off: 203_000, trace: 450_000 };
        assert_eq!(counted.off_share(), 0.015);
        assert_eq!((counted.off_per_event(), counted.trace_per_event()), (3.0, 250.0));
    }
}
