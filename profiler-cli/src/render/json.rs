//! Writes results as JSON. In: the result of an analysis. Out: indented JSON with a fixed order of
//! fields, and a newline at the end.

use std::cell::RefCell;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::analyze::flame::Flame;
use crate::analyze::interval::CountedInterval;
use crate::analyze::leaks::Leaks;

/// Writes the result of an analysis.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, analysis: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, analysis)?;
    out.write_all(b"\n")
}

/// Writes several leak reports as one list. Each is made when its turn comes, and dropped when it
/// is written.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write_leaks_list(out: &mut dyn Write, reports: impl Iterator<Item = Leaks>) -> io::Result<()> {
    let dumps = OnDemand(RefCell::new(reports));
    write(out, &LeaksList { schema: "alloc-tracker/leaks-list/1", dumps })
}

/// Serializes the items of an iterator as it yields them. The iterator ends with the first call.
struct OnDemand<I>(RefCell<I>);

impl<I: Iterator<Item: Serialize>> Serialize for OnDemand<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&mut *self.0.borrow_mut())
    }
}

/// The leak reports of several dumps.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct LeaksList<L> {
    /// Name and version of this layout.
    schema: &'static str,
    /// One report for each dump, in the order of the dumps: what `leaks` prints for one dump.
    dumps: L,
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
            filtered: flame.filtered,
            interval: flame.interval.as_ref(),
            total: flame.total,
            stacks,
        },
    )
}

#[cfg(test)]
mod reference;

/// A flamegraph as JSON.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FlameJson<'a> {
    /// Name and version of this layout.
    schema: &'static str,
    /// Command line of the recorded program.
    command: &'a str,
    /// What the weights count, such as `Live at the peak`.
    metric: &'static str,
    /// Unit of the weights: `bytes` or `allocations`.
    unit: &'static str,
    /// Whether the whole recording was read.
    complete: bool,
    /// Whether a filter or a selection of threads left stacks out.
    filtered: bool,
    /// The interval that all figures count. Null for the whole recording.
    interval: Option<&'a CountedInterval>,
    /// Sum of all weights.
    total: u64,
    /// The stacks, sorted by the labels of their frames.
    stacks: Vec<FlameStack<'a>>,
}

/// A stack with its weight.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FlameStack<'a> {
    /// Labels of the frames, outermost first.
    frames: Vec<&'a str>,
    /// The weight, in the unit of the metric.
    value: u64,
}
