//! What holds blocks, as text. In: rows of [`Leaks`], roots and ways. Out: text for people.
//!
//! ```text
//!      held by static shop::CARTS + 16 -> 96 B at cart.rs:12 + 8 (x 3) -> 40 B at item.rs:7
//! ```

use std::io::{self, Write};

use super::text_width::{TextWidth, cut_middle, write_paragraph};
use super::{FAINT, GROWTH, HEADING, RELEASE, source_position};
use crate::analyze::held::{RootKind, Verdict};
use crate::analyze::holders::{HeldBy, HeldLink, HeldRoot, SnapshotInfo};
use crate::analyze::leaks::{Leak, Leaks};
use crate::units::{Safe, bytes, bytes_exactly, count, more, plural, time};

/// Writes the verdict on a row: one line, and for held blocks the shortest way from a root.
pub(super) fn write_verdict(out: &mut dyn Write, leak: &Leak, width: TextWidth) -> io::Result<()> {
    let retained = leak.retained_bytes.filter(|retained| *retained > leak.bytes);
    let least = if leak.retained_is_least { "at least " } else { "" };
    let retains =
        retained.map_or_else(String::new, |retained| format!("; retains {least}{}", bytes(retained)));
    let (style, text) = match leak.verdict {
        Verdict::Lost => {
            let with = leak.lost_with_it.filter(|with| with.blocks > 0);
            let with = with.map_or_else(String::new, |with| {
                let (blocks, size) = (plural(with.blocks, "block"), bytes(with.bytes));
                format!("; {blocks}, {size}, are lost only because others are")
            });
            (GROWTH, format!("lost: no pointer from outside is left{with}"))
        }
        Verdict::Maybe if leak.held_by.is_empty() => {
            (FAINT, format!("maybe lost: one look found no pointer to it{retains}"))
        }
        Verdict::Maybe => (FAINT, format!("maybe lost: only memory of unknown owner points to it{retains}")),
        Verdict::Held => (RELEASE, format!("held{retains}")),
        Verdict::Unknown => (FAINT, "unknown: not there at the snapshot, or not readable in it".to_owned()),
    };
    writeln!(out, "     {style}{text}{style:#}")?;
    let Some(first) = leak.held_by.first() else { return Ok(()) };
    let others = match leak.held_by.len() - 1 {
        0 => String::new(),
        _ if leak.held_by.len() == MAX_SHOWN_ROOTS => " (and by others)".to_owned(),
        others => format!(" (and by {})", plural(others as u64, "other")),
    };
    write_paragraph(out, "     by ", &Safe(&format!("{}{others}", way(first))).to_string(), width)
}

/// The most roots of a row: there may be more.
const MAX_SHOWN_ROOTS: usize = 3;

/// Writes what is to be known of the snapshot below the rows.
pub(super) fn write_notes(out: &mut dyn Write, leaks: &Leaks, width: TextWidth) -> io::Result<()> {
    let Some(snapshot) = &leaks.snapshot else {
        if leaks.leaks.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        return write_paragraph(out, "", WITHOUT_SNAPSHOT, width);
    };
    let parts = leaks.verdicts.iter().filter(|total| total.blocks > 0).map(|total| {
        format!("{} {} in {}", total.verdict.name(), bytes(total.bytes), plural(total.blocks, "block"))
    });
    let parts = parts.collect::<Vec<_>>().join("; ");
    let mut text = format!("Judged by {}: {parts}.", snapshot_name(snapshot));
    if let Some(reason) = &snapshot.nothing_is_lost {
        text.push_str(&format!(" Nothing can be called lost: {reason}."));
    }
    writeln!(out)?;
    write_paragraph(out, "", &Safe(&text).to_string(), width)
}

const WITHOUT_SNAPSHOT: &str = "Without a snapshot it is not known what holds these blocks, or whether anything does: `run --snapshot-at-end` or `profiler-cli snapshot PID` takes one.";

/// Returns `snapshot 'warm' (1.500 s)`.
pub(super) fn snapshot_name(snapshot: &SnapshotInfo) -> String {
    format!("snapshot '{}' ({})", snapshot.name, time(snapshot.ns))
}

