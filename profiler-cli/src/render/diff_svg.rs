//! What changed between two sides as a flamegraph, drawn by inferno. In: [`DiffFlame`]. Out: one
//! picture. A frame that has grown is red, one that has shrunk is blue.
//!
//! inferno draws the frames of one side alone: those that are gone are missing in a picture of the
//! new side. So there is a picture for each side.

use std::io::{self, Write};

use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

use super::flame_svg::{one_frame_name, printable, with_own_characters};
use crate::analyze::diff_flame::DiffFlame;
use crate::units::{bytes_exactly, plural};

/// The side whose frames are drawn, and whose weights are their widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawnSide {
    /// The new side: shows what is new and what has grown.
    New,
    /// The base: shows what is gone and what has shrunk.
    Base,
}

/// Draws the flamegraph of one side.
///
/// # Errors
/// Returns the first error of `out` or of inferno.
pub fn write(out: &mut dyn Write, flame: &DiffFlame, side: DrawnSide) -> io::Result<()> {
    let (base, new) = flame.totals;
    let quantity = |total: u64| match flame.metric.unit() {
        "bytes" => bytes_exactly(total),
        _ => plural(total, "allocation"),
    };
    let mut options = Options::default();
    let drawn = if side == DrawnSide::New { "now" } else { "in the base" };
    options.title =
        format!("{}: {} -> {}; frames {drawn}", flame.metric.title(), quantity(base), quantity(new));
    let command: String = flame.command.chars().take(MAX_COMMAND).map(printable).collect();
    options.subtitle = Some(format!("{command} · red: more than in the base, blue: less"));
    options.count_name = flame.metric.unit().to_owned();
    options.deterministic = true;
    options.direction = Direction::Inverted;
    options.text_truncate_direction = TextTruncateDirection::Right;
    // inferno colours by the second number minus the first, and draws the second.
    options.negate_differentials = side == DrawnSide::Base;
    let mut lines: Vec<String> = Vec::new();
    for (frames, base, new) in &flame.stacks {
        let frames: Vec<String> = frames.iter().map(|name| one_frame_name(name)).collect();
        let (other, drawn) = if side == DrawnSide::New { (base, new) } else { (new, base) };
        lines.push(format!("{} {other} {drawn}", frames.join(";")));
    }
    if lines.is_empty() || (side == DrawnSide::New && new == 0) || (side == DrawnSide::Base && base == 0) {
        return writeln!(
            out,
            "<?xml version=\"1.0\" standalone=\"no\"?>\n\
             <svg version=\"1.1\" width=\"1200\" height=\"80\" xmlns=\"http://www.w3.org/2000/svg\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#eeeeee\"/>\n\
             <text x=\"600\" y=\"45\" font-family=\"monospace\" text-anchor=\"middle\">{}: nothing {drawn}</text>\n\
             </svg>",
            flame.metric.title()
        );
    }
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(io::Error::other)?;
    out.write_all(with_own_characters(svg)?.as_bytes())
}

/// The most characters of the command line that are shown.
const MAX_COMMAND: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::flame::Metric;

    fn picture(side: DrawnSide) -> String {
        let stack = |frames: &[&str], base, new| {
            (frames.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), base, new)
        };
        let flame = DiffFlame {
            metric: Metric::Peak,
            command: "app <x>".to_owned(),
            totals: (150, 130),
            stacks: vec![
                stack(&["main", "gone::<[u8; 8]>"], 50, 0),
                stack(&["main", "grown"], 100, 120),
                stack(&["main", "new"], 0, 10),
            ],
        };
        let mut out = Vec::new();
        write(&mut out, &flame, side).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_side_has_its_own_frames_with_their_own_widths() {
        let (new, base) = (picture(DrawnSide::New), picture(DrawnSide::Base));
        assert!(new.contains("<title>grown (120 bytes") && new.contains("<title>new (10 bytes"), "{new}");
        assert!(base.contains("<title>grown (100 bytes"), "{base}");
        assert!(base.contains("<title>gone::&lt;[u8; 8]&gt; (50 bytes"), "{base}");
        assert!(!base.contains("<title>new ("), "{base}");
        assert!(new.contains("Live at the peak: 150 B -&gt; 130 B; frames now"), "{new}");
    }

    /// Returns red, green and blue of a frame.
    fn color(svg: &str, name: &str) -> [u32; 3] {
        let from = svg.find(&format!("<title>{name} (")).unwrap();
        let fill = svg[from..].split("fill=\"rgb(").nth(1).unwrap().split(')').next().unwrap();
        let parts: Vec<u32> = fill.split(',').map(|part| part.trim().parse().unwrap()).collect();
        parts.try_into().unwrap()
    }

    #[test]
    fn more_is_red_and_less_is_blue_in_both_pictures() {
        let (new, base) = (picture(DrawnSide::New), picture(DrawnSide::Base));
        for (svg, name) in [(&new, "grown"), (&base, "grown"), (&new, "new")] {
            let [red, _, blue] = color(svg, name);
            assert!(red > blue, "{name}: {red} {blue}");
        }
        let [red, _, blue] = color(&base, "gone::&lt;[u8; 8]&gt;");
        assert!(blue > red, "{red} {blue}");
    }
}
