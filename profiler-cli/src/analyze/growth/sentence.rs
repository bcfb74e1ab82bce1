//! The sentence that says why a site has its verdict. In: the verdict and what it follows from.
//! Out: text for people.

use super::{Evidence, GrowthVerdict, Judge, SiteGrowth};
use crate::units::rate::{per_hour, share, span};
use crate::units::{bytes, count, plural};

/// Returns the sentence, without a capital letter and a full stop.
pub(super) fn sentence(growth: &SiteGrowth, evidence: &Evidence, judge: &Judge) -> String {
    match growth.verdict {
        GrowthVerdict::Growing | GrowthVerdict::Slowing => of_growth(growth, evidence),
        GrowthVerdict::Steady => of_steady(growth, evidence),
        GrowthVerdict::RunLonger => of_run_longer(growth, evidence, judge),
    }
}

fn of_growth(growth: &SiteGrowth, evidence: &Evidence) -> String {
    let (mature, with_survivors) = (evidence.mature, evidence.with_survivors);
    let windows = match with_survivors == mature {
        true => format!("each of {}", plural(mature as u64, "window")),
        false => format!("{with_survivors} of {}", plural(mature as u64, "window")),
    };
    let kept = evidence.mature_survivors as f64 / evidence.mature_births.max(1) as f64;
    let mut parts = vec![
        rise(growth, evidence),
        format!("of the blocks born in {windows} that are old enough to tell some are still there"),
        format!("{} are kept", share(kept)),
    ];
    if growth.verdict == GrowthVerdict::Slowing {
        let (first, second) = evidence.halves;
        let (first, second) = (bytes(first.max(0) as u64), bytes(second.max(0) as u64));
        parts.push(format!(
            "it rose by {first} in the first half of the windows and by {second} in the second, as a \
             cache does that fills"
        ));
    }
    parts.push(per_hour(growth.bytes_per_hour));
    if let Some(each) = growth.bytes_per_allocation {
        parts.push(format!("{each:.1} B for each allocation"));
    }
    if let Some(limit) = &growth.limit {
        let after = span(limit.after_seconds);
        parts.push(format!("at this rate {} ({}) in {after}", limit.name, bytes(limit.bytes)));
    }
    parts.join("; ")
}

fn of_steady(growth: &SiteGrowth, evidence: &Evidence) -> String {
    if evidence.is_rising {
        let (mature, with_survivors) = (evidence.mature as u64, count(evidence.with_survivors as u64));
        let windows = plural(mature, "window");
        return format!(
            "{}, but of {windows} that are old enough to tell only {with_survivors} have blocks that are \
             still there",
            rise(growth, evidence)
        );
    }
    if growth.floors.iter().all(|floor| *floor == growth.floors[0]) {
        "its least use did not change".to_owned()
    } else if growth.bytes <= 0 {
        "its least use did not rise".to_owned()
    } else {
        format!("{}, which may be chance", rise(growth, evidence))
    }
}

fn of_run_longer(growth: &SiteGrowth, evidence: &Evidence, judge: &Judge) -> String {
    if !evidence.has_enough_windows {
        let windows = plural(growth.floors.len() as u64, "window");
        return format!(
            "{windows} cannot tell growth from chance among {}",
            plural(judge.sites_tested, "site")
        );
    }
    let needed = judge.seconds_needed(evidence.a99_us);
    let advice = needed.map_or_else(String::new, |seconds| format!("; record for {} or more", span(seconds)));
    format!(
        "{}, but 1 % of its freed blocks had lived for {} or more, and {} of the windows {} older{advice}",
        rise(growth, evidence),
        span(evidence.a99_us as f64 / 1e6),
        evidence.mature,
        if evidence.mature == 1 { "is" } else { "are" },
    )
}

/// Returns what the floor did. It can rise in all windows but the first.
fn rise(growth: &SiteGrowth, evidence: &Evidence) -> String {
    let later = growth.floors.len().saturating_sub(1) as u64;
    let end = |floor: Option<&u64>| bytes(floor.copied().unwrap_or(0));
    format!(
        "its least use rose in {} of {} from {} to {}",
        evidence.rises,
        plural(later, "later window"),
        end(growth.floors.first()),
        end(growth.floors.last())
    )
}
