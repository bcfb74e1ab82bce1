//! What a frame of records says, and how each record is laid out. Never allocates, never panics.
//!
//! Every record begins with its tag. Tags below [`FIRST_COLD_TAG`] are the hot ones: their fields follow as bare
//! varints, most of them as differences from the record before (see [`Context`]), and a reader that does not know
//! one must drop the rest of the frame. From [`FIRST_COLD_TAG`] on a length follows the tag, so that a reader
//! skips what it does not know and ignores what a newer minor version adds at the end.

use crate::layout::{MAX_TEXT, StackId};
use crate::varint::{self, delta, undelta};

/// Tags from here on are followed by a length.
pub const FIRST_COLD_TAG: u8 = 0x40;

/// No hot record is longer: a tag and at most five varints.
pub const MAX_HOT_LEN: usize = 1 + 5 * varint::MAX_LEN;

/// Stands for a resident set that was not asked for.
pub const RSS_UNKNOWN: u64 = 0;
/// Stands for page faults that were not asked for.
pub const FAULTS_UNKNOWN: u32 = u32::MAX;

/// In the line of a [`Record::Line`]: the activation goes on at this line, which has been reached before (it called a
/// closure that has lines of its own).
pub const LINE_AGAIN: u32 = 1 << 31;

const THREAD: u8 = 1;
const TIME: u8 = 2;
const NODE: u8 = 3;
pub(crate) const ALLOC: u8 = 4;
pub(crate) const ALLOC_ZEROED: u8 = 5;
pub(crate) const DEALLOC: u8 = 6;
pub(crate) const DEALLOC_SIZED: u8 = 7;
pub(crate) const REALLOC: u8 = 8;
pub(crate) const REALLOC_SIZED: u8 = 9;
pub(crate) const REALLOC_BEGIN: u8 = 10;
pub(crate) const REALLOC_BEGIN_SIZED: u8 = 11;
pub(crate) const REALLOC_END: u8 = 12;
const REALLOC_FAILED: u8 = 13;
const ENTER: u8 = 14;
const LINE: u8 = 15;
const LINE_ON: u8 = 16;
const LEAVE: u8 = 17;
const PAUSE: u8 = 18;
const PROCESS: u8 = 0x40;
const MODULE: u8 = 0x41;
const MODULE_END: u8 = 0x42;
const THREAD_START: u8 = 0x43;
const THREAD_NAME: u8 = 0x44;
const THREAD_END: u8 = 0x45;
const SAMPLE: u8 = 0x46;
const LOST: u8 = 0x47;
const CHECKED: u8 = 0x48;
const FUNCTION: u8 = 0x49;
const USAGE: u8 = 0x4A;
const MARK_NAME: u8 = 0x4B;
const MARK: u8 = 0x4C;

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
        /// Resident set of the process, or [`RSS_UNKNOWN`].
        rss: u64,
        /// Minor page faults of the thread since it began, at most 2^32 - 2, or [`FAULTS_UNKNOWN`].
        minor_faults: u32,
        /// Major page faults of the thread since it began, at most 2^32 - 2, or [`FAULTS_UNKNOWN`].
        major_faults: u32,
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

/// What records are differences from. Both ends begin every frame with the default and update it record by record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    time: u64,
    addr: u64,
    stack: u64,
    node: u64,
    parent: u64,
    pc: u64,
    activation: u64,
    line: u64,
}

impl Context {
    pub(crate) const fn new() -> Context {
        Context { time: 0, addr: 0, stack: 0, node: 0, parent: 0, pc: 0, activation: 0, line: 0 }
    }

