//! Observers: each observer sees the heap events and the live set, and computes one analysis.
//!
//! In: a [`HeapEvent`] for each completed event, and the records that are no heap events. Out: a
//! part of the [`Profile`]. The memory of an observer grows with the number of live blocks,
//! distinct stacks or threads, or has a fixed bound. It never grows with the number of events.
//!
//! A new analysis is a new file here, an implementation of [`Observer`], and a line in the list of
//! [`Observers`]. The calls are static: the compiler inlines those of all observers into the
//! replay, and a method that an observer does not implement costs nothing.

pub(super) mod blocks;
pub(super) mod curve;
mod groups;
mod growth;
mod layouts;
mod lifetimes;
pub(super) mod lines;
mod local_peaks;
mod mark_times;
pub(super) mod marks;
pub(super) mod peak;
pub(super) mod requested;
pub(super) mod resizes;
pub(super) mod samples;
pub(super) mod sizes;
pub(super) mod spans;
pub(super) mod stacks;
mod teardown;
pub(super) mod threads;
pub(super) mod totals;

use alloc_dump::record::Record;

use super::heap::{Heap, HeapEvent, LiveBlock, ThreadRef};
use super::threads::ThreadTable;
use crate::profile::Profile;

/// The moment of a record that is no heap event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// Microseconds since time zero.
    pub(super) us: u64,
    /// Number, in the dump, of the thread that the record belongs to.
    pub(super) thread_id: u32,
    /// Whether stacks and lines count the events of this thread now: it is selected, and the
    /// interval has begun.
    pub(super) is_selected: bool,
    /// Whether the moment is before the interval that is counted.
    pub(super) is_before: bool,
    /// The live set.
    pub(super) heap: &'a Heap,
}

/// The beginning of the interval that is counted, if that is not the start of the recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntervalStart<'a> {
    /// Microseconds since time zero.
    pub(super) us: u64,
    /// The live set, whose blocks are older than the interval from now on.
    pub(super) heap: &'a Heap,
    /// The threads.
    pub(super) threads: &'a ThreadTable,
}

/// The end of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplayEnd<'a> {
    /// The time that the records have reached, in microseconds since time zero.
    pub(super) us: u64,
    /// The live set.
    pub(super) heap: &'a Heap,
}

/// One analysis. A method that an observer does not implement does nothing.
pub(super) trait Observer {
    /// Called at the first record of a thread.
    fn thread_begins(&mut self, _thread: ThreadRef, _us: u64) {}

    /// Called when the call tree has grown to `nodes` nodes: from now on there may be events at all
    /// stacks whose id is below that number.
    fn tree_grows(&mut self, _nodes: usize) {}

    /// Called for a live block whose dealloc was lost: the next event puts another block at its
    /// address, so it is no longer live.
    fn block_lost(&mut self, _block: &LiveBlock) {}

    /// Called for each completed heap event. `heap` is the live set after the event.
    fn event(&mut self, _event: &HeapEvent, _heap: &Heap) {}

    /// Called instead of [`Observer::event`] for each event before the interval. Such an event must
    /// not be counted, but an observer that follows the live set has to see it.
    fn event_before(&mut self, _event: &HeapEvent) {}

    /// Called once when the interval begins, if events came before it.
    fn interval_begins(&mut self, _start: &IntervalStart<'_>) {}

    /// Called for each record that the replay does not use itself: threads, samples, marks,
    /// annotated functions and their probes. Never called for heap events, nodes and modules. It
    /// is called before the interval too, because later records refer to earlier ones.
    fn record(&mut self, _record: &Record<'_>, _moment: &Moment<'_>) {}

    /// Writes the result into the profile, after the last record.
    ///
    /// The profile has its nodes, its modules, its duration, and the totals that the heap counts.
    /// It also has the results of the observers that stand before this one in the list of
    /// [`Observers`].
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

            // PERF: inlined at every place that makes an event. There the compiler knows the kind
            // of the event and which of its blocks exist, so it removes the code of the observers
            // for other events.
            #[inline(always)]
            fn event(&mut self, event: &HeapEvent, heap: &Heap) {
                $(self.$name.event(event, heap);)*
            }

            fn event_before(&mut self, event: &HeapEvent) {
                $(self.$name.event_before(event);)*
            }

            fn interval_begins(&mut self, start: &IntervalStart<'_>) {
                $(self.$name.interval_begins(start);)*
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
    lines: lines::LinesObserver,
    sizes: sizes::SizesObserver,
    threads: threads::ThreadsObserver,
    // After `threads`, because it adds up the rows of that observer.
    totals: totals::TotalsObserver,
    stacks: stacks::StacksObserver,
    // After `stacks`, because it adds figures to the rows of that observer.
    peak: peak::PeakObserver,
    curve: curve::CurveObserver,
    // After `totals` and `stacks`, because it adds figures to them.
    requested: requested::RequestedObservers,
    samples: samples::SamplesObserver,
    marks: marks::MarksObserver,
    blocks: blocks::BlocksObserver,
    teardown: teardown::TeardownObserver,
}

/// Adds to a sum, which stays at the maximum on overflow. Only a dump with false sizes gets that
/// far.
#[inline]
fn add_to(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}
