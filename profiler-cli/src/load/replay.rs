//! Makes a [`Profile`] of records: hands each record to the parts of the replay that use it.
//!
//! In: the records of a dump, in order. Out: a profile. [`heap`](super::heap),
//! [`call_tree`](super::call_tree) and [`observers`](super::observers) do the work. Never keeps an
//! event, and never reserves memory because of a mere number in the file.

use std::os::unix::ffi::OsStrExt;

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::{Damage, Records};
use alloc_dump::record::{self, Installation, Record, SlowReason};
use alloc_dump::trailer::{Totals, Trailer};
use foldhash::HashSet;

use super::call_tree::CallTree;
use super::gate::{Counted, Gate, Passage};
use super::heap::{BlockOwner, EventOrigin, Heap, HeapEvent, LiveBlock, LostBlock, ThreadRef};
use super::observers::blocks::BlocksObserver;
use super::observers::lines::LinesObserver;
use super::observers::requested::RequestedObservers;
use super::observers::{IntervalStart, Moment, Observer, Observers, ReplayEnd};
use super::options::KeepBlocks;
use super::still_live::AfterInterval;
use super::threads::ThreadTable;
use crate::pattern::Pattern;
use crate::profile::{
    GrowthCurves, GrowthRequest, HeapGrouping, HeapTotals, Interval, LiveHeap, Process, Profile,
    ShortLivedWithin, Slowdown, Trust,
};

/// A replay under way.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    process: Process,
    trust: Trust,
    slowdown: Slowdown,
    tree: CallTree,
    heap: Heap,
    observers: Observers,
    threads: ThreadTable,
    /// The thread whose records follow, if `has_current` holds.
    current: ThreadRef,
    /// False from the start of a frame until its first record that names a thread.
    has_current: bool,
    now_us: u64,
    /// The interval that is counted; `None` for the whole recording.
    gate: Option<Gate>,
    /// The live heap when the interval began.
    heap_before: LiveHeap,
    /// The figures of the interval, once it is over and the replay goes on.
    after: Option<Box<AfterInterval>>,
}

/// What a replay counts. By default it counts everything and keeps no blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplayScope {
    /// The threads whose events count in stacks and lines, and whose blocks these hold; `None` for
    /// all threads.
    pub(super) selected: Option<HashSet<u32>>,
    /// The interval that is counted; `None` for the whole recording.
    pub(super) gate: Option<Gate>,
    /// The blocks that are kept.
    pub(super) keep: KeepBlocks,
    /// What short-lived means; `None` if lifetimes are not asked for.
    pub(super) short_lived: Option<ShortLivedWithin>,
    /// The least drop beside a local peak, in percent; `None` if these are not asked for.
    pub(super) peaks: Option<u8>,
    /// The groups that are followed; `None` if none are asked for.
    pub(super) groups: Option<HeapGrouping>,
    /// Whether to find out what reallocations did.
    pub(super) resizes: bool,
    /// The sites that are followed; `None` if none are asked for.
    pub(super) growth: Option<GrowthRequest>,
    /// The marks whose times are kept; `None` if none are asked for.
    pub(super) mark_times: Option<Pattern>,
    /// Whether to keep layouts of the address space.
    pub(super) layouts: bool,
}

impl Replay {
    /// Starts a replay.
    pub(super) fn new(header: &Header, scope: ReplayScope) -> Replay {
        let ReplayScope { selected, gate, keep, short_lived, peaks, groups, resizes, .. } = scope;
        let ReplayScope { growth, mark_times, layouts, .. } = scope;
        let observers = Observers {
            blocks: BlocksObserver::new(keep),
            lines: LinesObserver::new(short_lived),
            requested: RequestedObservers::new(short_lived, peaks, groups, resizes)
                .with_growth(growth, mark_times)
                .with_layouts(layouts),
            ..Observers::default()
        };
        let mut replay = Replay {
            process: Process { started_unix_ns: header.created_unix_ns, ..Process::default() },
            trust: Trust::default(),
            slowdown: Slowdown::default(),
            tree: CallTree::default(),
            heap: Heap::default(),
            observers,
            threads: ThreadTable::new(selected),
            current: ThreadRef { id: NO_THREAD, index: 0, is_selected: false },
            has_current: false,
            now_us: 0,
            gate,
            heap_before: LiveHeap::default(),
            after: None,
        };
        replay.tree.grow_to(StackId::FIRST.0 as usize);
        replay.observers.tree_grows(replay.tree.len());
        replay
    }