/// Writes what holds a row: each root with its way, a line for each link.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write_why(out: &mut dyn Write, number: usize, leak: &Leak, leaks: &Leaks) -> io::Result<()> {
    let site = source_position(leak.file.as_deref(), leak.line);
    let at = if site.is_empty() { leak.function.clone() } else { format!("{site} ({})", leak.function) };
    let size = bytes_exactly(leak.bytes);
    let headline = format!("{number}. {size} in {} at {at}", plural(leak.blocks, "block"));
    writeln!(out, "{HEADING}{}{HEADING:#}", Safe(&headline))?;
    if let Some(snapshot) = &leaks.snapshot {
        writeln!(out, "{} at {}", leak.verdict.name(), Safe(&snapshot_name(snapshot)))?;
    }
    if let Some(retained) = leak.retained_bytes {
        let least = if leak.retained_is_least { "at least " } else { "" };
        writeln!(out, "If these blocks were freed, {least}{} would be.", bytes_exactly(retained))?;
    }
    match leak.verdict {
        Verdict::Lost => {
            let with = leak.lost_with_it.unwrap_or_default();
            writeln!(out, "No pointer to these blocks is left outside of lost blocks.")?;
            if with.blocks > 0 {
                let (blocks, size) = (plural(with.blocks, "block"), bytes_exactly(with.bytes));
                writeln!(out, "Of this row and others, {blocks}, {size}, are lost only because these are.")?;
            }
        }
        Verdict::Maybe if leak.held_by.is_empty() => {
            writeln!(out, "One look found no pointer to these blocks. It may have been in a register.")?;
        }
        Verdict::Unknown => {
            writeln!(out, "The blocks were not there at the snapshot, or it could not read all memory.")?;
        }
        Verdict::Held | Verdict::Maybe => {}
    }
    for held in &leak.held_by {
        write_held(out, held)?;
    }
    Ok(())
}

fn write_held(out: &mut dyn Write, held: &HeldBy) -> io::Result<()> {
    let HeldRoot { kind, name, offset } = &held.root;
    let root = root_text(*kind, name);
    let offset = if *kind == RootKind::Register { String::new() } else { format!(" + {offset}") };
    let part = format!("{} of the row", bytes(held.bytes));
    writeln!(out, "\n{HEADING}{}{offset}{HEADING:#}  {FAINT}{part}{FAINT:#}", Safe(&root))?;
    let half = held.links.len() / 2;
    for (at, link) in held.links.iter().enumerate() {
        if at == half && held.omitted_links > 0 {
            writeln!(out, "  … {}", more(held.omitted_links as u64, "link"))?;
        }
        let function = format!("{FAINT}{}{FAINT:#}", Safe(&link.function));
        writeln!(out, "  -> {}  {function}", Safe(&link_text(link)))?;
    }
    Ok(())
}

/// Returns the whole way in one line.
pub(super) fn way(held: &HeldBy) -> String {
    let HeldRoot { kind, name, offset } = &held.root;
    let mut text = root_text(*kind, name);
    if *kind != RootKind::Register {
        text.push_str(&format!(" + {offset}"));
    }
    let (head, tail) = match held.links.len() {
        links if links > MOST_LINKS => held.links.split_at(MOST_LINKS / 2),
        _ => held.links.split_at(held.links.len()),
    };
    let tail = &tail[tail.len().saturating_sub(MOST_LINKS / 2)..];
    head.iter().for_each(|link| text.push_str(&format!(" -> {}", link_text(link))));
    if !tail.is_empty() {
        text.push_str(" -> …");
    }
    tail.iter().for_each(|link| text.push_str(&format!(" -> {}", link_text(link))));
    text
}

/// The most links of a way in one line.
const MOST_LINKS: usize = 6;

pub(super) fn root_text(kind: RootKind, name: &str) -> String {
    let name = cut_middle(name, MOST_COLUMNS);
    match kind {
        RootKind::Static if name.starts_with("statics of ") => name,
        RootKind::Static => format!("static {name}"),
        RootKind::Tls if name.starts_with("thread-local") => name,
        RootKind::Tls => format!("thread-local {name}"),
        RootKind::Stack | RootKind::Register | RootKind::Unknown => name,
    }
}

/// Columns of the name of a root.
const MOST_COLUMNS: usize = 100;

/// Returns `96 B at cart.rs:12 + 8 (x 3)`.
fn link_text(link: &HeldLink) -> String {
    let position = match (link.file.as_deref(), link.line) {
        (Some(file), line) => source_position(file.rsplit('/').next(), line),
        (None, _) => cut_middle(&link.function, MOST_COLUMNS / 2),
    };
    let offset = link.offset.filter(|offset| *offset > 0).map(|offset| format!(" + {}", count(offset)));
    let times = if link.times > 1 { format!(" (x {})", count(link.times)) } else { String::new() };
    format!("{} at {position}{}{times}", bytes(link.bytes), offset.unwrap_or_default())
}
