//! The address space as SVG. In: one instant of a process. Out: a picture for light and dark pages,
//! with the highest addresses at the top.
//!
//! The height of a segment grows with the logarithm of its size: libraries and a heap of gigabytes
//! both have to be seen. The filled part of its width is what is resident.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::escape::Xml;
use crate::analyze::address_space::{Maps, SegmentKind, SpaceAtInstant, SpaceGroup};
use crate::units::{bytes, bytes_exactly, more, plural, time};

/// Draws the address space at an instant.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, maps: &Maps, shown: &SpaceAtInstant) -> io::Result<()> {
    out.write_all(draw(maps, shown).as_bytes())
}

const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #1f2328; } .title { font-size: 17px; }
.faint { fill: #59636e; } .paper { fill: #ffffff; } .free { stroke: #8c959f; stroke-dasharray: 3 4; }
.box { fill-opacity: 0.18; stroke-opacity: 0.9; } .end { text-anchor: end; }
.heap { fill: #2f6fdb; stroke: #2f6fdb; } .code { fill: #8250df; stroke: #8250df; }
.stack { fill: #116329; stroke: #116329; } .other { fill: #d1480f; stroke: #d1480f; }
.quiet { fill: #6e7781; stroke: #6e7781; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .faint { fill: #9198a1; } .paper { fill: #0d1117; }
.heap { fill: #58a6ff; stroke: #58a6ff; } .code { fill: #d2a8ff; stroke: #d2a8ff; }
.stack { fill: #56d364; stroke: #56d364; } .other { fill: #ff9b5e; stroke: #ff9b5e; }
}
";

fn draw(maps: &Maps, shown: &SpaceAtInstant) -> String {
    let all = shown.groups();
    let groups = &all[..all.len().min(MOST_GROUPS)];
    let gaps = groups.iter().skip(1).filter(|group| has_gap(group)).count() as f64;
    let boxes: f64 = groups.iter().map(|group| height(group) + SPACE).sum();
    let full_height = TOP + boxes + gaps * GAP + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {full_height}\" width=\"{WIDTH}\" \
         height=\"{full_height}\" role=\"img\">\n<title>Address space of {}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
        Xml(&maps.command)
    );
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"24\" y=\"30\">Address space of {}</text>\n\
         <text class=\"faint\" x=\"24\" y=\"50\">{}, after {}: VSZ {}, RSS {}, live heap {}. The filled part is \
         resident; heights are logarithms of sizes.</text>",
        Xml(&maps.command),
        Xml(&shown.name),
        time(shown.time_ns),
        bytes(shown.size),
        bytes(shown.resident),
        bytes(shown.live_bytes)
    );
    let mut y = TOP;
    for (at, group) in groups.iter().enumerate() {
        if at > 0 && has_gap(group) {
            let middle = y + GAP / 2.0;
            let _ = writeln!(
                svg,
                "<line class=\"free\" x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{y}\" y2=\"{}\"/>\
                 <text class=\"faint\" x=\"{}\" y=\"{}\">{} not mapped</text>",
                y + GAP,
                LEFT + 12.0,
                middle + 4.0,
                bytes(group.free_above)
            );
            y += GAP;
        }
        y = draw_group(&mut svg, group, y);
    }
    let left_out = (all.len() - groups.len()) as u64;
    let _ = writeln!(svg, "<text x=\"24\" y=\"{}\">{}</text>", y + 30.0, Xml(&shown.conclusion));
    if left_out > 0 {
        let _ = writeln!(
            svg,
            "<text class=\"faint\" x=\"24\" y=\"{}\">… {}</text>",
            y + 48.0,
            more(left_out, "segment")
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws a group below `y`, and returns where the next one begins.
fn draw_group(svg: &mut String, group: &SpaceGroup, y: f64) -> f64 {
    let height = height(group);
    let class = class(group.kind);
    let resident = BOX * group.resident as f64 / group.size.max(1) as f64;
    let base = y + height / 2.0 + 4.0;
    let grows = match group.kind.growth() {
        Some(direction) => format!(", grows {direction}"),
        None => String::new(),
    };
    let _ = writeln!(
        svg,
        "<g><title>{}: {} in {}, {} resident{grows}</title>\
         <text class=\"faint end\" x=\"{}\" y=\"{base}\">{:x}</text>\
         <rect class=\"box {class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{BOX}\" height=\"{height}\"/>\
         <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{resident:.1}\" height=\"{height}\" fill-opacity=\"0.6\"/>\
         <text x=\"{}\" y=\"{base}\">{}</text>\
         <text class=\"faint\" x=\"{}\" y=\"{base}\">{}, {} resident{grows}</text></g>",
        Xml(group.file.as_deref().unwrap_or(&group.label)),
        bytes_exactly(group.size),
        plural(group.mappings, "mapping"),
        bytes_exactly(group.resident),
        LEFT - 10.0,
        group.start,
        LEFT + 10.0,
        Xml(&shortened(&group.label)),
        LEFT + BOX + 12.0,
        bytes(group.size),
        bytes(group.resident)
    );
    y + height + SPACE
}

fn shortened(label: &str) -> String {
    let mut text: String = label.chars().take(MOST_LETTERS).collect();
    if label.chars().count() > MOST_LETTERS {
        text.push('…');
    }
    text
}

fn has_gap(group: &SpaceGroup) -> bool {
    group.free_above >= 64 << 20
}

fn height(group: &SpaceGroup) -> f64 {
    let doublings = (group.size.max(4096) as f64 / 4096.0).log2();
    18.0 + 2.6 * doublings
}

fn class(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::BrkHeap | SegmentKind::MappedHeap => "heap",
        SegmentKind::Text | SegmentKind::ReadOnly | SegmentKind::Data | SegmentKind::Bss => "code",
        SegmentKind::MainStack | SegmentKind::ThreadStack => "stack",
        SegmentKind::Anonymous | SegmentKind::File | SegmentKind::Shared => "other",
        SegmentKind::Reserved | SegmentKind::Kernel | SegmentKind::Tracker => "quiet",
    }
}

/// Lengths are in user units of SVG, which are pixels unless the picture is scaled.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 150.0;
const BOX: f64 = 460.0;
const TOP: f64 = 70.0;
const SPACE: f64 = 4.0;
const GAP: f64 = 26.0;
const MOST_GROUPS: usize = 80;
const MOST_LETTERS: usize = 60;