    /// Replays the records of a dump frame. `dropped_bytes` is the number of bytes of the dump that
    /// the reader could not use so far.
    pub(super) fn replay_frame(&mut self, dropped_bytes: u64, records: Records<'_>) {
        // Each frame names its threads anew, so there is no current thread yet.
        self.has_current = false;
        self.tree.set_dropped_bytes(dropped_bytes);
        records.visit(|record| self.record_of_interval(record));
    }

    /// Whether no later record can change the profile.
    pub(super) fn is_over(&self) -> bool {
        self.after.is_none() && self.gate.as_ref().is_some_and(Gate::is_over)
    }

    /// Notes that the sidecar of the dump was in memory, and is gone.
    pub(super) fn note_sidecar_gone(&mut self) {
        self.trust.sidecar_gone = true;
    }

    /// Notes that the dump has a sidecar that cannot be read. The text names the file and the
    /// reason.
    pub(super) fn note_unread_sidecar(&mut self, problem: String) {
        self.trust.unread_sidecar = Some(problem);
    }

    /// Notes that the dump was being written while it was read.
    pub(super) fn note_being_written(&mut self) {
        self.trust.is_being_written = true;
    }

    /// Notes that the sidecar had this many bytes of frames. `stopped` is the error at which the
    /// recording stopped; `None` if no error stopped it.
    pub(super) fn note_recovered(&mut self, bytes: u64, stopped: Option<String>) {
        self.trust.has_sidecar = true;
        self.trust.recovered_bytes = bytes;
        self.trust.stopped = stopped;
    }

    /// Replays the next record, unless it comes after the interval.
    ///
    /// PERF: this is the only caller of [`record`](Replay::record), so that there is one copy of
    /// all that is inlined there.
    #[inline(always)]
    pub(super) fn record_of_interval(&mut self, record: &Record<'_>) {
        if self.gate.is_none() || self.lets_in(record) {
            self.record(record);
        }
    }

    /// Whether a record does not come after the interval. Begins the interval if it begins before
    /// the record.
    #[inline(never)]
    fn lets_in(&mut self, record: &Record<'_>) -> bool {
        let kind = match record {
            Record::Alloc { .. }
            | Record::Dealloc { .. }
            | Record::Realloc { .. }
            | Record::ReallocEnd { .. } => Counted::Event,
            Record::Mark { .. } => Counted::Mark,
            _ => Counted::Other,
        };
        loop {
            let Some(gate) = self.gate.as_mut().filter(|gate| !gate.is_over()) else {
                return self.after.is_some();
            };
            match gate.pass(self.now_us, kind) {
                Passage::Begins(us) => self.begin_interval(us),
                Passage::Ends if gate.is_still_live() => self.go_on_behind_interval(),
                Passage::Ends => return false,
                Passage::Stays => return true,
            }
        }
    }

    fn begin_interval(&mut self, us: u64) {
        self.heap_before = self.live_heap();
        self.heap.begin_interval(us);
        let start = IntervalStart { us, heap: &self.heap, threads: &self.threads };
        self.observers.interval_begins(&start);
    }

    /// Computes the figures of the interval, which is over, and goes on with the live set alone.
    fn go_on_behind_interval(&mut self) {
        let now_us = self.now_us;
        let us = self.gate.as_ref().and_then(Gate::end_us).unwrap_or(now_us);
        let resizes = self.observers.requested.resizes();
        let part = self.interval_profile(us);
        self.now_us = now_us;
        self.after = Some(Box::new(AfterInterval::new(part, &self.heap, self.live_heap(), resizes)));
    }

    fn live_heap(&self) -> LiveHeap {
        LiveHeap { bytes: self.heap.live_bytes(), blocks: self.heap.live_blocks() }
    }

