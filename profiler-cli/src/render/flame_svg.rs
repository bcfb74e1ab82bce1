//! Flamegraphs as SVG, drawn by inferno. The same input gives the same bytes.

use std::io::{self, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{self, Direction, Options};

use super::escape::{XmlContent, xml_character};
use crate::analyze::flame::Flame;
use crate::units::{bytes_exactly, plural};

/// Stand in for characters that mean something in inferno's input while it draws; private, so no name has them.
const SEMICOLON: char = '\u{e000}';
const SPACE: char = '\u{e001}';

/// Draws the flamegraph.
///
/// # Errors
/// Those of `out`, and inferno's.
pub fn write(out: &mut dyn Write, flame: &Flame) -> io::Result<()> {
    if flame.total == 0 {
        // inferno draws an error for a profile without weight; that nothing is there is a result, and a good one.
        return write_empty(out, flame);
    }
    let mut options = Options::default();
    options.title = format!("{}: {}", flame.metric.title(), quantity(flame));
    options.subtitle = Some(subtitle(flame));
    options.count_name = flame.metric.unit().to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    options.hash = true;
    // The outermost frames at the top, where a tall picture is looked at first.
    options.direction = Direction::Inverted;
    let disarmed: Vec<String> = flame.labels.iter().map(|name| disarmed(name)).collect();
    let line = |(frames, weight): &(Vec<u32>, u64)| {
        let names: Vec<&str> = frames.iter().map(|label| disarmed[*label as usize].as_str()).collect();
        format!("{} {weight}", names.join(";"))
    };
    let lines: Vec<String> = flame.stacks.iter().map(line).collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(io::Error::other)?;
    let svg = String::from_utf8(svg).map_err(io::Error::other)?;
    out.write_all(svg.replace(SEMICOLON, ";").replace(SPACE, " ").as_bytes())
}

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
    format!("{command} · {} in {stacks}{missing}", quantity(flame))
}

const INCOMPLETE: &str = " · the recording is not complete";
const MAX_COMMAND: usize = 120;

/// A name that inferno takes for one frame: a semicolon would split it, a number at its end would be taken for a
/// count.
fn disarmed(name: &str) -> String {
    let mut text: String = name.chars().map(|c| if c == ';' { SEMICOLON } else { printable(c) }).collect();
    if let Some(at) = text.rfind(' ')
        && text[at + 1..].parse::<f64>().is_ok()
    {
        text.replace_range(at..=at, SPACE.encode_utf8(&mut [0; 4]));
    }
    text
}

/// Replaces what XML does not have, and the characters that stand in for others while inferno draws.
fn printable(c: char) -> char {
    if matches!(c, SEMICOLON | SPACE) { char::REPLACEMENT_CHARACTER } else { xml_character(c) }
}

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
        let flame = Flame { metric: Metric::Live, command, complete: true, total, labels, stacks };
        let mut out = Vec::new();
        write(&mut out, &flame).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_survive_inferno() {
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
    fn a_picture_of_a_part_says_so() {
        for stacks in [vec![], vec![(vec![0], 1)]] {
            let (command, labels) = ("app".to_owned(), vec!["main".to_owned()]);
            let total = stacks.len() as u64;
            let flame = Flame { metric: Metric::Live, command, complete: false, total, labels, stacks };
            let mut out = Vec::new();
            write(&mut out, &flame).unwrap();
            assert!(String::from_utf8(out).unwrap().contains("the recording is not complete"));
        }
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let text = svg(&[]);
        assert!(text.contains("Live at the end: nothing") && text.contains("app &lt;x&gt;"));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let stacks: &[(&[&str], u64)] = &[(&["main", "a"], 1), (&["main", "b"], 2)];
        assert_eq!(svg(stacks), svg(stacks));
    }
}
