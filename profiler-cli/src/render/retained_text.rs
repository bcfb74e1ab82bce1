//! Who retains memory, as a table. In: [`Retained`]. Out: text for people.

use std::io::{self, Write};

use super::holders_text::{root_text, snapshot_name};
use super::text_width::{TextWidth, cut_middle, fitting_names};
use super::{FAINT, GROWTH, HEADING, source_position};
use crate::analyze::held::Verdict;
use crate::analyze::retained::{Retained, RetainedSite};
use crate::units::{Safe, bytes, bytes_exactly, count, more, plural};

/// Writes the table, with lines of at most `width` columns where names can be cut.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, retained: &Retained, width: TextWidth) -> io::Result<()> {
    let name = snapshot_name(&retained.snapshot);
    if retained.total_blocks == 0 {
        return writeln!(out, "Nothing is judged by {}.", Safe(&name));
    }
    let live = bytes_exactly(retained.total_bytes);
    let headline = format!("{live} in {}, by {name}", plural(retained.total_blocks, "block"));
    writeln!(out, "{HEADING}{}{HEADING:#}\n", Safe(&headline))?;
    writeln!(out, "{HEADING}{:>12}  {:>10}  {:>9}  site{HEADING:#}", "retained", "live", "blocks")?;
    for site in &retained.sites {
        write_site(out, site, width)?;
    }
    if retained.omitted > 0 {
        let all = retained.sites.len() + retained.omitted;
        writeln!(out, "\n{}; --top {all} shows all.", more(retained.omitted as u64, "site"))?;
    }
    writeln!(out, "\nRetained: what would be freed if the blocks of the site were.")?;
    match retained.sites.iter().any(|site| site.retained_is_least) {
        true => writeln!(out, "≥: at least; the heap is too large to follow each site."),
        false => Ok(()),
    }
}

fn write_site(out: &mut dyn Write, site: &RetainedSite, width: TextWidth) -> io::Result<()> {
    let position = source_position(site.file.as_deref(), site.line);
    let room = width.columns().saturating_sub(MARGIN + 1);
    let (function, position) = fitting_names(&site.function, &position, room);
    writeln!(
        out,
        "{:>12}  {:>10}  {:>9}  {} {FAINT}{}{FAINT:#}",
        format!("{}{}", if site.retained_is_least { "≥ " } else { "" }, bytes(site.retained_bytes)),
        bytes(site.live_bytes),
        count(site.blocks),
        Safe(&function),
        Safe(&position)
    )?;
    let room = width.columns().saturating_sub(MARGIN + 2);
    match site.verdict {
        Verdict::Lost => writeln!(out, "{:MARGIN$}{GROWTH}lost{GROWTH:#}", ""),
        Verdict::Unknown => writeln!(out, "{:MARGIN$}{FAINT}unknown{FAINT:#}", ""),
        Verdict::Maybe | Verdict::Held => {
            let word = if site.verdict == Verdict::Held { "held by" } else { "maybe held by" };
            let mut roots: Vec<String> =
                site.held_by.iter().map(|held| root_text(held.root.kind, &held.root.name)).collect();
            // Several regions of memory may have one name.
            roots.dedup();
            let roots = roots.join(", ");
            let roots = if roots.is_empty() { "nothing known".to_owned() } else { roots };
            writeln!(
                out,
                "{:MARGIN$}{FAINT}{}{FAINT:#}",
                "",
                Safe(&cut_middle(&format!("{word} {roots}"), room))
            )
        }
    }
}

/// Columns before the names.
const MARGIN: usize = 37;
