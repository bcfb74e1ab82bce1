//! Flamegraphs as SVG, drawn by inferno. In: [`Flame`]. Out: one picture. The same input must give
//! the same bytes.

use std::borrow::Cow;
use std::io::{self, Write};

use foldhash::HashMap;
use inferno::flamegraph::color::{BasicPalette, Color, Palette, PaletteMap};
use inferno::flamegraph::{self, Direction, Options, TextTruncateDirection};

use super::escape::{XmlContent, xml_character};
use crate::analyze::flame::Flame;
use crate::names::code_owner::CodeOwner;
use crate::units::{bytes_exactly, plural};

/// Replaces `;` in names while inferno draws, because `;` separates frames in its input. The
/// character is in a private range of Unicode. [`printable`] removes it from names beforehand.
const SEMICOLON: char = '\u{e000}';
/// Replaces the space before a number at the end of a name, because inferno would take that number
/// for a count.
const SPACE: char = '\u{e001}';

/// Draws the flamegraph.
///
/// # Errors
/// Returns the first error of `out` or of inferno.
pub fn write(out: &mut dyn Write, flame: &Flame) -> io::Result<()> {
    if flame.total == 0 {
        // inferno draws an error message for a profile without weight. But an empty profile is a
        // good result.
        return write_empty(out, flame);
    }
    let mut options = Options::default();
    options.title = format!("{}: {}", flame.title(), quantity(flame));
    options.subtitle = Some(subtitle(flame));
    options.count_name = flame.metric.unit().to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    options.hash = true;
    let mut colors = colors_of(flame);
    options.palette_map = Some(&mut colors);
    // The roots are at the top, where people look first in a tall picture.
    options.direction = Direction::Inverted;
    options.text_truncate_direction = TextTruncateDirection::Right;
    let names: Vec<String> = flame.labels.iter().map(|name| one_frame_name(name)).collect();
    let line = |(frames, weight): &(Vec<u32>, u64)| {
        let stack: Vec<&str> = frames.iter().map(|label| names[*label as usize].as_str()).collect();
        format!("{} {weight}", stack.join(";"))
    };
    let drawn = drawn_stacks(flame);
    let lines: Vec<String> = drawn.iter().map(line).collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(io::Error::other)?;
    out.write_all(with_own_characters(svg)?.as_bytes())
}

/// Returns a picture with the characters that [`one_frame_name`] has replaced.
pub(super) fn with_own_characters(svg: Vec<u8>) -> io::Result<String> {
    let svg = String::from_utf8(svg).map_err(io::Error::other)?;
    Ok(svg.replace(SEMICOLON, ";").replace(SPACE, " "))
}

/// Returns the colours of all frames: warm ones for the user's own code, cool ones for
/// dependencies, grey for the runtime. Within each, a colour depends on the name alone, so that it
/// is the same in the pictures of two recordings.
fn colors_of(flame: &Flame) -> PaletteMap {
    let mut colors = PaletteMap::default();
    // The frame that inferno adds outside of all others has no name, although it shows one.
    colors.insert("", Color { r: 215, g: 215, b: 215 });
    for (name, owner) in flame.labels.iter().zip(&flame.owners) {
        // FNV-1a: neighbouring names get different shades.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let shade =
            |from: u8, to: u8, bits: u32| from + (u32::from(to - from) * (hash >> bits & 0xff) / 0xff) as u8;
        let color = match owner {
            CodeOwner::Own => Color { r: shade(225, 255, 0), g: shade(120, 195, 8), b: shade(40, 80, 16) },
            CodeOwner::Dependency => {
                Color { r: shade(140, 175, 0), g: shade(185, 210, 8), b: shade(215, 240, 16) }
            }
            CodeOwner::Runtime => {
                let grey = shade(195, 220, 0);
                Color { r: grey, g: grey, b: grey }
            }
        };
        colors.insert(one_frame_name(name), color);
    }
    colors
}

