//! The heap, event by event. In: records in order. Out: a [`Profile`]. Never holds an event; believes no number that
//! the file has not paid for with bytes.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

use alloc_dump::header::Header;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::{self, Record};
use alloc_dump::trailer::{Totals, Trailer};
use foldhash::{HashMap, HashSet};

use super::activations::{Activations, Change, Now};
use super::contexts::NO_CONTEXT;
use super::curve::{Curve, Samples};
use super::modules::ModuleMap;
use super::peak::PeakTracker;
use super::usage::Used;
use crate::profile::{HeapTotals, Mark, Node, Process, Profile, StackStats, Thread, Trust};

/// A block that is live.
#[derive(Clone, Copy, Debug)]
struct Block {
    size: u64,
    /// The stack that gave it its present size.
    stack: StackId,
    /// The annotated lines at which it got its present size.
    context: u32,
    born_us: u64,
    /// The number of the event that gave it its present size.
    event: u64,
}

/// What the replay keeps of a thread.
#[derive(Debug, Default)]
struct ThreadState {
    /// The number of its last heap event, if that was an allocation. NOTE: not the block's address, at which there may be another
    /// thread's by now.
    just_allocated: Option<u64>,
    /// Blocks whose realloc has begun and not ended.
    moving: Vec<Option<(u64, Block)>>,
    selected: bool,
}

/// A replay under way.
pub(super) struct Replay {
    profile: Profile,
    modules: ModuleMap,
    /// Address and number of nodes that no known module covers.
    unplaced: BTreeSet<(u64, u32)>,
    live: HashMap<u64, Block>,
    peak: PeakTracker,
    curve: Curve,
    samples: Samples,
    /// In the order of the profile's threads.
    threads: Vec<ThreadState>,
    /// Where those with these numbers are.
    thread_places: HashMap<u32, usize>,
    /// The one that was asked for last, and its place.
    last_thread: Option<(u32, usize)>,
    activations: Activations,
    mark_names: HashMap<u32, String>,
    selected: Option<HashSet<u32>>,
    /// Events of the threads that are not selected, by stack.
    elsewhere: HashMap<StackId, u64>,
    current: u32,
    now_us: u64,
    events: u64,
    /// At most so many nodes may have been in what could not be used.
    missing_nodes: u64,
    /// And so many were.
    excused_nodes: u64,
    /// Bytes of the names of marks.
    mark_bytes: usize,
}

impl Replay {
    /// With `selected`, stacks count only the events of these threads, and hold only the blocks that these allocated.
    pub(super) fn new(header: Header, selected: Option<HashSet<u32>>) -> Replay {
        let mut replay = Replay {
            profile: Profile::default(),
            modules: ModuleMap::default(),
            unplaced: BTreeSet::new(),
            live: HashMap::default(),
            peak: PeakTracker::default(),
            curve: Curve::default(),
            samples: Samples::default(),
            threads: Vec::new(),
            thread_places: HashMap::default(),
            last_thread: None,
            activations: Activations::default(),
            mark_names: HashMap::default(),
            selected,
            elsewhere: HashMap::default(),
            current: 0,
            now_us: 0,
            events: 0,
            missing_nodes: 0,
            excused_nodes: 0,
            mark_bytes: 0,
        };
        replay.profile.process.started_unix_ns = header.created_unix_ns;
        replay.profile.some_threads = replay.selected.is_some();
        replay.profile.sizes = vec![0; 65];
        replay.make_room(StackId::FIRST.0 as usize);
        replay
    }

    /// What records say about thread and time does not reach over frames. `dropped_bytes` of the input could not be used
    /// so far: nodes whose records were there may be missing.
    pub(super) fn frame_begins(&mut self, dropped_bytes: u64) {
        self.current = 0;
        self.missing_nodes = dropped_bytes / MIN_NODE_BYTES;
    }