    /// Writes `record` at `*at`. `None` if it does not fit; `*at` and the context are then unspecified, so a
    /// caller keeps copies of both.
    #[inline]
    pub(crate) fn encode(&mut self, buf: &mut [u8], at: &mut usize, record: &Record<'_>) -> Option<()> {
        match *record {
            Record::Thread { id } => {
                tag(buf, at, THREAD)?;
                varint::put(buf, at, u64::from(id))
            }
            Record::Time { us } => {
                tag(buf, at, TIME)?;
                // A clock that went back is no reason to lose the frame: its records get the latest time so far.
                let us = us.max(self.time);
                varint::put(buf, at, us - std::mem::replace(&mut self.time, us))
            }
            Record::Node { id, parent, pc } => {
                tag(buf, at, NODE)?;
                put_delta(buf, at, &mut self.node, u64::from(id.0))?;
                put_delta(buf, at, &mut self.parent, u64::from(parent.0))?;
                put_delta(buf, at, &mut self.pc, pc)
            }
            Record::Alloc { addr, size, stack, zeroed } => self.put_alloc(buf, at, addr, size, stack, zeroed),
            Record::Dealloc { addr, size, stack } => self.put_dealloc(buf, at, addr, size, stack),
            Record::Realloc { old, old_size, new, size, stack } => {
                tag(buf, at, if old_size.is_some() { REALLOC_SIZED } else { REALLOC })?;
                put_delta(buf, at, &mut self.addr, old)?;
                put_optional(buf, at, old_size)?;
                put_delta(buf, at, &mut self.addr, new)?;
                varint::put(buf, at, size)?;
                self.put_stack(buf, at, stack)
            }
            Record::ReallocBegin { old, old_size } => {
                tag(buf, at, if old_size.is_some() { REALLOC_BEGIN_SIZED } else { REALLOC_BEGIN })?;
                put_delta(buf, at, &mut self.addr, old)?;
                put_optional(buf, at, old_size)
            }
            Record::ReallocEnd { new, size, stack } => {
                tag(buf, at, REALLOC_END)?;
                put_delta(buf, at, &mut self.addr, new)?;
                varint::put(buf, at, size)?;
                self.put_stack(buf, at, stack)
            }
            Record::ReallocFailed => tag(buf, at, REALLOC_FAILED),
            Record::Enter { function, activation } => {
                tag(buf, at, ENTER)?;
                varint::put(buf, at, u64::from(function))?;
                put_delta(buf, at, &mut self.activation, activation)
            }
            Record::Line { activation, line } => self.put_line(buf, at, activation, line),
            Record::Leave { activation, ended } => {
                tag(buf, at, if ended { LEAVE } else { PAUSE })?;
                put_delta(buf, at, &mut self.activation, activation)
            }
            _ => encode_cold(buf, at, record),
        }
    }

