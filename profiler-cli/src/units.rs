//! Formats numbers and names for people. In: bytes, counts, times, names. Out: short text.
//!
//! A rounded number must always show its unit, so that no rounding is hidden. A name must never
//! control the terminal.

pub mod moment;
pub mod rate;
pub mod signals;

use std::fmt;

/// A unit of sizes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SizeUnit {
    /// 1 byte
    #[value(name = "B")]
    B,
    /// 1024 bytes
    #[value(name = "KiB")]
    KiB,
    /// 1024 KiB
    #[value(name = "MiB")]
    MiB,
    /// 1024 MiB
    #[value(name = "GiB")]
    GiB,
    /// 1024 GiB
    #[value(name = "TiB")]
    TiB,
}

impl SizeUnit {
    /// Returns the largest unit that is not larger than this many bytes; for 0 bytes, the byte.
    pub fn fitting(bytes: u64) -> SizeUnit {
        match bytes {
            0..1024 => SizeUnit::B,
            1024..0x10_0000 => SizeUnit::KiB,
            0x10_0000..0x4000_0000 => SizeUnit::MiB,
            0x4000_0000..0x100_0000_0000 => SizeUnit::GiB,
            _ => SizeUnit::TiB,
        }
    }

    /// Returns the number of bytes in one unit.
    pub fn size(self) -> u64 {
        match self {
            SizeUnit::B => 1,
            SizeUnit::KiB => 1 << 10,
            SizeUnit::MiB => 1 << 20,
            SizeUnit::GiB => 1 << 30,
            SizeUnit::TiB => 1 << 40,
        }
    }

    /// Returns the name of the unit.
    pub fn name(self) -> &'static str {
        match self {
            SizeUnit::B => "B",
            SizeUnit::KiB => "KiB",
            SizeUnit::MiB => "MiB",
            SizeUnit::GiB => "GiB",
            SizeUnit::TiB => "TiB",
        }
    }

    /// Returns a signed amount in this unit, such as `-1.5 MiB`. Bytes have no fraction.
    pub fn show(self, bytes: i64) -> String {
        self.show_to(bytes, 1)
    }

    /// Returns a signed amount in this unit with `precision` digits after the decimal point.
    pub fn show_to(self, bytes: i64, precision: usize) -> String {
        if self == SizeUnit::B {
            return format!("{bytes} B");
        }
        let (size, name) = (self.size() as f64, self.name());
        format!("{} {name}", without_negative_zero(&format!("{:.precision$}", bytes as f64 / size)))
    }
}

/// Parses an amount of memory as people write it: a number with B, KiB, MiB, GiB or TiB after it.
/// Without a unit the number counts bytes. Upper and lower case do not matter: `64kib` is valid
/// too.
///
/// # Errors
/// If the text is no amount of memory. The error text says what is expected.
///
/// ```
/// use profiler_cli::units::parse_bytes;
/// assert_eq!((parse_bytes("4096"), parse_bytes("1.5 MiB")), (Ok(4096), Ok(1_572_864)));
/// assert_eq!(parse_bytes("2kib"), Ok(2048));
/// assert!(parse_bytes("many").is_err() && parse_bytes("-1").is_err() && parse_bytes("3 MB").is_err());
/// ```
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, name) = (&text[..end], text[end..].trim());
    let units = [SizeUnit::B, SizeUnit::KiB, SizeUnit::MiB, SizeUnit::GiB, SizeUnit::TiB];
    let named = units.into_iter().find(|unit| unit.name().eq_ignore_ascii_case(name));
    let unit = named.or(name.is_empty().then_some(SizeUnit::B));
    match (number.parse::<f64>(), unit) {
        (Ok(number), Some(unit)) if number.is_finite() => match (number * unit.size() as f64).round() {
            bytes if bytes < 2f64.powi(64) => Ok(bytes as u64),
            _ => Err("give less than 16777216 TiB".to_owned()),
        },
        _ => Err("give a number of bytes, or a number with KiB, MiB, GiB or TiB after it".to_owned()),
    }
}

