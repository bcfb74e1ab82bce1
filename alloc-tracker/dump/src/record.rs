//! The records that a frame holds, and their layout. In: records or bytes. Out: the other. Never
//! allocates, never panics.
//!
//! Every record begins with its tag, one byte.
//!
//! - **Hot records** have tags below [`FIRST_COLD_TAG`]. Their fields follow the tag as bare
//!   varints, most of them as differences from the record before (see [`DeltaContext`]). A reader
//!   that meets an unknown hot tag must drop the rest of the frame.
//! - **Cold records** have tags from [`FIRST_COLD_TAG`] on. The length of the fields follows the
//!   tag. So a reader skips records that it does not know, and ignores fields that a newer minor
//!   version adds at the end.

mod address_space;
mod cold;
mod context;
mod limit;
mod slow;
pub(crate) mod tags;

pub use address_space::{Layout, LayoutOccasion, Region, RegionFlags};
pub use context::DeltaContext;
#[cfg(feature = "compression")]
pub(crate) use context::to_u32;
pub use limit::{MemoryLimit, MemoryLimitKind, RecordingLimit};
pub use slow::SlowReason;

use crate::code::CodeIdentity;
use crate::layout::StackId;
use crate::varint;

/// The first tag of the cold records: from here on a length in bytes follows the tag.
pub const FIRST_COLD_TAG: u8 = 0x40;

/// The most bytes that a hot record has: its tag and at most five varints.
pub const MAX_HOT_LEN: usize = 1 + 5 * varint::MAX_LEN;

/// A flag in the line of a [`Record::Line`]: the activation continues at this line and does not
/// reach it anew. It had called a closure that has lines of its own.
pub const LINE_AGAIN: u32 = 1 << 31;

