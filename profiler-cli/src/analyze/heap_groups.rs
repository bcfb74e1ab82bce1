//! Who makes up the live heap over time: by crate, site, thread and so on. In: a first profile and
//! its named stacks, which choose the groups; then a second profile, which followed them. Out:
//! [`TimelineGroups`].

use std::cmp::Reverse;

use foldhash::HashMap;
use serde::Serialize;

use crate::analyze::group_names::{GroupBy, GroupNames, name_of_thread};
use crate::analyze::summary::with_ids;
use crate::names::stacks::Stacks;
use crate::profile::{GroupKey, HeapGrouping, Profile, StackStats};

/// What each group held over time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimelineGroups {
    /// What the groups are.
    pub by: GroupBy,
    /// The groups, those that held most first. The last group has everything else.
    pub groups: Vec<TimelineGroup>,
    /// Parts of the time, without gaps.
    pub points: Vec<TimelineGroupPoint>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimelineGroup {
    /// Name of the group: of the crate, module, file, function or thread, or the function of the
    /// site with its file and line.
    pub name: String,
    /// The most bytes of the group at any of the points.
    pub max_bytes: u64,
}

/// What the groups held in one part of the time, when the live heap was largest in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimelineGroupPoint {
    /// Beginning of the part.
    pub start_ns: u64,
    /// End of the part.
    pub end_ns: u64,
    /// Live bytes of the process: the most of the part, and the sum of `bytes`.
    pub max: u64,
    /// Bytes of each group, in the order of the groups.
    pub bytes: Vec<u64>,
}

/// The groups that were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenGroups {
    by: GroupBy,
    names: Vec<String>,
    /// The group of each block, for the second pass over the dump.
    pub grouping: HeapGrouping,
}

/// Chooses the `top` groups that held most: by the most that each of their stacks held, or by what
/// each thread allocated. `stacks` may be `None` for groups of threads.
pub fn choose(profile: &Profile, stacks: Option<&Stacks>, by: GroupBy, top: usize) -> ChosenGroups {
    let top = top.min(MAX_GROUPS);
    let weighed: Vec<(Option<String>, u64)> = match (by, stacks) {
        (GroupBy::Thread, _) | (_, None) => {
            profile.threads.iter().map(|thread| (Some(name_of_thread(thread)), thread.allocated)).collect()
        }
        (_, Some(stacks)) => {
            let names = GroupNames::of(profile, stacks, by);
            let group = |(stack, stats): (_, &StackStats)| {
                let name = (stats.max_live_bytes > 0).then(|| names.of_stack(stack));
                (name, stats.max_live_bytes)
            };
            with_ids(profile).map(group).collect()
        }
    };
    let mut weights: HashMap<&str, u64> = HashMap::default();
    for (name, weight) in &weighed {
        if let Some(name) = name {
            *weights.entry(name).or_default() += weight;
        }
    }
    let mut ranked: Vec<(&str, u64)> = weights.into_iter().collect();
    ranked.sort_unstable_by_key(|(name, weight)| (Reverse(*weight), *name));
    ranked.truncate(top);
    let groups: HashMap<&str, u16> = ranked.iter().map(|(name, _)| *name).zip(0..).collect();
    let others = ranked.len() as u16;
    let of = |(name, _): &(Option<String>, u64)| {
        name.as_ref().and_then(|name| groups.get(name.as_str())).copied().unwrap_or(others)
    };
    let of_each = weighed.iter().map(of).collect();
    let key = match by {
        GroupBy::Thread => GroupKey::Threads(of_each),
        _ => GroupKey::Stacks(of_each),
    };
    let mut names: Vec<String> = ranked.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.push("(all others)".to_owned());
    let period = profile.interval.as_ref().map(|interval| (interval.from_us, interval.to_us));
    let (from_us, to_us) = period.unwrap_or((0, profile.duration_us));
    ChosenGroups { by, grouping: HeapGrouping { key, groups: names.len(), from_us, to_us }, names }
}

/// The most groups: as many as have a sign of their own in the text.
pub const MAX_GROUPS: usize = 26;

impl ChosenGroups {
    /// Returns what the groups held over time. `profile` followed them.
    pub fn over_time(self, profile: &Profile) -> Option<TimelineGroups> {
        let curve = profile.groups.as_ref()?;
        let mut points: Vec<TimelineGroupPoint> = Vec::new();
        for (point, at) in curve.points.iter().zip(0..) {
            let start_us = curve.start_us + at * curve.width_us;
            let end_us = (start_us + curve.width_us).min(self.grouping.to_us.max(start_us));
            let (start_ns, end_ns) = (start_us * 1000, end_us * 1000);
            points.push(TimelineGroupPoint { start_ns, end_ns, max: point.max, bytes: point.bytes.clone() });
        }
        let most = |group: usize| points.iter().map(|point| point.bytes[group]).max().unwrap_or(0);
        let names = self.names.into_iter().enumerate();
        let groups = names.map(|(group, name)| TimelineGroup { name, max_bytes: most(group) }).collect();
        Some(TimelineGroups { by: self.by, groups, points })
    }
}
