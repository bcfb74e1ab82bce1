//! The call tree as text. In: [`Tree`]. Out: text for people.

use std::io::{self, Write};

use super::frame_text::FrameTexts;
use super::text_width::TextWidth;
use super::{FAINT, GROWTH, HEADING, OWN, percent};
use crate::analyze::tree::{Tree, TreeRow};
use crate::units::{Safe, bytes, bytes_exactly, count, plural};

/// Writes the tree, with lines of at most `width` columns where names can be cut.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, tree: &Tree, width: TextWidth) -> io::Result<()> {
    let filtered = if tree.filtered { ", of what the filter lets through" } else { "" };
    if tree.total == 0 {
        return writeln!(out, "{}{filtered}: nothing", Safe(&tree.metric));
    }
    let total = match tree.unit {
        "bytes" => bytes_exactly(tree.total),
        _ => plural(tree.total, "allocation"),
    };
    writeln!(out, "{HEADING}{}{filtered}: {total}{HEADING:#}", Safe(&tree.metric))?;
    if !tree.complete {
        writeln!(out, "The recording is not complete: see the summary.")?;
    }
    let direction = match tree.callers {
        true => "function, with its callers below it",
        false => "function, with its callees below it",
    };
    writeln!(out, "\n{FAINT}{:>10}{:9}  {:>10}  {direction}{FAINT:#}", "inclusive", "", "exclusive")?;
    // What is left out says nothing that the last line does not say, unless it is a large part.
    let is_small = |row: &TreeRow| row.inclusive as f64 * 100.0 < tree.min_percent * tree.total as f64;
    let rows: Vec<TreeRow> =
        tree.rows.iter().filter(|row| row.frame.is_some() || !is_small(row)).copied().collect();
    let mut guides = Guides::within(width);
    for at in 0..rows.len() {
        write_row(out, tree, &rows[at], &guides.before(&rows, at), width)?;
    }
    if rows.len() < tree.rows.len() {
        let least = tree.min_percent;
        writeln!(out, "\n{FAINT}Without calls below {least} %; --min-percent 0 shows all.{FAINT:#}")?;
    }
    Ok(())
}

/// The lines that lead from a call to the calls below it. A call that is the only one below
/// another one stands under it without a line, so that a deep stack does not run out of the
/// terminal.
struct Guides {
    /// The most columns before a function.
    most: usize,
    /// For each level the text before its calls, from the outermost level to the present one.
    levels: Vec<String>,
}

impl Guides {
    fn within(width: TextWidth) -> Guides {
        Guides { most: MOST_INDENT.min(width.columns() / 4), levels: Vec::new() }
    }

    /// Returns the text before the row at an index. Rows are asked for in their order.
    fn before(&mut self, rows: &[TreeRow], at: usize) -> String {
        let depth = rows[at].depth;
        let is_sibling = |row: &&TreeRow| row.depth <= depth;
        let has_next = rows[at + 1..].iter().find(is_sibling).is_some_and(|row| row.depth == depth);
        // Each row cuts off the levels below it.
        let has_previous = self.levels.len() > depth;
        self.levels.resize(depth + 1, String::new());
        let outer = match depth {
            0 => "",
            _ => &*self.levels[depth - 1],
        };
        let (line, below) = match (has_previous, has_next) {
            (false, false) => ("", ""),
            (_, true) => ("├ ", "│ "),
            (true, false) => ("└ ", "  "),
        };
        // The rows below continue the lines of this one.
        let (line, below) = match outer.chars().count() < self.most {
            true => (format!("{outer}{line}"), format!("{outer}{below}")),
            false => (outer.to_owned(), outer.to_owned()),
        };
        self.levels[depth] = below;
        line
    }
}

fn write_row(
    out: &mut dyn Write,
    tree: &Tree,
    row: &TreeRow,
    guide: &str,
    width: TextWidth,
) -> io::Result<()> {
    let figure = |figure: u64| match tree.unit {
        "bytes" => bytes(figure),
        _ => count(figure),
    };
    let own = if row.exclusive == 0 { String::new() } else { figure(row.exclusive) };
    let share = percent(row.inclusive, tree.total);
    write!(out, "{GROWTH}{:>10}{GROWTH:#}  {share:>7}  {own:>10}  ", figure(row.inclusive))?;
    write!(out, "{FAINT}{guide}{FAINT:#}")?;
    let indent = guide.chars().count();
    let Some(frame) = row.frame.map(|frame| &tree.frames[frame as usize]) else {
        let what = match (row.calls, row.exclusive) {
            (1, exclusive) if exclusive > 0 => "(no stack)".to_owned(),
            (calls, _) => format!("… {} below the limit of --min-percent", plural(calls as u64, "call")),
        };
        return writeln!(out, "{FAINT}{what}{FAINT:#}");
    };
    let texts = FrameTexts::of(frame, (row.fewest, row.times));
    let room = width.columns().saturating_sub(MARGIN + indent);
    texts.write(out, if frame.own { OWN } else { FAINT }, room)
}

/// Number of columns before the function of the outermost level.
const MARGIN: usize = 33;
/// The most columns before a function, on any terminal; deeper rows stand as far to the right.
const MOST_INDENT: usize = 60;
