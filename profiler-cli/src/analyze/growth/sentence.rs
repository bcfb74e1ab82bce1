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
    let (old_enough, with_survivors) = (evidence.old_enough, evidence.with_survivors);
    let windows = plural(old_enough as u64, "window");
    let windows = match with_survivors == old_enough {
        true => format!("each of {windows}"),
        false => format!("{with_survivors} of {windows}"),
    };
    let kept = evidence.survivors as f64 / evidence.births.max(1) as f64;
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
        return format!(
            "{}, but of {} that are old enough to tell only {} {} blocks that are still there",
            rise(growth, evidence),
            plural(evidence.old_enough as u64, "window"),
            count(evidence.with_survivors as u64),
            if evidence.with_survivors == 1 { "has" } else { "have" },
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
        let sites = plural(judge.sites_tested, "site");
        let needed = judge.windows_needed();
        let advice =
            needed.map_or_else(String::new, |windows| format!("; record for {windows} windows or more"));
        return format!("{windows} cannot tell growth from chance among {sites}{advice}");
    }
    let needed = judge.seconds_needed(evidence.age_99_us);
    let advice = needed.map_or("longer".to_owned(), |seconds| format!("{} or more", span(seconds)));
    format!(
        "{}, but {} had lived for about {}, and {} of the windows {} older; record for {advice}",
        rise(growth, evidence),
        long_lived(evidence.freed),
        span(evidence.age_99_us as f64 / 1e6),
        evidence.old_enough,
        if evidence.old_enough == 1 { "is" } else { "are" },
    )
}

/// Returns which of the freed blocks had reached the age that 99 % of them had not passed.
fn long_lived(freed: u64) -> String {
    match freed {
        0 | 1 => "its one freed block".to_owned(),
        2..100 => format!("the oldest of its {freed} freed blocks"),
        100.. => "1 % of its freed blocks".to_owned(),
    }
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