/// One record. Sizes are in bytes, times in microseconds since the recording's time zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Record<'a> {
    /// The events that follow belong to this thread. Like [`Record::Time`], it holds to the end of
    /// the frame at most: a writer states both before the first event of every frame.
    Thread {
        /// Number of the thread, from 1; a dump never uses a number twice.
        id: u32,
    },
    /// The events that follow happened at this time. The time never goes back: the writer replaces
    /// a time that is smaller than the one before in the frame by that one.
    Time {
        /// Microseconds since time zero.
        us: u64,
    },
    /// Defines a node of the call tree. It comes before the first record that uses the node.
    Node {
        /// The node, at least [`StackId::FIRST`].
        id: StackId,
        /// The caller's node, or [`StackId::ROOT`] or [`StackId::TRUNCATED`] for the outermost
        /// frame.
        parent: StackId,
        /// The return address in the tracked process. For the frame that a signal handler
        /// interrupted it is the exact address of the instruction.
        pc: u64,
    },
    /// The program allocated a block.
    Alloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes, as the program asked for it.
        size: u64,
        /// The stack that asked for the block.
        stack: StackId,
        /// Whether the block came from `alloc_zeroed`.
        zeroed: bool,
    },
    /// The program is about to free a block.
    Dealloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes. `None` if every reader has seen the allocation.
        size: Option<u64>,
        /// The stack that frees the block.
        stack: StackId,
    },
    /// The program moved, grew or shrank a block, and no other thread's event came in between.
    Realloc {
        /// Address of the block before.
        old: u64,
        /// Size of the block before, in bytes. `None` if every reader has seen the allocation.
        old_size: Option<u64>,
        /// Address of the block after; may be the same.
        new: u64,
        /// Size of the block after, in bytes.
        size: u64,
        /// The stack that asked for the new size.
        stack: StackId,
    },
    /// A realloc of this block begins. Another thread may be given its address before
    /// [`Record::ReallocEnd`].
    ReallocBegin {
        /// Address of the block before.
        old: u64,
        /// Size of the block before, in bytes. `None` if every reader has seen the allocation.
        old_size: Option<u64>,
    },
    /// The realloc that this thread began last has succeeded.
    ReallocEnd {
        /// Address of the block after.
        new: u64,
        /// Size of the block after, in bytes.
        size: u64,
        /// The stack that asked for the new size.
        stack: StackId,
    },
    /// The realloc that this thread began last has failed, and changed nothing.
    ReallocFailed,
    /// The process that is recorded. It comes once, before all records but [`Record::Time`].
    Process(Process<'a>),
    /// The process mapped a file with code.
    Module(Module<'a>),
    /// A module is no longer mapped.
    ModuleEnd {
        /// Number of the module.
        id: u32,
    },
    /// What tells the code of a module from other code. Follows the record of the module, unless
    /// the code could not be read.
    ModuleCode {
        /// Number of the module.
        id: u32,
        /// The identity of the module's code.
        code: CodeIdentity,
    },
    /// Why events cost the program more than they usually do.
    Slow(SlowReason),
    /// A thread begins; its first event follows.
    ThreadStart {
        /// Number of the thread.
        id: u32,
        /// The operating system's id of the thread.
        os_tid: u32,
    },
    /// A thread has got a name; the last name counts.
    ThreadName {
        /// Number of the thread.
        id: u32,
        /// The name as the operating system keeps it: at most 15 bytes on Linux, not always UTF-8.
        name: &'a [u8],
    },
    /// A thread has ended.
    ThreadEnd {
        /// Number of the thread.
        id: u32,
    },
    /// The state of the process at this moment.
    Sample(Sample),
    /// Events reached the hook and could not be recorded.
    Lost {
        /// How many events were lost since the last such record.
        events: u64,
    },
    /// The recorder compared stacks with an independent full walk.
    Checked {
        /// How many stacks were compared since the last such record.
        stacks: u64,
        /// How many of these differed.
        different: u64,
    },
    /// Stacks of events whose proof was partial: the recorder compared only some of the words that
    /// tell that the outer part of a very deep stack is what it was.
    PartlyVerified {
        /// How many stacks there were since the last such record.
        stacks: u64,
    },
    /// Something that is known about the recording, such as the machine or the commit. A name that
    /// comes again replaces the value before.
    Label {
        /// The name, such as `host`.
        name: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// The recording ends here because it has reached a limit. The program goes on.
    LimitReached(RecordingLimit),
    /// A copy of the process's memory was made here, for a snapshot: the live heap after the
    /// records so far is that of the copy.
    Snapshot {
        /// Number of the snapshot, from 1; a dump never uses a number twice.
        id: u32,
        /// The snapshot's name, not always UTF-8.
        name: &'a [u8],
        /// Copying began so many microseconds before the record. The copy may lack pointers to
        /// blocks that were allocated since. 0 in dumps of version 1.4.
        copying_us: u64,
    },
    /// A limit of the program's memory at this moment. It replaces a limit of the same kind that
    /// stands before.
    MemoryLimit(MemoryLimit),
    /// The current thread asked for memory, and the inner allocator had none. Nothing has changed.
    AllocFailed {
        /// What the thread had called.
        call: AllocCall,
        /// Bytes that the thread asked for.
        size: u64,
        /// The alignment that it asked for, in bytes.
        align: u64,
        /// The stack that asked.
        stack: StackId,
    },
    /// The alignment that the program gave with the last heap event of the current thread. There if
    /// the recorder was asked for it.
    Alignment {
        /// The alignment in bytes.
        bytes: u64,
    },
    /// How much of the blocks of the current thread's last heap event is in physical memory. There
    /// for large blocks, if the recorder was asked for it.
    Resident {
        /// Resident bytes of the block that the event releases, just before.
        released: u64,
        /// Resident bytes of the block that the event allocates, just after.
        allocated: u64,
    },
    /// A mapping, for the [`Record::Layout`] that follows.
    Region(Region<'a>),
    /// The regions since the layout before describe the address space of this time.
    Layout(Layout),
    /// A thread runs on the stack that contains this address. Stands after the thread's start.
    ThreadStack {
        /// Number of the thread.
        id: u32,
        /// An address on the stack.
        address: u64,
    },
    /// What the machine has swapped since it started.
    SwapTraffic {
        /// Bytes that were read from swap space.
        read: u64,
        /// Bytes that were written to swap space.
        written: u64,
    },
    /// Defines an annotated function. It comes before the first record that names the function.
    Function(Function<'a>),
    /// The current thread begins to run an activation of an annotated function, or continues one. A
    /// future that is polled again continues an activation that this thread, or another one, has
    /// left unfinished.
    Enter {
        /// Number of the function.
        function: u32,
        /// Number of the activation; a recording never uses a number twice.
        activation: u64,
    },
    /// An activation that runs on the current thread reaches a line.
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line, from 1, with the flag [`LINE_AGAIN`] if the activation only continues there.
        line: u32,
    },
    /// The current thread stops running an activation, and all activations that it has entered
    /// since.
    Leave {
        /// Number of the activation.
        activation: u64,
        /// Whether the activation is over; if not, it may be entered again.
        ended: bool,
    },
    /// What the process and the current thread had used at the last [`Record::Enter`],
    /// [`Record::Line`] or [`Record::Leave`] of the same thread.
    Usage {
        /// Resident set of the process, if the recorder asked for it.
        rss: ResidentBytes,
        /// Minor page faults of the thread since it began, if the recorder asked for them.
        minor_faults: PageFaults,
        /// Major page faults of the thread since it began, if the recorder asked for them.
        major_faults: PageFaults,
    },
    /// Defines a name for marks. It comes before the first mark that has the name.
    MarkName {
        /// Number of the name.
        id: u32,
        /// The name, not always UTF-8.
        name: &'a [u8],
    },
    /// A mark: a moment that the program has named, on the current thread.
    Mark {
        /// Number of the name.
        id: u32,
    },
    /// How much of the program's code the recorder serves. The last record counts. Without any, the
    /// recorder has not said.
    Installation(Installation),
}

impl Record<'_> {
    /// Whether this is one of the frequent records. All of them are hot, so they have at most
    /// [`MAX_HOT_LEN`] bytes.
    #[inline]
    pub(crate) fn is_frequent(&self) -> bool {
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

/// A call that asks the allocator for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllocCall {
    /// `alloc`.
    Alloc,
    /// `alloc_zeroed`.
    AllocZeroed,
    /// `realloc`.
    Realloc,
}

impl AllocCall {
    /// Returns the number of the call in the format.
    pub(crate) fn number(self) -> u64 {
        self as u64
    }

    /// Returns the call with this number; `None` if it is not known.
    pub(crate) fn from_number(number: u64) -> Option<AllocCall> {
        match number {
            0 => Some(AllocCall::Alloc),
            1 => Some(AllocCall::AllocZeroed),
            2 => Some(AllocCall::Realloc),
            _ => None,
        }
    }
}

/// The process that is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process<'a> {
    /// Process id.
    pub pid: u32,
    /// Size of a memory page in bytes.
    pub page_size: u64,
    /// Whether the recording began with the first heap event of the process. If not, some frees
    /// concern blocks whose allocation the dump does not have.
    pub from_first_event: bool,
    /// Absolute path of the program.
    pub exe: &'a [u8],
    /// Arguments of the program, its own name first, each ended by a zero byte.
    pub args: &'a [u8],
    /// Working directory.
    pub cwd: &'a [u8],
    /// The value that `profiler-cli run` put into `ALLOC_TRACKER_RUN`, by which it finds the dumps
    /// of its run; empty without it.
    pub run: &'a [u8],
    /// Whether the recorder was built with debug assertions, and so very likely without
    /// optimization. Each event then costs the process many times as much. Always false in dumps of
    /// version 1.0, which do not have the flag.
    pub debug_assertions: bool,
}

/// How much of the Rust code of a process has the tracker as its global allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Installation {
    /// No code: the tracker is not the global allocator, and no allocation reaches it.
    Missing,
    /// Some code. Allocations made by other code, in most cases by the standard library in a file
    /// of its own, do not reach the tracker.
    Partial,
    /// All code that is linked into the program: the program's own, and the standard library.
    Complete,
}

/// A file with code, mapped into the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Module<'a> {
    /// Number of the module. A dump never uses a number twice; mapping a file again makes a new
    /// module.
    pub id: u32,
    /// First address of the module's mappings.
    pub start: u64,
    /// First address behind the module's mappings.
    pub end: u64,
    /// An address in the process minus this, modulo 2^64, is the address that the file's own tables
    /// use.
    pub bias: u64,
    /// The GNU build-id, raw bytes; empty if the file has none.
    pub build_id: &'a [u8],
    /// Absolute path, or a name in brackets such as `[vdso]`.
    pub path: &'a [u8],
}

