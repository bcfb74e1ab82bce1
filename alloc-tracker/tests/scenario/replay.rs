//! An independent replay of dumps. It applies every record to a heap of its own and notes records
//! that cannot be true.
//!
//! In: the path of a dump, with or without a sidecar. Out: a [`Replay`]. Of the project it uses
//! only `alloc-dump`, for the bytes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use alloc_dump::code::CodeIdentity;
use alloc_dump::header::Header;
use alloc_dump::layout::{SIDECAR_SUFFIX, StackId};
use alloc_dump::read::{Reader, Records};
use alloc_dump::record::{Installation, LayoutOccasion, Record, Sample, SlowReason};
use alloc_dump::sidecar::Sidecar;
use alloc_dump::trailer::{EndReason, Trailer};

use super::Counts;

/// Everything that a dump records, and the heap at its end.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) counts: Counts,
    pub(crate) events: Vec<Event>,
    /// The blocks that are live at the end, by their address.
    pub(crate) live: HashMap<u64, Block>,
    pub(crate) threads: BTreeMap<u32, Thread>,
    pub(crate) nodes: HashMap<StackId, Node>,
    pub(crate) modules: Vec<Module>,
    pub(crate) samples: Vec<Sample>,
    /// Why each layout of the address space was taken.
    pub(crate) layouts: Vec<LayoutOccasion>,
    pub(crate) lost: u64,
    /// What the recorder has said last about its installation.
    pub(crate) installation: Option<Installation>,
    /// Why events cost more than usual.
    pub(crate) slow: Vec<SlowReason>,
    /// How many stacks the tracker has compared with those of an independent walk.
    pub(crate) checked: u64,
    /// How many of the checked stacks were different.
    pub(crate) different: u64,
    /// Stacks of which the recorder compared some words only.
    pub(crate) partly_verified: u64,
    /// Frees of blocks whose allocation the dump does not have. Their records must have sizes.
    pub(crate) foreign_frees: u64,
    /// Reallocs whose two halves are separate records, because another record came in between.
    pub(crate) split_reallocs: u64,
    pub(crate) failed_reallocs: u64,
    pub(crate) frames: u64,
    pub(crate) pid: u32,
    pub(crate) from_first_event: bool,
    pub(crate) exe: String,
    pub(crate) run: String,
    pub(crate) trailer: Option<Trailer>,
    pub(crate) complete: bool,
    /// Whether records came from the sidecar.
    pub(crate) from_sidecar: bool,
    /// The error number (`errno`) at which the recording stopped, from the sidecar; 0 if there is
    /// none.
    pub(crate) stopped_errno: i32,
    impossible: Vec<String>,
    /// Regions since the last layout, and the end of the last of them.
    regions: u64,
    region_end: u64,
    /// For each thread the blocks whose reallocs have begun, the newest last: address and block.
    /// There are several if a signal handler calls `realloc` while its thread is in one.
    moving: HashMap<u32, Vec<(u64, Block)>>,
    sizes_known: bool,
    current: Option<u32>,
    timed: bool,
    header: Option<Header>,
    next_seq: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) size: u64,
    pub(crate) stack: StackId,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) thread: u32,
    pub(crate) kind: EventKind,
    pub(crate) addr: u64,
    pub(crate) size: u64,
    pub(crate) stack: StackId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Alloc,
    AllocZeroed,
    Dealloc { sized: bool },
    Realloc { old: u64, old_size: u64 },
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) os_tid: u32,
    pub(crate) name: String,
    pub(crate) ended: bool,
    pub(crate) events: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) parent: StackId,
    pub(crate) pc: u64,
    /// The module that contained the return address when the node was defined.
    pub(crate) module: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) id: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bias: u64,
    pub(crate) build_id: Vec<u8>,
    pub(crate) path: String,
    pub(crate) mapped: bool,
    pub(crate) code: Option<CodeIdentity>,
    /// How many nodes the dump defines before the module.
    pub(crate) nodes_before: usize,
}

