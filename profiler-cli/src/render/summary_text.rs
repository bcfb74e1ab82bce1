//! The summary as text. In: [`Summary`]. Out: text for people.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING, RELEASE, marks_left_out, source_position};
use crate::analyze::summary::{SiteRow, Summary};
use crate::units::moment::utc;
use crate::units::{Safe, bytes, bytes_exactly, count, plural, time};

/// Writes the summary.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    match summary.pid {
        // No process has the id 0.
        0 => writeln!(out, "{HEADING}(a process whose record is missing){HEADING:#}")?,
        pid => writeln!(out, "{HEADING}{}{HEADING:#}  {FAINT}pid {pid}{FAINT:#}", Safe(&summary.command))?,
    }
    write_trust(out, summary)?;
    writeln!(out)?;
    write_totals(out, summary)?;
    write_process(out, summary)?;
    write_marks(out, summary)?;
    write_sizes(out, summary)?;
    write_sites(out, "Top sites by live bytes at the peak", &summary.top_peak, |site| {
        format!("{:>10}  {:>14}", bytes(site.peak_bytes), plural(site.peak_blocks, "block"))
    })?;
    write_sites(out, "Top sites by bytes allocated", &summary.top_allocated, |site| {
        format!(
            "{:>10}  {:>14}",
            bytes(site.allocated_bytes),
            plural(site.allocations + site.reallocations, "time")
        )
    })?;
    write_sites(out, "Top sites by allocations", &summary.top_allocations, |site| {
        format!(
            "{:>10}  {:>14}",
            count(site.allocations),
            format!("{} temporary", count(site.temporary_allocations))
        )
    })?;
    write_threads(out, summary)
}

fn write_trust(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    if summary.exact && summary.warnings.is_empty() {
        return writeln!(out, "{RELEASE}complete and exact{RELEASE:#}: no event lost, no stack cut off");
    }
    let word = match (summary.exact, summary.complete) {
        (true, _) => "complete and exact, but",
        (false, true) => "complete, but not exact",
        (false, false) => "NOT COMPLETE",
    };
    writeln!(out, "{GROWTH}{word}{GROWTH:#}")?;
    for warning in &summary.warnings {
        writeln!(out, "  - {}", Safe(warning))?;
    }
    if summary.end != "finished" && summary.complete {
        writeln!(out, "  - {}", summary.end)?;
    }
    Ok(())
}

fn write_totals(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let row = |out: &mut dyn Write, name: &str, value: String| writeln!(out, "  {name:<14} {value}");
    if summary.recorded_unix_ns > 0 {
        row(out, "recorded", Safe(&origin(summary)).to_string())?;
    }
    let own = summary.labels.iter().filter(|(name, _)| !["host", "commit"].contains(&name.as_str()));
    let labels: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    if !labels.is_empty() {
        row(out, "labels", Safe(&labels.join(", ")).to_string())?;
    }
    row(out, "duration", time(summary.duration_ns))?;
    row(
        out,
        "peak",
        format!(
            "{} in {} after {}",
            bytes_exactly(summary.peak_bytes),
            plural(summary.peak_blocks, "block"),
            time(summary.peak_ns)
        ),
    )?;
    row(
        out,
        "live at end",
        format!("{} in {}", bytes_exactly(summary.live_bytes), plural(summary.live_blocks, "block")),
    )?;
    row(
        out,
        "allocations",
        format!("{} ({} with reallocations)", count(summary.allocations), bytes(summary.allocated_bytes)),
    )?;
    row(out, "reallocations", count(summary.reallocations))?;
    row(out, "deallocations", format!("{} ({})", count(summary.deallocations), bytes(summary.freed_bytes)))?;
    let share = 100.0 * summary.temporary_allocations as f64 / (summary.allocations.max(1)) as f64;
    row(
        out,
        "temporary",
        format!("{} ({share:.1} % of allocations were freed at once)", count(summary.temporary_allocations)),
    )?;
    row(
        out,
        "threads",
        format!("{}, {}", count(summary.threads as u64), plural(summary.stacks, "distinct stack")),
    )?;
    row(
        out,
        "trust",
        format!(
            "{} lost, {} truncated, {} unresolved; {}",
            plural(summary.lost_events, "event"),
            plural(summary.truncated_stacks, "stack"),
            plural(summary.unresolved_frames, "frame"),
            summary.end
        ),
    )?;
    if summary.partly_verified_stacks > 0 {
        let stacks = plural(summary.partly_verified_stacks, "very deep stack");
        row(out, "verified", format!("{stacks} in part only; {VERIFY_ALL} verifies every frame"))?;
    }
    if summary.checked_stacks > 0 {
        let (stacks, different) = (plural(summary.checked_stacks, "stack"), summary.different_stacks);
        row(out, "checked", format!("{stacks}, {different} of them different"))?;
    }
    if summary.recorder_debug_assertions {
        row(out, "recorder", UNOPTIMIZED.to_owned())?;
    }
    for cause in &summary.slowed_by {
        row(out, "slowed by", Safe(&cause.text).to_string())?;
    }
    Ok(())
}

