//! A figure of a review and its change, in words. In: [`ReviewTotal`]. Out: short plain text.

use crate::analyze::review::ReviewTotal;
use crate::units::{bytes, count};

/// Returns an amount in the unit of a figure, such as `1.5 MiB` or `1,200`.
pub(super) fn amount(figure: &ReviewTotal, value: u64) -> String {
    if figure.is_bytes { bytes(value) } else { count(value) }
}

/// Returns the present amount; if several runs visibly differ, with the least and the most of them.
pub(super) fn amount_now(figure: &ReviewTotal) -> String {
    let now = amount(figure, figure.new);
    let [least, most] = figure.range.map(|value| amount(figure, value));
    if least == most { now } else { format!("{now} ({least} to {most})") }
}

/// Returns the change since the base in percent, such as `+12.5 %`. From nothing to something it is
/// `new`. What changed never reads as 0. `None` if there is no base.
pub(super) fn change_in_percent(figure: &ReviewTotal) -> Option<String> {
    let base = figure.base?;
    let sign = if figure.new < base { '-' } else { '+' };
    let difference = figure.new.abs_diff(base);
    Some(match (difference, base) {
        (0, _) => "0 %".to_owned(),
        (_, 0) => "new".to_owned(),
        _ => {
            // In thousandths, rounded half up: no rounding of floating point numbers.
            let base = u128::from(base);
            let thousandths = (u128::from(difference) * 2000 + base) / (2 * base);
            match thousandths {
                0 => format!("{sign}<0.1 %"),
                _ => {
                    let whole = count(u64::try_from(thousandths / 10).unwrap_or(u64::MAX));
                    format!("{sign}{whole}.{} %", thousandths % 10)
                }
            }
        }
    })
}

/// Returns the change since the base as an amount and in percent, such as `+1.5 MiB (+12.5 %)`.
/// `None` if there is no base.
pub(super) fn change(figure: &ReviewTotal) -> Option<String> {
    let base = figure.base?;
    let percent = change_in_percent(figure)?;
    if figure.new == base {
        return Some(percent);
    }
    let sign = if figure.new < base { '-' } else { '+' };
    Some(format!("{sign}{} ({percent})", amount(figure, figure.new.abs_diff(base))))
}

/// Returns the figure that a finding is mostly about: the first one that changed, or else the first
/// one.
pub(super) fn main_figure(figures: &[ReviewTotal]) -> Option<&ReviewTotal> {
    figures.iter().find(|figure| figure.is_changed).or(figures.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::review::made::figure;

    #[test]
    fn a_change_has_its_sign_and_never_reads_as_none() {
        let percent = |base, new| change_in_percent(&figure(base, new)).unwrap();
        assert_eq!(percent(1000, 1125), "+12.5 %");
        assert_eq!(percent(1000, 0), "-100.0 %");
        assert_eq!(percent(3, 4), "+33.3 %");
        assert_eq!(percent(1 << 40, (1 << 40) + 1), "+<0.1 %");
        assert_eq!(percent(1 << 40, (1 << 40) - 1), "-<0.1 %");
        assert_eq!(percent(1, 41), "+4,000.0 %");
        assert_eq!((percent(0, 0), percent(0, 5), percent(7, 7)), ("0 %".into(), "new".into(), "0 %".into()));
        assert_eq!(percent(1, u64::MAX), format!("+{}.0 %", count(u64::MAX)));
        assert_eq!(change(&figure(2048, 1024)).unwrap(), "-1.0 KiB (-50.0 %)");
        assert_eq!(change(&ReviewTotal { base: None, ..figure(0, 5) }), None);
    }

    #[test]
    fn several_runs_show_their_range() {
        assert_eq!(amount_now(&figure(0, 1024)), "1.0 KiB");
        let several = ReviewTotal { range: [1024, 3072], ..figure(0, 2048) };
        assert_eq!(amount_now(&several), "2.0 KiB (1.0 KiB to 3.0 KiB)");
        let alike = ReviewTotal { range: [2048, 2050], ..figure(0, 2049) };
        assert_eq!(amount_now(&alike), "2.0 KiB", "no range that reads as none");
    }
}
