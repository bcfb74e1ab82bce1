//! Instructions, as Valgrind's callgrind counts them: unlike times they are the same in every run. In: a workload.
//! Out: what tracking adds to it.
//!
//! Two amounts of work are counted and one is taken from the other, so that what happens once in a process is not in it.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::figures::added;
use crate::measure::Bench;
use crate::tools::{self, OFF, TRACE, Tool, UNTRACKED};
use crate::workloads::Workload;

/// What one amount of work more takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Instructions {
    pub(crate) events: u64,
    pub(crate) untracked: u64,
    pub(crate) off: u64,
    pub(crate) trace: u64,
}

impl Instructions {
    /// By how much the untracked program's grow when the tracker is linked and off: 0.01 is one in a hundred.
    pub(crate) fn off_share(&self) -> f64 {
        added(self.off, self.untracked) / self.untracked.max(1) as f64
    }

    /// What the tracker adds to an event when it is off.
    pub(crate) fn off_per_event(&self) -> f64 {
        added(self.off, self.untracked) / self.events.max(1) as f64
    }

    /// What recording adds to an event.
    pub(crate) fn trace_per_event(&self) -> f64 {
        added(self.trace, self.untracked) / self.events.max(1) as f64
    }
}

/// Counts a small amount of work and three times that; callgrind takes fifty times as long as the processor.
pub(crate) fn measure(bench: &Bench<'_>, workload: &Workload) -> Result<Instructions> {
    let little = (workload.rounds / 40).max(1);
    let more = 3 * little;
    let of = |tool: Tool| -> Result<u64> {
        let tool = tool.under_callgrind();
        let [little, more] = [little, more].map(|rounds| count(bench, &tool, workload, rounds));
        Ok(more?.saturating_sub(little?))
    };
    let [few, many] = [little, more].map(|rounds| bench.events_of_rounds(workload, rounds));
    Ok(Instructions {
        events: many?.saturating_sub(few?),
        untracked: of(UNTRACKED)?,
        off: of(OFF)?,
        trace: of(TRACE)?,
    })
}

fn count(bench: &Bench<'_>, tool: &Tool, workload: &Workload, rounds: u64) -> Result<u64> {
    let mut counted = None;
    bench.run(tool, workload, rounds, |job| {
        counted = total(&fs::read_to_string(tools::callgrind_profile(job))?);
        Ok(())
    })?;
    counted.context("callgrind tells no total")
}

/// The line `totals: N`, or `summary: N`, of callgrind's output.
fn total(output: &str) -> Option<u64> {
    let line =
        output.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found() {
        assert_eq!(total("events: Ir\nfn=(1)\n12 5\ntotals: 1234567\n"), Some(1_234_567));
        assert_eq!(total("summary: 99\nfn=(1)\n"), Some(99));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn shares_and_instructions_per_event() {
        let counted = Instructions { events: 1000, untracked: 200_000, off: 203_000, trace: 450_000 };
        assert_eq!(counted.off_share(), 0.015);
        assert_eq!((counted.off_per_event(), counted.trace_per_event()), (3.0, 250.0));
    }
}