/// Returns the stacks, without the parts that are too narrow to be drawn if there are many stacks.
///
/// PERF: inferno leaves narrow frames out itself. But a line of text for each of a million stacks
/// would take gigabytes.
fn drawn_stacks(flame: &Flame) -> Cow<'_, [(Vec<u32>, u64)]> {
    if flame.stacks.len() <= MANY_STACKS {
        return Cow::Borrowed(&flame.stacks);
    }
    // The frames of the picture as a tree: 0 is the root, the others count from 1.
    let mut frames: HashMap<(u32, u32), u32> = HashMap::default();
    let mut widths = vec![flame.total];
    for (labels, weight) in &flame.stacks {
        let mut frame = 0;
        for label in labels {
            let next = widths.len() as u32;
            frame = *frames.entry((frame, *label)).or_insert(next);
            if frame == next {
                widths.push(0);
            }
            widths[frame as usize] += weight;
        }
    }
    let is_drawn = |frame: u32| widths[frame as usize].saturating_mul(NARROWEST) >= flame.total;
    let mut drawn: Vec<(Vec<u32>, u64)> = Vec::new();
    for (labels, weight) in &flame.stacks {
        let mut frame = 0;
        let wide = labels.iter().take_while(|label| {
            frame = frames.get(&(frame, **label)).copied().unwrap_or(0);
            is_drawn(frame)
        });
        // A line needs a frame, drawn or not.
        let wide = &labels[..wide.count().max(1).min(labels.len())];
        match drawn.last_mut() {
            Some((last, sum)) if last == wide => *sum += weight,
            _ => drawn.push((wide.to_vec(), *weight)),
        }
    }
    Cow::Owned(drawn)
}

/// Up to so many stacks, inferno gets all of them.
const MANY_STACKS: usize = 50_000;
/// inferno draws frames that are at least this part of the picture's width.
const NARROWEST: u64 = 10_000;

fn quantity(flame: &Flame) -> String {
    match flame.metric.unit() {
        "bytes" => bytes_exactly(flame.total),
        _ => plural(flame.total, "allocation"),
    }
}

fn subtitle(flame: &Flame) -> String {
    let mut command: String = flame.command.chars().take(MAX_COMMAND).map(printable).collect();
    if flame.command.chars().nth(MAX_COMMAND).is_some() {
        command.push('…');
    }
    let missing = if flame.complete { "" } else { INCOMPLETE };
    let stacks = plural(flame.stacks.len() as u64, "distinct stack");
    let is_folded = flame.labels.iter().any(|label| label.ends_with(" …"));
    let hint = if is_folded { " (… folded: --full shows them)" } else { "" };
    format!("{command} · {} in {stacks}{missing} · warm: own code, cool: dependencies{hint}", quantity(flame))
}

const INCOMPLETE: &str = " · the recording is not complete";
/// The most characters of the command line that are shown.
const MAX_COMMAND: usize = 120;

/// Returns a name that inferno reads as one frame. Without the replacements, inferno would split
/// the name at a semicolon, and would take a number at its end for a count.
pub(super) fn one_frame_name(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c == ';' { SEMICOLON } else { printable(c) }).collect();
    if let Some(at) = text.rfind(' ')
        && text[at + 1..].parse::<f64>().is_ok()
    {
        text.replace_range(at..=at, SPACE.encode_utf8(&mut [0; 4]));
    }
    text
}

/// Replaces characters that XML does not have, and the characters [`SEMICOLON`] and [`SPACE`].
pub(super) fn printable(c: char) -> char {
    if matches!(c, SEMICOLON | SPACE) { char::REPLACEMENT_CHARACTER } else { xml_character(c) }
}

