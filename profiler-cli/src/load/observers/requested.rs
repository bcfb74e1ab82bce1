//! The observers that do something only if the caller of the loader asked for it. In: what was
//! asked for. Out: nothing at all, or the results of these observers.
//!
//! PERF: without a request, all of them together cost one comparison at each event. With one, they
//! get a copy of the event: a reference to it would make the compiler store every event in memory,
//! whoever asked for anything.

use super::groups::GroupsObserver;
use super::growth::GrowthObserver;
use super::layouts::LayoutsObserver;
use super::lifetimes::LifetimesObserver;
use super::local_peaks::LocalPeaksObserver;
use super::mark_times::MarkTimesObserver;
use super::resizes::ResizesObserver;
use super::{IntervalStart, Moment, Observer, ReplayEnd};
use alloc_dump::record::Record;

use crate::load::heap::{Heap, HeapEvent, LiveBlock};
use crate::pattern::Pattern;
use crate::profile::{GrowthRequest, HeapGrouping, Profile, ShortLivedWithin};

/// The observers that were asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct RequestedObservers {
    /// `None` if nothing was asked for.
    all: Option<Box<AllRequested>>,
}

#[derive(Clone, Debug, Default)]
struct AllRequested {
    lifetimes: LifetimesObserver,
    local_peaks: LocalPeaksObserver,
    groups: GroupsObserver,
    resizes: ResizesObserver,
    growth: GrowthObserver,
    mark_times: MarkTimesObserver,
    layouts: LayoutsObserver,
}

impl RequestedObservers {
    /// Makes the observers. Each argument is `None` if it is not asked for: what short-lived means,
    /// the least drop beside a local peak in percent, and the groups to follow. `resizes` asks for
    /// what reallocations did.
    pub(in crate::load) fn new(
        short_lived: Option<ShortLivedWithin>,
        peaks: Option<u8>,
        groups: Option<HeapGrouping>,
        resizes: bool,
    ) -> RequestedObservers {
        if short_lived.is_none() && peaks.is_none() && groups.is_none() && !resizes {
            return RequestedObservers::default();
        }
        let all = AllRequested {
            lifetimes: LifetimesObserver::new(short_lived),
            local_peaks: LocalPeaksObserver::new(peaks),
            groups: GroupsObserver::new(groups),
            resizes: ResizesObserver::new(resizes),
            ..AllRequested::default()
        };
        RequestedObservers { all: Some(Box::new(all)) }
    }

    /// Also follows sites, and keeps the times of marks, each if it is asked for.
    pub(in crate::load) fn with_growth(
        mut self,
        growth: Option<GrowthRequest>,
        mark_times: Option<Pattern>,
    ) -> RequestedObservers {
        if growth.is_some() || mark_times.is_some() {
            let all = self.all.get_or_insert_default();
            all.growth = GrowthObserver::new(growth);
            all.mark_times = MarkTimesObserver::new(mark_times);
        }
        self
    }

    /// Also keeps layouts of the address space, if they are asked for.
    pub(in crate::load) fn with_layouts(mut self, is_wanted: bool) -> RequestedObservers {
        if is_wanted {
            self.all.get_or_insert_default().layouts = LayoutsObserver::new(is_wanted);
        }
        self
    }

    /// Notes the size of a page of the process.
    pub(in crate::load) fn set_page_size(&mut self, bytes: u64) {
        if let Some(all) = &mut self.all {
            all.layouts.set_page_size(bytes);
        }
    }

    /// Returns a copy of the observer of reallocations, with what it has seen so far.
    pub(in crate::load) fn resizes(&self) -> ResizesObserver {
        self.all.as_ref().map(|all| all.resizes.clone()).unwrap_or_default()
    }
}

impl AllRequested {
    #[inline(never)]
    fn event(&mut self, event: HeapEvent, heap: &Heap) {
        self.lifetimes.event(&event, heap);
        self.local_peaks.event(&event, heap);
        self.groups.event(&event, heap);
        self.resizes.event(&event, heap);
        self.growth.event(&event, heap);
        self.layouts.event(&event, heap);
    }
}

impl Observer for RequestedObservers {
    fn tree_grows(&mut self, nodes: usize) {
        if let Some(all) = &mut self.all {
            all.lifetimes.tree_grows(nodes);
        }
    }

    fn block_lost(&mut self, block: &LiveBlock) {
        if let Some(all) = &mut self.all {
            all.lifetimes.block_lost(block);
            all.groups.block_lost(block);
            all.resizes.block_lost(block);
            all.growth.block_lost(block);
        }
    }

    #[inline(always)]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        if let Some(all) = &mut self.all {
            all.event(*event, heap);
        }
    }

    fn event_before(&mut self, event: &HeapEvent) {
        if let Some(all) = &mut self.all {
            all.lifetimes.event_before(event);
            all.groups.event_before(event);
            all.layouts.event_before(event);
        }
    }

    fn interval_begins(&mut self, start: &IntervalStart<'_>) {
        if let Some(all) = &mut self.all {
            all.lifetimes.interval_begins(start);
            all.local_peaks.interval_begins(start);
            all.groups.interval_begins(start);
        }
    }

    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        if let Some(all) = &mut self.all {
            all.mark_times.record(record, moment);
            all.layouts.record(record, moment);
        }
    }

    fn finish(self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        if let Some(all) = self.all {
            all.lifetimes.finish(end, profile);
            all.local_peaks.finish(end, profile);
            all.groups.finish(end, profile);
            all.resizes.finish(end, profile);
            all.growth.finish(end, profile);
            all.mark_times.finish(end, profile);
            all.layouts.finish(end, profile);
        }
    }
}
