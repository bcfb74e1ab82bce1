//! Which sites grow. In: what each site held, window by window. Out: a verdict for each site, with
//! the figures and a sentence that say why.
//!
//! A site grows if all three hold:
//!
//! | test | passes if | what fails it |
//! | --- | --- | --- |
//! | rising floor | the least live bytes of the windows rise more clearly than chance would have it | batches, bursts, steady use |
//! | kept from every time | of nearly every window, blocks are still there | a warm-up, a cache at its limit |
//! | shape | the floors of the second half rise at least half as much as those of the first | a cache that still fills: *slowing* |
//!
//! Chance: Kendall's S of the floors, its exact p, times the number of sites tested (Bonferroni). A
//! window counts in the second test only if it is older than the age that 99 % of the site's freed
//! blocks had not passed; in a younger one, any site has blocks.
//!
//! Both halves have the same number of windows. An odd number of windows has one in the middle,
//! which ends the first half and begins the second:
//!
//! ```text
//! twelve windows   rises F6 - F1 and F12 - F7
//! five windows     rises F3 - F1 and F5 - F3
//! n windows        rises F[(n+1)/2] - F[1] and F[n] - F[n/2 + 1], rounded down
//! ```

pub mod kendall;
mod limits;
mod sentence;
mod sites;
pub mod wilson;
pub mod windows;

use serde::Serialize;

use self::kendall::{least_p, p_rising};
use self::limits::MemoryLeft;
use self::sentence::sentence;
use self::wilson::wilson;
use self::windows::WINDOWS;
use crate::profile::{GrowthCurves, Profile, SiteCurve};

pub use self::sites::{FollowedSites, GrowingSites};

/// What a site does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum GrowthVerdict {
    /// It grows.
    Growing,
    /// It grew, less and less: a cache that still fills looks like this.
    Slowing,
    /// Its floor rises, but the recording is too short to tell whether its blocks are kept.
    RunLonger,
    /// Nothing says that it grows.
    Steady,
}

/// How a site grows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SiteGrowth {
    /// What the site does.
    pub verdict: GrowthVerdict,
    /// The fewest live bytes of the site in each window. 12 windows, or fewer if there were not
    /// enough marks.
    pub floors: Vec<u64>,
    /// Probability that these floors in random order rise as clearly: the exact distribution of
    /// Kendall's S. Times `sites_tested` it has to be below 0.05.
    pub p: f64,
    /// The share of the blocks that are kept, from and to, at a confidence of 95 %. It counts the
    /// blocks of windows that are old enough to tell. Null if there are none.
    pub kept_share: Option<[f64; 2]>,
    /// The last floor minus the first.
    pub bytes: i64,
    /// `bytes`, by the time from the middle of the first window to that of the last.
    pub bytes_per_hour: i64,
    /// `bytes`, by the number of blocks born in the windows before the last one. Null if none were.
    pub bytes_per_allocation: Option<f64>,
    /// Whether `bytes` is below 64 KiB or below 1 % of the peak. Such sites are listed with `--all`
    /// only.
    pub small: bool,
    /// Which limit of memory this site alone would reach first, at this rate. Null if no limit is
    /// known, or if the site is not growing.
    pub limit: Option<LimitAhead>,
    /// Why the verdict is what it is, for people.
    pub sentence: String,
}

/// A limit of memory that would be reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LimitAhead {
    /// Name of the limit: `RLIMIT_AS`, or `cgroup memory limit`.
    pub name: String,
    /// The limit.
    pub bytes: u64,
    /// Seconds from the end of the recording.
    pub after_seconds: f64,
}

/// The windows, and how many sites have which verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GrowthSummary {
    /// The windows, in order.
    pub windows: Vec<GrowthWindow>,
    /// Number of sites whose floor changed. Each of them may rise by chance.
    pub sites_tested: u64,
    /// Number of sites that grow, small ones not counted.
    pub growing: u64,
    /// Number of sites that grow less and less, small ones not counted.
    pub slowing: u64,
    /// Number of sites that do either, but are small.
    pub small: u64,
    /// Number of steady sites.
    pub steady: u64,
    /// Number of sites that need a longer recording.
    pub run_longer: u64,
}

/// A part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GrowthWindow {
    /// Its beginning, in nanoseconds since the recording began.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
}

