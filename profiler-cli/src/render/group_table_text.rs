//! Figures by crate, file and so on, as text. In: [`GroupTable`]. Out: a table, with as many
//! columns as leave room for the names.

use std::io::{self, Write};

use super::text_width::{TextWidth, cut_middle};
use super::{HEADING, percent};
use crate::analyze::groups::{GroupRow, GroupTable};
use crate::analyze::summary::Summary;
use crate::units::{Safe, bytes, count, more};

/// Writes the figures by crate, file, and so on.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write(
    out: &mut dyn Write,
    groups: &GroupTable,
    summary: &Summary,
    width: TextWidth,
) -> io::Result<()> {
    let name = groups.by.word();
    let peak = summary.selected.as_ref().map_or(summary.peak_bytes, |selected| selected.peak_bytes);
    let columns = group_columns(width);
    let cells = |text: &dyn Fn(&GroupColumn) -> String| -> String {
        columns.iter().map(|column| format!("  {:>width$}", text(column), width = column.width)).collect()
    };
    let titles = cells(&|column| column.title.to_owned());
    writeln!(out, "\n{HEADING}{titles}  {name}{HEADING:#}")?;
    let room = width.columns().saturating_sub(titles.chars().count() + 2);
    for group in &groups.rows {
        let figures = cells(&|column| (column.cell)(group, peak));
        writeln!(out, "{figures}  {}", Safe(&cut_middle(&group.name, room)))?;
    }
    if groups.omitted > 0 {
        let all = groups.rows.len() + groups.omitted;
        writeln!(out, "  … {}; --top {all} shows all", more(groups.omitted as u64, name))?;
    }
    Ok(())
}

/// A column of a table of groups.
struct GroupColumn {
    title: &'static str,
    width: usize,
    /// Makes the text from the row and the bytes at the peak.
    cell: fn(&GroupRow, u64) -> String,
}

/// Returns the columns that leave room for the names: all of them, or the first ones.
fn group_columns(width: TextWidth) -> &'static [GroupColumn] {
    let mut columns = GROUP_COLUMNS;
    let taken = |columns: &[GroupColumn]| columns.iter().map(|column| column.width + 2).sum::<usize>();
    while columns.len() > FEWEST_GROUP_COLUMNS && taken(columns) + ROOM_FOR_NAMES > width.columns() {
        columns = &columns[..columns.len() - 1];
    }
    columns
}

const ROOM_FOR_NAMES: usize = 26;
const FEWEST_GROUP_COLUMNS: usize = 2;

/// The columns of a table of groups, the most important ones first.
const GROUP_COLUMNS: &[GroupColumn] = &[
    GroupColumn { title: "peak", width: 10, cell: |row, _| or_dash(row.peak_bytes.map(bytes)) },
    GroupColumn {
        title: "",
        width: 7,
        cell: |row, peak| row.peak_bytes.map_or_else(String::new, |bytes| percent(bytes, peak)),
    },
    GroupColumn { title: "live", width: 10, cell: |row, _| or_dash(row.live_bytes.map(bytes)) },
    GroupColumn { title: "allocated", width: 10, cell: |row, _| bytes(row.allocated_bytes) },
    GroupColumn { title: "allocations", width: 12, cell: |row, _| count(row.allocations) },
    GroupColumn {
        title: "temporary",
        width: 10,
        cell: |row, _| or_dash(row.temporary_allocations.map(count)),
    },
];

fn or_dash(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| "-".to_owned())
}
