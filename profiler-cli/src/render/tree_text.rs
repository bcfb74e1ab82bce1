//! The call tree as text. In: [`Tree`]. Out: text for people.

use std::io::{self, Write};

use super::text_width::{TextWidth, fitting_names};
use super::{FAINT, GROWTH, HEADING, OWN, frame_texts, percent};
use crate::analyze::tree::{Tree, TreeRow};
use crate::units::{Safe, bytes, bytes_exactly, count, plural};

/// Writes the tree, with lines of at most `width` columns where names can be cut.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, tree: &Tree, width: TextWidth) -> io::Result<()> {
    let filtered = if tree.filtered { ", of what the filter lets through" } else { "" };
    if tree.total == 0 {
        return writeln!(out, "{}{filtered}: nothing", tree.metric);
    }
    let total = match tree.unit {
        "bytes" => bytes_exactly(tree.total),
        _ => plural(tree.total, "allocation"),
    };
    writeln!(out, "{HEADING}{}{filtered}: {total}{HEADING:#}", tree.metric)?;
    if !tree.complete {
        writeln!(out, "The recording is not complete: see the summary.")?;
    }
    let direction = match tree.callers {
        true => "function, with its callers below it",
        false => "function, with its callees below it",
    };
    writeln!(out, "\n{FAINT}{:>10}{:9}  {:>10}  {direction}{FAINT:#}", "inclusive", "", "exclusive")?;
    tree.rows.iter().try_for_each(|row| write_row(out, tree, row, width))
}

fn write_row(out: &mut dyn Write, tree: &Tree, row: &TreeRow, width: TextWidth) -> io::Result<()> {
    let figure = |figure: u64| match tree.unit {
        "bytes" => bytes(figure),
        _ => count(figure),
    };
    let own = if row.exclusive == 0 { String::new() } else { figure(row.exclusive) };
    let share = percent(row.inclusive, tree.total);
    write!(out, "{GROWTH}{:>10}{GROWTH:#}  {share:>7}  {own:>10}  ", figure(row.inclusive))?;
    let indent = (2 * row.depth).min(MOST_INDENT);
    write!(out, "{:indent$}", "")?;
    let Some(frame) = row.frame.map(|frame| &tree.frames[frame as usize]) else {
        let what = match (row.calls, row.exclusive) {
            (1, exclusive) if exclusive > 0 => "(no stack)".to_owned(),
            (calls, _) => format!("… {} below the limit of --min-percent", plural(calls as u64, "call")),
        };
        return writeln!(out, "{FAINT}{what}{FAINT:#}");
    };
    let (function, position) = frame_texts(frame, (row.fewest, row.times));
    if function.is_empty() {
        return writeln!(out, "{FAINT}{}{FAINT:#}", Safe(&position));
    }
    let room = width.columns().saturating_sub(MARGIN + indent + 2);
    let (function, position) = fitting_names(&function, &position, room);
    let style = if frame.own { OWN } else { FAINT };
    writeln!(out, "{style}{}{style:#}  {FAINT}{}{FAINT:#}", Safe(&function), Safe(&position))
}

/// Number of columns before the function of the outermost level.
const MARGIN: usize = 33;
/// The most columns of indentation; deeper rows are as far to the right.
const MOST_INDENT: usize = 60;
