//! The summary as text. In: [`Summary`]. Out: text for people.

use std::io::{self, Write};

use super::frame_text::write_function_and_position;
use super::text_width::{TextWidth, write_paragraph};
use super::{
    FAINT, GROWTH, HEADING, RELEASE, group_table_text, marks_left_out, marks_text, percent, source_position,
};
use crate::analyze::summary::{SiteRow, Summary};
use crate::units::moment::utc;
use crate::units::{Safe, bytes, bytes_exactly, count, plural, time};

/// Writes the summary, with lines of at most `width` columns where names can be cut.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, summary: &Summary, width: TextWidth) -> io::Result<()> {
    match summary.pid {
        // No process has the id 0.
        0 => writeln!(out, "{HEADING}(a process whose record is missing){HEADING:#}")?,
        pid => writeln!(out, "{HEADING}{}{HEADING:#}  {FAINT}pid {pid}{FAINT:#}", Safe(&summary.command))?,
    }
    write_trust(out, summary, width)?;
    writeln!(out)?;
    write_selected(out, summary)?;
    write_totals(out, summary, width)?;
    if let Some(groups) = &summary.groups {
        return group_table_text::write(out, groups, summary, width);
    }
    write_process(out, summary)?;
    write_marks(out, summary)?;
    write_top_sites(out, summary, width)?;
    write_sizes(out, summary)?;
    write_threads(out, summary, width)
}

fn write_trust(out: &mut dyn Write, summary: &Summary, width: TextWidth) -> io::Result<()> {
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
        write_paragraph(out, "  - ", &Safe(warning).to_string(), width)?;
    }
    if summary.ending != "finished" && summary.complete {
        writeln!(out, "  - {}", summary.ending)?;
    }
    Ok(())
}

/// Writes the figures of what the filter lets through, if there is one, and says that those after
/// them are of the whole process.
fn write_selected(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    let Some(selected) = &summary.selected else { return Ok(()) };
    let row = |out: &mut dyn Write, name: &str, value: String| writeln!(out, "  {name:<14} {value}");
    writeln!(out, "{HEADING}What the filter lets through{HEADING:#}")?;
    let part = percent(selected.peak_bytes, summary.peak_bytes);
    let peak = (bytes_exactly(selected.peak_bytes), plural(selected.peak_blocks, "block"));
    row(out, "of the peak", format!("{} in {}, {part} of the process", peak.0, peak.1))?;
    let part = percent(selected.live_bytes, summary.live_bytes);
    let live = (bytes_exactly(selected.live_bytes), plural(selected.live_blocks, "block"));
    row(out, "live at end", format!("{} in {}, {part} of the process", live.0, live.1))?;
    let allocated = bytes(selected.allocated_bytes);
    row(out, "allocations", format!("{} ({allocated} with reallocations)", count(selected.allocations)))?;
    row(out, "reallocations", count(selected.reallocations))?;
    let freed = bytes(selected.freed_bytes);
    row(out, "deallocations", format!("{} ({freed})", count(selected.deallocations)))?;
    row(out, "temporary", count(selected.temporary_allocations))?;
    row(out, "stacks", count(selected.stacks))?;
    writeln!(out, "\n{HEADING}The whole process{HEADING:#}")
}

