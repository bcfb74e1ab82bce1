//! JSON for machines: pretty, in a fixed order of fields, with a newline at the end.

use std::io::{self, Write};

use serde::Serialize;

use crate::analyze::flame::Flame;

/// Writes any analysis.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, analysis: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, analysis)?;
    out.write_all(b"\n")
}

/// Writes the stacks of a flamegraph.
///
/// # Errors
/// Those of `out`.
pub fn write_flame(out: &mut dyn Write, flame: &Flame) -> io::Result<()> {
    let stacks = flame.stacks.iter().map(|(frames, value)| FlameStack { frames, value: *value }).collect();
    let metric = flame.metric.title();
    write(
        out,
        &FlameJson {
            schema: "alloc-tracker/flamegraph/1",
            command: &flame.command,
            metric,
            unit: flame.metric.unit(),
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
    total: u64,
    stacks: Vec<FlameStack<'a>>,
}

#[derive(Serialize)]
struct FlameStack<'a> {
    frames: &'a [String],
    value: u64,
}
