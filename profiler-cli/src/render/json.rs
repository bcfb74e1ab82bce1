//! Writes results as JSON. In: the result of an analysis. Out: indented JSON with a fixed order of
//! fields, and a newline at the end.

use std::io::{self, Write};

use serde::Serialize;

use crate::analyze::flame::Flame;
use crate::analyze::interval::CountedInterval;

/// Writes the result of an analysis.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, analysis: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, analysis)?;
    out.write_all(b"\n")
}

/// Writes the stacks of a flamegraph.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write_flame<'a>(out: &mut dyn Write, flame: &'a Flame) -> io::Result<()> {
    let named = |(frames, value): &'a (Vec<u32>, u64)| {
        let frames = frames.iter().map(|label| flame.labels[*label as usize].as_str()).collect();
        FlameStack { frames, value: *value }
    };
    let stacks = flame.stacks.iter().map(named).collect();
    let metric = flame.metric.title();
    write(
        out,
        &FlameJson {
            schema: "alloc-tracker/flamegraph/1",
            command: &flame.command,
            metric,
            unit: flame.metric.unit(),
            complete: flame.complete,
            interval: flame.interval.as_ref(),
            total: flame.total,
            stacks,
        },
    )
}

#[derive(Serialize)]
struct FlameJson<'a> {
    schema: &'static str,
    command: &'a str,
    metric: &'static str,
    unit: &'static str,
    complete: bool,
    interval: Option<&'a CountedInterval>,
    total: u64,
    stacks: Vec<FlameStack<'a>>,
}

#[derive(Serialize)]
struct FlameStack<'a> {
    frames: Vec<&'a str>,
    value: u64,
}
