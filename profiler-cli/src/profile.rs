//! A loaded dump: everything that analyses read.
//!
//! Plain values, without input or output. [`load`](crate::load) makes them, and tests make them by
//! hand. Their memory grows with the number of distinct stacks, threads and samples, never with the
//! number of events.

mod groups;
mod growth;
mod interval;
mod layout;
mod lifetimes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use alloc_dump::code::CodeIdentity;
use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::{Installation, MemoryLimit, RecordingLimit, Sample};
use alloc_dump::symbols::Symbols;
use alloc_dump::trailer::{EndReason, Totals};
use foldhash::HashMap;

pub use self::groups::{GroupCurve, GroupKey, GroupPoint, HeapGrouping};
pub use self::growth::{GrowthCurves, GrowthRequest, MarkTimes, NO_SITE, SiteCurve};
pub use self::interval::{Interval, LiveHeap};
pub use self::layout::{LayoutRegion, Layouts, ProcessLayout};
pub use self::lifetimes::{Lifetimes, MEDIAN_ERROR, ShortLivedWithin, StackLifetimes};

/// Blocks that are older than an interval and grew in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrownBlocks {
    /// What the blocks have at the end of the interval beyond their sizes at its beginning.
    pub bytes: u64,
    /// Number of the blocks.
    pub blocks: u64,
    /// When the last of them got its present size, in microseconds.
    pub last_us: u64,
}

/// A loaded dump.
///
/// Sizes are the bytes that the program asked for. Times are microseconds since time zero, which is
/// the moment when the recording began.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The process that was recorded.
    pub process: Process,
    /// The interval that all figures count; `None` for the whole recording. `trust`, `slowdown` and
    /// `duration_us` are always those of the whole recording.
    ///
    /// In an interval, "live" means born in the interval and live at its end, and the peak is that
    /// of the interval. Blocks that are older count in the peak only.
    pub interval: Option<Interval>,
    /// By how much blocks that are older than the interval and live at its end grew in it, by the
    /// stack that gave them their present size. Empty if the caller of the loader did not ask.
    pub grown: HashMap<StackId, GrownBlocks>,
    /// Files with code, in the order in which they were mapped. A file that was mapped twice is
    /// there twice.
    pub modules: Vec<Module>,
    /// The call tree: the node of a [`StackId`] is at that index.
    pub nodes: Vec<CallNode>,
    /// Figures of each stack, at the index of its [`StackId`]. As long as `nodes`.
    pub stacks: Vec<StackStats>,
    /// Lifetimes of the blocks of each stack; empty if they were not [asked
    /// for](crate::load::LoadOptions::short_lived).
    pub lifetimes: StackLifetimes,
    /// What short-lived means in this profile; `None` if lifetimes were not asked for.
    pub short_lived_within: Option<ShortLivedWithin>,
    /// All threads, selected or not, in the order of their first record.
    pub threads: Vec<RecordedThread>,
    /// Samples of the process: the time in microseconds, and the kernel's figures at that time. If
    /// there were too many, an entry stands for several samples: its sizes are the largest among
    /// them, its counts and its time those of the last.
    pub timeline: Vec<(u64, Sample)>,
    /// The last sample before the interval; `None` if there is none.
    pub sample_before: Option<Sample>,
    /// What sites held over time; `None` except in the second pass, see
    /// [`load_growth`](crate::load::load_growth).
    pub growth: Option<GrowthCurves>,
    /// Times of the marks that were [asked for](crate::load::LoadOptions::mark_times).
    pub mark_times: Option<MarkTimes>,
    /// Number of the last event that was replayed, counted from 1 over the whole process; 0 if
    /// there was none.
    pub last_event: u64,
    /// When the program began to free its memory at its end; `None` if it did not.
    pub teardown: Option<Teardown>,
    /// The address space at several moments; empty if that was not [asked
    /// for](crate::load::LoadOptions::layouts).
    pub layouts: Layouts,
    /// Number of samples in the dump; `timeline` may have fewer entries.
    pub sample_count: u64,
    /// The live heap over time.
    pub heap: HeapCurve,
    /// What groups of blocks held over time; `None` if they were not [asked
    /// for](crate::load::LoadOptions::groups).
    pub groups: Option<GroupCurve>,
    /// The highest local peaks of the live heap, highest first; empty if they were not [asked
    /// for](crate::load::LoadOptions::peaks).
    pub local_peaks: Vec<LocalPeak>,
    /// Number of local peaks that `local_peaks` lacks because there were too many.
    pub local_peaks_dropped: u64,
    /// When annotated functions ran on selected threads, in the order in which the calls began.
    /// Only outermost calls: a recursive call is part of its outer one.
    pub spans: Vec<ActivationSpan>,
    /// Number of calls that `spans` lacks because there were too many. They are shorter than those
    /// in `spans`.
    pub spans_dropped: u64,
    /// Annotated functions, in the order in which the dump defines them.
    pub annotated: Vec<Annotated>,
    /// Marks of all threads, in the order in which the threads reached them.
    pub marks: Vec<Mark>,
    /// Number of marks that `marks` lacks because there were too many. They came after those in
    /// `marks`.
    pub marks_dropped: u64,
    /// The live blocks that were [asked for](crate::load::KeepBlocks); `None` if none were.
    pub blocks: Option<KeptBlocks>,
    /// Whether `stacks`, `annotated`, `spans` and `blocks` count a part of the threads only.
    pub counts_only_selected_threads: bool,
    /// Totals over all stacks and threads, whichever threads are selected.
    pub totals: HeapTotals,
    /// Number of allocations by size: index i counts those of more than 2^(i-1) and at most 2^i
    /// bytes, index 0 those of 0 and 1 byte. Reallocations are not counted. 65 entries.
    pub sizes: Vec<u64>,
    /// Length of the recording in microseconds: up to its end if the dump has one, else up to the
    /// last record.
    pub duration_us: u64,
    /// How far these figures can be trusted.
    pub trust: Trust,
    /// What made the recording slower than usual.
    pub slowdown: Slowdown,
    /// Names of the code that the dump itself has; empty if it has none.
    pub symbols: Vec<Symbols>,
}