/// What all sites are judged by.
#[derive(Clone, Debug, Default)]
struct Judge {
    borders_us: Vec<u64>,
    /// When the observation began and ended. The first window may begin later.
    observed_us: (u64, u64),
    sites_tested: u64,
    /// Growth below this is small.
    least_bytes: u64,
    memory_left: MemoryLeft,
}

/// What the verdict of a site follows from.
#[derive(Clone, Debug)]
struct Evidence {
    /// Windows whose floor is higher than that of the window before.
    rises: usize,
    is_rising: bool,
    /// Whether the number of windows suffices to tell a rise from chance.
    has_enough_windows: bool,
    /// Windows that are old enough to tell: older than the age of nearly all freed blocks.
    old_enough: usize,
    /// Those of them with blocks that are still there.
    with_survivors: usize,
    /// Blocks born in these windows, and how many of them are still there.
    births: u64,
    survivors: u64,
    /// Growth in the first and in the second half of the windows.
    halves: (i64, i64),
    /// Number of the freed blocks, and the age that 99 % of them had not passed.
    freed: u64,
    age_99_us: u64,
}

/// Judges the sites of a dump.
fn judge_all(curves: &GrowthCurves, profile: &Profile) -> (Vec<SiteGrowth>, GrowthSummary) {
    // A site whose floors are all equal cannot seem to rise, so it is not counted as a test. See
    // R. E. Tarone, A modified Bonferroni method for discrete data, Biometrics 46 (1990).
    let has_changed = |site: &&SiteCurve| site.floors.iter().any(|floor| *floor != site.floors[0]);
    let judge = Judge {
        borders_us: curves.borders_us.clone(),
        observed_us: (profile.interval.as_ref().map_or(0, |interval| interval.from_us), curves.end_us),
        sites_tested: curves.sites.iter().filter(has_changed).count() as u64,
        least_bytes: LEAST_BYTES.max(profile.totals.peak_bytes / 100),
        memory_left: MemoryLeft::of(profile),
    };
    let sites: Vec<SiteGrowth> = curves.sites.iter().map(|site| judge.judge(site)).collect();
    let count = |verdict: GrowthVerdict, small: bool| {
        sites.iter().filter(|site| site.verdict == verdict && site.small == small).count() as u64
    };
    let all = |verdict| count(verdict, false) + count(verdict, true);
    let window = |pair: &[u64]| GrowthWindow { from_ns: pair[0] * 1000, to_ns: pair[1] * 1000 };
    let summary = GrowthSummary {
        windows: judge.borders_us.windows(2).map(window).collect(),
        sites_tested: judge.sites_tested,
        growing: count(GrowthVerdict::Growing, false),
        slowing: count(GrowthVerdict::Slowing, false),
        small: count(GrowthVerdict::Growing, true) + count(GrowthVerdict::Slowing, true),
        steady: all(GrowthVerdict::Steady),
        run_longer: all(GrowthVerdict::RunLonger),
    };
    (sites, summary)
}

impl Judge {
    fn judge(&self, site: &SiteCurve) -> SiteGrowth {
        let p = p_rising(&site.floors);
        let evidence = self.evidence(site, p);
        let verdict = evidence.verdict();
        let bytes = difference(&site.floors, 0, site.floors.len().saturating_sub(1));
        let bytes_per_hour = self.hours().map_or(0.0, |hours| bytes as f64 / hours);
        let births = births_between_floors(&site.births);
        let mut growth = SiteGrowth {
            verdict,
            floors: site.floors.clone(),
            p,
            kept_share: wilson(evidence.survivors, evidence.births),
            bytes,
            bytes_per_hour: bytes_per_hour.round() as i64,
            bytes_per_allocation: (births > 0).then(|| bytes as f64 / births as f64),
            small: bytes < self.least_bytes as i64,
            limit: None,
            sentence: String::new(),
        };
        if verdict == GrowthVerdict::Growing {
            growth.limit = self.memory_left.first_reached(growth.bytes_per_hour);
        }
        growth.sentence = sentence(&growth, &evidence, self);
        growth
    }

