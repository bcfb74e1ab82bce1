//! The limits of a recording, which end it before the program ends. In: two variables of the
//! environment. Out: [`Limits`]. Never allocates; a value that is no limit is reported on stderr
//! and ignored.

use std::ffi::CStr;

use crate::base::sys::{self, Text, print_to_stderr};

/// When a recording ends before the program does. Only the drain process looks at the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of the dump.
    pub(crate) dump_bytes: u64,
    /// Microseconds since the recording began.
    pub(crate) us: u64,
}

impl Limits {
    /// No limit.
    pub(crate) const NONE: Limits = Limits { dump_bytes: u64::MAX, us: u64::MAX };

    /// Reads the environment.
    pub(super) fn of_environment() -> Limits {
        Limits {
            dump_bytes: limit(c"ALLOC_TRACKER_MAX_DUMP", &SIZE_UNITS),
            us: limit(c"ALLOC_TRACKER_FOR", &TIME_UNITS),
        }
    }
}

/// Returns the limit that a variable sets. A value that is no such number is reported and means no
/// limit.
fn limit(name: &CStr, units: &[(&[u8], u64)]) -> u64 {
    let value = sys::env_var(name).unwrap_or_default();
    if value.is_empty() {
        return u64::MAX;
    }
    number_with_unit(value, units).unwrap_or_else(|| {
        let mut shown = Text::<64>::new();
        shown.push(value);
        let name = name.to_str().unwrap_or_default();
        print_to_stderr(format_args!("{name}={shown} is no number with a unit; no limit holds"));
        u64::MAX
    })
}

/// Returns the value of a text such as `30s`: the digits times the factor of their unit. `None` if
/// the text is something else, or too large.
fn number_with_unit(text: &[u8], units: &[(&[u8], u64)]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    number.checked_mul(*factor)
}

/// Units of sizes, in bytes.
const SIZE_UNITS: [(&[u8], u64); 5] =
    [(b"", 1), (b"B", 1), (b"KiB", 1 << 10), (b"MiB", 1 << 20), (b"GiB", 1 << 30)];
/// Units of times, in microseconds.
const TIME_UNITS: [(&[u8], u64); 5] =
    [(b"", 1_000_000), (b"ms", 1000), (b"s", 1_000_000), (b"m", 60_000_000), (b"h", 3_600_000_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_units() {
        let size = |text: &str| number_with_unit(text.as_bytes(), &SIZE_UNITS);
        assert_eq!((size("12"), size("12B"), size("3KiB")), (Some(12), Some(12), Some(3072)));
        assert_eq!((size("2MiB"), size("1GiB")), (Some(2_097_152), Some(1_073_741_824)));
        assert_eq!(
            (size(""), size("MiB"), size("1.5MiB"), size("-1"), size("1 MiB")),
            (None, None, None, None, None)
        );
        assert_eq!((size("18446744073709551615"), size("18446744073709551615KiB")), (Some(u64::MAX), None));
        let time = |text: &str| number_with_unit(text.as_bytes(), &TIME_UNITS);
        assert_eq!(
            (time("2"), time("500ms"), time("1m"), time("2h")),
            (Some(2_000_000), Some(500_000), Some(60_000_000), Some(7_200_000_000),)
        );
    }
}
