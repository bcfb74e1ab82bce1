//! The most that sites held at one time, exactly. In: a summary, whose sites may have several
//! stacks. Out: the groups of stacks for a second pass over the dump; then the summary with the
//! figures of that pass.
//!
//! One pass cannot know this: which stacks are one site is known only after their frames have
//! names.

use foldhash::HashMap;

use crate::analyze::filter::Filter;
use crate::analyze::source_paths::SourcePaths;
use crate::analyze::summary::{SiteRow, Summary, with_ids};
use crate::names::stacks::Stacks;
use crate::profile::{GroupCurve, GroupKey, HeapGrouping, Profile};

/// Function, file and line of a site.
type Location = (String, Option<String>, Option<u32>);

/// Sites whose most live bytes a second pass finds out.
#[derive(Clone, Debug, Default)]
pub struct InexactSites {
    groups: HashMap<Location, u16>,
}

impl InexactSites {
    /// Returns the sites of a summary whose figures are bounds; `None` if there is no such site.
    pub fn of(summary: &mut Summary) -> Option<InexactSites> {
        let mut sites = InexactSites::default();
        for row in rows(summary).filter(|row| !row.max_live_is_exact) {
            let next = u16::try_from(sites.groups.len()).ok().filter(|next| *next < u16::MAX)?;
            sites.groups.entry(location(row)).or_insert(next);
        }
        (!sites.groups.is_empty()).then_some(sites)
    }

    /// Returns the groups to follow in the second pass.
    pub fn grouping(&self, profile: &Profile, stacks: &Stacks, filter: &Filter) -> HeapGrouping {
        let (accepted, paths) = (filter.accepted(stacks), SourcePaths::of(profile, stacks));
        let others = self.groups.len() as u16;
        let group_of = |stack| {
            let frame = stacks.site(stack).filter(|_| accepted.accepts(stack)).map(|id| stacks.frame(id))?;
            let file = frame.file.as_deref().map(|file| paths.shown(file).to_owned());
            self.groups.get(&(frame.function.to_string(), file, frame.line)).copied()
        };
        let groups = with_ids(profile).map(|(stack, stats)| match stats.max_live_blocks {
            0 => others,
            _ => group_of(stack).unwrap_or(others),
        });
        let (key, groups) = (GroupKey::Stacks(groups.collect()), self.groups.len() + 1);
        let period = profile.interval.as_ref().map(|interval| (interval.from_us, interval.to_us));
        let (from_us, to_us) = period.unwrap_or((0, profile.duration_us));
        HeapGrouping { key, groups, from_us, to_us }
    }

    /// Puts the exact figures into the summary.
    pub fn make_exact(&self, summary: &mut Summary, curve: &GroupCurve) {
        for row in rows(summary).filter(|row| !row.max_live_is_exact) {
            let group = self.groups.get(&location(row)).map(|group| usize::from(*group));
            if let Some(most) = group.and_then(|group| curve.most.get(group)) {
                (row.max_live_bytes, row.max_live_blocks) = (most.bytes, most.blocks);
                row.max_live_is_exact = true;
            }
        }
    }
}

fn rows(summary: &mut Summary) -> impl Iterator<Item = &mut SiteRow> {
    summary.top_peak.iter_mut().chain(&mut summary.top_allocated).chain(&mut summary.top_allocations)
}

fn location(row: &SiteRow) -> Location {
    (row.function.clone(), row.file.clone(), row.line)
}