impl Profile {
    /// Returns the nodes of a stack with their ids, from leaf to root. Empty for the ids below
    /// [`StackId::FIRST`], which are no nodes.
    pub fn frames_of(&self, stack: StackId) -> impl Iterator<Item = (StackId, &CallNode)> {
        let mut next = stack;
        // This ends: the id of a node is larger than that of its parent. `load` drops every node
        // for which that does not hold.
        std::iter::from_fn(move || {
            let at = next;
            let node = self.nodes.get(at.0 as usize).filter(|_| at >= StackId::FIRST)?;
            next = node.parent;
            Some((at, node))
        })
    }
}

/// The process that was recorded.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Process id of the recorded process.
    pub pid: u32,
    /// Absolute path of the program.
    pub exe: PathBuf,
    /// Program name and arguments. Bytes that are not UTF-8 are replaced.
    pub args: Vec<String>,
    /// Working directory of the process when the recording began.
    pub cwd: PathBuf,
    /// Whether the recording began with the first heap event of the process. If not, some frees
    /// concern blocks that the dump has never seen.
    pub from_first_event: bool,
    /// Token of the `profiler-cli run` that started the process; empty if none did.
    pub run_token: String,
    /// Whether the recorder was built with debug assertions, and so very likely without
    /// optimization.
    pub debug_assertions: bool,
    /// Wall-clock time at time zero, in nanoseconds since the Unix epoch.
    pub started_unix_ns: u64,
    /// What is known about the recording: `host`, `commit`, and what the user has given. Bytes that
    /// are not UTF-8 are replaced.
    pub labels: BTreeMap<String, String>,
    /// The limits of memory, one of a kind, as they were last.
    pub memory_limits: Vec<MemoryLimit>,
}

impl Process {
    /// Adds a limit of memory. The last one of a kind counts.
    pub(crate) fn add_memory_limit(&mut self, limit: MemoryLimit) {
        self.memory_limits.retain(|other| other.kind != limit.kind);
        self.memory_limits.push(limit);
    }

