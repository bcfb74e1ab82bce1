//! The lines of annotated functions. In: the records of probes, and the heap events between them.
//! Out: figures for every line that was reached, and when the functions ran.
//!
//! An event counts once for each annotated function that its thread runs: on the innermost
//! activation of that function. So the increments of a function's lines add up to the change of the
//! thread's heap over the outermost calls.
//!
//! Memory grows with the number of functions, lines and running activations, never with the number
//! of events. It is bounded, whatever is in the dump.

mod activations;
mod contexts;
mod table;
mod usage;

use alloc_dump::record::Record;

use self::activations::{Activations, HeapChange, ProbeMoment};
use self::usage::UsageReading;
use super::lifetimes::is_short_lived;
use super::{IntervalStart, Moment, Observer, ReplayEnd};
use crate::load::heap::{EventKind, Heap, HeapEvent, LiveBlock};
use crate::profile::{Profile, ShortLivedWithin};

pub(in crate::load) use self::contexts::ContextId;

/// The lines of all annotated functions.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct LinesObserver {
    activations: Activations,
    /// What short-lived means; `None` if neither lifetimes nor the most live bytes of lines were
    /// asked for.
    short_lived: Option<ShortLivedWithin>,
    /// Number of records that name an unknown function or activation, or that exceed a limit.
    contradictions: u64,
}

impl LinesObserver {
    pub(in crate::load) fn new(short_lived: Option<ShortLivedWithin>) -> LinesObserver {
        LinesObserver { short_lived, ..LinesObserver::default() }
    }

    /// Returns the present line context of a thread.
    #[inline]
    pub(in crate::load) fn context_of(&mut self, thread_id: u32) -> ContextId {
        if self.activations.is_empty() { ContextId::NONE } else { self.activations.context_of(thread_id) }
    }
}

impl Observer for LinesObserver {
    fn block_lost(&mut self, block: &LiveBlock) {
        self.remove_from_lines(block);
    }

    #[inline]
    fn event(&mut self, event: &HeapEvent, heap: &Heap) {
        if !self.activations.is_empty() {
            self.count(event, heap);
        }
    }

    fn event_before(&mut self, event: &HeapEvent) {
        self.follow_live_set(event);
    }

    fn interval_begins(&mut self, start: &IntervalStart<'_>) {
        self.activations.contexts.begin_interval();
        self.activations.begin_interval(start.us, |thread| start.threads.is_selected(thread));
    }

    #[inline]
    fn record(&mut self, record: &Record<'_>, moment: &Moment<'_>) {
        let (live, us) = (moment.heap.live_bytes(), moment.us);
        let now = ProbeMoment { thread_id: moment.thread_id, us, live, counts: moment.is_selected };
        let activations = &mut self.activations;
        let is_sound = match *record {
            Record::Function(function) => activations.define(&function),
            Record::Enter { function, activation } => activations.enter(now, function, activation),
            Record::Line { activation, line } => activations.reach(now, activation, line),
            Record::Leave { activation, ended } => activations.leave(now, activation, ended),
            Record::Usage { rss, minor_faults, major_faults } => {
                activations.read_usage(now.thread_id, UsageReading::new(rss, minor_faults, major_faults))
            }
            _ => true,
        };
        self.contradictions += u64::from(!is_sound);
    }

    fn finish(mut self, end: &ReplayEnd<'_>, profile: &mut Profile) {
        profile.trust.inconsistent_events += self.contradictions;
        (profile.spans, profile.spans_dropped) = self.activations.take_spans(end.us);
        // They are part of the interval's peak, but are not live in the sense of an interval.
        for block in end.heap.older_blocks() {
            self.activations.contexts.remove(block.context, block.size);
        }
        let has_lifetimes = self.short_lived.is_some();
        profile.annotated = self.activations.finish(end.us, end.heap.live_bytes(), has_lifetimes);
    }
}

impl LinesObserver {
    #[inline(always)]
    fn follow_live_set(&mut self, event: &HeapEvent) {
        if let Some(block) = &event.removed {
            self.remove_from_lines(block);
        }
        if let Some(block) = &event.added {
            self.activations.contexts.add(block.context, block.size);
            if self.short_lived.is_some() {
                self.activations.hold(block.context, block.size);
            }
        }
    }

    #[inline(always)]
    fn remove_from_lines(&mut self, block: &LiveBlock) {
        self.activations.contexts.remove(block.context, block.size);
        if self.short_lived.is_some() {
            self.activations.release(block.context, block.size);
        }
    }

    #[inline(always)]
    fn count(&mut self, event: &HeapEvent, heap: &Heap) {
        self.follow_live_set(event);
        let contexts = &mut self.activations.contexts;
        if event.is_peak {
            contexts.note_peak();
        }
        let thread = event.origin.thread;
        if !thread.is_selected {
            return;
        }
        if let Some(block) = event.removed.as_ref().filter(|_| event.is_temporary_of_interval()) {
            contexts.count_temporary(block.context);
        }
        if let (Some(within), EventKind::Dealloc, Some(block)) =
            (self.short_lived, event.kind, &event.removed)
            && !block.birth.is_older()
            && is_short_lived(within, block, event.origin.us, heap)
        {
            contexts.count_short_lived(block.context);
        }
        let blocks = match event.kind {
            EventKind::Alloc => 1,
            EventKind::Dealloc => -1,
            EventKind::Realloc => 0,
        };
        let allocations = u64::from(event.kind == EventKind::Alloc);
        let change = HeapChange { allocated: event.allocated, freed: event.freed, blocks, allocations };
        self.activations.count_event(thread.id, change);
    }
}
