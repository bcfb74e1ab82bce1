//! A loaded dump: everything that analyses read. Plain values, no input or output; made by [`load`](crate::load) or
//! by hand in tests. Memory follows distinct stacks, threads and samples, never events.

use std::path::PathBuf;

use alloc_dump::layout::StackId;
use alloc_dump::read::Damage;
use alloc_dump::record::Sample;
use alloc_dump::trailer::{EndReason, Totals};

/// A loaded dump.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The process that was recorded.
    pub process: Process,
    /// Files with code, in the order in which they appeared.
    pub modules: Vec<Module>,
    /// The call tree: the node of a [`StackId`] is at its number.
    pub nodes: Vec<Node>,
    /// What happened at each stack, at the number of its [`StackId`]; as long as `nodes`.
    pub stacks: Vec<StackStats>,
    /// Threads in the order of their first event.
    pub threads: Vec<Thread>,
    /// The process over time: microseconds since time zero, and its state. If there were too many samples, one stands for
    /// those since the one before: sizes are the largest among them.
    pub timeline: Vec<(u64, Sample)>,
    /// How many samples there were.
    pub samples: u64,
    /// The live heap over time.
    pub heap: HeapCurve,
    /// When annotated functions ran, in the order in which they began; outermost calls only.
    pub spans: Vec<Span>,
    /// Calls that are not among these, because there were too many; they are shorter than those.
    pub spans_dropped: u64,
    /// Functions that report their lines, in the order in which they first did.
    pub annotated: Vec<Annotated>,
    /// Places that the program gave a name, in the order in which its threads came there.
    pub marks: Vec<Mark>,
    /// Those that came after these, because there were too many.
    pub marks_dropped: u64,
    /// Whether `stacks` and `annotated` count the events of some of the threads only.
    pub some_threads: bool,
    /// Totals over all stacks and threads.
    pub totals: HeapTotals,
    /// How many allocations asked for how much: at index i those of more than 2^(i-1) and at most 2^i bytes.
    pub sizes: Vec<u64>,
    /// Length of the recording in microseconds.
    pub duration_us: u64,
    /// Whether all of this can be believed.
    pub trust: Trust,
}

impl Profile {
    /// The nodes of a stack, innermost frame first. Empty for a stack that has none.
    pub fn frames_of(&self, stack: StackId) -> impl Iterator<Item = (StackId, &Node)> {
        let mut next = stack;
        // A child's number is larger than its parent's in every dump that a recorder writes, and `load` admits no other,
        // so this ends.
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
    /// Process id.
    pub pid: u32,
    /// Absolute path of the program.
    pub exe: PathBuf,
    /// Program name and arguments; what is not UTF-8 is replaced.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Whether the recording began with the process's first heap event.
    pub from_first_event: bool,
    /// The token of the `profiler-cli run` that started it; empty if none did.
    pub run: String,
    /// Whether the recorder was built with debug assertions, very likely without optimization.
    pub debug_assertions: bool,
    /// Wall-clock time at time zero, nanoseconds since the Unix epoch.
    pub started_unix_ns: u64,
}

impl Process {
    /// The command line, for people: program file name and arguments, quoted as a shell would want them.
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

/// A file with code.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// Its path when it was mapped.
    pub path: PathBuf,
    /// Its GNU build-id; empty if it has none.
    pub build_id: Vec<u8>,
    /// What to subtract from an address in the process to get the file's own.
    pub bias: u64,
    /// First address of its mappings.
    pub start: u64,
    /// First address behind its mappings.
    pub end: u64,
}

/// A frame of the call tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The caller's node.
    pub parent: StackId,
    /// The return address in the process.
    pub pc: u64,
    /// Index of the module that it lay in when it was first seen.
    pub module: Option<u32>,
    /// Whether the walk that found it ended before a known root.
    pub truncated: bool,
}

/// What happened at one stack. Bytes are those that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Allocations made here.
    pub allocations: u64,
    /// Reallocations made here.
    pub reallocations: u64,
    /// Deallocations made here.
    pub deallocations: u64,
    /// Bytes of the allocations and the new sizes of the reallocations.
    pub allocated: u64,
    /// Bytes of the deallocations and the old sizes of the reallocations.
    pub freed: u64,
    /// Allocations whose block was freed by the next heap event of their thread.
    pub temporary: u64,
    /// Bytes of those.
    pub temporary_bytes: u64,
    /// Bytes of the blocks that got their present size here and are live at the end.
    pub live_bytes: u64,
    /// Those blocks.
    pub live_blocks: u64,
    /// When the first of those blocks was allocated, in microseconds.
    pub live_first_us: u64,
    /// When the last of those blocks was allocated, in microseconds.
    pub live_last_us: u64,
    /// Bytes of the blocks that had got their size here and were live at the global peak.
    pub peak_bytes: u64,
    /// Those blocks.
    pub peak_blocks: u64,
    /// Number of the last event made here, from 1; 0 for none.
    pub last_event: u64,
    /// Live bytes of the whole process after that event.
    pub live_after_last: u64,
}

impl StackStats {
    /// Heap events made here.
    pub fn events(&self) -> u64 {
        self.allocations + self.reallocations + self.deallocations
    }
}

/// The exact live heap over time, in intervals of equal length from time zero on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapCurve {
    /// Microseconds of an interval.
    pub width_us: u64,
    /// What was live in each.
    pub intervals: Vec<HeapInterval>,
}

