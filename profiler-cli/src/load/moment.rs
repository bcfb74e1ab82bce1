//! Moments of a recording, as users name them. In: a text such as `30s` or `mark:ready#2`, and the
//! profile of the whole recording. Out: a [`Bound`], the place of the moment among the events.

use std::fmt;
use std::str::FromStr;

use super::gate::Bound;
use crate::profile::{Mark, Profile};

/// A moment of a recording.
///
/// ```
/// use profiler_cli::load::MomentSpec;
/// for text in ["30s", "1.5ms", "-2m", "mark:ready", "mark:ready#2", "event:1000", "peak", "teardown", "end"] {
///     assert_eq!(text.parse::<MomentSpec>().unwrap().to_string(), text);
/// }
/// assert!("ready".parse::<MomentSpec>().is_err() && "30".parse::<MomentSpec>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MomentSpec {
    text: String,
    moment: NamedMoment,
}

#[derive(Clone, Debug, PartialEq)]
enum NamedMoment {
    /// Microseconds from the start of the recording.
    AfterStart(u64),
    /// Microseconds before the end of the recording.
    BeforeEnd(u64),
    /// When a thread reached a mark; its name, perhaps with `#` and the number of the time.
    Mark(String),
    /// When the event with this number was completed, counted from 1.
    Event(u64),
    /// The first instant of the peak.
    Peak,
    /// When the program began to free its memory at its end.
    Teardown,
    /// The end of the recording.
    End,
}

/// The grammar of moments, for help texts and errors.
pub const MOMENTS: &str = "30s, 1.5ms or 2m from the start, -30s before the end, mark:NAME, mark:NAME#2 (the second time), event:N, peak, teardown, end";

impl MomentSpec {
    /// When the program began to free its memory at its end.
    pub fn teardown() -> MomentSpec {
        MomentSpec { text: "teardown".to_owned(), moment: NamedMoment::Teardown }
    }

    /// The end of the recording.
    pub fn end() -> MomentSpec {
        MomentSpec { text: "end".to_owned(), moment: NamedMoment::End }
    }

    /// Returns the place of the moment among the events of a recording; `None` for the end.
    ///
    /// # Errors
    /// If the recording has no such moment. The error is one sentence and says what there is.
    pub(super) fn resolve(&self, whole: &Profile) -> Result<Option<Bound>, String> {
        let length = whole.duration_us;
        let too_long = || format!("{self}: the recording has a length of {}", seconds(length));
        match &self.moment {
            NamedMoment::AfterStart(us) if *us > length => Err(too_long()),
            NamedMoment::AfterStart(us) => Ok(Some(Bound::at_time(*us))),
            NamedMoment::BeforeEnd(us) => {
                let us = length.checked_sub(*us).ok_or_else(too_long)?;
                Ok(Some(Bound::at_time(us)))
            }
            NamedMoment::Mark(name) => {
                let mark = find_mark(whole, name)?;
                Ok(Some(Bound::after_mark(mark.number, mark.us)))
            }
            NamedMoment::Event(number) if *number > whole.totals.events() => {
                Err(format!("{self}: the recording has {} events", whole.totals.events()))
            }
            NamedMoment::Event(number) => Ok(Some(Bound::after_event(*number, None))),
            NamedMoment::Peak => {
                Ok(Some(Bound::after_event(whole.totals.peak_event, Some(whole.totals.peak_us))))
            }
            NamedMoment::Teardown => match whole.teardown {
                Some(teardown) => Ok(Some(Bound::after_event(teardown.event, Some(teardown.us)))),
                None => Err(format!("{self}: the program did not free its memory at its end")),
            },
            NamedMoment::End => Ok(None),
        }
    }
}

impl fmt::Display for MomentSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for MomentSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<MomentSpec, String> {
        let moment = match text.split_once(':') {
            Some(("mark", name)) if !name.is_empty() => Some(NamedMoment::Mark(name.to_owned())),
            Some(("event", number)) => number.parse().ok().map(NamedMoment::Event),
            Some(_) => None,
            None if text == "peak" => Some(NamedMoment::Peak),
            None if text == "teardown" => Some(NamedMoment::Teardown),
            None if text == "end" => Some(NamedMoment::End),
            None => match text.strip_prefix('-') {
                Some(time) => parse_time(time).map(NamedMoment::BeforeEnd),
                None => parse_time(text).map(NamedMoment::AfterStart),
            },
        };
        let moment = moment.ok_or_else(|| format!("give a moment: {MOMENTS}"))?;
        Ok(MomentSpec { text: text.to_owned(), moment })
    }
}

/// Parses a time with its unit, such as `1.5ms`. Returns microseconds.
pub fn parse_time(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let us = match unit.trim_start() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" | "min" => 60e6,
        "h" => 3600e6,
        _ => return None,
    };
    let us = number.parse::<f64>().ok()? * us;
    // No recording is longer; above it, a float would lose microseconds.
    (us < 9e15).then_some(us.round() as u64)
}

