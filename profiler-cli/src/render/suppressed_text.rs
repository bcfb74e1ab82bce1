//! What suppressions have hidden, as text. In: [`Suppressed`]. Out: a paragraph for people, or
//! nothing if nothing is suppressed.

use std::io::{self, Write};

use super::text_width::{TextWidth, cut_end, write_paragraph};
use super::{FAINT, HEADING};
use crate::analyze::leaks::{Suppressed, SuppressedPattern};
use crate::analyze::suppressions::SuppressionKind;
use crate::units::{Safe, bytes, bytes_exactly, more, plural};

/// Writes what is suppressed: a line for each suppression, and one for all of the runtime.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write(out: &mut dyn Write, suppressed: &Suppressed, width: TextWidth) -> io::Result<()> {
    let of_runtime = |pattern: &&SuppressedPattern| pattern.kind == SuppressionKind::Default;
    let (runtime, others): (Vec<&SuppressedPattern>, Vec<&SuppressedPattern>) =
        suppressed.patterns.iter().filter(|pattern| !pattern.is_unused()).partition(of_runtime);
    let (runtime, all) = (Sum::of(&runtime), Sum::of(&others));
    if !others.is_empty() {
        writeln!(out, "\n{HEADING}Suppressed: {}{HEADING:#}", all.exactly())?;
        for pattern in others.iter().take(MOST_LINES) {
            let text = format!("  {}: {}", Sum::of(&[*pattern]), pattern.pattern);
            let source = format!(" ({})", pattern.source);
            let room = width.columns().saturating_sub(source.chars().count());
            let (text, source) = (Safe(&text).to_string(), Safe(&source).to_string());
            writeln!(out, "{}{FAINT}{source}{FAINT:#}", cut_end(&text, room.max(SHORTEST)))?;
        }
        if others.len() > MOST_LINES {
            writeln!(out, "  … {}; --json has all", more((others.len() - MOST_LINES) as u64, "suppression"))?;
        }
    }
    if runtime.blocks > 0 {
        writeln!(out)?;
        let text = format!(
            "The runtime keeps {} until the end, which is suppressed; --no-default-suppressions counts it.",
            runtime.exactly()
        );
        write_paragraph(out, "", &text, width)?;
    }
    Ok(())
}

/// The most lines for suppressions.
const MOST_LINES: usize = 20;
/// The fewest columns for a suppression.
const SHORTEST: usize = 30;

/// Suppressed blocks, added up. Blocks that grew count as blocks.
struct Sum {
    bytes: u64,
    blocks: u64,
}

impl Sum {
    fn of(patterns: &[&SuppressedPattern]) -> Sum {
        let add = |sum: Sum, pattern: &&SuppressedPattern| Sum {
            bytes: sum.bytes.saturating_add(pattern.bytes).saturating_add(pattern.grown_bytes),
            blocks: sum.blocks + pattern.blocks + pattern.grown_blocks,
        };
        patterns.iter().fold(Sum { bytes: 0, blocks: 0 }, add)
    }

    fn exactly(&self) -> String {
        format!("{} in {}", bytes_exactly(self.bytes), plural(self.blocks, "block"))
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", bytes(self.bytes), plural(self.blocks, "block"))
    }
}
