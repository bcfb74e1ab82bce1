//! Conditions under which a check of leaks fails. In: conditions, a report, and how far the
//! recording can be trusted. Out: one sentence for each condition that holds.
//!
//! `live` needs no more than the blocks that are live. `lost` needs the verdicts of a snapshot, and
//! `growing` needs growth: a report without them is no pass but an error.

use std::fmt;
use std::str::FromStr;

use crate::analyze::growth::GrowthVerdict;
use crate::analyze::held::Verdict;
use crate::analyze::leaks::{Leak, Leaks};
use crate::analyze::summary::warnings_of_recording;
use crate::profile::Profile;
use crate::units::{bytes_exactly, parse_bytes, plural};

/// A condition under which a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateCondition {
    /// More than this many bytes are live: the option `--fail-on-leak`.
    Leak(u64),
    /// More than this many bytes are live.
    Live(u64),
    /// More than this many bytes are lost: nothing in the process holds them.
    Lost(u64),
    /// A site is growing.
    Growing,
}

impl FromStr for GateCondition {
    type Err = String;

    /// Parses `live:SIZE`, `lost`, `lost:SIZE` or `growing`.
    fn from_str(text: &str) -> Result<GateCondition, String> {
        let size = |text: &str| parse_bytes(text).map_err(|problem| format!("{text}: {problem}"));
        match text.trim().split_once(':') {
            Some(("live", limit)) => Ok(GateCondition::Live(size(limit)?)),
            Some(("lost", limit)) => Ok(GateCondition::Lost(size(limit)?)),
            None if text.trim() == "lost" => Ok(GateCondition::Lost(0)),
            None if text.trim() == "growing" => Ok(GateCondition::Growing),
            _ => Err("give live:SIZE, lost, lost:SIZE or growing".to_owned()),
        }
    }
}

impl fmt::Display for GateCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GateCondition::Leak(_) => write!(f, "--fail-on-leak"),
            GateCondition::Live(_) => write!(f, "--fail-on live"),
            GateCondition::Lost(_) => write!(f, "--fail-on lost"),
            GateCondition::Growing => write!(f, "--fail-on growing"),
        }
    }
}

/// A condition that the report cannot decide.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// There are no verdicts.
    #[error(
        "--fail-on lost needs a snapshot, and this dump has none: take one with `profiler-cli run --snapshot-at-end`"
    )]
    NeedsSnapshot,
    /// The snapshot does not tell whether a block is lost.
    #[error("--fail-on lost cannot be decided: {0}")]
    NothingIsLost(String),
    /// Nobody has judged the growth of sites.
    #[error("--fail-on growing needs the growth of each site, which this report does not have")]
    NeedsGrowth,
}

/// Returns one sentence for each condition that holds, and one if the recording does not allow a
/// pass. `filter` names the options that choose what the report counts; it may be empty.
///
/// # Errors
/// If the report cannot decide a condition.
pub fn complaints(
    leaks: &Leaks,
    profile: &Profile,
    conditions: &[GateCondition],
    filter: &str,
) -> Result<Vec<String>, Undecided> {
    let Some(first) = conditions.first() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for condition in conditions {
        let complaint = match *condition {
            GateCondition::Leak(limit) | GateCondition::Live(limit) => {
                complaint_of_live(leaks, *condition, limit, filter)
            }
            GateCondition::Lost(limit) => complaint_of_lost(leaks, limit, filter)?,
            GateCondition::Growing => complaint_of_growth(leaks, filter)?,
        };
        found.extend(complaint);
    }
    if found.is_empty() {
        found.extend(complaint_of_recording(profile, *first));
    }
    Ok(found)
}

fn complaint_of_live(leaks: &Leaks, condition: GateCondition, limit: u64, filter: &str) -> Option<String> {
    let live = leaks.total_bytes.saturating_add(leaks.grown_bytes);
    if live <= limit {
        return None;
    }
    let when = match &leaks.interval {
        None => "are live at the end".to_owned(),
        Some(interval) if interval.from.is_none() => format!("are live at {}", interval.end_name()),
        Some(interval) => {
            let then = if interval.still_live { ", and are still live at the end" } else { "" };
            format!("were born, or older blocks grew by them, {}{then}", interval.name())
        }
    };
    let of_what = if filter.is_empty() { String::new() } else { format!(", of what {filter} lets through") };
    let allowed = format!("{condition} allows {}", bytes_exactly(limit));
    let first = match leaks.leaks.first() {
        Some(row) => format!("; the first row is {}", row_name(row)),
        None if leaks.runtime_blocks > 0 => "; the runtime holds them".to_owned(),
        None => String::new(),
    };
    Some(format!("{} {when}{of_what}; {allowed}{first}", bytes_exactly(live)))
}

