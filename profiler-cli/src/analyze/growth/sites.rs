//! The sites whose growth is asked for. In: a loaded dump and its named stacks, then what the
//! second pass has followed. Out: the growth of each row of the leak report.

use std::cmp::Reverse;

use foldhash::HashMap;

use super::windows::WindowsFrom;
use super::{GrowthSummary, GrowthVerdict, SiteGrowth, judge_all};
use crate::analyze::filter::Filter;
use crate::analyze::leaks::is_listed;
use crate::analyze::shown::Folding;
use crate::analyze::site_location::{SiteLocation, location_of};
use crate::analyze::summary::with_ids;
use crate::analyze::suppressions::SuppressedStacks;
use crate::names::stacks::Stacks;
use crate::profile::{GrowthCurves, GrowthRequest, NO_SITE, Profile};

/// The sites that have rows in the leak report, and what a second pass has to follow.
#[derive(Debug)]
pub struct FollowedSites<'a> {
    by_location: HashMap<SiteLocation<'a>, u32>,
    /// What to follow.
    pub request: GrowthRequest,
}

impl<'a> FollowedSites<'a> {
    /// Finds the sites. All stacks of such a site are followed that the filter lets through,
    /// whether or not they have live blocks at the end.
    ///
    /// # Errors
    /// If there are no windows. The error is one sentence.
    pub fn of(
        profile: &Profile,
        stacks: &'a Stacks,
        filter: &Filter,
        folding: Folding,
        suppressed: Option<&SuppressedStacks>,
        windows: &WindowsFrom,
    ) -> Result<FollowedSites<'a>, String> {
        let borders_us = windows.borders(profile)?;
        let accepted = filter.accepted(stacks);
        let is_suppressed = |stack| suppressed.is_some_and(|rules| rules.rule_of(stack).is_some());
        let is_listed =
            |stack| accepted.accepts(stack) && is_listed(stacks, folding, stack) && !is_suppressed(stack);
        let mut by_location: HashMap<SiteLocation<'a>, u32> = HashMap::default();
        for (stack, stats) in with_ids(profile) {
            let is_live = stats.live_blocks > 0 || profile.grown.contains_key(&stack);
            if is_live && is_listed(stack) {
                let next = by_location.len() as u32;
                by_location.entry(location_of(stacks, stack)).or_insert(next);
            }
        }
        let site = |stack| {
            let site = by_location.get(&location_of(stacks, stack)).filter(|_| is_listed(stack));
            site.copied().unwrap_or(NO_SITE)
        };
        let site_of_stack = with_ids(profile).map(|(stack, _)| site(stack)).collect();
        let request = GrowthRequest { site_of_stack, sites: by_location.len(), borders_us };
        Ok(FollowedSites { by_location, request })
    }

    /// Judges the sites by what the second pass has followed. With `lists_all`, all of them are
    /// listed, and not only those that grow by enough to matter.
    pub fn judge(self, curves: &GrowthCurves, profile: &Profile, lists_all: bool) -> GrowingSites<'a> {
        let (sites, summary) = judge_all(curves, profile);
        GrowingSites { by_location: self.by_location, sites, summary, lists_all, hides_others: true }
    }
}

/// The sites with their growth.
#[derive(Debug)]
pub struct GrowingSites<'a> {
    by_location: HashMap<SiteLocation<'a>, u32>,
    sites: Vec<SiteGrowth>,
    /// The windows, and how many sites have which verdict.
    pub summary: GrowthSummary,
    /// Whether small, steady and undecided sites are listed, too, if others are hidden.
    lists_all: bool,
    /// Whether the report has only the sites that this says are listed.
    hides_others: bool,
}

impl<'a> GrowingSites<'a> {
    /// Returns the same growth for a report that lists all sites with live blocks, in the usual
    /// order.
    pub fn with_all_sites(self) -> GrowingSites<'a> {
        GrowingSites { hides_others: false, ..self }
    }

    /// Returns the growth of a site.
    pub(in crate::analyze) fn at(&self, location: &SiteLocation<'_>) -> Option<&SiteGrowth> {
        self.sites.get(*self.by_location.get(location)? as usize)
    }

    /// Keeps the sites that are listed, and sorts them: those that grow first, then those that slow
    /// down, may grow, and are steady; the most growth first among each.
    pub(in crate::analyze) fn select<T>(
        &self,
        sites: &mut Vec<T>,
        location: impl for<'s> Fn(&'s T) -> &'s SiteLocation<'s>,
    ) {
        if !self.hides_others {
            return;
        }
        let growth = |site: &T| self.at(location(site)).filter(|growth| self.is_listed(growth));
        sites.retain(|site| growth(site).is_some());
        // The sort is stable, so equal growth stays in the order that the sites had.
        sites.sort_by_key(|site| growth(site).map(|growth| (growth.verdict, Reverse(growth.bytes))));
    }

    fn is_listed(&self, growth: &SiteGrowth) -> bool {
        let grows = matches!(growth.verdict, GrowthVerdict::Growing | GrowthVerdict::Slowing);
        self.lists_all || grows && !growth.small
    }
}