    /// There was a sidecar, in memory, and it is not there any more.
    pub(super) fn sidecar_is_gone(&mut self) {
        self.profile.trust.sidecar_gone = true;
    }

    /// The sidecar had this many bytes of records.
    pub(super) fn recovered(&mut self, bytes: u64, stopped: Option<String>) {
        self.profile.trust.recovered_bytes = bytes;
        self.profile.trust.stopped = stopped;
    }

    /// Takes the next record.
    #[inline]
    pub(super) fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Time { us } => self.now_us = self.now_us.max(us.min(MAX_US)),
            Record::Thread { id } => {
                self.current = id;
                self.thread(id);
            }
            Record::Alloc { addr, size, stack, .. } => {
                let size = self.credible(size);
                self.alloc(addr, size, stack);
            }
            Record::Dealloc { addr, size, stack } => self.dealloc(addr, size, stack),
            Record::Realloc { old, old_size, new, size, stack } => {
                let block = self.live.remove(&old);
                let size = self.credible(size);
                self.realloc(block, old_size, new, size, stack);
            }
            Record::ReallocBegin { old, old_size } => {
                // A block that the dump has never seen keeps its size for the second half.
                let block = self.live.remove(&old).or_else(|| {
                    old_size.map(|size| Block {
                        size,
                        stack: FOREIGN,
                        context: NO_CONTEXT,
                        born_us: self.now_us,
                        event: 0,
                    })
                });
                self.thread(self.current).moving.push(block.map(|block| (old, block)));
            }
            Record::ReallocEnd { new, size, stack } => {
                let begun = self.thread(self.current).moving.pop().flatten();
                let (block, old_size) = match begun {
                    Some((_, block)) if block.stack == FOREIGN => (None, Some(block.size)),
                    Some((_, block)) => (Some(block), None),
                    None => (None, None),
                };
                let size = self.credible(size);
                self.realloc(block, old_size, new, size, stack);
            }
            Record::ReallocFailed => {
                if let Some((old, block)) = self.thread(self.current).moving.pop().flatten()
                    && block.stack != FOREIGN
                {
                    self.live.insert(old, block);
                }
            }
            _ => self.cold(record),
        }
    }

    /// The profile, checked against what the recorder says about itself.
    pub(super) fn finish(mut self, trailer: Option<&Trailer>, loss: Damage) -> Profile {
        // Another block may be at the address of one that is being moved.
        let moving = self.threads.iter().flat_map(|thread| &thread.moving).flatten().map(|(_, block)| block);
        let in_transit: Vec<Block> = moving.filter(|block| block.stack != FOREIGN).copied().collect();
        let mut profile = self.profile;
        self.peak.finish(&mut profile.stacks);
        for block in self.live.values().chain(&in_transit) {
            let Some(stats) = profile.stacks.get_mut(block.stack.0 as usize) else { continue };
            stats.live_first_us = stats.live_first_us.min(block.born_us);
            stats.live_last_us = stats.live_last_us.max(block.born_us);
        }
        for stats in profile.stacks.iter_mut().filter(|stats| stats.live_blocks == 0) {
            (stats.live_first_us, stats.live_last_us) = (0, 0);
        }
        let totals = &mut profile.totals;
        (totals.live_bytes, totals.live_blocks) = (self.peak.live_bytes, self.peak.live_blocks);
        (totals.peak_bytes, totals.peak_blocks) = (self.peak.peak_bytes, self.peak.peak_blocks);
        totals.peak_us = self.peak.peak_us;
        // These are figures of the process, whichever threads are selected.
        let elsewhere = |at: usize| self.elsewhere.get(&StackId(at as u32)).copied().unwrap_or(0);
        let events =
            profile.stacks.iter().enumerate().map(|(at, stats)| (at, stats.events() + elsewhere(at)));
        let truncated = |at: usize| profile.nodes[at].truncated || at == StackId::TRUNCATED.0 as usize;
        for (at, events) in events.filter(|(_, events)| *events > 0) {
            totals.stacks += 1;
            profile.trust.truncated_stacks += if truncated(at) { events } else { 0 };
        }
        profile.modules = self.modules.into_all();
        let until = trailer.map_or(0, |trailer| trailer.duration_us.min(MAX_US));
        profile.duration_us = until.max(self.now_us);
        profile.timeline = self.samples.finish();
        profile.heap = self.curve.finish(profile.duration_us);
        (profile.spans, profile.spans_dropped) = self.activations.take_spans(self.now_us);
        profile.annotated = self.activations.finish(self.now_us, self.peak.live_bytes);
        profile.trust.loss = loss;
        profile.trust.end = trailer.map(|trailer| trailer.end);
        profile.trust.disagreement = trailer
            .and_then(|trailer| trailer.totals)
            .filter(|own| disagree(own, &profile.totals, &profile.trust));
        profile
    }

    /// A size that a block can have; one that it cannot is counted and taken for nothing.
    #[inline]
    fn credible(&mut self, size: u64) -> u64 {
        if size <= MAX_SIZE {
            return size;
        }
        self.profile.trust.inconsistent_events += 1;
        0
    }

    #[inline]
    fn alloc(&mut self, addr: u64, size: u64, stack: StackId) {
        let stack = self.known(stack);
        self.events += 1;
        let event = self.events;
        let place = self.thread_place(self.current);
        let thread = &mut self.threads[place];
        thread.just_allocated = Some(event);
        let selected = thread.selected;
        let (owner, context) = self.owner(selected, stack);
        let block = Block { size, stack: owner, context, born_us: self.now_us, event };
        if let Some(lost) = self.live.insert(addr, block) {
            // Its free was lost.
            self.profile.trust.inconsistent_events += 1;
            self.goes(&lost);
        }
        self.comes(owner, context, size);
        self.profile.totals.allocations += 1;
        add(&mut self.profile.totals.allocated_bytes, size);
        self.profile.sizes[size_class(size)] += 1;
        if let Some(thread) = self.profile.threads.get_mut(place) {
            thread.allocations += 1;
            add(&mut thread.allocated, size);
        }
        if selected {
            let stats = self.touch(stack);
            stats.allocations += 1;
            add(&mut stats.allocated, size);
            self.report_event(size, 0, 1);
        } else {
            self.passes(stack);
        }
    }

    #[inline]
    fn dealloc(&mut self, addr: u64, size: Option<u64>, stack: StackId) {
        let stack = self.known(stack);
        self.events += 1;
        let block = self.live.remove(&addr);
        if let Some(block) = block {
            self.goes(&block);
        }
        self.curve.note(self.now_us, self.peak.live_bytes);
        let size = self.size_of(block, size);
        self.profile.totals.deallocations += 1;
        add(&mut self.profile.totals.freed_bytes, size);
        let place = self.thread_place(self.current);
        let thread = &mut self.threads[place];
        let last = thread.just_allocated.take();
        let temporary = block.is_some_and(|block| last == Some(block.event));
        let selected = thread.selected;
        if let Some(thread) = self.profile.threads.get_mut(place) {
            thread.deallocations += 1;
            add(&mut thread.freed, size);
        }
        self.profile.totals.temporary += u64::from(temporary);
        if selected {
            let stats = self.touch(stack);
            stats.deallocations += 1;
            add(&mut stats.freed, size);
            self.report_event(0, size, -1);
            if let Some(block) = block.filter(|_| temporary)
                && let Some(owner) = self.profile.stacks.get_mut(block.stack.0 as usize)
            {
                owner.temporary += 1;
                self.activations.contexts.temporary(block.context);
                add(&mut owner.temporary_bytes, block.size);
            }
        } else {
            self.passes(stack);
        }
    }

    /// `block` has been taken out of the live blocks; its bytes are still in the totals.
    fn realloc(&mut self, block: Option<Block>, old_size: Option<u64>, new: u64, size: u64, stack: StackId) {
        let stack = self.known(stack);
        self.events += 1;
        if let Some(block) = block {
            self.goes(&block);
        }
        let old_size = self.size_of(block, old_size);
        let born_us = block.map_or(self.now_us, |block| block.born_us);
        let place = self.thread_place(self.current);
        let thread = &mut self.threads[place];
        thread.just_allocated = None;
        let selected = thread.selected;
        let (owner, context) = self.owner(selected, stack);
        let block = Block { size, stack: owner, context, born_us, event: self.events };
        if let Some(lost) = self.live.insert(new, block) {
            self.profile.trust.inconsistent_events += 1;
            self.goes(&lost);
        }
        self.comes(owner, context, size);
        self.profile.totals.reallocations += 1;
        add(&mut self.profile.totals.allocated_bytes, size);
        add(&mut self.profile.totals.freed_bytes, old_size);
        if let Some(thread) = self.profile.threads.get_mut(place) {
            thread.reallocations += 1;
            add(&mut thread.allocated, size);
            add(&mut thread.freed, old_size);
        }
        if selected {
            let stats = self.touch(stack);
            stats.reallocations += 1;
            add(&mut stats.allocated, size);
            add(&mut stats.freed, old_size);
            self.report_event(size, old_size, 0);
        } else {
            self.passes(stack);
        }
    }

    /// Counts an event of a thread that is not selected.
    #[cold]
    fn passes(&mut self, stack: StackId) {
        *self.elsewhere.entry(stack).or_default() += 1;
    }

    /// Whose a block is: of the stack and the lines that gave it its size, or of none if that thread is not selected.
    #[inline]
    fn owner(&mut self, selected: bool, stack: StackId) -> (StackId, u32) {
        if selected { (stack, self.activations.context(self.current)) } else { (OTHERS, NO_CONTEXT) }
    }

    /// A block has got its size, which may make a new maximum.
    #[inline]
    fn comes(&mut self, stack: StackId, context: u32, size: u64) {
        self.peak.add(&mut self.profile.stacks, stack, size);
        self.activations.contexts.add(context, size);
        if self.peak.settle(self.now_us) {
            self.activations.contexts.peak();
        }
        self.curve.note(self.now_us, self.peak.live_bytes);
    }

    /// A block has gone, or is about to get another size.
    #[inline]
    fn goes(&mut self, block: &Block) {
        self.peak.remove(&mut self.profile.stacks, block.stack, block.size);
        self.activations.contexts.remove(block.context, block.size);
    }

    /// Tells the functions that report their lines of an event.
    #[inline]
    fn report_event(&mut self, allocated: u64, freed: u64, blocks: i64) {
        if !self.activations.is_empty() {
            self.activations.event(self.current, Change { allocated, freed, blocks });
        }
    }

    /// The size of a block that goes away; one that is not known is either older than the recording, or its allocation
    /// was lost.
    #[inline]
    fn size_of(&mut self, block: Option<Block>, recorded: Option<u64>) -> u64 {
        if let Some(block) = block {
            return block.size;
        }
        if self.profile.process.from_first_event {
            self.profile.trust.inconsistent_events += 1;
        } else {
            self.profile.totals.foreign_frees += 1;
            self.profile.totals.foreign_bytes =
                self.profile.totals.foreign_bytes.saturating_add(recorded.unwrap_or(0));
        }
        self.credible(recorded.unwrap_or(0))
    }

    fn cold(&mut self, record: &Record<'_>) {
        match *record {
            Record::Node { id, parent, pc } => self.node(id, parent, pc),
            Record::Module(module) => {
                let index = self.modules.appeared(&module);
                // Frames whose module is reported only after them.
                let range = (module.start, 0)..(module.end.max(module.start), 0);
                let placed: Vec<(u64, u32)> = self.unplaced.range(range).copied().collect();
                for frame in placed {
                    self.unplaced.remove(&frame);
                    self.profile.nodes[frame.1 as usize].module = Some(index);
                }
            }
            Record::ModuleEnd { id } => self.modules.vanished(id),
            Record::ThreadStart { id, os_tid } => {
                let place = self.thread_place(id);
                self.profile.threads[place].os_tid = os_tid;
            }
            Record::ThreadName { id, name } => {
                let place = self.thread_place(id);
                self.profile.threads[place].name = String::from_utf8_lossy(name).into_owned();
            }
            Record::ThreadEnd { id } => {
                let place = self.thread_place(id);
                self.profile.threads[place].end_us = Some(self.now_us);
            }
            Record::Sample(sample) => {
                self.profile.samples += 1;
                self.samples.add(self.now_us, sample);
            }
            Record::Lost { events } => {
                self.profile.trust.lost_events = self.profile.trust.lost_events.saturating_add(events);
            }
            Record::Checked { stacks, different } => {
                let trust = &mut self.profile.trust;
                trust.checked_stacks = trust.checked_stacks.saturating_add(stacks);
                trust.different_stacks = trust.different_stacks.saturating_add(different);
            }
            Record::Process(process) => self.profile.process = own(&process, &self.profile.process),
            Record::Function(function) => {
                let defined = self.activations.define(&function);
                self.profile.trust.inconsistent_events += u64::from(!defined);
            }
            Record::MarkName { id, name } if self.mark_names.len() < MOST_MARKS => {
                self.mark_names.insert(id, String::from_utf8_lossy(name).into_owned());
            }
            Record::Mark { id } => self.mark(id),
            _ => self.line(record),
        }
    }

    fn mark(&mut self, id: u32) {
        match self.mark_names.get(&id) {
            Some(name)
                if self.profile.marks.len() < MOST_MARKS
                    && self.mark_bytes + name.len() <= MOST_MARK_BYTES =>
            {
                self.mark_bytes += name.len();
                let (name, live_bytes) = (name.clone(), self.peak.live_bytes);
                self.profile.marks.push(Mark { name, thread: self.current, us: self.now_us, live_bytes });
            }
            // Or its name may be among those that were too many.
            None if self.mark_names.len() < MOST_MARKS => self.profile.trust.inconsistent_events += 1,
            _ => self.profile.marks_dropped += 1,
        }
    }

    fn line(&mut self, record: &Record<'_>) {
        let counts = self.thread(self.current).selected;
        let now = Now { thread: self.current, us: self.now_us, live: self.peak.live_bytes, counts };
        let known = match *record {
            Record::Enter { function, activation } => self.activations.enter(now, function, activation),
            Record::Line { activation, line } => self.activations.reach(now, activation, line),
            Record::Leave { activation, ended } => self.activations.leave(now, activation, ended),
            Record::Usage { rss, minor_faults, major_faults } => {
                self.activations.used(now.thread, Used::new(rss, minor_faults, major_faults))
            }
            _ => true,
        };
        self.profile.trust.inconsistent_events += u64::from(!known);
    }

    fn node(&mut self, id: StackId, parent: StackId, pc: u64) {
        // Nodes are numbered one after the other; a gap must have been paid for with bytes that could not be used.
        let next = self.profile.nodes.len() as u64;
        let missing = self.missing_nodes.saturating_sub(self.excused_nodes);
        let sound = parent < id && id >= StackId::FIRST && u64::from(id.0) <= next + missing;
        if !sound {
            self.profile.trust.inconsistent_events += 1;
            return;
        }
        let at = id.0 as usize;
        if at >= self.profile.nodes.len() {
            // What has been paid for one gap does not pay for another.
            self.excused_nodes += u64::from(id.0) - next;
            self.make_room(at + 1);
        }
        let parent = self.known(parent);
        let truncated = parent == StackId::TRUNCATED || self.profile.nodes[parent.0 as usize].truncated;
        let module = self.modules.find(pc);
        self.profile.nodes[at] = Node { parent, pc, module, truncated };
        if module.is_none() {
            self.unplaced.insert((pc, id.0));
        }
    }

    fn make_room(&mut self, nodes: usize) {
        let unknown = Node { parent: StackId::NONE, pc: 0, module: None, truncated: false };
        self.profile.nodes.resize(nodes, unknown);
        self.profile.stacks.resize(nodes, StackStats { live_first_us: u64::MAX, ..StackStats::default() });
        self.peak.resize(nodes);
    }

    /// The stack if its node is known, else the one of events without a stack.
    #[inline]
    fn known(&self, stack: StackId) -> StackId {
        if (stack.0 as usize) < self.profile.nodes.len() { stack } else { StackId::NONE }
    }

    /// Notes that the newest event happened at this stack.
    #[inline]
    fn touch(&mut self, stack: StackId) -> &mut StackStats {
        let (event, live) = (self.events, self.peak.live_bytes);
        let stats = &mut self.profile.stacks[stack.0 as usize];
        stats.last_event = event;
        stats.live_after_last = live;
        stats
    }

    #[inline]
    fn thread(&mut self, id: u32) -> &mut ThreadState {
        let place = self.thread_place(id);
        &mut self.threads[place]
    }

    /// Where this thread is, here and in the profile. PERF: it is usually the same as for the event before.
    #[inline]
    fn thread_place(&mut self, id: u32) -> usize {
        match self.last_thread {
            Some((last, place)) if last == id => place,
            _ => self.find_thread(id),
        }
    }

    fn find_thread(&mut self, id: u32) -> usize {
        let place = *self.thread_places.entry(id).or_insert_with(|| {
            let selected = self.selected.as_ref().is_none_or(|selected| selected.contains(&id));
            self.threads.push(ThreadState { selected, ..ThreadState::default() });
            self.profile.threads.push(Thread { id, start_us: self.now_us, ..Thread::default() });
            self.threads.len() - 1
        });
        self.last_thread = Some((id, place));
        place
    }
}

