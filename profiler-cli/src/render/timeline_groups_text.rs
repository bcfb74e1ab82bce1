//! The groups of a timeline as a stacked plot of characters. In: [`TimelineGroups`]. Out: rows in
//! which each letter is the group that the heap has at that height, and the names of the letters.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::FAINT;
use super::plot::Axis;
use super::timeline_text::{LABEL, column_of, label_of_row};
use crate::analyze::heap_groups::TimelineGroups;
use crate::analyze::timeline::Timeline;
use crate::units::{Safe, bytes};

/// Draws the groups, those that held most at the bottom.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write(
    out: &mut dyn Write,
    timeline: &Timeline,
    groups: &TimelineGroups,
    (columns, rows): (usize, usize),
) -> io::Result<()> {
    let axis = Axis::of_bytes(groups.points.iter().map(|point| point.max).max().unwrap_or(0));
    let highest = highest_points(timeline, groups, columns);
    writeln!(out, "\n{:LABEL$}  live heap (exact) by {}", "", groups.by.word())?;
    for row in (0..rows).rev() {
        let label = label_of_row(&axis, row, rows);
        write!(out, "{label:>LABEL$} {}", if label.is_empty() { '│' } else { '┤' })?;
        for point in &highest {
            let bytes = point.map_or(&[][..], |point| &groups.points[point].bytes);
            match group_at(bytes, |value| axis.position(value as f64) * rows as f64, row) {
                Some(group) => {
                    let style = style_of(group);
                    write!(out, "{style}{}{style:#}", sign_of(group, groups))?;
                }
                None => write!(out, " ")?,
            }
        }
        writeln!(out)?;
    }
    let zero = axis.ticks.first().map_or("", |(_, label)| label);
    writeln!(out, "{zero:>LABEL$} ┼{}", "─".repeat(columns))
}

/// Writes the names of the letters, with the most bytes that each group held.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write_legend(out: &mut dyn Write, groups: &TimelineGroups, width: usize) -> io::Result<()> {
    writeln!(out, "\nAt most, by {}:", groups.by.word())?;
    for (number, group) in groups.groups.iter().enumerate().filter(|(_, group)| group.max_bytes > 0) {
        let (style, sign) = (style_of(number), sign_of(number, groups));
        let room = width.saturating_sub(LEGEND);
        let name = shortened(&Safe(&group.name).to_string(), room);
        writeln!(out, "  {style}{sign}{style:#} {:>10}  {FAINT}{name}{FAINT:#}", bytes(group.max_bytes))?;
    }
    writeln!(out)
}

/// Columns of the legend before a name.
const LEGEND: usize = 16;

/// Returns for each column the index of the highest point in it.
fn highest_points(timeline: &Timeline, groups: &TimelineGroups, columns: usize) -> Vec<Option<usize>> {
    let mut highest: Vec<Option<usize>> = vec![None; columns];
    for (at, point) in groups.points.iter().enumerate() {
        let first = column_of(timeline, point.start_ns, columns);
        let last = column_of(timeline, point.end_ns.saturating_sub(1).max(point.start_ns), columns);
        for column in &mut highest[first..=last] {
            if column.is_none_or(|other| groups.points[other].max < point.max) {
                *column = Some(at);
            }
        }
    }
    highest
}

/// Returns the group at the middle of a row; `None` above the heap. A heap that is not empty is
/// visible in the lowest row, however small it is.
fn group_at(bytes: &[u64], height: impl Fn(u64) -> f64, row: usize) -> Option<usize> {
    let middle = row as f64 + 0.5;
    let mut sum = 0u64;
    let top = bytes.iter().position(|more| {
        sum = sum.saturating_add(*more);
        height(sum) > middle
    });
    let largest = || (0..bytes.len()).filter(|at| bytes[*at] > 0).max_by_key(|at| bytes[*at]);
    if row == 0 { top.or_else(largest) } else { top }
}

fn sign_of(group: usize, groups: &TimelineGroups) -> char {
    if group + 1 == groups.groups.len() {
        return '.';
    }
    u8::try_from(group).map_or('?', |group| char::from(b'A' + group.min(25)))
}

fn style_of(group: usize) -> Style {
    use AnsiColor::{Blue, Cyan, Green, Magenta, Red, Yellow};
    [Blue, Yellow, Green, Magenta, Cyan, Red][group % 6].on_default()
}

/// Returns a name of at most this many characters, without its middle if it is longer.
fn shortened(name: &str, most: usize) -> String {
    let length = name.chars().count();
    if length <= most || most < 3 {
        return name.to_owned();
    }
    let head = most / 3;
    let tail = most - head - 1;
    name.chars().take(head).chain(['…']).chain(name.chars().skip(length - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_group_at_its_middle() {
        // Two bytes a row: group 0 fills one row and a half, group 2 the rest up to three rows.
        let at = |row| group_at(&[3, 0, 3], |value| value as f64 / 2.0, row);
        assert_eq!([at(0), at(1), at(2), at(3)], [Some(0), Some(2), Some(2), None]);
        let tiny = |row| group_at(&[0, 1], |value| value as f64 / 100.0, row);
        assert_eq!([tiny(0), tiny(1)], [Some(1), None]);
        assert_eq!(group_at(&[0, 0], |value| value as f64, 0), None);
    }

    #[test]
    fn long_names_lose_their_middle() {
        // A third of the 15 characters beside the ellipsis is the beginning.
        assert_eq!(shortened("app::cache::insert (cache.rs:7)", 16), "app::…ache.rs:7)");
        assert_eq!(shortened("short", 16), "short");
    }
}
