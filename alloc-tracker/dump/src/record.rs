//! What a frame of records says, and how each record is laid out. Never allocates, never panics.
//!
//! Every record begins with its tag. Tags below [`FIRST_COLD_TAG`] are the hot ones: their fields follow as bare
//! varints, most of them as differences from the record before (see [`Context`]), and a reader that does not know
//! one must drop the rest of the frame. From [`FIRST_COLD_TAG`] on a length follows the tag, so that a reader
//! skips what it does not know and ignores what a newer minor version adds at the end.

mod cold;
mod context;
pub(crate) mod tags;

pub use context::Context;

use crate::layout::StackId;
use crate::varint;

/// Tags from here on are followed by a length.
pub const FIRST_COLD_TAG: u8 = 0x40;

/// No hot record is longer: a tag and at most five varints.
pub const MAX_HOT_LEN: usize = 1 + 5 * varint::MAX_LEN;

/// In the line of a [`Record::Line`]: the activation goes on at this line, which has been reached before (it called a
/// closure that has lines of its own).
pub const LINE_AGAIN: u32 = 1 << 31;

/// One record. Numbers are bytes, addresses, or microseconds since the recording's time zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Record<'a> {
    /// The events that follow belong to this thread. Holds to the end of the frame, as [`Record::Time`] does: a
    /// writer states both before the first event of every frame.
    Thread {
        /// Number of the thread, from 1, never reused within a dump.
        id: u32,
    },
    /// The events that follow happened at this time. Never goes back: within a frame, a smaller time than the one
    /// before is written as that one.
    Time {
        /// Microseconds since time zero.
        us: u64,
    },
    /// A node of the call tree, before the first record that uses it.
    Node {
        /// The node, at least [`StackId::FIRST`].
        id: StackId,
        /// The caller's node, or one of the named roots of [`StackId`].
        parent: StackId,
        /// The return address in the tracked process (for the frame above a signal handler's: the exact address).
        pc: u64,
    },
    /// A block was allocated.
    Alloc {
        /// Its address.
        addr: u64,
        /// Its size, as asked for.
        size: u64,
        /// The stack that asked for it.
        stack: StackId,
        /// Whether it came from `alloc_zeroed`.
        zeroed: bool,
    },
    /// A block is about to be freed.
    Dealloc {
        /// Its address.
        addr: u64,
        /// Its size, where a reader may not have seen the allocation.
        size: Option<u64>,
        /// The stack that frees it.
        stack: StackId,
    },
    /// A block was moved, grown or shrunk, and no other thread's event came in between.
    Realloc {
        /// The address before.
        old: u64,
        /// The size before, where a reader may not have seen the allocation.
        old_size: Option<u64>,
        /// The address after; may be the same.
        new: u64,
        /// The size after.
        size: u64,
        /// The stack that asked for it.
        stack: StackId,
    },
    /// A realloc of this block begins: another thread may be given its address before [`Record::ReallocEnd`].
    ReallocBegin {
        /// The address before.
        old: u64,
        /// The size before, where a reader may not have seen the allocation.
        old_size: Option<u64>,
    },
    /// The realloc that this thread began last has succeeded.
    ReallocEnd {
        /// The address after.
        new: u64,
        /// The size after.
        size: u64,
        /// The stack that asked for it.
        stack: StackId,
    },
    /// The realloc that this thread began last has failed: the block is what it was.
    ReallocFailed,
    /// The process that is recorded; once, before all others but [`Record::Time`].
    Process(Process<'a>),
    /// A file with code was mapped.
    Module(Module<'a>),
    /// A module is no longer mapped.
    ModuleEnd {
        /// Number of the module.
        id: u32,
    },
    /// A thread's first event follows.
    ThreadStart {
        /// Number of the thread.
        id: u32,
        /// The system's thread id.
        os_tid: u32,
    },
    /// A thread has got a name.
    ThreadName {
        /// Number of the thread.
        id: u32,
        /// The name as the system keeps it: at most 15 bytes on Linux, any bytes.
        name: &'a [u8],
    },
    /// A thread ended.
    ThreadEnd {
        /// Number of the thread.
        id: u32,
    },
    /// The state of the process.
    Sample(Sample),
    /// Events reached the hook but could not be recorded.
    Lost {
        /// How many since the last such record.
        events: u64,
    },
    /// Stacks were compared with an independent full walk.
    Checked {
        /// How many since the last such record.
        stacks: u64,
        /// How many of these differed.
        different: u64,
    },
    /// A function that says which line it has reached, before the first record that names it.
    Function(Function<'a>),
    /// The current thread begins to run an activation of such a function, or goes on with one that it, or another thread,
    /// has left unfinished (a future that is polled again).
    Enter {
        /// Number of the function.
        function: u32,
        /// Number of the activation, never used for another one.
        activation: u64,
    },
    /// An activation that runs on the current thread reaches a line.
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line, with [`LINE_AGAIN`] if it only goes back there.
        line: u32,
    },
    /// The current thread ceases to run an activation, and all that it has entered since.
    Leave {
        /// Number of the activation.
        activation: u64,
        /// Whether it is over; if not, it may be entered again.
        ended: bool,
    },
    /// What the process and the current thread have used at the [`Record::Enter`], [`Record::Line`] or [`Record::Leave`]
    /// before, of the same thread.
    Usage {
        /// Resident set of the process, if the recorder asked for it.
        rss: ResidentBytes,
        /// Minor page faults of the thread since it began, if the recorder asked for them.
        minor_faults: PageFaults,
        /// Major page faults of the thread since it began, if the recorder asked for them.
        major_faults: PageFaults,
    },
    /// A name for marks, before the first one that has it.
    MarkName {
        /// Number of the name.
        id: u32,
        /// The name, any bytes.
        name: &'a [u8],
    },
    /// The current thread has come to a place that the program gave a name.
    Mark {
        /// Number of the name.
        id: u32,
    },
}

impl Record<'_> {
    /// Whether it has at most [`MAX_HOT_LEN`] bytes.
    #[inline]
    pub(crate) fn is_hot(&self) -> bool {
        matches!(
            self,
            Record::Thread { .. }
                | Record::Time { .. }
                | Record::Node { .. }
                | Record::Alloc { .. }
                | Record::Dealloc { .. }
                | Record::Realloc { .. }
                | Record::Line { .. }
        )
    }
}