    /// Returns the command line for a person to read: the file name of the program and its
    /// arguments, quoted for a shell.
    pub fn command(&self) -> String {
        let mut args = self.args.iter().map(String::as_str);
        let program = args.next().map_or_else(|| self.exe.to_string_lossy(), |name| name.into());
        let name = program.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return "(unknown command)".to_owned();
        }
        let words = std::iter::once(name).chain(args).map(quoted);
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A file with code that was mapped into the process.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Number of the module in the dump.
    pub id: u32,
    /// Path of the file when it was mapped, or a name in brackets such as `[vdso]`.
    pub path: PathBuf,
    /// GNU build-id of the file; empty if the file has none.
    pub build_id: Vec<u8>,
    /// Load bias: an address in the process minus the same address in the file's own tables.
    pub bias: u64,
    /// First address of the file's mappings.
    pub start: u64,
    /// First address after the file's mappings.
    pub end: u64,
    /// What tells the code that ran from other code; `None` in older dumps, and if the recorder
    /// could not read the code.
    pub code: Option<CodeIdentity>,
    /// Whether the module has no unwind tables, so that stacks end at its code.
    pub lacks_unwind_tables: bool,
}

/// A node of the call tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallNode {
    /// The caller's node, or one of the named roots of [`StackId`].
    pub parent: StackId,
    /// The return address in the process.
    pub pc: u64,
    /// Index in [`Profile::modules`] of the module that contained `pc` when the node was first
    /// used; `None` if no known module did.
    pub module: Option<u32>,
    /// Whether the walk that found the node ended before a known root.
    pub truncated: bool,
}

/// The figures of one stack, for the selected threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Number of allocations made here, without reallocations.
    pub allocations: u64,
    /// Number of reallocations made here.
    pub reallocations: u64,
    /// Number of deallocations made here.
    pub deallocations: u64,
    /// Bytes of the allocations and the new sizes of the reallocations.
    pub allocated: u64,
    /// Bytes of the deallocations and the old sizes of the reallocations, wherever the blocks came
    /// from.
    pub freed: u64,
    /// Number of allocations made here whose block the next heap event of their thread freed.
    pub temporary: u64,
    /// Bytes of the temporary allocations.
    pub temporary_bytes: u64,
    /// Bytes of the blocks that got their present size here and are live at the end.
    pub live_bytes: u64,
    /// Number of the blocks that got their present size here and are live at the end.
    pub live_blocks: u64,
    /// When the oldest of these live blocks was allocated, in microseconds; 0 if there is none.
    pub live_first_us: u64,
    /// When the youngest of these live blocks was allocated, in microseconds; 0 if there is none.
    pub live_last_us: u64,
    /// Bytes of the blocks that had got their size here and were live at the global peak.
    pub peak_bytes: u64,
    /// Number of the blocks that had got their size here and were live at the global peak.
    pub peak_blocks: u64,
    /// The most bytes of blocks that had got their size here and were live at one time; 0 if
    /// lifetimes were not asked for.
    pub max_live_bytes: u64,
    /// Number of these blocks when that was first so.
    pub max_live_blocks: u64,
    /// Number of the last event made here, counted from 1 over the whole process; 0 for none.
    pub last_event: u64,
    /// Live bytes of the whole process after that event; 0 if there was none.
    pub live_after_last: u64,
}

impl StackStats {
    /// Returns the number of heap events made here, of all kinds.
    pub fn events(&self) -> u64 {
        self.allocations + self.reallocations + self.deallocations
    }

    /// Whether a block got its size here, by an allocation or a reallocation; in an interval also
    /// before it, if the block was live at the interval's peak. A stack that only frees did not.
    pub fn gave_blocks_a_size(&self) -> bool {
        self.allocations + self.reallocations > 0 || self.peak_bytes > 0 || self.live_bytes > 0
    }
}

/// The exact live heap over time, in intervals of equal length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapCurve {
    /// When the first interval begins, in microseconds since time zero.
    pub start_us: u64,
    /// Length of an interval in microseconds.
    pub width_us: u64,
    /// The live heap during each interval, up to the end of the recording.
    pub intervals: Vec<HeapInterval>,
}

/// Live bytes of the process during an interval. The value at its beginning belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapInterval {
    /// The fewest live bytes at any instant of the interval.
    pub min: u64,
    /// The most live bytes at any instant of the interval.
    pub max: u64,
    /// Live bytes at the end of the interval.
    pub last: u64,
}

/// A local peak of the live heap, at its first instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalPeak {
    /// Live bytes of the process.
    pub bytes: u64,
    /// Number of live blocks of the process.
    pub blocks: u64,
    /// The first instant of the peak, in microseconds.
    pub us: u64,
    /// Number of the event that reached the peak, counted from 1 over the whole process.
    pub event: u64,
}

