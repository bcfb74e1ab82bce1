//! Collapsed stacks, the input of most programs that draw flamegraphs. In: [`Flame`]. Out: a line
//! for each stack: its frames from the root to the leaf with `;` between them, a space, and its
//! weight.

use std::io::{self, Write};

use super::escape::xml_character;
use crate::analyze::flame::Flame;

/// Writes the stacks in the order of their names.
///
/// # Errors
/// Returns the first error of `out`.
pub fn write(out: &mut dyn Write, flame: &Flame) -> io::Result<()> {
    let names: Vec<String> = flame.labels.iter().map(|name| frame_name(name)).collect();
    for (stack, weight) in &flame.stacks {
        for (at, label) in stack.iter().enumerate() {
            let separator = if at == 0 { "" } else { ";" };
            write!(out, "{separator}{}", names[*label as usize])?;
        }
        writeln!(out, " {weight}")?;
    }
    Ok(())
}

/// Returns a name that readers of the format take for one frame. The format has no way to write a
/// `;` within a name. A number behind the last space would be taken for a second weight.
fn frame_name(name: &str) -> String {
    let mut text: String = name
        .chars()
        .map(|c| match c {
            ';' => ',',
            '\n' | '\r' => ' ',
            other => xml_character(other),
        })
        .collect();
    if let Some(at) = text.rfind(' ')
        && text[at + 1..].parse::<f64>().is_ok()
    {
        text.replace_range(at..=at, NO_BREAK_SPACE);
    }
    text
}

const NO_BREAK_SPACE: &str = "\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::flame::Metric;
    use crate::names::code_owner::CodeOwner;

    #[test]
    fn each_stack_is_a_line_and_a_name_is_one_frame() {
        let labels = ["main", "take::<[u8; 8]>", "version 42", "two\nlines"].map(str::to_owned).to_vec();
        let stacks = vec![(vec![0], 1), (vec![0, 1], 10), (vec![0, 2], 20), (vec![3, 0], 5)];
        let command = "app".to_owned();
        let flame = Flame {
            metric: Metric::Live,
            command,
            complete: true,
            filtered: false,
            interval: None,
            total: 36,
            owners: vec![CodeOwner::Own; labels.len()],
            labels,
            stacks,
        };
        let mut out = Vec::new();
        write(&mut out, &flame).unwrap();
        let expected = "main 1\nmain;take::<[u8, 8]> 10\nmain;version\u{a0}42 20\ntwo lines;main 5\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