    /// Reads the record at `*at`. `Ok(None)` for a cold record of an unknown kind, which is skipped.
    #[inline]
    pub(crate) fn decode<'a>(
        &mut self,
        buf: &'a [u8],
        at: &mut usize,
    ) -> Result<Option<Record<'a>>, Malformed> {
        let kind = *buf.get(*at).ok_or(Malformed)?;
        *at += 1;
        if kind >= FIRST_COLD_TAG {
            let len = usize::try_from(get(buf, at)?).map_err(|_| Malformed)?;
            let end = at.checked_add(len).ok_or(Malformed)?;
            let payload = buf.get(*at..end).ok_or(Malformed)?;
            *at = end;
            return decode_cold(kind, payload).ok_or(Malformed);
        }
        Ok(Some(match kind {
            THREAD => Record::Thread { id: narrow(get(buf, at)?)? },
            TIME => {
                self.time = self.time.checked_add(get(buf, at)?).ok_or(Malformed)?;
                Record::Time { us: self.time }
            }
            NODE => {
                let id = StackId(narrow(get_delta(buf, at, &mut self.node)?)?);
                let parent = StackId(narrow(get_delta(buf, at, &mut self.parent)?)?);
                Record::Node { id, parent, pc: get_delta(buf, at, &mut self.pc)? }
            }
            ALLOC | ALLOC_ZEROED => Record::Alloc {
                addr: get_delta(buf, at, &mut self.addr)?,
                size: get(buf, at)?,
                stack: self.get_stack(buf, at)?,
                zeroed: kind == ALLOC_ZEROED,
            },
            DEALLOC | DEALLOC_SIZED => Record::Dealloc {
                addr: get_delta(buf, at, &mut self.addr)?,
                size: get_optional(buf, at, kind == DEALLOC_SIZED)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC | REALLOC_SIZED => Record::Realloc {
                old: get_delta(buf, at, &mut self.addr)?,
                old_size: get_optional(buf, at, kind == REALLOC_SIZED)?,
                new: get_delta(buf, at, &mut self.addr)?,
                size: get(buf, at)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC_BEGIN | REALLOC_BEGIN_SIZED => Record::ReallocBegin {
                old: get_delta(buf, at, &mut self.addr)?,
                old_size: get_optional(buf, at, kind == REALLOC_BEGIN_SIZED)?,
            },
            REALLOC_END => Record::ReallocEnd {
                new: get_delta(buf, at, &mut self.addr)?,
                size: get(buf, at)?,
                stack: self.get_stack(buf, at)?,
            },
            REALLOC_FAILED => Record::ReallocFailed,
            ENTER => Record::Enter {
                function: narrow(get(buf, at)?)?,
                activation: get_delta(buf, at, &mut self.activation)?,
            },
            LINE | LINE_ON => {
                if kind == LINE {
                    get_delta(buf, at, &mut self.activation)?;
                }
                let line = narrow(get_delta(buf, at, &mut self.line)?)?.rotate_right(1);
                Record::Line { activation: self.activation, line }
            }
            LEAVE | PAUSE => {
                Record::Leave { activation: get_delta(buf, at, &mut self.activation)?, ended: kind == LEAVE }
            }
            _ => return Err(Malformed),
        }))
    }

    #[inline]
    pub(crate) fn put_alloc(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        addr: u64,
        size: u64,
        stack: StackId,
        zeroed: bool,
    ) -> Option<()> {
        tag(buf, at, if zeroed { ALLOC_ZEROED } else { ALLOC })?;
        put_delta(buf, at, &mut self.addr, addr)?;
        varint::put(buf, at, size)?;
        self.put_stack(buf, at, stack)
    }

    #[inline]
    pub(crate) fn put_dealloc(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        addr: u64,
        size: Option<u64>,
        stack: StackId,
    ) -> Option<()> {
        tag(buf, at, if size.is_some() { DEALLOC_SIZED } else { DEALLOC })?;
        put_delta(buf, at, &mut self.addr, addr)?;
        put_optional(buf, at, size)?;
        self.put_stack(buf, at, stack)
    }

    #[inline]
    pub(crate) fn put_line(
        &mut self,
        buf: &mut [u8],
        at: &mut usize,
        activation: u64,
        line: u32,
    ) -> Option<()> {
        if activation == self.activation {
            tag(buf, at, LINE_ON)?;
        } else {
            tag(buf, at, LINE)?;
            put_delta(buf, at, &mut self.activation, activation)?;
        }
        // The flag becomes the lowest bit, so that neighbouring lines are small differences.
        put_delta(buf, at, &mut self.line, u64::from(line.rotate_left(1)))
    }

    #[inline]
    fn put_stack(&mut self, buf: &mut [u8], at: &mut usize, stack: StackId) -> Option<()> {
        put_delta(buf, at, &mut self.stack, u64::from(stack.0))
    }

    #[inline]
    fn get_stack(&mut self, buf: &[u8], at: &mut usize) -> Result<StackId, Malformed> {
        Ok(StackId(narrow(get_delta(buf, at, &mut self.stack)?)?))
    }
}