/// A period in which a thread ran an annotated function: from the beginning of the outermost call
/// to its end, or, for a future, from one await to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationSpan {
    /// Index of the function in [`Profile::annotated`].
    pub function: usize,
    /// Number of the thread in the dump.
    pub thread: u32,
    /// When the thread entered the function, in microseconds.
    pub start_us: u64,
    /// When the thread left the function, in microseconds; the last time in the dump if it did not.
    pub end_us: u64,
    /// Whether the period continues a call after an await, and so is no call of its own.
    pub is_resumed: bool,
}

/// A moment that the program gave a name (`alloc_tracker::mark`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The name. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Number, in the dump, of the thread that reached the mark.
    pub thread: u32,
    /// The moment, in microseconds since time zero.
    pub us: u64,
    /// Live bytes of the process at that moment.
    pub live_bytes: u64,
    /// Number of heap events of the process before that moment.
    pub events: u64,
    /// Number of the mark among all marks of the dump, from 1.
    pub number: u64,
}

/// The live blocks of the selected threads, at the moments that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBlocks {
    /// The blocks that are live at the end, in the order of their addresses.
    pub at_end: Vec<HeapBlock>,
    /// The blocks that were live at each mark that was asked for, in the order of the marks.
    pub at_marks: Vec<MarkedBlocks>,
    /// Number of marks that `at_marks` lacks because the blocks would have been too many.
    pub marks_dropped: u64,
    /// The blocks that were live at the record of each snapshot that was asked for.
    pub at_snapshots: Vec<SnapshotBlocks>,
}

/// The live blocks of all threads at the record of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotBlocks {
    /// Number of the snapshot in the dump.
    pub id: u32,
    /// The moment, in microseconds since time zero.
    pub us: u64,
    /// When copying the memory began, in microseconds since time zero. Of blocks that were
    /// allocated since, the copy may lack the pointers.
    pub begun_us: u64,
    /// The blocks, in the order of their addresses, which are all different.
    pub blocks: Vec<HeapBlock>,
}

/// The live blocks of the selected threads at a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkedBlocks {
    /// The mark. Its live bytes are those of all threads.
    pub mark: Mark,
    /// The blocks, in the order of their addresses.
    pub blocks: Vec<HeapBlock>,
}

/// A block that was live at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapBlock {
    /// Address of the block in the process. In the middle of a realloc, the address before the
    /// realloc.
    pub address: u64,
    /// Size of the block in bytes, as the program asked for them.
    pub size: u64,
    /// The stack that gave the block its size at that moment.
    pub stack: StackId,
    /// When the block was allocated, in microseconds. A realloc keeps this time.
    pub born_us: u64,
    /// Whether a realloc of the block has begun and not ended.
    pub is_in_event: bool,
}

/// A function that reports which line it has reached: a function with `#[profile]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    /// Path of the function, such as `demo::Parser::next`.
    pub name: String,
    /// Source file of the function, by the path that was given to the compiler: mostly relative to
    /// the workspace.
    pub file: String,
    /// First line of the function.
    pub start_line: u32,
    /// Last line of the function.
    pub end_line: u32,
    /// Figures by line number, for the lines that a selected thread has reached.
    pub lines: std::collections::BTreeMap<u32, AnnotatedLine>,
}

