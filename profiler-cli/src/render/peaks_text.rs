//! Local peaks as text. In: [`Peaks`]. Out: text for people.

use std::io::{self, Write};

use super::{FAINT, GROWTH, HEADING};
use crate::analyze::peaks::Peaks;
use crate::units::{Safe, bytes, more, plural, time};

/// Writes the peaks.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, peaks: &Peaks) -> io::Result<()> {
    if peaks.peaks.is_empty() && peaks.omitted == 0 {
        return writeln!(out, "Nothing was ever live.");
    }
    let interval = peaks.interval.as_ref().map(|interval| format!(" {}", interval.name()));
    writeln!(
        out,
        "{HEADING}Local peaks of the live heap{}{HEADING:#}, with a drop of {} % or more on both sides\n",
        Safe(&interval.unwrap_or_default()),
        peaks.drop_percent
    )?;
    for (number, peak) in (1..).zip(&peaks.peaks) {
        let (bytes, blocks) = (bytes(peak.bytes), plural(peak.blocks, "block"));
        let (at, option) = (time(peak.ns), &peak.at);
        write!(out, "{number:>3}. {GROWTH}{bytes:>10}{GROWTH:#} in {blocks:<16} at {at:>12}  --at {option}")?;
        match &peak.mark {
            Some(mark) => writeln!(out, "  {FAINT}after mark {}{FAINT:#}", Safe(mark))?,
            None => writeln!(out)?,
        }
    }
    if peaks.omitted > 0 {
        writeln!(
            out,
            "\n{}; --top shows them, --drop asks for deeper valleys.",
            more(peaks.omitted, "peak")
        )?;
    }
    if !peaks.complete {
        writeln!(out, "\nThe recording is not complete: see the summary.")?;
    } else if !peaks.exact {
        writeln!(out, "\nThe live heap is not exact: see the summary.")?;
    }
    Ok(())
}