/// A record that no writer of this format makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Cold records: tag, length in three bytes (so that it can be filled in afterwards), fields.
fn encode_cold(buf: &mut [u8], at: &mut usize, record: &Record<'_>) -> Option<()> {
    let kind = match record {
        Record::Process(_) => PROCESS,
        Record::Module(_) => MODULE,
        Record::ModuleEnd { .. } => MODULE_END,
        Record::ThreadStart { .. } => THREAD_START,
        Record::ThreadName { .. } => THREAD_NAME,
        Record::ThreadEnd { .. } => THREAD_END,
        Record::Sample(_) => SAMPLE,
        Record::Lost { .. } => LOST,
        Record::Checked { .. } => CHECKED,
        Record::Function(_) => FUNCTION,
        Record::Usage { .. } => USAGE,
        Record::MarkName { .. } => MARK_NAME,
        Record::Mark { .. } => MARK,
        _ => return None,
    };
    tag(buf, at, kind)?;
    let length_at = *at;
    *at += 3;
    match record {
        Record::Process(process) => {
            varint::put(buf, at, u64::from(process.pid))?;
            varint::put(buf, at, process.page_size)?;
            varint::put(buf, at, u64::from(process.from_first_event))?;
            for text in [process.exe, process.args, process.cwd, process.run] {
                put_text(buf, at, text)?;
            }
        }
        Record::Module(module) => {
            varint::put(buf, at, u64::from(module.id))?;
            varint::put(buf, at, module.start)?;
            varint::put(buf, at, module.end)?;
            varint::put(buf, at, module.bias)?;
            put_text(buf, at, module.build_id)?;
            put_text(buf, at, module.path)?;
        }
        Record::ModuleEnd { id } | Record::ThreadEnd { id } => varint::put(buf, at, u64::from(*id))?,
        Record::ThreadStart { id, os_tid } => {
            varint::put(buf, at, u64::from(*id))?;
            varint::put(buf, at, u64::from(*os_tid))?;
        }
        Record::ThreadName { id, name } => {
            varint::put(buf, at, u64::from(*id))?;
            put_text(buf, at, name)?;
        }
        Record::Sample(sample) => {
            for word in [
                sample.vsz,
                sample.rss,
                sample.swap,
                sample.minor_faults,
                sample.major_faults,
                sample.tracker_bytes,
                sample.peak_vsz,
                sample.peak_rss,
            ] {
                varint::put(buf, at, word)?;
            }
        }
        Record::Lost { events } => varint::put(buf, at, *events)?,
        Record::Checked { stacks, different } => {
            varint::put(buf, at, *stacks)?;
            varint::put(buf, at, *different)?;
        }
        Record::Function(function) => {
            varint::put(buf, at, u64::from(function.id))?;
            put_text(buf, at, function.name)?;
            put_text(buf, at, function.file)?;
            varint::put(buf, at, u64::from(function.start_line))?;
            varint::put(buf, at, u64::from(function.end_line))?;
        }
        Record::Usage { rss, minor_faults, major_faults } => {
            varint::put(buf, at, *rss)?;
            varint::put(buf, at, u64::from(*minor_faults))?;
            varint::put(buf, at, u64::from(*major_faults))?;
        }
        Record::MarkName { id, name } => {
            varint::put(buf, at, u64::from(*id))?;
            put_text(buf, at, name)?;
        }
        Record::Mark { id } => varint::put(buf, at, u64::from(*id))?,
        _ => return None,
    }
    let len = *at - length_at - 3;
    if len >= 1 << 21 {
        return None;
    }
    let length = buf.get_mut(length_at..length_at + 3)?;
    length.copy_from_slice(&[len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8]);
    Some(())
}