/// Returns a number without its minus sign if all its digits are zeros.
///
/// ```
/// use profiler_cli::units::without_negative_zero;
/// assert_eq!((without_negative_zero("-0.0"), without_negative_zero("-0.1")), ("0.0", "-0.1"));
/// ```
pub fn without_negative_zero(number: &str) -> &str {
    let digits = number.trim_start_matches('-');
    if digits.bytes().all(|byte| matches!(byte, b'0' | b'.')) { digits } else { number }
}

/// Returns bytes in the unit that fits them.
///
/// ```
/// use profiler_cli::units::bytes;
/// assert_eq!((bytes(1023).as_str(), bytes(1536).as_str()), ("1023 B", "1.5 KiB"));
/// ```
pub fn bytes(bytes: u64) -> String {
    SizeUnit::fitting(bytes).show(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Returns bytes in the largest unit that fits, and the exact number if it was rounded.
///
/// ```
/// use profiler_cli::units::bytes_exactly;
/// assert_eq!((bytes_exactly(544).as_str(), bytes_exactly(1536).as_str()), ("544 B", "1.5 KiB (1,536 B)"));
/// ```
pub fn bytes_exactly(number: u64) -> String {
    if number < 1024 { bytes(number) } else { format!("{} ({} B)", bytes(number), count(number)) }
}

/// Returns a count with separators: `1,234,567`.
///
/// ```
/// assert_eq!(profiler_cli::units::count(1234567), "1,234,567");
/// ```
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a time in seconds, or in milliseconds below one second.
///
/// ```
/// use profiler_cli::units::time;
/// assert_eq!((time(1_500_000_000).as_str(), time(1_500_000).as_str()), ("1.500 s", "1.500 ms"));
/// ```
pub fn time(ns: u64) -> String {
    if ns >= 1_000_000_000 {
        format!("{:.3} s", ns as f64 / 1e9)
    } else {
        format!("{:.3} ms", ns as f64 / 1e6)
    }
}

/// Returns a count with its noun: `1 block`, `2 blocks`.
pub fn plural(number: u64, word: &str) -> String {
    format!("{} {word}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Returns the count of what is not shown, with its noun: `1 more block`, `2 more blocks`.
pub fn more(number: u64, word: &str) -> String {
    plural(number, &format!("more {word}"))
}

/// Displays text from a dump, a binary or a source file safely on a terminal. Control characters,
/// and characters that change the direction of writing, are replaced.
pub struct Safe<'a>(pub &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            f.write_char(if c == '\t' { ' ' } else { harmless(c) })?;
        }
        Ok(())
    }
}

/// Returns the character, or a replacement if the character would change how the text around it is
/// shown.
pub fn harmless(c: char) -> char {
    let changes_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || changes_direction { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_fits_its_largest_amount_and_is_kept_for_the_others() {
        assert_eq!(SizeUnit::fitting(81_264_640).show(81_264_640), "77.5 MiB");
        assert_eq!(SizeUnit::MiB.show(-81_264_640), "-77.5 MiB");
        assert_eq!(
            (SizeUnit::fitting(1024), SizeUnit::fitting(1023), SizeUnit::fitting(u64::MAX)),
            (SizeUnit::KiB, SizeUnit::B, SizeUnit::TiB)
        );
        assert_eq!((bytes((1 << 40) - 1), bytes(3 << 39)), ("1024.0 GiB".to_owned(), "1.5 TiB".to_owned()));
        assert_eq!(parse_bytes("2TiB"), Ok(2 << 40));
        assert_eq!(plural(1, "block") + &plural(1000, "block"), "1 block1,000 blocks");
    }

    #[test]
    fn names_cannot_control_a_terminal() {
        assert_eq!(Safe("a\x1b[2J\tb\u{202e}").to_string(), "a\u{fffd}[2J b\u{fffd}");
    }
}
