//! The leak report for people.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING, place};
use crate::analyze::leaks::{Leak, Leaks};
use crate::units::{Safe, bytes_exactly, plural, time};

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut dyn Write, leaks: &Leaks) -> io::Result<()> {
    if leaks.total_blocks == 0 {
        writeln!(out, "Nothing is live at the end.")?;
    } else {
        writeln!(
            out,
            "{HEADING}Live at the end: {} in {}{HEADING:#}",
            bytes_exactly(leaks.total_bytes),
            plural(leaks.total_blocks, "block")
        )?;
    }
    for (at, leak) in leaks.leaks.iter().enumerate() {
        write_leak(out, at + 1, leak)?;
    }
    if leaks.omitted > 0 {
        let all = leaks.leaks.len() + leaks.omitted;
        writeln!(out, "\n{} more; --top {all} shows all.", plural(leaks.omitted as u64, "stack"))?;
    }
    if !leaks.complete {
        writeln!(out, "\nThe recording is not complete: some of these may have been freed after its end.")?;
    }
    Ok(())
}

fn write_leak(out: &mut dyn Write, number: usize, leak: &Leak) -> io::Result<()> {
    let site = place(leak.file.as_deref(), leak.line);
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
    let shown = leak.stack.len().min(MAX_FRAMES);
    for frame in &leak.stack[..shown] {
        let place = place(frame.file.as_deref(), frame.line);
        let place = if place.is_empty() { frame.module.clone() } else { place };
        let inlined = if frame.inlined { " (inlined)" } else { "" };
        writeln!(out, "       {}  {FAINT}{}{inlined}{FAINT:#}", Safe(&frame.function), Safe(&place))?;
    }
    if leak.stack.len() > shown {
        writeln!(out, "       … {} more frames; --json has all", leak.stack.len() - shown)?;
    }
    Ok(())
}

const MAX_FRAMES: usize = 24;