/// Writes the picture of a profile without weight: a title, and no frames.
fn write_empty(out: &mut dyn Write, flame: &Flame) -> io::Result<()> {
    let command: String = flame.command.chars().take(MAX_COMMAND).map(printable).collect();
    writeln!(
        out,
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"120\" viewBox=\"0 0 1200 120\" xmlns=\"http://www.w3.org/2000/svg\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#eeeeee\"/>\n\
         <g font-family=\"monospace\" text-anchor=\"middle\">\n\
         <text x=\"600\" y=\"40\" font-size=\"17\">{}: nothing</text>\n\
         <text x=\"600\" y=\"75\" font-size=\"12\">{}{}</text>\n\
         </g>\n</svg>",
        flame.metric.title(),
        XmlContent(&command),
        if flame.complete { "" } else { INCOMPLETE }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::flame::Metric;

    fn flame(
        command: String,
        complete: bool,
        total: u64,
        labels: Vec<String>,
        stacks: Vec<(Vec<u32>, u64)>,
    ) -> Flame {
        let owners = vec![CodeOwner::Own; labels.len()];
        Flame {
            metric: Metric::Live,
            command,
            complete,
            interval: None,
            filtered: false,
            total,
            labels,
            owners,
            stacks,
        }
    }

    fn svg(stacks: &[(&[&str], u64)]) -> String {
        let mut labels: Vec<String> = Vec::new();
        let mut number = |name: &&str| {
            labels.push((*name).to_owned());
            labels.len() as u32 - 1
        };
        let stacks: Vec<(Vec<u32>, u64)> = stacks
            .iter()
            .map(|(frames, weight)| (frames.iter().map(&mut number).collect(), *weight))
            .collect();
        let total = stacks.iter().map(|(_, weight)| weight).sum();
        let command = "app <x>".to_owned();
        let flame = flame(command, true, total, labels, stacks);
        let mut out = Vec::new();
        write(&mut out, &flame).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_pass_through_inferno_unchanged() {
        let text = svg(&[
            (&["main", "take::<[u8; 8]>"], 10),
            (&["main", "version 42"], 20),
            (&["main", "a 1 2"], 5),
        ]);
        assert!(text.contains("<title>take::&lt;[u8; 8]&gt; (10 bytes"), "{text}");
        assert!(text.contains("<title>version 42 (20 bytes"), "{text}");
        assert!(text.contains("<title>a 1 2 (5 bytes"), "{text}");
        assert!(text.contains("<title>main (35 bytes"), "{text}");
        assert!(!text.contains(SEMICOLON) && !text.contains(SPACE));
    }

    #[test]
    fn of_many_stacks_only_wide_frames_are_drawn() {
        let labels: Vec<String> = (0..=MANY_STACKS).map(|at| format!("leaf{at:06}")).collect();
        let labels = ["main", "wide", "narrow"].map(str::to_owned).into_iter().chain(labels).collect();
        let mut stacks = vec![(vec![0, 1], 200_000)];
        stacks.extend((0..=MANY_STACKS as u32).map(|at| (vec![0, 2, 3 + at], 2)));
        let total = stacks.iter().map(|(_, weight)| weight).sum();
        let flame = flame("app".to_owned(), true, total, labels, stacks);
        let drawn = drawn_stacks(&flame);
        assert_eq!(*drawn, [(vec![0, 1], 200_000), (vec![0, 2], 2 * (MANY_STACKS as u64 + 1))]);
        let mut out = Vec::new();
        write(&mut out, &flame).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("<title>narrow (100,002 bytes"), "{text}");
        assert!(text.contains("50,002 distinct stacks"), "{text}");
    }

    #[test]
    fn a_picture_of_an_incomplete_recording_says_so() {
        for stacks in [vec![], vec![(vec![0], 1)]] {
            let (command, labels) = ("app".to_owned(), vec!["main".to_owned()]);
            let total = stacks.len() as u64;
            let flame = flame(command, false, total, labels, stacks);
            let mut out = Vec::new();
            write(&mut out, &flame).unwrap();
            assert!(String::from_utf8(out).unwrap().contains("the recording is not complete"));
        }
    }

    #[test]
    fn the_colour_of_a_frame_tells_whose_code_it_is() {
        let labels = ["app::main", "serde::to_vec", "std::rt"].map(str::to_owned).to_vec();
        let mut flame = flame("app".to_owned(), true, 1, labels, vec![(vec![0, 1, 2], 1)]);
        flame.owners = vec![CodeOwner::Own, CodeOwner::Dependency, CodeOwner::Runtime];
        let colors = colors_of(&flame);
        let of = |name: &str| colors.get(name).unwrap();
        let (own, dependency, runtime) = (of("app::main"), of("serde::to_vec"), of("std::rt"));
        assert!(own.r > own.b && dependency.b > dependency.r && runtime.r == runtime.b, "{colors:?}");
    }

    #[test]
    fn an_empty_profile_gives_a_picture() {
        let text = svg(&[]);
        assert!(text.contains("Live at the end: nothing") && text.contains("app &lt;x&gt;"));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let stacks: &[(&[&str], u64)] = &[(&["main", "a"], 1), (&["main", "b"], 2)];
        assert_eq!(svg(stacks), svg(stacks));
    }
}
