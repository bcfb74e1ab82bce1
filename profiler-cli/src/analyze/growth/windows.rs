//! The windows in which sites are followed. In: a loaded dump, and what windows are made of. Out:
//! their borders.

use std::fmt;
use std::str::FromStr;

use crate::pattern::Pattern;
use crate::profile::Profile;

/// The most windows.
pub const WINDOWS: usize = 12;

/// What windows are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum WindowsFrom {
    /// Equal times.
    #[default]
    Time,
    /// Equal numbers of marks whose name matches.
    Marks(Pattern),
}

impl WindowsFrom {
    /// Returns the pattern of the marks; `None` for time.
    pub fn marks(&self) -> Option<&Pattern> {
        match self {
            WindowsFrom::Time => None,
            WindowsFrom::Marks(pattern) => Some(pattern),
        }
    }

    /// Returns the borders of the windows in microseconds: one more than there are windows.
    ///
    /// # Errors
    /// If no mark matches. The error is one sentence and says which marks there are.
    pub fn borders(&self, profile: &Profile) -> Result<Vec<u64>, String> {
        match self {
            WindowsFrom::Time => Ok(borders_of_time(profile)),
            WindowsFrom::Marks(pattern) => borders_of_marks(profile, pattern),
        }
    }
}

impl FromStr for WindowsFrom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<WindowsFrom, Self::Err> {
        match text.split_once(':') {
            None if text == "time" => Ok(WindowsFrom::Time),
            Some(("mark", pattern)) if !pattern.is_empty() => Ok(WindowsFrom::Marks(Pattern::new(pattern))),
            _ => Err("give time, or mark:PATTERN with a pattern for the names of marks"),
        }
    }
}

impl fmt::Display for WindowsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WindowsFrom::Time => f.write_str("time"),
            WindowsFrom::Marks(pattern) => write!(f, "mark:{pattern}"),
        }
    }
}

/// The first fifth is left out, because programs fill their tables when they start: 3 of 15 parts.
/// Whoever gives `--from` has chosen the beginning already.
fn borders_of_time(profile: &Profile) -> Vec<u64> {
    let interval = profile.interval.as_ref();
    let (from, to) = interval.map_or((0, profile.duration_us), |interval| (interval.from_us, interval.to_us));
    let left_out = if interval.is_some_and(|interval| interval.from.is_some()) { 0 } else { WINDOWS / 4 };
    let parts = (left_out + WINDOWS) as u128;
    // The last microsecond belongs to the last window.
    let length = u128::from(to.saturating_sub(from)) + 1;
    let border = |part: usize| from.saturating_add((length * part as u128 / parts) as u64);
    (left_out..=left_out + WINDOWS).map(border).collect()
}

/// From the first mark to the last one, so nothing is left out at the beginning. If there are more
/// marks than windows, each window has an equal number of marks, up to the step between the times.
fn borders_of_marks(profile: &Profile, pattern: &Pattern) -> Result<Vec<u64>, String> {
    let times = profile.mark_times.as_ref().map_or(&[][..], |times| &times.us);
    if times.is_empty() {
        let mut names: Vec<&str> = Vec::new();
        for mark in &profile.marks {
            if names.len() < MOST_NAMES && !names.contains(&&*mark.name) {
                names.push(&mark.name);
            }
        }
        return Err(match names.is_empty() {
            true => format!("no mark matches '{pattern}'; the program set no marks (alloc_tracker::mark)"),
            false => format!("no mark matches '{pattern}'; there are: '{}'", names.join("', '")),
        });
    }
    let periods = times.len() - 1;
    let windows = periods.min(WINDOWS);
    Ok((0..=windows).map(|window| times[window * periods / windows.max(1)]).collect())
}

/// The most names in an error.
const MOST_NAMES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Interval, Mark, MarkTimes};

    #[test]
    fn time_is_cut_into_twelve_windows_after_its_first_fifth() {
        let whole = Profile { duration_us: 1_499, ..Profile::default() };
        let borders = WindowsFrom::Time.borders(&whole).unwrap();
        assert_eq!(borders, [300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200, 1300, 1400, 1500]);
        let interval = Interval {
            from: Some("mark:warm".to_owned()),
            from_us: 300,
            to_us: 1_499,
            ..Interval::default()
        };
        let part = Profile { interval: Some(interval), ..whole };
        assert_eq!(WindowsFrom::Time.borders(&part).unwrap(), borders, "--from leaves nothing out");
    }

    fn with_marks(us: impl Iterator<Item = u64>) -> Profile {
        let us: Vec<u64> = us.collect();
        Profile { mark_times: Some(MarkTimes { us, ..MarkTimes::default() }), ..Profile::default() }
    }

    #[test]
    fn marks_are_borders_or_are_spread_evenly() {
        let windows = WindowsFrom::Marks(Pattern::new("request"));
        assert_eq!(windows.borders(&with_marks([3, 5, 9].into_iter())).unwrap(), [3, 5, 9]);
        assert_eq!(windows.borders(&with_marks([3].into_iter())).unwrap(), [3]);
        let many = windows.borders(&with_marks(0..=120)).unwrap();
        assert_eq!(many, (0..=12).map(|window| window * 10).collect::<Vec<u64>>());
        let uneven = windows.borders(&with_marks(0..=30)).unwrap();
        assert!(uneven.is_sorted_by(|a, b| a + 2 <= *b && *b <= a + 3) && uneven.len() == 13, "{uneven:?}");
    }

    #[test]
    fn the_error_names_the_marks_that_there_are() {
        let mark = |name: &str| Mark { name: name.to_owned(), ..Mark::default() };
        let mut profile =
            Profile { marks: vec![mark("ready"), mark("done"), mark("ready")], ..Profile::default() };
        let borders = |profile: &Profile| WindowsFrom::Marks(Pattern::new("request")).borders(profile);
        assert_eq!(borders(&profile).unwrap_err(), "no mark matches 'request'; there are: 'ready', 'done'");
        profile.marks.clear();
        assert!(borders(&profile).unwrap_err().ends_with("the program set no marks (alloc_tracker::mark)"));
    }
}
