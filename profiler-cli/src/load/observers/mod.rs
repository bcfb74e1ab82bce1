//! Observers: each sees the heap events and the live set, and computes one analysis.
//!
//! In: a [`HeapEvent`] for each completed event, and the records that are no heap events. Out: a
//! part of the [`Profile`]. The memory of an observer follows live blocks, distinct stacks, threads
//! or a fixed bound, never events.
//!
//! A new analysis is a new file here, an implementation of [`Observer`], and a line in the list of
//! [`Observers`]. The calls are static: the compiler inlines those of all observers into the
//! replay, and a method that an observer does not implement costs nothing.

pub(super) mod curve;
pub(super) mod lines;
pub(super) mod marks;
pub(super) mod peak;
pub(super) mod samples;
pub(super) mod sizes;
pub(super) mod spans;
pub(super) mod stacks;
pub(super) mod threads;
pub(super) mod totals;

use alloc_dump::record::Record;

use super::heap::{Heap, HeapEvent, LiveBlock, ThreadRef};
use crate::profile::Profile;

/// The moment of a record that is no heap event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// Microseconds since time zero.
    pub(super) us: u64,
    /// The thread whose record it is.
    pub(super) thread_id: u32,
    /// Whether stacks and lines count what this thread does.
    pub(super) is_selected: bool,
    /// The live set.
    pub(super) heap: &'a Heap,
}

/// The end of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayEnd<'a> {
    /// The time that the records have reached, in microseconds since time zero.
    pub(super) us: u64,
    /// The live set.
    pub(super) heap: &'a Heap,
}

/// One analysis. A method that is not implemented ignores what it is given.
pub(super) trait Observer {
    /// A thread has its first record.
    fn thread_begins(&mut self, _thread: ThreadRef, _us: u64) {}

    /// From now on there may be events at all stacks whose id is below `nodes`.
    fn tree_grows(&mut self, _nodes: usize) {}

    /// A block is live no more, because the event that follows puts another block at its address:
    /// its own dealloc was lost.
    fn block_lost(&mut self, _block: &LiveBlock) {}

    /// A heap event is complete. `heap` is the live set after it.
    fn event(&mut self, _event: &HeapEvent, _heap: &Heap) {}

    /// A record that is no heap event, and not one of the call tree.
    fn record(&mut self, _record: &Record<'_>, _moment: &Moment<'_>) {}

    /// The records have ended: writes the result into the profile.
    ///
    /// The profile has its nodes, its modules, its duration, and the totals that the heap counts.
    /// The results of the observers that come before this one in the list of [`Observers`] are
    /// there too.
    fn finish(self, end: &ReplayEnd<'_>, profile: &mut Profile);
}

/// Makes a struct of observers that is an observer itself and calls each of them in order.
macro_rules! observers {
    ($($name:ident: $observer:ty,)*) => {
        /// All observers of a replay.
        #[derive(Clone, Debug, Default)]
        pub(super) struct Observers {
            $(pub(super) $name: $observer,)*
        }

        impl Observer for Observers {
            fn thread_begins(&mut self, thread: ThreadRef, us: u64) {
                $(self.$name.thread_begins(thread, us);)*
            }

            fn tree_grows(&mut self, nodes: usize) {
                $(self.$name.tree_grows(nodes);)*
            }

            #[cold]
            fn block_lost(&mut self, block: &LiveBlock) {
                $(self.$name.block_lost(block);)*
            }

            // PERF: inlined wherever an event is made, so that the compiler knows its kind, and
            // which of its blocks there are, and leaves out what an observer does for other events.
            #[inline(always)]
            fn event(&mut self, event: &HeapEvent, heap: &Heap) {
                $(self.$name.event(event, heap);)*
            }

            fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
                $(self.$name.record(record, moment);)*
            }

            fn finish(self, end: &ReplayEnd<'_>, profile: &mut Profile) {
                $(self.$name.finish(end, profile);)*
            }
        }
    };
}

observers! {
    // First, because it is the only one that may keep a copy of the event.
    lines: lines::LinesObserver,
    totals: totals::TotalsObserver,
    sizes: sizes::SizesObserver,
    threads: threads::ThreadsObserver,
    stacks: stacks::StacksObserver,
    // After `stacks`: adds to its rows.
    peak: peak::PeakObserver,
    curve: curve::CurveObserver,
    samples: samples::SamplesObserver,
    marks: marks::MarksObserver,
}

/// Adds to a sum. The sums of a dump that lies stay at the maximum instead of starting anew.
#[inline]
fn add_to(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}
