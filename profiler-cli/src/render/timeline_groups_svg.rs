//! The groups of a timeline as stacked areas of an SVG. In: [`TimelineGroups`]. Out: a part of the
//! picture, and the height of its legend. Every text in it must be escaped.

use std::fmt::Write as _;

use super::escape::Xml;
use super::plot::Axis;
use super::text_width::cut_middle;
use super::timeline_svg::{LEFT, text};
use crate::analyze::heap_groups::TimelineGroups;
use crate::units::bytes_exactly;

/// The style of the areas: eight colours, and grey for all others.
pub(super) const GROUPS: &str = "\
.g0 { fill: #3b6fc4; } .g1 { fill: #e39c1a; } .g2 { fill: #3f9d5a; } .g3 { fill: #c2477f; } \
.g4 { fill: #2aa5a8; } .g5 { fill: #d9633a; } .g6 { fill: #8660c9; } .g7 { fill: #8a7a3a; } .g8 { fill: #8b929b; }
";

/// Height of a row of the legend.
const ROW: f64 = 20.0;

/// Returns the height of the legend.
pub(super) fn legend(groups: &TimelineGroups) -> f64 {
    shown(groups).count() as f64 * ROW
}

/// Returns the groups that held anything, with their numbers.
fn shown(groups: &TimelineGroups) -> impl Iterator<Item = (usize, &str, u64)> {
    let all = groups.groups.iter().enumerate();
    all.map(|(number, group)| (number, group.name.as_str(), group.max_bytes)).filter(|(.., most)| *most > 0)
}

/// Draws the areas, those that held most at the bottom, and the legend below the plot. `(top,
/// height)` are those of the plot.
pub(super) fn draw(
    svg: &mut String,
    groups: &TimelineGroups,
    axis: &Axis,
    x: impl Fn(u64) -> f64,
    (top, height): (f64, f64),
) {
    let bottom = top + height;
    let y = |value: u64| bottom - axis.position(value as f64) * height;
    let mut below = vec![0u64; groups.points.len()];
    for (number, name, most) in shown(groups) {
        let above: Vec<u64> = below
            .iter()
            .zip(&groups.points)
            .map(|(below, point)| below.saturating_add(point.bytes[number]))
            .collect();
        let mut path = String::new();
        for (point, above) in groups.points.iter().zip(&above) {
            let (start, end) = (x(point.start_ns), x(point.end_ns));
            let command = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{command}{start:.1} {:.1}H{end:.1}", y(*above));
        }
        for (point, below) in groups.points.iter().zip(&below).rev() {
            let (start, end) = (x(point.start_ns), x(point.end_ns));
            let _ = write!(path, "L{end:.1} {:.1}H{start:.1}", y(*below));
        }
        let class = class_of(number, groups);
        let about = format!("{name} · at most {}", bytes_exactly(most));
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}Z\"><title>{}</title></path>", Xml(&about));
        below = above;
    }
    for ((number, name, most), row) in shown(groups).zip(1..) {
        let at = bottom + 20.0 + f64::from(row) * ROW;
        let class = class_of(number, groups);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LEFT:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>",
            at - 11.0
        );
        let name = cut_middle(name, MAX_NAME);
        text(svg, (LEFT + 20.0, at), "", &format!("{name} · at most {}", bytes_exactly(most)));
    }
}

/// The most characters of a name in the legend.
const MAX_NAME: usize = 110;

fn class_of(number: usize, groups: &TimelineGroups) -> String {
    if number + 1 == groups.groups.len() { "g8".to_owned() } else { format!("g{}", number % 8) }
}
