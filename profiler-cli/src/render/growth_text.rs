//! The growth of sites as text. In: [`Leaks`] that were asked which sites grow. Out: text for
//! people; nothing if they were not.

use std::io::{self, Write};

use super::FAINT;
use super::text_width::{TextWidth, write_paragraph};
use crate::analyze::growth::{GrowthSummary, GrowthVerdict};
use crate::analyze::leaks::{Leak, Leaks};
use crate::units::{Safe, plural, time};

/// Writes how many sites do what.
pub(super) fn write_summary(out: &mut dyn Write, leaks: &Leaks, width: TextWidth) -> io::Result<()> {
    let Some(growth) = &leaks.growth else { return Ok(()) };
    write_paragraph(out, "", &counts(growth), width)?;
    if let (Some(first), Some(last)) = (growth.windows.first(), growth.windows.last()) {
        let windows = plural(growth.windows.len() as u64, "window");
        writeln!(out, "{FAINT}{windows} from {} to {}{FAINT:#}", time(first.from_ns), time(last.to_ns))?;
    }
    Ok(())
}

fn counts(growth: &GrowthSummary) -> String {
    let mut parts = Vec::new();
    if growth.growing > 0 {
        parts.push(format!("{} growing", plural(growth.growing, "site")));
    }
    if growth.slowing > 0 {
        parts.push(format!("{} slowing down", plural(growth.slowing, "site")));
    }
    if parts.is_empty() {
        parts.push("No site grows".to_owned());
    }
    if growth.small > 0 {
        parts.push(format!("{} by little (--all lists those)", plural(growth.small, "site")));
    }
    if growth.run_longer > 0 {
        let sites = plural(growth.run_longer, "site");
        parts.push(format!("{sites} may grow, which only a longer recording can tell (--all says how long)"));
    }
    if growth.steady > 0 {
        parts.push(format!("{} steady", plural(growth.steady, "site")));
    }
    format!("{}.", parts.join("; "))
}

/// Writes the floors of a site as a sparkline, its verdict and why.
pub(super) fn write_growth(out: &mut dyn Write, leak: &Leak, width: TextWidth) -> io::Result<()> {
    let Some(growth) = &leak.growth else { return Ok(()) };
    let verdict = match growth.verdict {
        GrowthVerdict::Growing => "growing",
        GrowthVerdict::Slowing => "slowing",
        GrowthVerdict::Steady => "steady",
        GrowthVerdict::RunLonger => "run longer",
    };
    let first = format!("     {} ", sparkline(&growth.floors));
    let text = format!("{verdict}: {}", growth.sentence);
    write_paragraph(out, &first, &Safe(&text).to_string(), width)
}

/// Returns a character for each value. The lowest value is the lowest bar, and the highest value
/// the highest. Equal values are the lowest bar.
fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let lowest = values.iter().min().copied().unwrap_or(0);
    let range = u128::from(values.iter().max().copied().unwrap_or(0) - lowest);
    let bar = |value: &u64| {
        let above = u128::from(value - lowest) * (BARS.len() as u128 - 1);
        BARS[((above + range / 2).checked_div(range)).unwrap_or(0) as usize]
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_and_the_highest_value_have_the_lowest_and_the_highest_bar() {
        assert_eq!(sparkline(&[10, 11, 12, 13, 14, 15, 16, 17]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0, u64::MAX, 0]), "▁█▁");
        assert_eq!((sparkline(&[5, 5]).as_str(), sparkline(&[]).as_str()), ("▁▁", ""));
    }
}