    /// Whether the interval that is counted has not begun yet.
    fn is_before(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| !gate.is_open())
    }

    /// Replays the next record. Handles the frequent kinds of records itself.
    #[inline(always)]
    pub(super) fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Time { us } => self.now_us = self.now_us.max(us.min(MAX_US)),
            Record::Thread { id } => self.set_current(id),
            Record::Alloc { addr, size, stack, .. } => {
                let origin = self.origin(stack);
                let owner = self.owner(&origin);
                let (event, lost) = self.heap.alloc(origin, owner, addr, size);
                self.observe(&event, lost);
            }
            Record::Dealloc { addr, size, stack } => {
                let origin = self.origin(stack);
                let event = self.heap.dealloc(origin, addr, size);
                self.observe(&event, None);
            }
            Record::Realloc { old, old_size, new, size, stack } => {
                let origin = self.origin(stack);
                let owner = self.owner(&origin);
                let (event, lost) = self.heap.realloc(origin, owner, (old, old_size), (new, size));
                self.observe(&event, lost);
            }
            _ => self.rare_record(record),
        }
    }

    /// Replays a record of a rare kind. The frequent kinds are whole heap events, times and changes
    /// of the current thread.
    fn rare_record(&mut self, record: &Record<'_>) {
        match *record {
            Record::ReallocBegin { old, old_size } => {
                let thread = self.current_thread();
                self.heap.begin_realloc(thread, old, old_size);
            }
            Record::ReallocEnd { new, size, stack } => {
                let origin = self.origin(stack);
                let owner = self.owner(&origin);
                let (event, lost) = self.heap.end_realloc(origin, owner, new, size);
                self.observe(&event, lost);
            }
            Record::ReallocFailed => {
                let thread = self.current_thread();
                self.heap.cancel_realloc(thread);
            }
            Record::Node { id, parent, pc } => {
                self.tree.add_node(id, parent, pc);
                self.observers.tree_grows(self.tree.len());
            }
            Record::Module(module) => self.tree.add_module(&module),
            Record::ModuleEnd { id } => self.tree.remove_module(id),
            Record::ModuleCode { id, code } => {
                if let Some(module) = self.tree.module(id) {
                    module.code = Some(code);
                }
            }
            Record::Slow(reason) => self.slow(reason),
            Record::Lost { events } => {
                self.trust.lost_events = self.trust.lost_events.saturating_add(events);
            }
            Record::Checked { stacks, different } => {
                self.trust.checked_stacks = self.trust.checked_stacks.saturating_add(stacks);
                self.trust.different_stacks = self.trust.different_stacks.saturating_add(different);
            }
            Record::Installation(installation) => self.trust.installation = Some(installation),
            Record::PartlyVerified { stacks } => {
                self.trust.partly_verified_stacks = self.trust.partly_verified_stacks.saturating_add(stacks);
            }
            Record::Label { name, value } => {
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                // A damaged or hostile dump must not take memory without bound.
                if self.process.labels.len() < MAX_LABELS {
                    self.process.labels.insert(text(name), text(value));
                }
            }
            Record::LimitReached(limit) => self.trust.limit = Some(limit),
            Record::MemoryLimit(limit) => self.process.add_memory_limit(limit),
            Record::Process(process) => {
                let labels = std::mem::take(&mut self.process.labels);
                let memory_limits = std::mem::take(&mut self.process.memory_limits);
                let started_unix_ns = self.process.started_unix_ns;
                self.process = Process { started_unix_ns, labels, memory_limits, ..owned_process(&process) };
                self.heap.from_first_event = process.from_first_event;
                self.observers.requested.set_page_size(process.page_size);
            }
            _ => self.observed_record(record),
        }
    }

    fn slow(&mut self, reason: SlowReason) {
        let slowdown = &mut self.slowdown;
        match reason {
            SlowReason::NoLoaderLookup => slowdown.no_loader_lookup = true,
            SlowReason::NoMembarrier => slowdown.no_membarrier = true,
            SlowReason::PortableWalks { stacks } => {
                slowdown.portable_walks = slowdown.portable_walks.saturating_add(stacks);
            }
            SlowReason::NoUnwindTables { module } => {
                if let Some(module) = self.tree.module(module) {
                    module.lacks_unwind_tables = true;
                }
            }
            _ => {}
        }
    }

    /// Hands a record to the observers, which alone use it.
    fn observed_record(&mut self, record: &Record<'_>) {
        match *record {
            Record::ThreadStart { id, .. } | Record::ThreadName { id, .. } | Record::ThreadEnd { id } => {
                self.thread(id);
            }
            Record::Enter { .. } | Record::Line { .. } | Record::Leave { .. } | Record::Usage { .. } => {
                self.current_thread();
            }
            _ => {}
        }
        if self.after.is_some() {
            return;
        }
        let (thread_id, is_selected) = match self.has_current {
            true => (self.current.id, self.current.is_selected),
            false => (NO_THREAD, self.threads.is_selected(NO_THREAD)),
        };
        let is_before = self.is_before();
        let is_selected = is_selected && !is_before;
        let moment = Moment { us: self.now_us, thread_id, is_selected, is_before, heap: &self.heap };
        self.observers.record(record, &moment);
    }

    #[inline]
    fn origin(&mut self, stack: StackId) -> EventOrigin {
        let stack = self.tree.known(stack);
        EventOrigin { us: self.now_us, thread: self.current_thread(), stack }
    }

    /// Returns the owner of a block that gets its size now: the present stack and line context of
    /// its thread, or [`BlockOwner::UNSELECTED`] if the thread is not selected.
    #[inline]
    fn owner(&mut self, origin: &EventOrigin) -> BlockOwner {
        if !origin.thread.is_selected {
            return BlockOwner::UNSELECTED;
        }
        BlockOwner { stack: origin.stack, context: self.observers.lines.context_of(origin.thread.id) }
    }

    #[inline(always)]
    fn observe(&mut self, event: &HeapEvent, lost: Option<LostBlock>) {
        if let Some(LostBlock(block)) = lost {
            self.observe_lost(&block);
        }
        if self.gate.is_some() && self.is_before() {
            return self.observe_outside(*event);
        }
        self.observers.event(event, &self.heap);
    }

    /// PERF: takes a copy. With a reference to the event, the compiler would have to store every
    /// event in memory, which took a fifth of the time of loading.
    #[cold]
    #[inline(never)]
    fn observe_outside(&mut self, event: HeapEvent) {
        match &mut self.after {
            Some(after) => after.event(&event, &self.heap),
            None => self.observers.event_before(&event),
        }
    }

    #[cold]
    fn observe_lost(&mut self, block: &LiveBlock) {
        match &mut self.after {
            Some(after) => after.block_lost(block),
            None => self.observers.block_lost(block),
        }
    }

    #[inline]
    fn current_thread(&mut self) -> ThreadRef {
        if !self.has_current {
            self.set_current(NO_THREAD);
        }
        self.current
    }

    fn set_current(&mut self, id: u32) {
        self.current = self.thread(id);
        self.has_current = true;
    }

    /// Returns the thread with this number. Adds it to the heap and to the observers if it is new.
    fn thread(&mut self, id: u32) -> ThreadRef {
        let (thread, is_new) = self.threads.find_or_add(id);
        if is_new {
            self.heap.add_thread();
            self.observers.thread_begins(thread, self.now_us);
        }
        thread
    }

    /// Returns the profile of the interval. `whole` is that of the whole recording: it gives all
    /// that is known of the recording itself, such as names of threads and how far to trust it. The
    /// moments of the interval have the names `from` and `to`.
    pub(super) fn finish_interval(mut self, whole: Profile, (from, to): (Option<String>, String)) -> Profile {
        let Some(gate) = &self.gate else { return whole };
        let still_live = gate.is_still_live();
        let (from_us, to_us) = (gate.start_us(), gate.end_us().unwrap_or(whole.duration_us));
        if !gate.has_begun() {
            self.begin_interval(from_us);
        }
        let (mut part, heap_after) = match self.after.take() {
            Some(after) => after.finish(&mut self.heap, whole.stacks.len()),
            None => (self.interval_profile(to_us), self.live_heap()),
        };
        let heap_before = self.heap_before;
        part.interval = Some(Interval { from, to, from_us, to_us, heap_before, heap_after, still_live });
        part.stacks.resize(whole.stacks.len(), Default::default());
        for (thread, known) in part.threads.iter_mut().zip(&whole.threads) {
            thread.name.clone_from(&known.name);
            (thread.os_tid, thread.end_us) = (known.os_tid, known.end_us);
        }
        Profile {
            process: whole.process,
            nodes: whole.nodes,
            modules: whole.modules,
            duration_us: whole.duration_us,
            trust: whole.trust,
            slowdown: whole.slowdown,
            ..part
        }
    }

    /// Returns what the sites held that were asked for; `None` if none were.
    pub(super) fn finish_growth(mut self) -> Option<GrowthCurves> {
        self.profile(false, 0).growth
    }

    /// Returns the profile of the interval, which ends now, without what is known of the recording
    /// itself: that comes from the profile of the whole recording. The observers are gone.
    fn interval_profile(&mut self, to_us: u64) -> Profile {
        self.now_us = to_us;
        self.profile(true, to_us)
    }

    /// Returns the profile, and compares it with the totals that the recorder wrote into the
    /// trailer.
    pub(super) fn finish(mut self, trailer: Option<&Trailer>, loss: Damage) -> Profile {
        let until = trailer.map_or(0, |trailer| trailer.duration_us.min(MAX_US));
        let mut profile = self.profile(false, until);
        profile.trust.loss = loss;
        profile.trust.end = trailer.map(|trailer| trailer.end);
        let recorded = trailer.and_then(|trailer| trailer.totals);
        if let Some(recorded) = &recorded
            && profile.trust.allocated_elsewhere + profile.trust.freed_elsewhere > 0
            && !profile.trust.has_loss()
        {
            // The records lack sizes that only an allocation would have told.
            profile.totals.freed_bytes = recorded.freed_bytes;
        }
        profile.trust.disagreement =
            recorded.filter(|recorded| disagree(recorded, &profile.totals, &profile.trust));
        profile
    }

    /// Returns the profile of what was replayed, with the results of the observers, which are gone.
    /// It lasts until `until_us`, or to the last record if that is later. In an interval the call
    /// tree stays for the records that follow, and the profile has no nodes.
    fn profile(&mut self, is_interval: bool, until_us: u64) -> Profile {
        let (nodes, modules, contradictions) = match is_interval {
            true => Default::default(),
            false => std::mem::take(&mut self.tree).finish(),
        };
        let mut profile = Profile {
            process: self.process.clone(),
            modules,
            nodes,
            counts_only_selected_threads: self.threads.is_selective(),
            duration_us: until_us.max(self.now_us),
            trust: self.trust.clone(),
            slowdown: self.slowdown,
            ..Profile::default()
        };
        let (heap, peak) = (&self.heap, self.heap.peak());
        let totals = &mut profile.totals;
        (totals.live_bytes, totals.live_blocks) = match is_interval {
            true => heap.born_in_interval(),
            false => (heap.live_bytes(), heap.live_blocks()),
        };
        (totals.peak_bytes, totals.peak_blocks, totals.peak_us) = (peak.bytes, peak.blocks, peak.us);
        totals.peak_event = peak.event;
        (totals.foreign_frees, totals.foreign_bytes) = heap.foreign();
        profile.last_event = heap.events();
        profile.trust.inconsistent_events = contradictions + heap.contradictions();
        profile.trust.allocated_elsewhere = heap.allocated_elsewhere();
        profile.trust.freed_elsewhere = heap.freed_elsewhere();
        let is_complete = profile.trust.installation == Some(Installation::Complete);
        profile.trust.is_unproven = heap.events() == 0 && !is_complete;
        let observers = std::mem::take(&mut self.observers);
        observers.finish(&ReplayEnd { us: self.now_us, heap }, &mut profile);
        profile
    }
}