/// Returns the bytes that are lost, of those that the report counts.
///
/// # Errors
/// If the report has no verdicts, or if its snapshot does not tell whether a block is lost.
pub(super) fn lost_bytes(leaks: &Leaks) -> Result<u64, Undecided> {
    let snapshot = leaks.snapshot.as_ref().ok_or(Undecided::NeedsSnapshot)?;
    if let Some(reason) = &snapshot.nothing_is_lost {
        return Err(Undecided::NothingIsLost(reason.clone()));
    }
    let lost = leaks.verdicts.iter().filter(|total| total.verdict == Verdict::Lost);
    Ok(lost.map(|total| total.bytes).sum())
}

fn complaint_of_lost(leaks: &Leaks, limit: u64, filter: &str) -> Result<Option<String>, Undecided> {
    let lost = lost_bytes(leaks)?;
    if lost <= limit {
        return Ok(None);
    }
    let of_what = if filter.is_empty() { String::new() } else { format!(", of what {filter} lets through") };
    let first = leaks.leaks.iter().find(|row| row.verdict == Verdict::Lost);
    let first = first.map_or(String::new(), |row| format!("; the first row is {}", row_name(row)));
    let (lost, limit) = (bytes_exactly(lost), bytes_exactly(limit));
    Ok(Some(format!("{lost} are lost{of_what}; --fail-on lost allows {limit}{first}")))
}

fn complaint_of_growth(leaks: &Leaks, filter: &str) -> Result<Option<String>, Undecided> {
    let growth = leaks.growth.as_ref().ok_or(Undecided::NeedsGrowth)?;
    if growth.growing == 0 {
        return Ok(None);
    }
    let (sites, is) = (plural(growth.growing, "site"), if growth.growing == 1 { "is" } else { "are" });
    let of_what = if filter.is_empty() { String::new() } else { format!(", of what {filter} lets through") };
    let grown = |row: &&Leak| row.growth.as_ref().map_or(0, |growth| growth.bytes);
    let is_growing = |row: &&Leak| {
        row.growth.as_ref().is_some_and(|growth| growth.verdict == GrowthVerdict::Growing && !growth.small)
    };
    let first = leaks.leaks.iter().filter(is_growing).max_by_key(grown);
    let first = first.map_or(String::new(), |row| format!("; the first is {}", row_name(row)));
    Ok(Some(format!("{sites} {is} growing{of_what}; --fail-on growing allows none{first}")))
}

/// Returns function, place and size of a row.
fn row_name(row: &Leak) -> String {
    let place = match (&row.file, row.line) {
        (Some(file), Some(line)) => format!(" at {file}:{line}"),
        (Some(file), None) => format!(" in {file}"),
        _ => String::new(),
    };
    format!("{}{place} with {}", row.function, bytes_exactly(row.bytes.saturating_add(row.grown_bytes)))
}

/// Returns why the recording does not allow a pass: events are missing, or a limit has ended it.
fn complaint_of_recording(profile: &Profile, condition: GateCondition) -> Option<String> {
    let problem = problem_of_recording(profile, profile.trust.is_exact())?;
    Some(format!("{condition} fails because {problem}"))
}

/// Returns why budgets cannot be judged by this recording; `None` if they can. A program that was
/// killed is judged if everything that it did was recovered.
pub fn problem_for_budgets(profile: &Profile) -> Option<String> {
    problem_of_recording(profile, profile.trust.is_exact() || profile.trust.is_recovered_whole())
}

