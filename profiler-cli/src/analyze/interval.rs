//! The interval that a report is about. In: a profile. Out: [`CountedInterval`], for JSON, and the
//! words for it in text.

use serde::Serialize;

use crate::profile::Profile;
use crate::units::time;

/// The interval of the recording that all figures of a report count: the events after one moment up
/// to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CountedInterval {
    /// The moment after which events count, in nanoseconds since the recording began.
    pub from_ns: u64,
    /// The moment of the last event that counts, in nanoseconds since the recording began.
    pub to_ns: u64,
    /// The beginning as the user named it, such as `mark:ready#2`. Null for the start of the
    /// recording.
    pub from: Option<String>,
    /// The end as the user named it.
    pub to: String,
    /// Live bytes of the process at the beginning.
    pub live_bytes_before: u64,
    /// Number of live blocks of the process at the beginning.
    pub live_blocks_before: u64,
    /// Live bytes of the process at the end of the interval, those of older blocks included.
    pub live_bytes_after: u64,
    /// Number of live blocks of the process at the end of the interval, older ones included.
    pub live_blocks_after: u64,
    /// Whether "live" means born in the interval and live at the end of the recording. Otherwise it
    /// means live at the end of the interval.
    pub still_live: bool,
}

impl CountedInterval {
    /// Returns the interval that a profile counts; `None` for the whole recording.
    pub fn of(profile: &Profile) -> Option<CountedInterval> {
        profile.interval.as_ref().map(|interval| CountedInterval {
            from_ns: interval.from_us * 1000,
            to_ns: interval.to_us * 1000,
            from: interval.from.clone(),
            to: interval.to.clone(),
            live_bytes_before: interval.heap_before.bytes,
            live_blocks_before: interval.heap_before.blocks,
            live_bytes_after: interval.heap_after.bytes,
            live_blocks_after: interval.heap_after.blocks,
            still_live: interval.still_live,
        })
    }

    /// Returns the name of the end: `mark:ready (1.500 s)`, or `1.500 s` if the user gave a time.
    pub fn end_name(&self) -> String {
        moment(&self.to, self.to_ns)
    }

    /// Returns the name of the interval: `from 1.000 s to mark:ready (1.500 s)`, or `up to` its end
    /// if it begins with the recording.
    pub fn name(&self) -> String {
        match &self.from {
            Some(from) => format!("from {} to {}", moment(from, self.from_ns), self.end_name()),
            None => format!("up to {}", self.end_name()),
        }
    }
}

/// Returns words for the blocks that are live in the sense of a report: at the end of the
/// recording, or of the interval.
pub fn live_title(interval: Option<&CountedInterval>) -> String {
    match interval {
        None => "Live at the end".to_owned(),
        Some(interval) if interval.still_live => {
            format!("Born {} and still live at the end", interval.name())
        }
        Some(interval) if interval.from.is_none() => format!("Live at {}", interval.end_name()),
        Some(interval) => format!("Born {} and live then", interval.name()),
    }
}

fn moment(name: &str, ns: u64) -> String {
    let has_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if has_name { format!("{name} ({})", time(ns)) } else { time(ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_name_the_moments_and_their_times() {
        let whole = CountedInterval {
            from_ns: 1_200_000_000,
            to_ns: 3_400_000_000,
            from: Some("-5s".to_owned()),
            to: "mark:ready#2".to_owned(),
            live_bytes_before: 0,
            live_blocks_before: 0,
            live_bytes_after: 0,
            live_blocks_after: 0,
            still_live: false,
        };
        assert_eq!(whole.name(), "from 1.200 s to mark:ready#2 (3.400 s)");
        assert_eq!(live_title(Some(&whole)), "Born from 1.200 s to mark:ready#2 (3.400 s) and live then");
        let still = CountedInterval { still_live: true, ..whole.clone() };
        assert_eq!(
            live_title(Some(&still)),
            "Born from 1.200 s to mark:ready#2 (3.400 s) and still live at the end"
        );
        let start = CountedInterval { from: None, ..whole };
        assert_eq!(start.name(), "up to mark:ready#2 (3.400 s)");
        assert_eq!(live_title(Some(&start)), "Live at mark:ready#2 (3.400 s)");
        assert_eq!(live_title(None), "Live at the end");
    }
}