fn write_totals(out: &mut dyn Write, summary: &Summary, width: TextWidth) -> io::Result<()> {
    let row = |out: &mut dyn Write, name: &str, value: String| {
        write_paragraph(out, &format!("  {name:<14} "), &value, width)
    };
    if summary.recorded_unix_ns > 0 {
        row(out, "recorded", Safe(&origin(summary)).to_string())?;
    }
    let own = summary.labels.iter().filter(|(name, _)| !["host", "commit"].contains(&name.as_str()));
    let labels: Vec<String> = own.map(|(name, value)| format!("{name}={value}")).collect();
    if !labels.is_empty() {
        row(out, "labels", Safe(&labels.join(", ")).to_string())?;
    }
    row(out, "duration", time(summary.duration_ns))?;
    if let Some(interval) = &summary.interval {
        row(out, "interval", format!("{}: all figures below", Safe(&interval.name())))?;
        let live = |bytes, blocks| format!("{} in {}", bytes_exactly(bytes), plural(blocks, "block"));
        if interval.from.is_some() {
            row(out, "live before", live(interval.live_bytes_before, interval.live_blocks_before))?;
        }
        row(out, "live after", live(interval.live_bytes_after, interval.live_blocks_after))?;
    }
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
    let live = format!("{} in {}", bytes_exactly(summary.live_bytes), plural(summary.live_blocks, "block"));
    match &summary.interval {
        None => row(out, "live at end", live)?,
        // Without a beginning, all blocks that are live after the interval are born in it.
        Some(interval) if interval.from.is_none() => {}
        Some(_) => row(out, "born and live", live)?,
    }
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
    if let Some(within) = &summary.short_lived_within {
        let share = 100.0 * summary.short_lived_allocations as f64 / (summary.allocations.max(1)) as f64;
        let within = within.replace("events", " heap events of their thread");
        let number = count(summary.short_lived_allocations);
        row(out, "short-lived", format!("{number} ({share:.1} %, freed within {within})"))?;
    }
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
            summary.ending
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
    if let Some(rss) = process.rss_at_end {
        writeln!(out, "  RSS at the last sample: {}", bytes(rss))?;
    }
    // The samples say what the tracker has mapped, and not how much of that was resident.
    writeln!(
        out,
        "  the tracker's own tables: at most {} of the VSZ and {} of the RSS",
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
    let has_rss = summary.marks.iter().any(|mark| mark.rss.is_some());
    let about = if has_rss { " (RSS of the nearest sample)" } else { "" };
    if summary.marks.len() > MAX_MARKS {
        writeln!(out, "\n{HEADING}Marks{HEADING:#}")?;
        return marks_text::write_by_name(out, &summary.marks, summary.marks_dropped);
    }
    writeln!(out, "\n{HEADING}Marks{HEADING:#}{FAINT}{about}{FAINT:#}")?;
    for mark in summary.marks.iter().take(MAX_MARKS) {
        let rss = mark.rss.map_or_else(String::new, |rss| format!("{:>10} RSS  ", bytes(rss)));
        let live = bytes(mark.live_bytes);
        writeln!(out, "  {:>12}  {live:>10} live  {rss}{}", time(mark.ns), Safe(&mark.name))?;
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

fn write_top_sites(out: &mut dyn Write, summary: &Summary, width: TextWidth) -> io::Result<()> {
    let selected = summary.selected.as_ref();
    let peak = selected.map_or(summary.peak_bytes, |selected| selected.peak_bytes);
    write_sites(out, "Top sites by live bytes at the peak", &summary.top_peak, width, |site| {
        let share = percent(site.peak_bytes, peak);
        format!("{:>10}  {share:>7}  {:>14}", bytes(site.peak_bytes), plural(site.peak_blocks, "block"))
    })?;
    let allocated = selected.map_or(summary.allocated_bytes, |selected| selected.allocated_bytes);
    write_sites(out, "Top sites by bytes allocated", &summary.top_allocated, width, |site| {
        let share = percent(site.allocated_bytes, allocated);
        let times = plural(site.allocations + site.reallocations, "time");
        format!("{:>10}  {share:>7}  {times:>14}", bytes(site.allocated_bytes))
    })?;
    let allocations = selected.map_or(summary.allocations, |selected| selected.allocations);
    write_sites(out, "Top sites by allocations", &summary.top_allocations, width, |site| {
        let share = percent(site.allocations, allocations);
        let (number, kind) = match summary.short_lived_within {
            Some(_) => (site.short_lived_allocations, "short-lived"),
            None => (site.temporary_allocations, "temporary"),
        };
        let kind = format!("{} {kind}", count(number));
        format!("{:>10}  {share:>7}  {kind:>19}", count(site.allocations))
    })
}

fn write_sites(
    out: &mut dyn Write,
    title: &str,
    sites: &[SiteRow],
    width: TextWidth,
    figures: impl Fn(&SiteRow) -> String,
) -> io::Result<()> {
    if sites.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}{title}{HEADING:#}")?;
    for site in sites {
        let (figures, position) = (figures(site), source_position(site.file.as_deref(), site.line));
        write!(out, "  {figures}  ")?;
        let room = width.columns().saturating_sub(figures.chars().count() + 4);
        let style = anstyle::Style::new();
        write_function_and_position(out, style, (&site.function, &position), room)?;
        writeln!(out)?;
    }
    Ok(())
}

fn write_threads(out: &mut dyn Write, summary: &Summary, width: TextWidth) -> io::Result<()> {
    if summary.thread_list.len() < 2 {
        return Ok(());
    }
    writeln!(out, "\n{HEADING}Threads{HEADING:#}")?;
    let mut threads: Vec<_> = summary.thread_list.iter().collect();
    threads.sort_by_key(|thread| std::cmp::Reverse(thread.allocated_bytes));
    for thread in threads.iter().take(MAX_THREADS) {
        let name = format!("  {:<16} {FAINT}{:>8}{FAINT:#}", Safe(&thread.name).to_string(), thread.tid);
        let calls = if thread.allocations == 1 { "allocation" } else { "allocations" };
        let (allocated, freed) = (bytes(thread.allocated_bytes), bytes(thread.freed_bytes));
        write!(out, "{name}  {:>12} {calls:<11}  {allocated:>10} allocated", count(thread.allocations))?;
        if width.columns() >= WITH_FREED {
            write!(out, "  {freed:>10} freed")?;
        }
        writeln!(out)?;
    }
    if threads.len() > MAX_THREADS {
        writeln!(out, "  … {} more; --json has all", threads.len() - MAX_THREADS)?;
    }
    Ok(())
}

/// Columns of a row of a thread with the bytes that it freed.
const WITH_FREED: usize = 94;
/// The most threads that are shown.
const MAX_THREADS: usize = 10;
/// The most marks that are shown.
const MAX_MARKS: usize = 20;