/// An annotated function: probes in it tell which line it has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function<'a> {
    /// Number of the function; a dump never uses a number twice.
    pub id: u32,
    /// Path of the function, such as `demo::Parser::next`, not always UTF-8.
    pub name: &'a [u8],
    /// Path of the source file, as it was given to the compiler.
    pub file: &'a [u8],
    /// First line of the function, from 1.
    pub start_line: u32,
    /// Last line of the function, from 1.
    pub end_line: u32,
}

/// The state of the process at one moment, as the kernel accounts for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sample {
    /// Virtual size in bytes.
    pub vsz: u64,
    /// Resident set in bytes.
    pub rss: u64,
    /// Swapped-out memory in bytes.
    pub swap: u64,
    /// Minor page faults since the process began.
    pub minor_faults: u64,
    /// Major page faults since the process began.
    pub major_faults: u64,
    /// Bytes that the tracker itself has mapped. The sizes above contain them.
    pub tracker_bytes: u64,
    /// The largest virtual size so far in bytes, also of moments between two samples.
    pub peak_vsz: u64,
    /// The largest resident set so far in bytes, also of moments between two samples.
    pub peak_rss: u64,
}

/// Bytes of the process's resident set at a probe, or the statement that the recorder did not ask
/// for them.
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
pub(crate) struct MalformedRecord;