/// Returns when and where the program was recorded, and from which commit.
fn origin(summary: &Summary) -> String {
    let mut text = utc(summary.recorded_unix_ns);
    if let Some(host) = summary.labels.get("host") {
        text.push_str(&format!(" on {host}"));
    }
    if let Some(commit) = summary.labels.get("commit") {
        // A whole id is longer than anybody reads.
        let short: String = commit.chars().take(12).collect();
        text.push_str(&format!(", commit {short}"));
    }
    text
}

/// How to record without partly verified stacks.
const VERIFY_ALL: &str = "`--verify all` or ALLOC_TRACKER_VERIFY=all";

const UNOPTIMIZED: &str =
    "a debug build, which makes the program many times slower; `profiler-cli cargo` optimizes it alone";

fn write_process(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let process = &summary.process;
    if process.samples == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "\n{HEADING}Process{HEADING:#} {FAINT}(at its highest; {}){FAINT:#}",
        plural(process.samples, "sample")
    )?;
    writeln!(out, "  VSZ {}, RSS {}, swap {}", bytes(process.vsz), bytes(process.rss), bytes(process.swap))?;
    // The samples say what the tracker has mapped, and not how much of that was resident.
    writeln!(
        out,
        "  the tracker's own tables: at most {} of the VSZ, at most {} of the RSS",
        bytes(process.tracker_bytes.min(process.vsz)),
        bytes(process.tracker_bytes.min(process.rss))
    )?;
    writeln!(
        out,
        "  page faults: {} minor, {} major",
        count(process.minor_faults),
        count(process.major_faults)
    )
}

fn write_marks(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    if summary.marks.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}Marks{HEADING:#}")?;
    for mark in summary.marks.iter().take(MAX_MARKS) {
        writeln!(out, "  {:>12}  {:>10} live  {}", time(mark.ns), bytes(mark.live_bytes), Safe(&mark.name))?;
    }
    if let Some(text) = marks_left_out(MAX_MARKS, summary.marks.len(), summary.marks_dropped) {
        writeln!(out, "{text}")?;
    }
    Ok(())
}

fn write_sizes(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let largest = summary.sizes.iter().map(|class| class.allocations).max().unwrap_or(0);
    if largest == 0 {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}Allocation sizes{HEADING:#}")?;
    for class in &summary.sizes {
        let width = (class.allocations * 40).div_ceil(largest) as usize;
        writeln!(
            out,
            "  up to {:>10}  {:>12}  {}",
            bytes(class.up_to_bytes),
            count(class.allocations),
            "▇".repeat(width)
        )?;
    }
    Ok(())
}

fn write_sites(
    out: &mut dyn Write,
    title: &str,
    sites: &[SiteRow],
    figures: impl Fn(&SiteRow) -> String,
) -> io::Result<()> {
    if sites.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}{title}{HEADING:#}")?;
    for site in sites {
        let position = source_position(site.file.as_deref(), site.line);
        writeln!(out, "  {}  {}  {FAINT}{}{FAINT:#}", figures(site), Safe(&site.function), Safe(&position))?;
    }
    Ok(())
}

fn write_threads(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    if summary.thread_list.len() < 2 {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}Threads{HEADING:#}")?;
    let mut threads: Vec<_> = summary.thread_list.iter().collect();
    threads.sort_by_key(|thread| std::cmp::Reverse(thread.allocated_bytes));
    for thread in threads.iter().take(MAX_THREADS) {
        writeln!(
            out,
            "  {:<16} {FAINT}{:>8}{FAINT:#}  {:>12} {:<11}  {:>10} allocated  {:>10} freed",
            Safe(&thread.name).to_string(),
            thread.tid,
            count(thread.allocations),
            if thread.allocations == 1 { "allocation" } else { "allocations" },
            bytes(thread.allocated_bytes),
            bytes(thread.freed_bytes)
        )?;
    }
    if threads.len() > MAX_THREADS {
        writeln!(out, "  … {} more; --json has all", threads.len() - MAX_THREADS)?;
    }
    Ok(())
}

/// The most threads that are shown.
const MAX_THREADS: usize = 10;
/// The most marks that are shown.
const MAX_MARKS: usize = 20;
