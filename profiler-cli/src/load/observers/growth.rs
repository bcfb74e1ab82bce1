//! What each site holds over time, if the caller of the loader asked for it. In: heap events, the
//! site of each stack, and the borders of the windows. Out: for each site and window the fewest
//! live bytes, the births, and how many of these blocks are live at the end; for each site the age
//! that 99 % of its freed blocks had not passed.
//!
//! The figures are those of sites and not of stacks: the floor of a site is more than the sum of
//! the floors of its stacks wherever one stack takes over from another. Memory grows with the
//! number of sites, never with the number of events.

use super::{Observer, ReplayEnd};
use crate::load::heap::{EventKind, Heap, HeapEvent, LiveBlock};
use crate::profile::{GrowthCurves, GrowthRequest, NO_SITE, Profile, SiteCurve};

/// What every site holds, now and in each window.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct GrowthObserver {
    /// `None` if nobody asked for it.
    request: Option<GrowthRequest>,
    sites: Vec<FollowedSite>,
    /// Number of borders that have passed.
    passed: usize,
    /// The next border, in microseconds; the largest number after the last one.
    next_us: u64,
}

/// What one site holds.
#[derive(Clone, Debug, Default)]
struct FollowedSite {
    live: u64,
    /// The fewest live bytes of the current window so far.
    floor: u64,
    curve: SiteCurve,
    ages: AgeCounts,
}

impl GrowthObserver {
    pub(in crate::load) fn new(request: Option<GrowthRequest>) -> GrowthObserver {
        let Some(request) = request else { return GrowthObserver::default() };
        let windows = request.windows();
        let curve = SiteCurve {
            floors: Vec::with_capacity(windows),
            births: vec![0; windows],
            survivors: vec![0; windows],
            ..SiteCurve::default()
        };
        let site = FollowedSite { curve, ..FollowedSite::default() };
        let next_us = request.borders_us.first().copied().unwrap_or(u64::MAX);
        GrowthObserver { sites: vec![site; request.sites], passed: 0, next_us, request: Some(request) }
    }

    /// Passes the borders up to a time, with what is held now.
    #[inline]
    fn advance(&mut self, us: u64) {
        while us >= self.next_us {
            self.pass_border();
        }
    }

    #[cold]
    fn pass_border(&mut self) {
        let Some(request) = &self.request else { return };
        for site in &mut self.sites {
            if self.passed > 0 {
                site.curve.floors.push(site.floor);
            }
            site.floor = site.live;
        }
        self.passed += 1;
        self.next_us = request.borders_us.get(self.passed).copied().unwrap_or(u64::MAX);
    }

    fn site_of(&self, block: &LiveBlock) -> Option<usize> {
        let site = *self.request.as_ref()?.site_of_stack.get(block.stack.0 as usize)?;
        (site != NO_SITE).then_some(site as usize)
    }

    /// Returns the window of a time that is not later than now; `None` if it is in no window.
    fn window_of(&self, us: u64) -> Option<usize> {
        let borders = &self.request.as_ref()?.borders_us;
        let window = borders.partition_point(|border| *border <= us).checked_sub(1)?;
        (window + 1 < borders.len()).then_some(window)
    }

    /// Moves bytes in one step, so that the moment within a realloc makes no floor.
    fn change_live(&mut self, site: usize, added: u64, removed: u64) {
        let site = &mut self.sites[site];
        site.live = site.live.wrapping_add(added).wrapping_sub(removed);
        site.floor = site.floor.min(site.live);
    }

    fn follow(&mut self, event: &HeapEvent) {
        self.advance(event.origin.us);
        let removed = event.removed.and_then(|block| Some((self.site_of(&block)?, block)));
        let added = event.added.and_then(|block| Some((self.site_of(&block)?, block)));
        match (removed, added) {
            (Some((from, old)), Some((to, new))) if from == to && event.kind == EventKind::Realloc => {
                self.change_live(to, new.size, old.size);
            }
            (removed, added) => {
                if let Some((site, block)) = removed {
                    self.leaves(site, &block, event.origin.us);
                }
                if let Some((site, block)) = added {
                    self.enters(site, &block);
                }
            }
        }
    }

    fn enters(&mut self, site: usize, block: &LiveBlock) {
        if let Some(window) = self.window_of(block.birth.us()) {
            self.sites[site].curve.births[window] += 1;
        }
        self.change_live(site, block.size, 0);
    }

    fn leaves(&mut self, site: usize, block: &LiveBlock, us: u64) {
        self.sites[site].ages.add(us.saturating_sub(block.birth.us()));
        self.change_live(site, 0, block.size);
    }
}

impl Observer for GrowthObserver {
    fn block_lost(&mut self, block: &LiveBlock) {
        // It was freed before this event, at an unknown time.
        if let Some(site) = self.site_of(block) {
            self.change_live(site, 0, block.size);
        }
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, _heap: &Heap) {
        if self.request.is_some() {
            self.follow(event);
        }
    }

    fn finish(mut self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        let Some(last_us) = self.request.as_ref().map(|request| request.borders_us.last().copied()) else {
            return;
        };
        let end_us = end.us.max(last_us.unwrap_or(0));
        self.advance(end_us);
        for (_, block) in end.heap.blocks() {
            if let (Some(site), Some(window)) = (self.site_of(block), self.window_of(block.birth.us())) {
                self.sites[site].curve.survivors[window] += 1;
            }
        }
        let Some(request) = self.request else { return };
        let curve = |site: FollowedSite| SiteCurve {
            left: site.ages.all(),
            age_99_us: site.ages.percentile_99(),
            ..site.curve
        };
        let sites = self.sites.into_iter().map(curve).collect();
        profile.growth = Some(GrowthCurves { borders_us: request.borders_us, end_us, sites });
    }
}

/// How many blocks had reached which age, in classes whose width is an eighth of their age at most.
#[derive(Clone, Debug, Default)]
struct AgeCounts {
    /// Grows to the class of the oldest block: about 200 classes for an hour.
    classes: Vec<u64>,
}

impl AgeCounts {
    #[inline]
    fn add(&mut self, us: u64) {
        let class = class_of(us);
        if class >= self.classes.len() {
            self.classes.resize(class + 1, 0);
        }
        self.classes[class] += 1;
    }

    fn all(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Returns an age that at least 99 % of the blocks had not passed; 0 if there are none.
    fn percentile_99(&self) -> u64 {
        let most_above = self.all() / 100;
        let mut above = 0;
        for (class, blocks) in self.classes.iter().enumerate().rev() {
            above += blocks;
            if above > most_above {
                return last_of(class);
            }
        }
        0
    }
}

/// Returns the class of an age: ages below 8 have a class each, and each power of two above has 8.
#[inline]
fn class_of(us: u64) -> usize {
    let octave = us.max(1).ilog2().saturating_sub(CLASS_BITS);
    ((octave as usize) << CLASS_BITS) + (us >> octave) as usize
}

/// Returns the highest age of a class.
fn last_of(class: usize) -> u64 {
    let octave = (class >> CLASS_BITS).saturating_sub(1);
    let first = (class - (octave << CLASS_BITS)) as u64;
    ((first + 1) << octave) - 1
}

/// Binary logarithm of the number of classes of a power of two.
const CLASS_BITS: u32 = 3;

#[cfg(test)]
mod tests;
