//! Many marks as text: one row for each name. In: marks. Out: how often each was set, when first
//! and last, and the live heap at both.

use std::io::{self, Write};

use foldhash::HashMap;

use super::RELEASE;
use crate::analyze::timeline::MarkPoint;
use crate::units::{Safe, bytes, more, plural, time};

/// Writes a row for each name, in the order in which the names were first set.
///
/// # Errors
/// Returns the first error of `out`.
pub(super) fn write_by_name(out: &mut dyn Write, marks: &[MarkPoint], dropped: u64) -> io::Result<()> {
    let mut names: Vec<(&str, Vec<&MarkPoint>)> = Vec::new();
    let mut rows: HashMap<&str, usize> = HashMap::default();
    for mark in marks {
        let row = *rows.entry(&mark.name).or_insert_with(|| {
            names.push((&mark.name, Vec::new()));
            names.len() - 1
        });
        names[row].1.push(mark);
    }
    for (name, marks) in names.iter().take(MAX_NAMES) {
        let (Some(first), Some(last)) = (marks.first(), marks.last()) else { continue };
        write!(out, "  {:>12}  {:>10} live  ", time(first.ns), bytes(first.live_bytes))?;
        write!(out, "{RELEASE}{}{RELEASE:#}", Safe(name))?;
        match marks.len() {
            1 => writeln!(out)?,
            count => writeln!(
                out,
                ", {}; the last after {}, {} live",
                plural(count as u64, "time"),
                time(last.ns),
                bytes(last.live_bytes)
            )?,
        }
    }
    if names.len() > MAX_NAMES {
        writeln!(out, "  … {}; --json has all", more((names.len() - MAX_NAMES) as u64, "name"))?;
    }
    if dropped > 0 {
        writeln!(out, "  … {}; the last ones are not kept", more(dropped, "mark"))?;
    }
    Ok(())
}

/// The most names that are shown.
const MAX_NAMES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_mark_is_one_row() {
        let mark = |name: &str, ms: u64, kib: u64| MarkPoint {
            name: name.to_owned(),
            ns: ms * 1_000_000,
            live_bytes: kib << 10,
            ..MarkPoint::default()
        };
        let marks = [mark("ready", 1, 1), mark("request", 2, 2), mark("request", 7, 5)];
        let mut text = anstream::StripStream::new(Vec::new());
        write_by_name(&mut text, &marks, 3).unwrap();
        let expected = "      1.000 ms     1.0 KiB live  ready
      2.000 ms     2.0 KiB live  request, 2 times; the last after 7.000 ms, 5.0 KiB live
  … 3 more marks; the last ones are not kept\n";
        assert_eq!(String::from_utf8(text.into_inner()).unwrap(), expected);
    }
}
