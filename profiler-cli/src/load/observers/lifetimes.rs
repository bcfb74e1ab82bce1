//! How long the blocks of each stack lived, if the caller of the loader asked for it. In: heap
//! events. Out: [`Lifetimes`] by the stack that gave the block its last size, for blocks that were
//! born and freed in the interval.

use super::{Observer, ReplayEnd};
use crate::load::heap::{EventKind, Heap, HeapEvent, LiveBlock};
use crate::profile::{Lifetimes, Profile, ShortLivedWithin};

/// Lifetimes by stack.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LifetimesObserver {
    /// `None` if nobody asked for lifetimes.
    within: Option<ShortLivedWithin>,
    /// At the index of the stack.
    of_stacks: Vec<Lifetimes>,
    /// Number of short-lived blocks of the process, whichever threads are selected.
    short_lived: u64,
}

impl LifetimesObserver {
    pub(in crate::load) fn new(within: Option<ShortLivedWithin>) -> LifetimesObserver {
        LifetimesObserver { within, ..LifetimesObserver::default() }
    }
}

/// Whether a block that is freed by the last event of `heap` at a time was short-lived.
#[inline]
pub(in crate::load) fn is_short_lived(
    within: ShortLivedWithin,
    block: &LiveBlock,
    us: u64,
    heap: &Heap,
) -> bool {
    match within {
        ShortLivedWithin::Events(most) => heap.events_since(block) <= most,
        ShortLivedWithin::Time(most) => us.saturating_sub(block.birth.us()) <= most,
    }
}

impl Observer for LifetimesObserver {
    fn tree_grows(&mut self, nodes: usize) {
        if self.within.is_some() {
            self.of_stacks.resize(nodes, Lifetimes::default());
        }
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        let (Some(within), EventKind::Dealloc, Some(block)) = (self.within, event.kind, &event.removed)
        else {
            return;
        };
        if block.birth.is_older() {
            return;
        }
        let us = event.origin.us;
        let is_short = is_short_lived(within, block, us, heap);
        self.short_lived += u64::from(is_short);
        if let Some(lifetimes) = self.of_stacks.get_mut(block.stack.0 as usize) {
            lifetimes.add(us.saturating_sub(block.birth.us()), is_short);
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.short_lived_within = self.within;
        profile.lifetimes = self.of_stacks;
        profile.totals.short_lived = self.short_lived;
    }
}