/// The process that is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process<'a> {
    /// Process id.
    pub pid: u32,
    /// Bytes of a page.
    pub page_size: u64,
    /// Whether the recording began with the first heap event of the process. If not, some frees concern blocks
    /// that the dump has never seen.
    pub from_first_event: bool,
    /// Absolute path of the program.
    pub exe: &'a [u8],
    /// Its arguments, the program's own name first, each ended by a zero byte.
    pub args: &'a [u8],
    /// Working directory.
    pub cwd: &'a [u8],
    /// What `profiler-cli run` put into `ALLOC_TRACKER_RUN`, to find the dumps of its run; else empty.
    pub run: &'a [u8],
    /// Whether the recorder was built with debug assertions, and so very likely without optimization: each event then costs the
    /// process many times as much. False in dumps of version 1.0, which do not say.
    pub debug_assertions: bool,
}

/// A file with code, mapped into the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Module<'a> {
    /// Number of the module, never reused within a dump; mapping a file again makes a new one.
    pub id: u32,
    /// First address of its mappings.
    pub start: u64,
    /// First address behind its mappings.
    pub end: u64,
    /// What to subtract from an address to get the one that the file's own tables use.
    pub bias: u64,
    /// The GNU build-id; empty if the file has none.
    pub build_id: &'a [u8],
    /// Absolute path, or a name in brackets such as `[vdso]`.
    pub path: &'a [u8],
}

/// A function that says which line it has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function<'a> {
    /// Number of the function, never reused within a dump.
    pub id: u32,
    /// Its path, such as `demo::Parser::next`, any bytes.
    pub name: &'a [u8],
    /// Its source file, as the compiler was told of it.
    pub file: &'a [u8],
    /// Its first line.
    pub start_line: u32,
    /// Its last line.
    pub end_line: u32,
}

/// The state of the process at one moment, as the kernel accounts for it. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Virtual size.
    pub vsz: u64,
    /// Resident set.
    pub rss: u64,
    /// Swapped-out memory.
    pub swap: u64,
    /// Minor page faults since the process began.
    pub minor_faults: u64,
    /// Major page faults since the process began.
    pub major_faults: u64,
    /// Memory that the tracker itself has mapped, contained in the sizes above.
    pub tracker_bytes: u64,
    /// The largest virtual size so far, between samples included.
    pub peak_vsz: u64,
    /// The largest resident set so far, between samples included.
    pub peak_rss: u64,
}

/// Bytes of the process's resident set at a probe, or the statement that the recorder did not ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResidentBytes(pub(crate) u64);

impl ResidentBytes {
    /// The recorder did not ask.
    pub const UNKNOWN: ResidentBytes = ResidentBytes(0);

    /// This many bytes; 0, which no running process has, is [`ResidentBytes::UNKNOWN`].
    pub const fn new(bytes: u64) -> ResidentBytes {
        ResidentBytes(bytes)
    }

    /// The bytes, or `None` if the recorder did not ask.
    pub const fn known(self) -> Option<u64> {
        match self {
            ResidentBytes::UNKNOWN => None,
            ResidentBytes(bytes) => Some(bytes),
        }
    }
}

/// Page faults of a thread since it began, or the statement that the recorder did not ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageFaults(pub(crate) u32);

impl PageFaults {
    /// The recorder did not ask.
    pub const UNKNOWN: PageFaults = PageFaults(u32::MAX);

    /// The lower 32 bits of the kernel's count. The largest of them, which stands for
    /// [`PageFaults::UNKNOWN`], becomes one less: only differences of counts are used.
    pub const fn new(count: u32) -> PageFaults {
        match PageFaults(count) {
            PageFaults::UNKNOWN => PageFaults(count - 1),
            faults => faults,
        }
    }

    /// The count modulo 2^32, or `None` if the recorder did not ask.
    pub const fn known(self) -> Option<u32> {
        match self {
            PageFaults::UNKNOWN => None,
            PageFaults(count) => Some(count),
        }
    }
}

/// A record that no writer of this format makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;