impl Replay {
    #[track_caller]
    pub(crate) fn of(dump: &Path) -> Replay {
        let file = File::open(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
        let mut replay = Replay::from_reader(file);
        let mut name = dump.as_os_str().to_owned();
        name.push(SIDECAR_SUFFIX);
        if let Ok(bytes) = std::fs::read(&name) {
            replay.add_sidecar(&bytes);
        }
        replay
    }

    /// Replays a dump from any source, without its sidecar.
    #[track_caller]
    pub(crate) fn from_reader(source: impl std::io::Read) -> Replay {
        let mut replay = Replay::default();
        let mut reader = Reader::new(source).expect("a dump");
        while let Some(records) = reader.next_frame().expect("a readable file") {
            replay.frame(records);
        }
        replay.trailer = reader.trailer().copied();
        replay.complete = reader.complete();
        replay.header = Some(*reader.header());
        replay.next_seq = reader.next_seq();
        replay
    }

    /// Adds the newest records of a recording that was not finished.
    fn add_sidecar(&mut self, bytes: &[u8]) {
        let header = self.header.expect("the dump's header");
        let tail = Sidecar::parse(bytes, &header.session).expect("the sidecar of this dump");
        self.stopped_errno = tail.stopped_errno.unwrap_or(0);
        assert_eq!(tail.missing_frames(self.next_seq), 0, "frames are missing between dump and sidecar");
        let mut dump = header.encode().to_vec();
        dump.extend_from_slice(&tail.recover_frames(self.next_seq, 0));
        let mut reader = Reader::new(dump.as_slice()).expect("a dump");
        while let Some(records) = reader.next_frame().expect("bytes in memory") {
            self.frame(records);
        }
        assert_eq!(reader.damage().malformed_frames, 0, "a record in the sidecar is not whole");
        self.from_sidecar = true;
    }

    /// Asserts that the dump has no event that cannot have happened. The dump may be cut short.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        assert!(self.impossible.is_empty(), "{:#?}", self.impossible);
    }