/// The figures of one line of an annotated function, for the selected threads. They include
/// everything that the line called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotatedLine {
    /// Number of allocations, without reallocations.
    pub allocations: u64,
    /// How often the line was reached. If the line calls a closure that has lines of its own, the
    /// return from the closure does not count.
    pub occurrences: u64,
    /// Bytes of the allocations and the new sizes of the reallocations.
    pub allocated: u64,
    /// Bytes of the deallocations and the old sizes of the reallocations.
    pub freed: u64,
    /// Number of blocks allocated minus number of blocks freed.
    pub blocks: i64,
    /// Live bytes of the process when the line was last left; 0 if the line was never left.
    pub mem_usage: u64,
    /// The most live bytes of the process at any of the times when the line was left.
    pub max: u64,
    /// Microseconds spent at the line. A recursive call counts for the lines of the inner
    /// activation only.
    pub time_us: u64,
    /// Bytes of the blocks that had got their size at the line and were live at the global peak.
    /// `None`, as for `live` and `temporary`, if there were too many combinations of lines to keep.
    pub peak: Option<u64>,
    /// Bytes of the blocks that got their size at the line and are live at the end.
    pub live: Option<u64>,
    /// Number of blocks that were allocated at the line and freed by the next heap event of the
    /// thread.
    pub temporary: Option<u64>,
    /// Number of blocks that got their last size at the line and were short-lived. `None` also if
    /// lifetimes were not asked for.
    pub short_lived: Option<u64>,
    /// The most bytes of blocks that had got their size at the line and were live at one time.
    /// `None` also if lifetimes were not asked for.
    pub max_live: Option<u64>,
    /// Bytes by which the resident set of the process has grown, or shrunk if negative. `None` if
    /// the recorder was not asked for it.
    pub rss: Option<i64>,
    /// Minor page faults of the thread. `None` if the recorder was not asked for them.
    pub minor_faults: Option<u64>,
    /// Major page faults of the thread. `None` if the recorder was not asked for them.
    pub major_faults: Option<u64>,
}

/// A thread of the recorded process.
#[derive(Clone, Debug, Default)]
pub struct RecordedThread {
    /// Number of the thread in the dump.
    pub id: u32,
    /// The system's thread id; 0 if the dump does not have it.
    pub os_tid: u32,
    /// Last known name of the thread; empty if the thread had none.
    pub name: String,
    /// When the first record of the thread was made, in microseconds.
    pub start_us: u64,
    /// When the thread ended, in microseconds; `None` if it was running at the end of the
    /// recording.
    pub end_us: Option<u64>,
    /// Number of allocations on the thread, without reallocations.
    pub allocations: u64,
    /// Number of reallocations on the thread.
    pub reallocations: u64,
    /// Number of deallocations on the thread.
    pub deallocations: u64,
    /// Bytes of the thread's allocations, and the new sizes of its reallocations.
    pub allocated: u64,
    /// Bytes of the thread's deallocations, and the old sizes of its reallocations.
    pub freed: u64,
}

/// When a program began to free its memory at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Teardown {
    /// Number of the last event before, counted from 1 over the whole process.
    pub event: u64,
    /// Its time, in microseconds.
    pub us: u64,
}

/// Totals over all stacks and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapTotals {
    /// Number of `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// Number of `dealloc` events.
    pub deallocations: u64,
    /// Number of `realloc` events that succeeded.
    pub reallocations: u64,
    /// Bytes of the allocations and the new sizes of the reallocations.
    pub allocated_bytes: u64,
    /// Bytes of the deallocations and the old sizes of the reallocations.
    ///
    /// Of blocks that were [allocated elsewhere](Trust::allocated_elsewhere) only the recorder may
    /// know the sizes. Then this is its own sum, and the sum over all stacks or threads is less.
    pub freed_bytes: u64,
    /// Bytes of the blocks that are live at the end.
    ///
    /// Only blocks whose allocation is in the dump count: a free of a block that was [allocated
    /// elsewhere](Trust::allocated_elsewhere) changes nothing here. A block that was [freed
    /// elsewhere](Trust::freed_elsewhere) counts until its address is handed out again.
    pub live_bytes: u64,
    /// Number of the blocks that are live at the end.
    pub live_blocks: u64,
    /// The most bytes that were ever live.
    pub peak_bytes: u64,
    /// Number of the blocks that were live at the first instant of the peak.
    pub peak_blocks: u64,
    /// The first instant of the peak, in microseconds.
    pub peak_us: u64,
    /// Number of the event that reached the peak, counted from 1 over the whole process; 0 if there
    /// was none.
    pub peak_event: u64,
    /// Number of blocks that were freed by the next heap event of the thread that had allocated
    /// them.
    pub temporary: u64,
    /// Number of short-lived blocks; 0 if lifetimes were not asked for.
    pub short_lived: u64,
    /// Number of deallocations and reallocations of blocks that are older than the recording. 0 if
    /// the recording began with the first event.
    pub foreign_frees: u64,
    /// Bytes of the blocks that `foreign_frees` counts, as far as their size was recorded.
    pub foreign_bytes: u64,
    /// Number of different stacks at which there were events.
    pub stacks: u64,
}

impl HeapTotals {
    /// Returns the number of heap events of all kinds.
    pub fn events(&self) -> u64 {
        self.allocations + self.deallocations + self.reallocations
    }
}

