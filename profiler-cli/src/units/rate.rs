//! Rates, shares and long times as a person reads them.

use super::bytes;

/// Returns a change per hour, with its sign.
///
/// ```
/// use profiler_cli::units::rate::per_hour;
/// assert_eq!((per_hour(1536).as_str(), per_hour(-20).as_str()), ("+1.5 KiB/h", "-20 B/h"));
/// ```
pub fn per_hour(change: i64) -> String {
    let sign = if change < 0 { '-' } else { '+' };
    format!("{sign}{}/h", bytes(change.unsigned_abs()))
}

/// Returns a share of a whole in percent, with two digits that count.
///
/// ```
/// use profiler_cli::units::rate::share;
/// assert_eq!([1.0, 0.123, 0.0104, 0.00104, 0.0].map(share), ["100 %", "12 %", "1.0 %", "0.10 %", "0 %"]);
/// ```
pub fn share(part: f64) -> String {
    let percent = part * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        10.0.. => format!("{percent:.0} %"),
        1.0.. => format!("{percent:.1} %"),
        0.1.. => format!("{percent:.2} %"),
        _ => format!("{percent:.1e} %"),
    }
}

/// Returns a time in the unit that fits it, rounded to two digits or so.
///
/// ```
/// use profiler_cli::units::rate::span;
/// let spans = [0.25, 42.0, 300.0, 18_000.0, 900_000.0, 1e9].map(span);
/// assert_eq!(spans, ["0.25 s", "42 s", "5 min", "5 h", "10 days", "32 years"]);
/// ```
pub fn span(seconds: f64) -> String {
    const UNITS: [(f64, &str); 5] =
        [(365.25 * 86_400.0, "years"), (86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s")];
    let unit = UNITS.into_iter().find(|(unit, _)| seconds >= 2.0 * unit);
    unit.map_or_else(|| format!("{seconds:.2} s"), |(unit, name)| format!("{:.0} {name}", seconds / unit))
}