    /// Asserts that the recording was finished, and that its totals are those of its records.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        self.assert_sound();
        assert!(self.complete && !self.from_sidecar);
        let trailer = self.trailer.expect("a trailer");
        assert_eq!(trailer.end, EndReason::Finished);
        let totals = trailer.totals.expect("totals");
        let said = Counts {
            allocations: totals.allocations,
            deallocations: totals.deallocations,
            reallocations: totals.reallocations,
            allocated_bytes: totals.allocated_bytes,
            freed_bytes: totals.freed_bytes,
            ..self.counts
        };
        assert_eq!(said, self.counts, "the trailer's totals, and those of the records");
        assert_eq!(totals.lost_events, self.lost);
        assert_eq!(self.different, 0, "stacks that are not those of an independent walk");
        let truncated =
            self.events.iter().filter(|event| self.chain(event.stack).1 == StackId::TRUNCATED).count();
        assert_eq!(totals.truncated_stacks, truncated as u64);
    }

    /// Returns the return addresses of a stack, leaf first, and the parent of its outermost frame.
    pub(crate) fn chain(&self, stack: StackId) -> (Vec<u64>, StackId) {
        let (mut chain, mut at) = (Vec::new(), stack);
        while let Some(node) = self.nodes.get(&at) {
            chain.push(node.pc);
            at = node.parent;
        }
        (chain, at)
    }

    /// Returns the nodes of a stack, leaf first.
    pub(crate) fn nodes_of(&self, stack: StackId) -> impl Iterator<Item = &Node> {
        std::iter::successors(self.nodes.get(&stack), |node| self.nodes.get(&node.parent))
    }

    /// Returns how many walks the platform's unwinder has made.
    pub(crate) fn portable_walks(&self) -> u64 {
        let stacks = self.slow.iter().map(|reason| match reason {
            SlowReason::PortableWalks { stacks } => *stacks,
            _ => 0,
        });
        stacks.sum()
    }

    /// Returns the module that contains this address at the end of the recording.
    pub(crate) fn module_at(&self, pc: u64) -> Option<&Module> {
        self.modules.iter().find(|module| (module.start..module.end).contains(&pc))
    }

    /// Returns the only allocation of exactly this size. Scenarios mark moments of the stream by
    /// such allocations.
    #[track_caller]
    pub(crate) fn only_alloc(&self, size: u64) -> Event {
        let mut found = self.allocs(size);
        let only = found.next().unwrap_or_else(|| panic!("no allocation of {size} bytes"));
        assert!(found.next().is_none(), "several allocations of {size} bytes");
        *only
    }

    pub(crate) fn allocs(&self, size: u64) -> impl Iterator<Item = &Event> {
        let is_alloc = |kind| matches!(kind, EventKind::Alloc | EventKind::AllocZeroed);
        self.events.iter().filter(move |event| event.size == size && is_alloc(event.kind))
    }

    fn frame(&mut self, records: Records<'_>) {
        self.frames += 1;
        (self.current, self.timed) = (None, false);
        for record in records {
            self.record(&record);
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        match *record {
            Record::Thread { id } => {
                self.current = Some(id);
                if !self.threads.contains_key(&id) {
                    self.note_impossible(format!("events of thread {id} before its start"));
                }
            }
            Record::Time { .. } => self.timed = true,
            Record::Node { id, parent, pc } => {
                let holds = |module: &&Module| module.mapped && (module.start..module.end).contains(&pc);
                let module = self.modules.iter().find(holds).map(|module| module.id);
                let known = parent < StackId::FIRST || self.nodes.contains_key(&parent);
                if !known
                    || self.nodes.insert(id, Node { parent, pc, module }).is_some()
                    || id < StackId::FIRST
                {
                    self.note_impossible(format!("node {id:?} under {parent:?}"));
                }
            }
            Record::Alloc { addr, size, stack, zeroed } => {
                self.counts.allocations += 1;
                self.counts.live_blocks = self.counts.live_blocks.wrapping_add(1);
                self.counts.allocated_bytes += size;
                self.change_live(0, size);
                self.insert_live(addr, Block { size, stack });
                self.push_event(
                    if zeroed { EventKind::AllocZeroed } else { EventKind::Alloc },
                    addr,
                    size,
                    stack,
                );
            }
            Record::Dealloc { addr, size, stack } => {
                self.counts.deallocations += 1;
                self.counts.live_blocks = self.counts.live_blocks.wrapping_sub(1);
                let freed = self.remove_live(addr, size);
                self.counts.freed_bytes += freed;
                self.change_live(freed, 0);
                self.push_event(EventKind::Dealloc { sized: size.is_some() }, addr, freed, stack);
            }
            Record::Realloc { old, old_size, new, size, stack } => {
                let freed = self.remove_live(old, old_size);
                self.moved(old, freed, new, size, stack);
            }
            Record::ReallocBegin { old, old_size } => {
                let thread = self.current.unwrap_or_default();
                let known = self.live.get(&old).copied();
                let size = self.remove_live(old, old_size);
                let block = Block { size, stack: known.map_or(StackId::NONE, |block| block.stack) };
                self.moving.entry(thread).or_default().push((old, block));
            }
            Record::ReallocEnd { new, size, stack } => {
                self.split_reallocs += 1;
                let thread = self.current.unwrap_or_default();
                match self.moving.get_mut(&thread).and_then(Vec::pop) {
                    Some((old, block)) => self.moved(old, block.size, new, size, stack),
                    _ => self.note_impossible(format!("thread {thread} ends a move that it did not begin")),
                }
            }
            Record::ReallocFailed => {
                self.failed_reallocs += 1;
                let thread = self.current.unwrap_or_default();
                match self.moving.get_mut(&thread).and_then(Vec::pop) {
                    Some((old, block)) => self.insert_live(old, block),
                    _ => self.note_impossible(format!("thread {thread} fails a move that it did not begin")),
                }
            }
            Record::Process(process) => {
                if !self.events.is_empty() || self.pid != 0 {
                    self.note_impossible("the process is not the first record".into());
                }
                self.pid = process.pid;
                self.from_first_event = process.from_first_event;
                self.sizes_known = process.from_first_event;
                self.exe = String::from_utf8_lossy(process.exe).into_owned();
                self.run = String::from_utf8_lossy(process.run).into_owned();
            }
            Record::Module(module) => self.modules.push(Module {
                id: module.id,
                start: module.start,
                end: module.end,
                bias: module.bias,
                build_id: module.build_id.to_vec(),
                path: String::from_utf8_lossy(module.path).into_owned(),
                mapped: true,
                code: None,
                nodes_before: self.nodes.len(),
            }),
            Record::ModuleEnd { id } => {
                match self.modules.iter_mut().find(|module| module.id == id && module.mapped) {
                    Some(module) => module.mapped = false,
                    None => self.note_impossible(format!("module {id} ends and was not there")),
                }
            }
            Record::ModuleCode { id, code } => {
                match self.modules.iter_mut().find(|module| module.id == id && module.mapped) {
                    Some(module) => module.code = Some(code),
                    None => self.note_impossible(format!("module {id} has code and was not there")),
                }
            }
            Record::Slow(reason) => self.slow.push(reason),
            Record::ThreadStart { id, os_tid } => {
                if self.threads.insert(id, Thread { os_tid, ..Thread::default() }).is_some() {
                    self.note_impossible(format!("thread {id} starts twice"));
                }
            }
            Record::ThreadName { id, name } => {
                let name = String::from_utf8_lossy(name).into_owned();
                match self.threads.get_mut(&id) {
                    Some(thread) => thread.name = name,
                    None => self.note_impossible(format!("thread {id} gets a name before its start")),
                }
            }
            Record::ThreadEnd { id } => match self.threads.get_mut(&id) {
                Some(thread) if !thread.ended => thread.ended = true,
                _ => self.note_impossible(format!("thread {id} ends and was not there")),
            },
            Record::Sample(sample) => self.samples.push(sample),
            Record::Installation(installation) => self.installation = Some(installation),
            // What the dump says about its recording is no event.
            Record::Label { .. }
            | Record::LimitReached(_)
            | Record::MemoryLimit(_)
            | Record::SwapTraffic { .. } => {}
            Record::ThreadStack { id, .. } if !self.threads.contains_key(&id) => {
                self.note_impossible(format!("thread {id} has a stack before its start"));
            }
            Record::ThreadStack { .. } => {}
            Record::Region(region) => {
                if region.start < self.region_end || region.end <= region.start {
                    self.note_impossible(format!("{region:x?} is behind {:#x}", self.region_end));
                }
                self.regions += 1;
                self.region_end = region.end;
            }
            Record::Layout(layout) => {
                if layout.regions != std::mem::take(&mut self.regions) {
                    self.note_impossible(format!("{layout:?} is not that of its regions"));
                }
                self.region_end = 0;
                self.layouts.push(layout.occasion);
            }
            Record::Lost { events } => {
                self.lost += events;
                self.sizes_known = false;
            }
            Record::Checked { stacks, different } => {
                self.checked += stacks;
                self.different += different;
            }
            Record::PartlyVerified { stacks } => self.partly_verified += stacks,
            _ => self.note_impossible("a record of an unknown kind".into()),
        }
    }

    fn moved(&mut self, old: u64, old_size: u64, new: u64, size: u64, stack: StackId) {
        self.counts.reallocations += 1;
        self.counts.freed_bytes += old_size;
        self.counts.allocated_bytes += size;
        self.change_live(old_size, size);
        self.insert_live(new, Block { size, stack });
        self.push_event(EventKind::Realloc { old, old_size }, new, size, stack);
    }

    fn change_live(&mut self, old: u64, new: u64) {
        // The number gets below zero if the recording sees frees of blocks that are older than it.
        self.counts.live_bytes = self.counts.live_bytes.wrapping_add(new).wrapping_sub(old);
        if (self.counts.live_bytes as i64) > self.counts.peak_bytes as i64 {
            self.counts.peak_bytes = self.counts.live_bytes;
        }
    }

    fn insert_live(&mut self, addr: u64, block: Block) {
        // A free that was lost may have made the address available.
        if self.live.insert(addr, block).is_some() && self.lost == 0 {
            self.note_impossible(format!("a block at {addr:#x}, where there is one"));
        }
    }

    /// Removes a block from the heap. Returns its size: that of the free's record if there is one,
    /// else that of its allocation.
    fn remove_live(&mut self, addr: u64, said: Option<u64>) -> u64 {
        let known = self.live.remove(&addr).map(|block| block.size);
        if known.is_none() {
            self.foreign_frees += 1;
            if self.sizes_known {
                self.note_impossible(format!("nothing to free at {addr:#x}"));
            }
        }
        if let (Some(known), Some(said)) = (known, said)
            && known != said
            && self.lost == 0
        {
            self.note_impossible(format!("{said} bytes freed at {addr:#x}, where there are {known}"));
        }
        said.or(known).unwrap_or_else(|| {
            self.note_impossible(format!("a free of unknown size at {addr:#x}"));
            0
        })
    }

    fn push_event(&mut self, kind: EventKind, addr: u64, size: u64, stack: StackId) {
        if self.current.is_none() || !self.timed {
            self.note_impossible(format!("{kind:?} at {addr:#x} without a thread or a time"));
        }
        if stack != StackId::NONE && stack >= StackId::FIRST && !self.nodes.contains_key(&stack) {
            self.note_impossible(format!("{kind:?} at {addr:#x} with the unknown {stack:?}"));
        }
        let thread = self.current.unwrap_or_default();
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.events += 1;
        }
        self.events.push(Event { thread, kind, addr, size, stack });
    }

    fn note_impossible(&mut self, what: String) {
        if self.impossible.len() < 10 {
            self.impossible.push(format!("event {}: {what}", self.events.len()));
        }
    }
}