/// Stands for the thread of records before any record that names a thread. No thread of a recorder
/// has this number.
const NO_THREAD: u32 = 0;
/// The most labels of a recording that are kept.
const MAX_LABELS: usize = 1000;
/// The largest time; later times become this one, so that times still fit in nanoseconds. It is
/// more than five hundred years.
const MAX_US: u64 = u64::MAX / 1000;

fn owned_process(process: &record::Process<'_>) -> Process {
    let args = process.args.strip_suffix(b"\0").unwrap_or(process.args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).into();
    Process {
        pid: process.pid,
        exe: path(process.exe),
        args: args.split(|byte| *byte == 0).map(text).filter(|_| !args.is_empty()).collect(),
        cwd: path(process.cwd),
        from_first_event: process.from_first_event,
        run_token: text(process.run),
        debug_assertions: process.debug_assertions,
        ..Process::default()
    }
}

/// Whether the totals that the recorder counted differ from those of the replay.
fn disagree(recorded: &Totals, replayed: &HeapTotals, trust: &Trust) -> bool {
    (recorded.allocations, recorded.deallocations, recorded.reallocations)
        != (replayed.allocations, replayed.deallocations, replayed.reallocations)
        || (recorded.allocated_bytes, recorded.freed_bytes)
            != (replayed.allocated_bytes, replayed.freed_bytes)
        || recorded.lost_events != trust.lost_events
}

#[cfg(test)]
mod tests;