/// Live bytes of the process during an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapInterval {
    /// The least at any instant of it.
    pub min: u64,
    /// The most at any instant of it.
    pub max: u64,
    /// At its end.
    pub last: u64,
}

/// A thread ran an annotated function: from the outermost call to its end, or a future from one await to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index in [`Profile::annotated`].
    pub function: usize,
    /// The thread's number.
    pub thread: u32,
    /// Its beginning, in microseconds.
    pub start_us: u64,
    /// Its end.
    pub end_us: u64,
}

/// A moment that the program gave a name (`alloc_tracker::mark`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its name; what is not UTF-8 is replaced.
    pub name: String,
    /// Number of the thread that came there.
    pub thread: u32,
    /// When, in microseconds since time zero.
    pub us: u64,
    /// Live bytes of the process then.
    pub live_bytes: u64,
}

/// A function that reports which line it has reached: one with `#[profile]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    /// Its path.
    pub name: String,
    /// Its source file, as the compiler was told of it: mostly relative to the workspace.
    pub file: String,
    /// Its first line.
    pub start_line: u32,
    /// Its last line.
    pub end_line: u32,
    /// What happened at its lines, as far as they were reached.
    pub lines: std::collections::BTreeMap<u32, AnnotatedLine>,
}

/// What happened while a function was at one of its lines, in whatever it called, on the threads that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotatedLine {
    /// How often it was reached.
    pub occurrences: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Bytes freed.
    pub freed: u64,
    /// Blocks allocated minus blocks freed.
    pub blocks: i64,
    /// Live bytes of the process when it was last left.
    pub mem_usage: u64,
    /// The most live bytes of the process at any of the times when it was left.
    pub max: u64,
    /// Microseconds spent there.
    pub time_us: u64,
    /// Bytes of the blocks that got their size there and were live at the global peak; `None` in these three if there were too
    /// many combinations of lines to tell.
    pub peak: Option<u64>,
    /// Bytes of the blocks that got their size there and are live at the end.
    pub live: Option<u64>,
    /// Blocks that were allocated there and freed by the next heap event of the thread.
    pub temporary: Option<u64>,
    /// By how much the resident memory of the process has changed; `None` if the recorder was not told to ask.
    pub rss: Option<i64>,
    /// Minor page faults of the thread; `None` likewise.
    pub minor_faults: Option<u64>,
    /// Major page faults of the thread; `None` likewise.
    pub major_faults: Option<u64>,
}

/// A thread.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    /// Its number in the dump.
    pub id: u32,
    /// The system's thread id.
    pub os_tid: u32,
    /// Its last known name.
    pub name: String,
    /// When its first event happened, in microseconds.
    pub start_us: u64,
    /// When it ended, if it did before the recording.
    pub end_us: Option<u64>,
    /// Allocations.
    pub allocations: u64,
    /// Reallocations.
    pub reallocations: u64,
    /// Deallocations.
    pub deallocations: u64,
    /// Bytes allocated.
    pub allocated: u64,
    /// Bytes freed.
    pub freed: u64,
}

/// Totals over all stacks and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapTotals {
    /// `alloc` and `alloc_zeroed` events.
    pub allocations: u64,
    /// `dealloc` events.
    pub deallocations: u64,
    /// `realloc` events.
    pub reallocations: u64,
    /// Bytes of the allocations and the new sizes of the reallocations.
    pub allocated_bytes: u64,
    /// Bytes of the deallocations and the old sizes of the reallocations.
    pub freed_bytes: u64,
    /// Bytes live at the end.
    pub live_bytes: u64,
    /// Blocks live at the end.
    pub live_blocks: u64,
    /// The most bytes that were ever live.
    pub peak_bytes: u64,
    /// Blocks live at the first instant of that.
    pub peak_blocks: u64,
    /// That instant, in microseconds.
    pub peak_us: u64,
    /// Blocks freed by the next heap event of the thread that had allocated them.
    pub temporary: u64,
    /// Deallocations and reallocations of blocks that are older than the recording.
    pub foreign_frees: u64,
    /// Bytes of those blocks.
    pub foreign_bytes: u64,
    /// Different stacks that events happened at.
    pub stacks: u64,
}

/// Whether a profile can be believed.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// How the recording ended; `None` if its end is missing.
    pub end: Option<EndReason>,
    /// Events that reached the recorder and were not recorded.
    pub lost_events: u64,
    /// Events whose stack does not reach a known root.
    pub truncated_stacks: u64,
    /// Stacks that the recorder compared with an independent full walk.
    pub checked_stacks: u64,
    /// How many of these differed.
    pub different_stacks: u64,
    /// What the reader could not use.
    pub loss: Damage,
    /// The sidecar was in the memory of the machine that recorded, and what leads to it leads nowhere now.
    pub sidecar_gone: bool,
    /// Bytes of records that were found in the sidecar and not in the dump.
    pub recovered_bytes: u64,
    /// The system's words for the error at which the recording stopped.
    pub stopped: Option<String>,
    /// Events that contradict what was read before: consequences of lost events or frames.
    pub inconsistent_events: u64,
    /// The recorder's own totals differ from the replay's.
    pub disagreement: Option<Totals>,
}

impl Trust {
    /// Whether everything that was recorded has been read to the end.
    pub fn complete(&self) -> bool {
        self.end.is_some() && self.loss == Damage::default() && self.stopped.is_none()
    }

    /// Whether every figure is exact.
    pub fn exact(&self) -> bool {
        self.complete()
            && self.lost_events == 0
            && self.inconsistent_events == 0
            && self.disagreement.is_none()
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
