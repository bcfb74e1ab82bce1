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
        let mark = peak.mark.as_ref().map(|mark| format!("  after mark {mark}")).unwrap_or_default();
        writeln!(
            out,
            "{number:>3}. {GROWTH}{:>10}{GROWTH:#} in {:<16} at {:>12}  --at {:<16}{FAINT}{}{FAINT:#}",
            bytes(peak.bytes),
            plural(peak.blocks, "block"),
            time(peak.ns),
            peak.at,
            Safe(&mark)
        )?;
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