/// Owns the blocks of threads that are not selected: they are in the totals only.
const OTHERS: StackId = StackId(u32::MAX - 1);
/// Marks a block that is older than the recording while it is being moved.
const FOREIGN: StackId = StackId(u32::MAX);
/// A node's record has a tag and three numbers; compressed, seldom less than this.
const MIN_NODE_BYTES: u64 = 1;
/// What a dump says has a bound.
const MOST_MARKS: usize = 1 << 16;
const MOST_MARK_BYTES: usize = 64 << 20;
/// No address space has larger blocks.
const MAX_SIZE: u64 = 1 << 57;
/// So that nanoseconds still fit; more than five hundred years.
const MAX_US: u64 = u64::MAX / 1000;

/// Sums of a dump that lies stay where they are instead of starting anew.
#[inline]
fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn size_class(size: u64) -> usize {
    64 - size.saturating_sub(1).leading_zeros() as usize
}

fn own(process: &record::Process<'_>, before: &Process) -> Process {
    let args = process.args.strip_suffix(b"\0").unwrap_or(process.args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let path = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).into();
    Process {
        pid: process.pid,
        exe: path(process.exe),
        args: args.split(|byte| *byte == 0).map(text).filter(|_| !args.is_empty()).collect(),
        cwd: path(process.cwd),
        from_first_event: process.from_first_event,
        run: text(process.run),
        debug_assertions: process.debug_assertions,
        started_unix_ns: before.started_unix_ns,
    }
}

/// Whether the recorder counted something else than the replay.
fn disagree(own: &Totals, replayed: &HeapTotals, trust: &Trust) -> bool {
    (own.allocations, own.deallocations, own.reallocations)
        != (replayed.allocations, replayed.deallocations, replayed.reallocations)
        || (own.allocated_bytes, own.freed_bytes) != (replayed.allocated_bytes, replayed.freed_bytes)
        || own.lost_events != trust.lost_events
}

#[cfg(test)]
mod tests;