fn problem_of_recording(profile: &Profile, is_exact: bool) -> Option<String> {
    let is_before_the_end =
        |interval: &crate::profile::Interval| interval.to != "end" && !interval.still_live;
    let has_all_events =
        profile.trust.limit.is_none() || profile.interval.as_ref().is_some_and(is_before_the_end);
    let problem = match is_exact {
        false => "is not exact",
        true if !has_all_events => "ended before the program",
        true => return None,
    };
    let reasons = warnings_of_recording(profile);
    let reason = reasons.first().map_or("see the summary", String::as_str);
    Some(format!("the recording {problem}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::filter::Filter;
    use crate::analyze::leaks::{LeakSelection, leaks};
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::{NamedFrame, Stacks};
    use crate::profile::StackStats;
    use alloc_dump::layout::StackId;
    use alloc_dump::record::{Installation, RecordingLimit};
    use alloc_dump::trailer::EndReason;

    #[test]
    fn conditions_are_parsed() {
        for (text, condition) in [
            ("live:0", GateCondition::Live(0)),
            ("live:1.5 KiB", GateCondition::Live(1536)),
            ("lost", GateCondition::Lost(0)),
            (" lost:1MiB ", GateCondition::Lost(1 << 20)),
            ("growing", GateCondition::Growing),
        ] {
            assert_eq!(text.parse(), Ok(condition), "{text}");
        }
        for text in ["", "live", "live:", "live:x", "growing:1", "lost:-1", "Live:1", "held"] {
            assert!(text.parse::<GateCondition>().is_err(), "{text}");
        }
        let problem = "live:much".parse::<GateCondition>().unwrap_err();
        assert_eq!(problem, "much: give a number of bytes, or a number with KiB, MiB, GiB or TiB after it");
    }

    /// A complete recording of two sites, with 3,000 and 72 bytes.
    fn report() -> (Leaks, Profile) {
        let frame = |line| NamedFrame {
            function: "app::keep".into(),
            file: Some("/w/src/main.rs".into()),
            line: Some(line),
            is_inlined: false,
            owner: CodeOwner::Own,
            module: "app".into(),
        };
        let stacks = Stacks::from_frames(&[vec![frame(7)], vec![frame(8)]]);
        let live =
            |live_bytes| StackStats { allocations: 1, live_bytes, live_blocks: 1, ..StackStats::default() };
        let mut profile =
            Profile { stacks: vec![StackStats::default(); StackId::FIRST.0 as usize], ..Profile::default() };
        profile.stacks.extend([live(72), live(3000)]);
        profile.process.cwd = "/w".into();
        profile.trust.end = Some(EndReason::Finished);
        profile.trust.installation = Some(Installation::Complete);
        let leaks = leaks(&profile, &stacks, &Filter::default(), LeakSelection::default());
        (leaks, profile)
    }

    #[test]
    fn what_is_live_fails_above_its_limit_and_names_the_first_row() {
        let (leaks, profile) = report();
        let complaints = |conditions: &[_], filter| complaints(&leaks, &profile, conditions, filter).unwrap();
        assert_eq!(complaints(&[], ""), Vec::<String>::new());
        assert_eq!(complaints(&[GateCondition::Live(3072)], ""), Vec::<String>::new());
        let expected = "3.0 KiB (3,072 B) are live at the end, of what --crate app lets through; --fail-on live \
                        allows 3.0 KiB (3,071 B); the first row is app::keep at src/main.rs:8 with 2.9 KiB (3,000 B)";
        assert_eq!(complaints(&[GateCondition::Live(3071)], "--crate app"), [expected]);
        let both = complaints(&[GateCondition::Leak(0), GateCondition::Live(1)], "");
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[0].contains("; --fail-on-leak allows 0 B; "), "{both:?}");
    }

    #[test]
    fn a_condition_that_cannot_be_decided_is_an_error() {
        let (leaks, profile) = report();
        let undecided = |condition| complaints(&leaks, &profile, &[condition], "").unwrap_err();
        assert_eq!(undecided(GateCondition::Lost(0)), Undecided::NeedsSnapshot);
        assert_eq!(undecided(GateCondition::Growing), Undecided::NeedsGrowth);
    }

    #[test]
    fn a_recording_that_is_not_whole_never_passes() {
        let (leaks, mut profile) = report();
        let passing = [GateCondition::Live(1 << 20)];
        profile.trust.limit = Some(RecordingLimit::DumpSize { bytes: 1 });
        let found = complaints(&leaks, &profile, &passing, "").unwrap();
        assert!(found[0].starts_with("--fail-on live fails because the recording ended before"), "{found:?}");
        profile.trust.limit = None;
        profile.trust.lost_events = 1;
        let found = complaints(&leaks, &profile, &passing, "").unwrap();
        assert!(found[0].starts_with("--fail-on live fails because the recording is not exact"), "{found:?}");
    }

    #[test]
    fn budgets_are_judged_by_a_killed_program_that_was_recovered_whole() {
        let (_, mut profile) = report();
        assert_eq!(problem_for_budgets(&profile), None);
        profile.trust.end = None;
        assert!(problem_for_budgets(&profile).unwrap().contains("the recording has no end"));
        profile.trust.has_sidecar = true;
        assert_eq!(problem_for_budgets(&profile), None);
        profile.trust.is_being_written = true;
        assert!(problem_for_budgets(&profile).unwrap().contains("still being written"));
        profile.trust.is_being_written = false;
        profile.trust.loss.missing_frames = 1;
        assert!(problem_for_budgets(&profile).unwrap().starts_with("the recording is not exact: "));
    }
}
