//! How long the blocks of each stack lived, and the most that it held, if the caller of the loader
//! asked for it. In: heap events. Out: [`StackLifetimes`], for blocks that were born and freed in
//! the interval, and the most live bytes of each stack. A block counts for the stack that gave it
//! its last size.
//!
//! PERF: a table with a row for each node of the call tree would be in no cache: most nodes never
//! hold a block. So each stack that holds one gets the next row, and an index leads to it.

use super::{IntervalStart, Observer, ReplayEnd};
use crate::load::heap::{EventKind, Heap, HeapEvent, LiveBlock};
use crate::profile::{Lifetimes, Profile, ShortLivedWithin, StackLifetimes};

/// Lifetimes by stack.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LifetimesObserver {
    /// `None` if nobody asked for lifetimes.
    within: Option<ShortLivedWithin>,
    /// Row of each stack in `rows`, [`NO_ROW`] if it has none.
    index: Vec<u32>,
    rows: Vec<StackRow>,
    /// Number of short-lived blocks of the process, whichever threads are selected.
    short_lived: u64,
}

/// The figures of one stack.
#[derive(Clone, Debug, Default)]
struct StackRow {
    /// Bytes and blocks that the stack holds.
    bytes: u64,
    blocks: u64,
    /// The most bytes that it held, and its blocks when that was first so.
    max_bytes: u64,
    max_blocks: u64,
    lifetimes: Lifetimes,
}

const NO_ROW: u32 = u32::MAX;

impl LifetimesObserver {
    pub(in crate::load) fn new(within: Option<ShortLivedWithin>) -> LifetimesObserver {
        LifetimesObserver { within, ..LifetimesObserver::default() }
    }

    /// Returns the row of the stack of a block; `None` for blocks of unselected threads.
    #[inline]
    fn row(&mut self, block: &LiveBlock) -> Option<&mut StackRow> {
        let row = self.index.get_mut(block.stack.0 as usize)?;
        if *row == NO_ROW {
            *row = self.rows.len() as u32;
            self.rows.push(StackRow::default());
        }
        self.rows.get_mut(*row as usize)
    }

    #[inline]
    fn add(&mut self, block: &LiveBlock) {
        let Some(row) = self.row(block) else { return };
        row.bytes = row.bytes.wrapping_add(block.size);
        row.blocks += 1;
        if row.bytes > row.max_bytes {
            (row.max_bytes, row.max_blocks) = (row.bytes, row.blocks);
        }
    }

    #[inline]
    fn remove(&mut self, block: &LiveBlock) -> Option<&mut StackRow> {
        let row = self.row(block)?;
        row.bytes = row.bytes.wrapping_sub(block.size);
        row.blocks -= 1;
        Some(row)
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
            self.index.resize(nodes, NO_ROW);
        }
    }

    fn block_lost(&mut self, block: &LiveBlock) {
        if self.within.is_some() {
            self.remove(block);
        }
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        let Some(within) = self.within else { return };
        let us = event.origin.us;
        if let Some(block) = &event.removed {
            let is_death = event.kind == EventKind::Dealloc && !block.birth.is_older();
            let is_short = is_death && is_short_lived(within, block, us, heap);
            self.short_lived += u64::from(is_short);
            if let Some(row) = self.remove(block).filter(|_| is_death) {
                row.lifetimes.add(us.saturating_sub(block.birth.us()), is_short);
            }
        }
        if let Some(block) = &event.added {
            self.add(block);
        }
    }

    fn event_before(&mut self, event: &HeapEvent) {
        if self.within.is_none() {
            return;
        }
        if let Some(block) = &event.removed {
            self.remove(block);
        }
        if let Some(block) = &event.added {
            self.add(block);
        }
    }

    fn interval_begins(&mut self, _start: &IntervalStart<'_>) {
        for row in &mut self.rows {
            (row.max_bytes, row.max_blocks) = (row.bytes, row.blocks);
        }
    }

    fn finish(self, _end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.short_lived_within = self.within;
        profile.totals.short_lived = self.short_lived;
        for (row, stats) in self.index.iter().zip(&mut profile.stacks) {
            let Some(row) = self.rows.get(*row as usize) else { continue };
            (stats.max_live_bytes, stats.max_live_blocks) = (row.max_bytes, row.max_blocks);
        }
        let rows = self.rows.into_iter().map(|row| row.lifetimes);
        profile.lifetimes = StackLifetimes::new(self.index, rows.collect());
    }
}
