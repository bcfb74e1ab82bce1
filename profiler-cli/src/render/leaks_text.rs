//! The leak report as text. In: [`Leaks`]. Out: text for people.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING, source_position};
use crate::analyze::interval::live_title;
use crate::analyze::leaks::{Leak, Leaks, StackFrame};
use crate::units::{Safe, bytes_exactly, more, plural, time};

/// Writes the report.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, leaks: &Leaks) -> io::Result<()> {
    if leaks.total_blocks == 0 {
        let what = if leaks.filtered { "Nothing that the filter lets through" } else { "Nothing" };
        match &leaks.interval {
            Some(interval) if interval.from.is_none() => {
                writeln!(out, "{what} is live at {}.", Safe(&interval.end_name()))?;
            }
            Some(interval) => {
                writeln!(out, "{what} was born {} and is live then.", Safe(&interval.name()))?;
            }
            None if leaks.complete => writeln!(out, "{what} is live at the end.")?,
            None => writeln!(out, "{what} is live where the records end.")?,
        }
    } else {
        writeln!(
            out,
            "{HEADING}{}{}: {} in {}{HEADING:#}",
            Safe(&live_title(leaks.interval.as_ref())),
            if leaks.filtered { ", of what the filter lets through" } else { "" },
            bytes_exactly(leaks.total_bytes),
            plural(leaks.total_blocks, "block")
        )?;
    }
    if leaks.hides_site {
        write_sites(out, leaks)?;
    }
    for (at, leak) in leaks.leaks.iter().enumerate() {
        write_leak(out, at + 1, leak)?;
    }
    if leaks.omitted > 0 {
        let all = leaks.leaks.len() + leaks.omitted;
        writeln!(out, "\n{}; --top {all} shows all.", more(leaks.omitted as u64, "stack"))?;
    }
    if !leaks.complete && leaks.total_blocks == 0 {
        writeln!(out, "\nThe recording is not complete: what happened after its end is not known.")?;
    } else if !leaks.complete {
        writeln!(out, "\nThe recording is not complete: some of these may have been freed after its end.")?;
    }
    Ok(())
}

/// Writes the largest sites, because their bytes are in more stacks than are shown.
fn write_sites(out: &mut dyn Write, leaks: &Leaks) -> io::Result<()> {
    writeln!(out, "\n{HEADING}By site{HEADING:#}")?;
    for site in leaks.sites.iter().take(SITES) {
        let (bytes, blocks) = (bytes_exactly(site.bytes), plural(site.blocks, "block"));
        let position = source_position(site.file.as_deref(), site.line);
        let stacks = plural(site.stacks, "stack");
        writeln!(
            out,
            "     {GROWTH}{bytes}{GROWTH:#} in {blocks} from {stacks}: {}  {FAINT}{}{FAINT:#}",
            Safe(&site.function),
            Safe(&position)
        )?;
    }
    writeln!(out, "\n{HEADING}By stack{HEADING:#}")
}

/// The most sites that are shown.
const SITES: usize = 5;

fn write_leak(out: &mut dyn Write, number: usize, leak: &Leak) -> io::Result<()> {
    let site = source_position(leak.file.as_deref(), leak.line);
    let at = if site.is_empty() { String::new() } else { format!(" at {site}") };
    writeln!(
        out,
        "\n{number:>3}. {GROWTH}{}{GROWTH:#} in {}{}",
        bytes_exactly(leak.bytes),
        plural(leak.blocks, "block"),
        Safe(&at)
    )?;
    writeln!(
        out,
        "     {FAINT}first after {}, last after {}{FAINT:#}",
        time(leak.first_ns),
        time(leak.last_ns)
    )?;
    let all = leak.stack.len() + leak.omitted_frames;
    if all <= INNERMOST + OUTERMOST + 1 {
        return leak.stack.iter().try_for_each(|frame| write_frame(out, frame));
    }
    let (inner, outer) = (&leak.stack[..INNERMOST], &leak.stack[leak.stack.len() - OUTERMOST..]);
    inner.iter().try_for_each(|frame| write_frame(out, frame))?;
    let between = plural((all - INNERMOST - OUTERMOST) as u64, "frame");
    let hint = if leak.omitted_frames > 0 { "" } else { "; --json has all" };
    writeln!(out, "       … {FAINT}{between} between{hint}{FAINT:#}")?;
    outer.iter().try_for_each(|frame| write_frame(out, frame))
}

fn write_frame(out: &mut dyn Write, frame: &StackFrame) -> io::Result<()> {
    let position = source_position(frame.file.as_deref(), frame.line);
    let position = if position.is_empty() { frame.module.clone() } else { position };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    writeln!(out, "       {}  {FAINT}{}{inlined}{FAINT:#}", Safe(&frame.function), Safe(&position))
}

/// Number of frames shown at the leaf end of a long stack, where the allocation happens.
const INNERMOST: usize = 20;
/// Number of frames shown at the root end of a long stack.
const OUTERMOST: usize = 4;