/// What made events cost the program more than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slowdown {
    /// Whether the C library could not tell which module is at an address, so that the platform's
    /// unwinder made every walk.
    pub no_loader_lookup: bool,
    /// Whether the kernel refused `membarrier`, so that every event cost a fence.
    pub no_membarrier: bool,
    /// Number of stacks that the platform's unwinder has walked, at some microseconds each.
    pub portable_walks: u64,
}

/// How far a profile can be trusted.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// How the recording ended; `None` if the dump lacks its end.
    pub end: Option<EndReason>,
    /// Number of events that reached the recorder and were not recorded.
    pub lost_events: u64,
    /// Number of events whose stack does not reach a known root.
    pub truncated_stacks: u64,
    /// Number of events of very deep stacks, of which the recorder has compared some words only.
    pub partly_verified_stacks: u64,
    /// Number of stacks that the recorder compared with an independent full walk.
    pub checked_stacks: u64,
    /// Number of the checked stacks that differed from the full walk.
    pub different_stacks: u64,
    /// The parts of the dump that the reader could not use.
    pub loss: Damage,
    /// Whether the dump lacks its end, and its sidecar is gone because it was in the memory of the
    /// machine that recorded.
    pub sidecar_gone: bool,
    /// The sidecar that the last records are in and that could not be read, with the reason; `None`
    /// if there is no such sidecar.
    pub unread_sidecar: Option<String>,
    /// Whether a process was still writing the dump while it was read.
    pub is_being_written: bool,
    /// Whether the dump lacks its end, and its sidecar is there.
    pub has_sidecar: bool,
    /// Bytes of the frames that came from the sidecar and not from the dump.
    pub recovered_bytes: u64,
    /// The text of the error at which the recording stopped; `None` if no error stopped it.
    pub stopped: Option<String>,
    /// The limit that has ended the recording before the program; `None` if none has.
    pub limit: Option<RecordingLimit>,
    /// Number of events that contradict the events before them, without those that the next two
    /// fields count. Lost events and lost frames are the usual cause.
    pub inconsistent_events: u64,
    /// Number of frees and reallocs of blocks whose address was not live, in a recording that began
    /// with the first event: code that the recorder does not serve has allocated them. Where events
    /// or frames were lost, the allocation may also be among these.
    pub allocated_elsewhere: u64,
    /// Number of blocks whose address was handed out again while they were live: code that the
    /// recorder does not serve has freed them. Where events or frames were lost, the free may also
    /// be among these.
    pub freed_elsewhere: u64,
    /// How much of the program's code the recorder served; `None` if it has not said.
    pub installation: Option<Installation>,
    /// Whether the dump has no heap event and does not say that the recorder served all code. Then
    /// nothing shows that any event could have been recorded.
    pub is_unproven: bool,
    /// The totals that the recorder counted, if they differ from those of the replay.
    pub disagreement: Option<Totals>,
}

impl Trust {
    /// Whether the dump has its end, and all of it could be used.
    pub fn is_complete(&self) -> bool {
        self.end.is_some() && self.loss == Damage::default() && self.stopped.is_none()
    }

    /// Whether every figure is exact: the dump is complete, no event was lost, no event contradicts
    /// another, the totals are those of the recorder, and the recorder served all code.
    pub fn is_exact(&self) -> bool {
        let all_code_served = matches!(self.installation, None | Some(Installation::Complete));
        self.is_complete()
            && self.lost_events == 0
            && self.inconsistent_events + self.allocated_elsewhere + self.freed_elsewhere == 0
            && self.disagreement.is_none()
            && all_code_served
            && !self.is_unproven
    }

    /// Whether the program was killed, and everything that it did up to then was recovered: the
    /// dump lacks nothing but its end.
    pub fn is_recovered_whole(&self) -> bool {
        let with_end = || Trust { end: Some(EndReason::Vanished), ..self.clone() };
        self.end.is_none()
            && self.has_sidecar
            && !self.is_being_written
            && self.unread_sidecar.is_none()
            && with_end().is_exact()
    }

    /// Whether events or parts of the dump are missing, so that other events may be in
    /// contradiction to what is there.
    pub fn has_loss(&self) -> bool {
        self.lost_events > 0 || self.loss != Damage::default()
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=+:,@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