/// Returns the mark with this name, or the k-th of them if the name ends in `#k`.
fn find_mark<'a>(whole: &'a Profile, name: &str) -> Result<&'a Mark, String> {
    // A program may set a mark whose own name ends in a number.
    if let Some(mark) = whole.marks.iter().find(|mark| mark.name == name) {
        return Ok(mark);
    }
    let (base, nth) = match name.rsplit_once('#').map(|(base, nth)| (base, nth.parse::<usize>())) {
        Some((base, Ok(nth))) => (base, nth),
        _ => (name, 1),
    };
    let same: Vec<&Mark> = whole.marks.iter().filter(|mark| mark.name == base).collect();
    if let Some(mark) = nth.checked_sub(1).and_then(|at| same.get(at)) {
        return Ok(mark);
    }
    if same.is_empty() {
        return Err(format!("no mark is named '{base}'{}", marks_there_are(whole)));
    }
    let dropped = if whole.marks_dropped > 0 { ", as far as marks were kept" } else { "" };
    let times = if same.len() == 1 { "once".to_owned() } else { format!("{} times", same.len()) };
    Err(format!("mark '{base}' was set {times}{dropped}, so there is no mark:{base}#{nth}"))
}

/// Returns a part of a sentence with the names of the marks, in the order of their first time.
fn marks_there_are(whole: &Profile) -> String {
    let mut names: Vec<(&str, usize)> = Vec::new();
    for mark in &whole.marks {
        match names.iter().position(|(name, _)| *name == mark.name) {
            Some(at) => names[at].1 += 1,
            None if names.len() < MAX_NAMES => names.push((&mark.name, 1)),
            None => {}
        }
    }
    if names.is_empty() {
        return "; the program set no marks (alloc_tracker::mark)".to_owned();
    }
    let named = names.iter().map(|(name, times)| match times {
        1 => format!("'{name}'"),
        _ => format!("'{name}' ({times} times)"),
    });
    format!("; there are: {}", named.collect::<Vec<_>>().join(", "))
}

/// The most names in an error.
const MAX_NAMES: usize = 20;

/// Returns a time in seconds to the microsecond, without trailing zeros, such as `2.5s`. A moment
/// may be written like this too.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Teardown;

    fn profile() -> Profile {
        let mark = |name: &str, us, number| Mark { name: name.to_owned(), us, number, ..Mark::default() };
        let mut profile = Profile { duration_us: 2_500_000, ..Profile::default() };
        profile.marks = vec![mark("ready", 10, 3), mark("job#2", 20, 5), mark("ready", 30, 9)];
        (profile.totals.allocations, profile.totals.deallocations) = (9, 3);
        (profile.totals.peak_event, profile.totals.peak_us) = (7, 25);
        profile
    }

    fn resolved(text: &str) -> Result<Option<Bound>, String> {
        text.parse::<MomentSpec>()?.resolve(&profile())
    }

    #[test]
    fn every_form_of_the_grammar_finds_its_place() {
        for (text, us) in [("1s", 1_000_000), ("1.5ms", 1500), ("7us", 7), ("0.01m", 600_000)] {
            assert_eq!(resolved(text), Ok(Some(Bound::at_time(us))), "{text}");
        }
        assert_eq!(resolved("-500ms"), Ok(Some(Bound::at_time(2_000_000))));
        assert_eq!(resolved("mark:ready"), Ok(Some(Bound::after_mark(3, 10))));
        assert_eq!(resolved("mark:ready#2"), Ok(Some(Bound::after_mark(9, 30))));
        assert_eq!(resolved("mark:job#2"), Ok(Some(Bound::after_mark(5, 20))), "its own name");
        assert_eq!(resolved("event:12"), Ok(Some(Bound::after_event(12, None))));
        assert_eq!(resolved("peak"), Ok(Some(Bound::after_event(7, Some(25)))));
        assert_eq!(resolved("end"), Ok(None));
        let mut torn_down = profile();
        torn_down.teardown = Some(Teardown { event: 8, us: 26 });
        let moment: MomentSpec = "teardown".parse().unwrap();
        assert_eq!(moment.resolve(&torn_down), Ok(Some(Bound::after_event(8, Some(26)))));
    }

    #[test]
    fn an_error_says_what_there_is() {
        let error = |text: &str| resolved(text).unwrap_err();
        assert_eq!(error("mark:redy"), "no mark is named 'redy'; there are: 'ready' (2 times), 'job#2'");
        assert_eq!(error("mark:ready#3"), "mark 'ready' was set 2 times, so there is no mark:ready#3");
        assert_eq!(
            error("mark:job#2#1#9"),
            "no mark is named 'job#2#1'; there are: 'ready' (2 times), 'job#2'"
        );
        assert_eq!(error("3s"), "3s: the recording has a length of 2.5s");
        assert_eq!(error("-3s"), "-3s: the recording has a length of 2.5s");
        assert_eq!(error("event:13"), "event:13: the recording has 12 events");
        assert_eq!(error("teardown"), "teardown: the program did not free its memory at its end");
        let none = "mark:x".parse::<MomentSpec>().unwrap().resolve(&Profile::default()).unwrap_err();
        assert_eq!(none, "no mark is named 'x'; the program set no marks (alloc_tracker::mark)");
        for text in
            ["", "30", "s", "peek", "mark:", "event:x", "event:-1", "--3s", "1e3s", "1..5s", "snapshot:a"]
        {
            assert!(text.parse::<MomentSpec>().unwrap_err().starts_with("give a moment: 30s"), "{text}");
        }
    }
}