    fn evidence(&self, site: &SiteCurve, p: f64) -> Evidence {
        let windows = site.floors.len();
        let mut evidence = Evidence {
            rises: site.floors.windows(2).filter(|pair| pair[1] > pair[0]).count(),
            is_rising: self.is_significant(p),
            has_enough_windows: self.is_significant(least_p(windows)),
            old_enough: 0,
            with_survivors: 0,
            births: 0,
            survivors: 0,
            halves: (0, 0),
            freed: site.left,
            age_99_us: site.age_99_us,
        };
        for window in 0..windows {
            // The youngest blocks of the window are as old as its end.
            if self.observed_us.1.saturating_sub(self.borders_us[window + 1]) < site.age_99_us {
                continue;
            }
            evidence.old_enough += 1;
            evidence.births += site.births[window];
            evidence.survivors += site.survivors[window];
            evidence.with_survivors += usize::from(site.survivors[window] > 0);
        }
        if let Some(last) = windows.checked_sub(1) {
            let (first_ends, second_begins) = (last / 2, windows / 2);
            evidence.halves =
                (difference(&site.floors, 0, first_ends), difference(&site.floors, second_begins, last));
        }
        evidence
    }

    /// Returns the time from the middle of the first window to that of the last, in hours; `None`
    /// if there is no such time.
    fn hours(&self) -> Option<f64> {
        let middle = |window: usize| (self.borders_us[window] + self.borders_us[window + 1]) as f64 / 2.0;
        let last = self.borders_us.len().checked_sub(2)?;
        let us = middle(last) - middle(0);
        (us > 0.0).then_some(us / 3.6e9)
    }

    /// Returns for how many seconds a program has to be recorded so that enough windows are older
    /// than an age; `None` if that cannot be told.
    fn seconds_needed(&self, age_us: u64) -> Option<f64> {
        let (from, to) = self.observed_us;
        let border = *self.borders_us.get(LEAST_OLD_ENOUGH)?;
        if self.borders_us.len() <= WINDOWS {
            // New marks make new windows, and leave the first ones as they are.
            return Some(border.saturating_add(age_us).saturating_sub(from) as f64 / 1e6);
        }
        // All windows become longer, in proportion.
        let oldest = to.checked_sub(border)?;
        let times_longer = age_us as f64 / oldest as f64;
        (oldest > 0).then(|| times_longer * (to - from) as f64 / 1e6)
    }

    /// Returns how many windows suffice to tell a rise from chance; `None` if no number does.
    fn windows_needed(&self) -> Option<usize> {
        (1..=WINDOWS).find(|windows| self.is_significant(least_p(*windows)))
    }

    /// Whether a probability is too low for chance, among so many sites.
    fn is_significant(&self, p: f64) -> bool {
        p * (self.sites_tested.max(1) as f64) < SIGNIFICANT
    }
}

impl Evidence {
    fn verdict(&self) -> GrowthVerdict {
        // The order matters: what does not rise is steady, however long its blocks live.
        if !self.is_rising {
            return if self.has_enough_windows { GrowthVerdict::Steady } else { GrowthVerdict::RunLonger };
        }
        if self.old_enough < LEAST_OLD_ENOUGH {
            return GrowthVerdict::RunLonger;
        }
        // At least 80 %.
        if self.with_survivors * 5 < self.old_enough * 4 {
            return GrowthVerdict::Steady;
        }
        let (first, second) = self.halves;
        // The quotient of the halves is at least a half. If the first half did not rise, the growth
        // has only begun.
        if second > 0 && second * 2 >= first { GrowthVerdict::Growing } else { GrowthVerdict::Slowing }
    }
}

/// Returns the number of births between the first floor and the last one. Where a site only grows,
/// the floor of a window is what it holds when the window begins, so those of the last window do
/// not count.
fn births_between_floors(births: &[u64]) -> u64 {
    births.iter().rev().skip(1).sum()
}

/// Returns by how much a floor is higher than an earlier one; 0 if there is no such floor.
fn difference(floors: &[u64], from: usize, to: usize) -> i64 {
    let floor = |at: usize| floors.get(at).map_or(0, |floor| i64::try_from(*floor).unwrap_or(i64::MAX));
    floor(to).saturating_sub(floor(from))
}

/// A chance below this is none.
const SIGNIFICANT: f64 = 0.05;
/// Fewer windows that can tell are too few.
const LEAST_OLD_ENOUGH: usize = 4;
/// Less growth matters to nobody.
const LEAST_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests;