/// `Some(None)` for an unknown kind, `None` for a malformed record of a known one.
fn decode_cold(kind: u8, payload: &[u8]) -> Option<Option<Record<'_>>> {
    let at = &mut 0;
    let word = |at: &mut usize| varint::get(payload, at);
    let id = |at: &mut usize| u32::try_from(varint::get(payload, at)?).ok();
    Some(Some(match kind {
        PROCESS => Record::Process(Process {
            pid: id(at)?,
            page_size: word(at)?,
            from_first_event: word(at)? != 0,
            exe: get_text(payload, at)?,
            args: get_text(payload, at)?,
            cwd: get_text(payload, at)?,
            run: get_text(payload, at)?,
        }),
        MODULE => Record::Module(Module {
            id: id(at)?,
            start: word(at)?,
            end: word(at)?,
            bias: word(at)?,
            build_id: get_text(payload, at)?,
            path: get_text(payload, at)?,
        }),
        MODULE_END => Record::ModuleEnd { id: id(at)? },
        THREAD_START => Record::ThreadStart { id: id(at)?, os_tid: id(at)? },
        THREAD_NAME => Record::ThreadName { id: id(at)?, name: get_text(payload, at)? },
        THREAD_END => Record::ThreadEnd { id: id(at)? },
        SAMPLE => Record::Sample(Sample {
            vsz: word(at)?,
            rss: word(at)?,
            swap: word(at)?,
            minor_faults: word(at)?,
            major_faults: word(at)?,
            tracker_bytes: word(at)?,
            peak_vsz: word(at)?,
            peak_rss: word(at)?,
        }),
        LOST => Record::Lost { events: word(at)? },
        CHECKED => Record::Checked { stacks: word(at)?, different: word(at)? },
        FUNCTION => Record::Function(Function {
            id: id(at)?,
            name: get_text(payload, at)?,
            file: get_text(payload, at)?,
            start_line: id(at)?,
            end_line: id(at)?,
        }),
        USAGE => Record::Usage { rss: word(at)?, minor_faults: id(at)?, major_faults: id(at)? },
        MARK_NAME => Record::MarkName { id: id(at)?, name: get_text(payload, at)? },
        MARK => Record::Mark { id: id(at)? },
        _ => return Some(None),
    }))
}

#[inline]
fn tag(buf: &mut [u8], at: &mut usize, tag: u8) -> Option<()> {
    *buf.get_mut(*at)? = tag;
    *at += 1;
    Some(())
}

#[inline]
fn put_delta(buf: &mut [u8], at: &mut usize, last: &mut u64, value: u64) -> Option<()> {
    varint::put(buf, at, delta(std::mem::replace(last, value), value))
}

#[inline]
fn put_optional(buf: &mut [u8], at: &mut usize, value: Option<u64>) -> Option<()> {
    match value {
        Some(value) => varint::put(buf, at, value),
        None => Some(()),
    }
}

fn put_text(buf: &mut [u8], at: &mut usize, text: &[u8]) -> Option<()> {
    let text = &text[..text.len().min(MAX_TEXT)];
    varint::put(buf, at, text.len() as u64)?;
    buf.get_mut(*at..)?.get_mut(..text.len())?.copy_from_slice(text);
    *at += text.len();
    Some(())
}

#[inline]
fn get(buf: &[u8], at: &mut usize) -> Result<u64, Malformed> {
    varint::get(buf, at).ok_or(Malformed)
}

#[inline]
fn get_delta(buf: &[u8], at: &mut usize, last: &mut u64) -> Result<u64, Malformed> {
    *last = undelta(*last, get(buf, at)?);
    Ok(*last)
}

#[inline]
fn get_optional(buf: &[u8], at: &mut usize, there: bool) -> Result<Option<u64>, Malformed> {
    if there { get(buf, at).map(Some) } else { Ok(None) }
}

fn get_text<'a>(buf: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::get(buf, at)?).ok().filter(|len| *len <= MAX_TEXT)?;
    let text = buf.get(*at..)?.get(..len)?;
    *at += len;
    Some(text)
}

#[inline]
fn narrow(value: u64) -> Result<u32, Malformed> {
    u32::try_from(value).map_err(|_| Malformed)
}
