//! The address space as text. In: [`Maps`]. Out: tables for people.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING, percent};
use crate::analyze::address_space::{KindRow, Maps, SpaceAtInstant, SpaceGroup};
use crate::units::{Safe, bytes, bytes_exactly, count, more, time};

/// How much is shown of an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapsDetail {
    /// The kinds of segments, and who has the resident memory.
    Kinds,
    /// Also a picture of the address space.
    Picture,
    /// Every mapping.
    Mappings,
}

/// Writes all instants in one table, and one of them in detail.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, maps: &Maps, shown: &SpaceAtInstant, detail: MapsDetail) -> io::Result<()> {
    write_instants(out, maps)?;
    let SpaceAtInstant { name, time_ns, size, resident, .. } = shown;
    writeln!(
        out,
        "\n{HEADING}{}{HEADING:#} {FAINT}({}, after {}): VSZ {}, RSS {}{FAINT:#}\n",
        title(name),
        Safe(name),
        time(*time_ns),
        bytes(*size),
        bytes(*resident)
    )?;
    match detail {
        MapsDetail::Kinds => write_kinds(out, &shown.by_kind())?,
        MapsDetail::Picture => write_picture(out, &shown.groups())?,
        MapsDetail::Mappings => write_mappings(out, shown)?,
    }
    write_parts(out, shown)?;
    writeln!(out, "\n{}", Safe(&shown.conclusion))?;
    if shown.writable_and_executable > 0 {
        writeln!(
            out,
            "{GROWTH}{} both writable and executable: what is written there can be run.{GROWTH:#}",
            match shown.writable_and_executable {
                1 => "1 mapping is".to_owned(),
                number => format!("{} mappings are", count(number)),
            }
        )?;
    }
    if !shown.whole {
        writeln!(out, "Some mappings are missing: the recording is damaged here.")?;
    }
    Ok(())
}

fn title(name: &str) -> &'static str {
    match name {
        "start" => "At the start",
        "peak" => "At the peak of the heap",
        "rss-peak" => "At the peak of the resident set",
        "end" => "At the end",
        "last" => "At the last look",
        _ => "Soon after a mark",
    }
}

fn write_instants(out: &mut dyn Write, maps: &Maps) -> io::Result<()> {
    writeln!(out, "{HEADING}Address space of {}{HEADING:#}\n", Safe(&maps.command))?;
    writeln!(
        out,
        "{FAINT}{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  instant{FAINT:#}",
        "after", "VSZ", "RSS", "live heap", "swapped"
    )?;
    for instant in maps.instants.iter().take(MOST_INSTANTS) {
        let swapped = instant.segments.iter().map(|segment| segment.swapped).sum();
        writeln!(
            out,
            "{:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {}",
            time(instant.time_ns),
            bytes(instant.size),
            bytes(instant.resident),
            bytes(instant.live_bytes),
            bytes(swapped),
            Safe(&instant.name)
        )?;
    }
    if maps.instants.len() > MOST_INSTANTS {
        let left = (maps.instants.len() - MOST_INSTANTS) as u64;
        writeln!(out, "  … {}; --json has all", more(left, "instant"))?;
    }
    Ok(())
}

fn write_kinds(out: &mut dyn Write, rows: &[KindRow]) -> io::Result<()> {
    writeln!(
        out,
        "{FAINT}{:<13} {:>5} {:>10} {:>10} {:>10} {:>10} {:>10}  {:<6} {:<5}  purpose{FAINT:#}",
        "segment", "count", "size", "resident", "written", "swapped", "live heap", "access", "grows"
    )?;
    for row in rows {
        writeln!(
            out,
            "{:<13} {:>5} {:>10} {:>10} {:>10} {:>10} {:>10}  {:<6} {:<5}  {FAINT}{}{FAINT:#}",
            row.kind.name(),
            row.mappings,
            bytes(row.size),
            bytes(row.resident),
            bytes(row.dirty),
            bytes(row.swapped),
            if row.kind.is_heap() { bytes(row.live_bytes) } else { String::new() },
            row.access,
            row.kind.growth().unwrap_or("-"),
            row.kind.purpose()
        )?;
    }
    Ok(())
}

/// Draws the address space from the highest address down, one line for each group.
fn write_picture(out: &mut dyn Write, groups: &[SpaceGroup]) -> io::Result<()> {
    for (at, group) in groups.iter().enumerate() {
        if at > 0 && group.free_above >= WORTH_A_GAP {
            writeln!(out, "{FAINT}{:>14} ┆ {} not mapped{FAINT:#}", "", bytes(group.free_above))?;
        }
        let arrow = match group.kind.growth() {
            Some("up") => " ↑",
            Some(_) => " ↓",
            None => "",
        };
        writeln!(
            out,
            "{FAINT}{:>14x}{FAINT:#} │ {:<34} {:>10} {} {:>10} resident",
            group.start,
            format!("{}{arrow}", Safe(&group.label)),
            bytes(group.size),
            bar(group.resident, group.size),
            bytes(group.resident)
        )?;
    }
    Ok(())
}

/// Returns a bar of ten characters for the part of a whole. What is more than nothing shows.
fn bar(part: u64, whole: u64) -> String {
    let eighths = (part as f64 / whole.max(1) as f64 * 80.0).ceil().clamp(0.0, 80.0) as usize;
    let blocks = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.push(blocks[eighths % 8 - 1]);
    }
    format!("▕{text}{}▏", " ".repeat(10 - eighths.div_ceil(8)))
}

fn write_mappings(out: &mut dyn Write, shown: &SpaceAtInstant) -> io::Result<()> {
    for segment in &shown.segments {
        writeln!(
            out,
            "{:>14}-{:<14} {} {:>10} {:>10} {:>10}  {:<12} {}",
            segment.start_address.trim_start_matches("0x"),
            segment.end_address.trim_start_matches("0x"),
            segment.access,
            bytes(segment.size),
            bytes(segment.resident),
            bytes(segment.swapped),
            segment.kind.name(),
            Safe(&segment.name)
        )?;
    }
    Ok(())
}

fn write_parts(out: &mut dyn Write, shown: &SpaceAtInstant) -> io::Result<()> {
    writeln!(
        out,
        "\n{HEADING}Who has the resident memory{HEADING:#} {FAINT}({}){FAINT:#}",
        bytes_exactly(shown.resident)
    )?;
    for (name, part) in shown.resident_parts.rows().into_iter().filter(|(_, part)| *part > 0) {
        writeln!(out, "  {:>10} {:>7}  {name}", bytes(part), percent(part, shown.resident))?;
    }
    if shown.heap.untouched > 0 {
        writeln!(
            out,
            "  {:>10}          live, and not resident: never touched, or swapped out",
            bytes(shown.heap.untouched)
        )?;
    }
    Ok(())
}

const MOST_INSTANTS: usize = 20;
/// A smaller gap gets no line.
const WORTH_A_GAP: u64 = 64 << 20;
