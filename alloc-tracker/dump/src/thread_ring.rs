//! The entries of thread rings: what one thread has recorded and was not drained yet. In: entries
//! of three words, as they stand in a ring of the [sidecar](crate::sidecar). Out: records. Never
//! allocates, never panics.
//!
//! A ring belongs to one thread at a time. So its entries need no thread number and no difference
//! from the entry before. Instead they have a timestamp, from a clock that all threads share.
//! Sorted by timestamp, the entries of all rings are the one stream that frames hold.
//!
//! An entry is three words:
//!
//! | word | bits | contents |
//! | --- | --- | --- |
//! | first | 0 to 4 | kind |
//! | | 5 | whether the stack is truncated |
//! | | 6 to 63 | timestamp |
//! | second | | address, or another number of 64 bits |
//! | third | 0 to 31 | stack, or another number of 32 bits |
//! | | 32 to 63 | size, or another number of 32 bits |

use crate::layout::StackId;
use crate::record::{AllocCall, PageFaults, Record, ResidentBytes};

/// Size of an entry in words of 8 bytes.
pub const ENTRY_WORDS: usize = 3;
/// Size of an entry in bytes.
pub const ENTRY_LEN: usize = 8 * ENTRY_WORDS;
/// Number of bits of the first word below the timestamp.
pub const TIMESTAMP_SHIFT: u32 = 6;

/// The bits of the kind.
const KIND: u64 = 0x1F;
/// The bit of a truncated stack, whose walk did not reach a known root.
const TRUNCATED: u64 = 0x20;

const ALLOC: u64 = 1;
const ALLOC_ZEROED: u64 = 2;
const DEALLOC: u64 = 3;
const REALLOC_BEGIN: u64 = 4;
const REALLOC_END: u64 = 5;
const REALLOC_FAILED: u64 = 6;
const THREAD_START: u64 = 7;
const THREAD_NAME: u64 = 8;
const THREAD_END: u64 = 9;
const SIZE: u64 = 10;
const ENTER: u64 = 11;
const LINE: u64 = 12;
const LEAVE: u64 = 13;
const USAGE: u64 = 14;
const MARK: u64 = 15;
const ALLOC_FAILED: u64 = 16;
const ALIGNMENT: u64 = 17;
const RESIDENT: u64 = 18;
const THREAD_STACK: u64 = 19;

/// The contents of an entry, without its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The thread allocated a block.
    Alloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes, or [`WIDE`] if the [`Entry::Size`] before has it.
        size: u32,
        /// The stack that asked for the block.
        stack: StackId,
        /// Whether the block came from `alloc_zeroed`.
        zeroed: bool,
        /// Whether the stack is truncated: its walk did not reach a known root.
        truncated: bool,
    },
    /// The thread is about to free a block.
    Dealloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes, or [`WIDE`] if the [`Entry::Size`] before has it.
        size: u32,
        /// The stack that frees the block.
        stack: StackId,
        /// Whether the stack is truncated: its walk did not reach a known root.
        truncated: bool,
    },
    /// The thread is about to move, grow or shrink a block.
    ReallocBegin {
        /// Address of the block before.
        addr: u64,
        /// Size of the block before, in bytes, or [`WIDE`] if the [`Entry::Size`] before has it.
        size: u32,
    },
    /// The realloc of the last [`Entry::ReallocBegin`] has succeeded.
    ReallocEnd {
        /// Address of the block after.
        addr: u64,
        /// Size of the block after, in bytes, or [`WIDE`] if the [`Entry::Size`] before has it.
        size: u32,
        /// The stack that asked for the new size.
        stack: StackId,
        /// Whether the stack is truncated: its walk did not reach a known root.
        truncated: bool,
    },
    /// The realloc of the last [`Entry::ReallocBegin`] has failed, and changed nothing.
    ReallocFailed,
    /// From here on the ring belongs to this thread.
    ThreadStart {
        /// Number of the thread.
        id: u32,
        /// The operating system's id of the thread.
        os_tid: u32,
    },
    /// The thread runs on the stack that contains this address.
    ThreadStack {
        /// An address on the stack.
        address: u64,
    },
    /// The thread's name. A zero byte ends a name of less than 16 bytes.
    ThreadName([u8; 16]),
    /// The thread has ended.
    ThreadEnd,
    /// The size, in bytes, of the next entry's block. That entry has [`WIDE`] in its place.
    Size(u64),
    /// The thread begins to run an activation of an annotated function, or continues one.
    Enter {
        /// Number of the function.
        function: u32,
        /// Number of the activation.
        activation: u64,
    },
    /// An activation reaches a line.
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line, with the flag [`LINE_AGAIN`](crate::record::LINE_AGAIN) if the activation only
        /// continues there.
        line: u32,
    },
    /// The thread stops running an activation.
    Leave {
        /// Number of the activation.
        activation: u64,
        /// Whether the activation is over; if not, it may be entered again.
        ended: bool,
    },
    /// What the process and the thread had used at the entry before: an [`Entry::Enter`],
    /// [`Entry::Line`] or [`Entry::Leave`].
    Usage {
        /// Resident set of the process, if the recorder asked for it.
        rss: ResidentBytes,
        /// Minor page faults of the thread since it began, if the recorder asked for them.
        minor_faults: PageFaults,
        /// Major page faults of the thread since it began, if the recorder asked for them.
        major_faults: PageFaults,
    },
    /// A mark: a moment that the program has named.
    Mark {
        /// Number of the name.
        id: u32,
    },
    /// The inner allocator had no memory for the thread.
    AllocFailed {
        /// What the thread had called.
        call: AllocCall,
        /// Bytes that the thread asked for.
        size: u64,
        /// The alignment that it asked for: the logarithm of the bytes, to the base 2.
        align_log2: u8,
        /// The stack that asked.
        stack: StackId,
    },
    /// The alignment that the program gave with the ring's last heap event.
    Alignment {
        /// The alignment in bytes.
        bytes: u64,
    },
    /// How much of the blocks of the ring's last heap event is in physical memory.
    Resident {
        /// Resident bytes of the block that the event releases, just before.
        released: u64,
        /// Resident bytes of the block that the event allocates, just after.
        allocated: u64,
    },
}

/// The heap events whose entries have the same fields: an address, a size and a stack. The first
/// half of a realloc has no stack and is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeapEventKind {
    /// An [`Entry::Alloc`] of a block from `alloc`.
    Alloc = ALLOC as u8,
    /// An [`Entry::Alloc`] of a block from `alloc_zeroed`.
    AllocZeroed = ALLOC_ZEROED as u8,
    /// An [`Entry::Dealloc`].
    Dealloc = DEALLOC as u8,
    /// An [`Entry::ReallocEnd`].
    ReallocEnd = REALLOC_END as u8,
}

impl HeapEventKind {
    /// Returns the words of this event's entry: the same as from [`Entry::encode`].
    ///
    /// PERF: the kind is a number that is stored, not a branch.
    ///
    /// ```
    /// use alloc_dump::thread_ring::{Entry, HeapEventKind};
    /// use alloc_dump::layout::StackId;
    ///
    /// let (addr, size, stack, truncated) = (0x1000, 16, StackId(7), false);
    /// let entry = Entry::Dealloc { addr, size, stack, truncated };
    /// assert_eq!(HeapEventKind::Dealloc.encode(addr, size, (stack, truncated), 99), entry.encode(99));
    /// ```
    #[inline]
    pub fn encode(
        self,
        addr: u64,
        size: u32,
        (stack, truncated): (StackId, bool),
        timestamp: u64,
    ) -> [u64; ENTRY_WORDS] {
        let flag = u64::from(truncated) * TRUNCATED;
        [timestamp << TIMESTAMP_SHIFT | flag | self as u64, addr, pair(size, stack.0)]
    }
}

/// Stands in an entry for a size that does not fit into 32 bits. An [`Entry::Size`] just before has
/// the size.
pub const WIDE: u32 = u32::MAX;

impl Entry {
    /// Returns the entry's words, with this timestamp of at most 58 bits.
    #[inline]
    pub fn encode(&self, timestamp: u64) -> [u64; ENTRY_WORDS] {
        let (kind, truncated, first, second) = match *self {
            Entry::Alloc { addr, size, stack, zeroed, truncated } => {
                (if zeroed { ALLOC_ZEROED } else { ALLOC }, truncated, addr, pair(size, stack.0))
            }
            Entry::Dealloc { addr, size, stack, truncated } => {
                (DEALLOC, truncated, addr, pair(size, stack.0))
            }
            Entry::ReallocBegin { addr, size } => (REALLOC_BEGIN, false, addr, pair(size, 0)),
            Entry::ReallocEnd { addr, size, stack, truncated } => {
                (REALLOC_END, truncated, addr, pair(size, stack.0))
            }
            Entry::ReallocFailed => (REALLOC_FAILED, false, 0, 0),
            Entry::ThreadStart { id, os_tid } => (THREAD_START, false, 0, pair(os_tid, id)),
            Entry::ThreadName(name) => {
                let (first, second) = name.split_at(8);
                let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
                (THREAD_NAME, false, word(first), word(second))
            }
            Entry::ThreadEnd => (THREAD_END, false, 0, 0),
            Entry::ThreadStack { address } => (THREAD_STACK, false, address, 0),
            Entry::Size(size) => (SIZE, false, size, 0),
            Entry::Enter { function, activation } => (ENTER, false, activation, u64::from(function)),
            Entry::Line { activation, line } => (LINE, false, activation, u64::from(line)),
            Entry::Leave { activation, ended } => (LEAVE, false, activation, u64::from(ended)),
            Entry::Usage { rss, minor_faults, major_faults } => {
                (USAGE, false, rss.0, pair(minor_faults.0, major_faults.0))
            }
            Entry::Mark { id } => (MARK, false, 0, u64::from(id)),
            Entry::AllocFailed { call, size, align_log2, stack } => {
                let asked = u32::from(align_log2) << 8 | call.number() as u32;
                (ALLOC_FAILED, false, size, pair(asked, stack.0))
            }
            Entry::Alignment { bytes } => (ALIGNMENT, false, bytes, 0),
            Entry::Resident { released, allocated } => (RESIDENT, false, allocated, released),
        };
        [timestamp << TIMESTAMP_SHIFT | if truncated { TRUNCATED } else { 0 } | kind, first, second]
    }

    /// Returns the entry with these words. `None` for words that no writer makes.
    #[inline]
    pub fn decode(words: [u64; ENTRY_WORDS]) -> Option<Entry> {
        let [word, addr, second] = words;
        let truncated = word & TRUNCATED != 0;
        let (size, stack) = ((second >> 32) as u32, StackId(second as u32));
        Some(match word & KIND {
            kind @ (ALLOC | ALLOC_ZEROED) => {
                Entry::Alloc { addr, size, stack, zeroed: kind == ALLOC_ZEROED, truncated }
            }
            DEALLOC => Entry::Dealloc { addr, size, stack, truncated },
            REALLOC_BEGIN => Entry::ReallocBegin { addr, size },
            REALLOC_END => Entry::ReallocEnd { addr, size, stack, truncated },
            REALLOC_FAILED => Entry::ReallocFailed,
            THREAD_START => Entry::ThreadStart { id: second as u32, os_tid: size },
            THREAD_NAME => {
                let mut name = [0; 16];
                name[..8].copy_from_slice(&addr.to_le_bytes());
                name[8..].copy_from_slice(&second.to_le_bytes());
                Entry::ThreadName(name)
            }
            THREAD_END => Entry::ThreadEnd,
            THREAD_STACK => Entry::ThreadStack { address: addr },
            SIZE => Entry::Size(addr),
            ENTER => Entry::Enter { function: second as u32, activation: addr },
            LINE => Entry::Line { activation: addr, line: second as u32 },
            LEAVE => Entry::Leave { activation: addr, ended: second != 0 },
            USAGE => Entry::Usage {
                rss: ResidentBytes(addr),
                minor_faults: PageFaults(size),
                major_faults: PageFaults(second as u32),
            },
            MARK => Entry::Mark { id: second as u32 },
            ALLOC_FAILED => Entry::AllocFailed {
                call: AllocCall::from_number(u64::from(size & 0xFF))?,
                size: addr,
                align_log2: u8::try_from(size >> 8).ok().filter(|log2| *log2 < 64)?,
                stack,
            },
            ALIGNMENT => Entry::Alignment { bytes: addr },
            RESIDENT => Entry::Resident { released: second, allocated: addr },
            _ => return None,
        })
    }

    /// Returns the timestamp in the first word of an entry.
    #[inline]
    pub fn timestamp(word: u64) -> u64 {
        word >> TIMESTAMP_SHIFT
    }

    /// Returns whether the entry with this first word gives an address back to the allocator. Of
    /// entries with equal timestamps in different rings, those come first.
    #[inline]
    pub fn releases(word: u64) -> bool {
        matches!(word & KIND, DEALLOC | REALLOC_BEGIN)
    }

    /// Returns whether this is the first word of an [`Entry::Size`], which belongs to the entry
    /// that follows.
    #[inline]
    pub fn is_size(word: u64) -> bool {
        word & KIND == SIZE
    }

    /// Returns whether this is the first word of an [`Entry::ReallocEnd`].
    #[inline]
    pub fn ends_realloc(word: u64) -> bool {
        word & KIND == REALLOC_END
    }

    /// Returns whether this is the first word of an [`Entry::ReallocBegin`].
    #[inline]
    pub fn begins_realloc(word: u64) -> bool {
        word & KIND == REALLOC_BEGIN
    }
}

/// An entry that can be decoded without the entries before and after it in its ring. Most entries
/// are of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextFreeEntry {
    /// An [`Entry::Alloc`] whose size is not [`WIDE`] and whose stack is not truncated.
    Alloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes.
        size: u32,
        /// The stack that asked for the block.
        stack: StackId,
        /// Whether the block came from `alloc_zeroed`.
        zeroed: bool,
    },
    /// An [`Entry::Dealloc`] whose size is not [`WIDE`] and whose stack is not truncated.
    Dealloc {
        /// Address of the block.
        addr: u64,
        /// Size of the block in bytes.
        size: u32,
        /// The stack that frees the block.
        stack: StackId,
    },
    /// An [`Entry::Line`].
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line, with the flag [`LINE_AGAIN`](crate::record::LINE_AGAIN) if the activation only
        /// continues there.
        line: u32,
    },
}

impl ContextFreeEntry {
    /// Returns the entry with these words, or `None` if it depends on other entries or is of
    /// another kind.
    #[inline(always)]
    pub fn decode([word, addr, second]: [u64; ENTRY_WORDS]) -> Option<ContextFreeEntry> {
        let (size, stack) = ((second >> 32) as u32, StackId(second as u32));
        match word & (KIND | TRUNCATED) {
            kind @ (ALLOC | ALLOC_ZEROED) if size != WIDE => {
                Some(ContextFreeEntry::Alloc { addr, size, stack, zeroed: kind == ALLOC_ZEROED })
            }
            DEALLOC if size != WIDE => Some(ContextFreeEntry::Dealloc { addr, size, stack }),
            LINE => Some(ContextFreeEntry::Line { activation: addr, line: second as u32 }),
            _ => None,
        }
    }
}

/// Returns a word of two halves.
#[inline]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Decodes the entries of one ring. It keeps what they leave for later ones: the ring's thread, a
/// size for the next entry, and the reallocs that have begun.
///
/// NOTE: the recorder keeps this type in plain memory, so its fields are integers without padding.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RingDecoder {
    /// Number of the thread that the ring belongs to.
    pub thread: u32,
    /// 1 if `old` and `old_size` are the first half of a realloc that becomes one record with its
    /// second half; else 0.
    joins_halves: u32,
    /// From an [`Entry::Size`]: the size of the next entry's block in bytes.
    wide_size: u64,
    /// Address of the block whose halves are joined.
    old: u64,
    /// Size of that block before, in bytes.
    old_size: u64,
    /// Old sizes in bytes of the blocks whose reallocs have begun. There are several if a signal
    /// handler calls `realloc` while another realloc is under way.
    open_reallocs: [u64; MAX_OPEN_REALLOCS],
    /// How many reallocs have begun and not ended, also those beyond the array.
    open_count: u64,
}

/// How many nested reallocs are told apart. The bytes that deeper ones give back are not counted.
const MAX_OPEN_REALLOCS: usize = 4;

/// What a ring's next entry adds to the stream of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedEntry<'a> {
    /// A record that belongs to the ring's thread and to a time: a heap event, a line, usage or a
    /// mark.
    Timed {
        /// The record.
        record: Record<'a>,
        /// Bytes that the event frees: the old size of a dealloc or realloc; else 0.
        freed: u64,
        /// Whether the event's stack is truncated: its walk did not reach a known root.
        truncated: bool,
    },
    /// A record about a thread, which names the thread itself: its start, its stack, its name or
    /// its end.
    ThreadFact(Record<'a>),
    /// No record yet: the entry becomes one together with the entry that follows.
    Pending,
}

impl RingDecoder {
    /// Returns the decoder of a ring whose next entry belongs to this thread.
    pub const fn for_thread(thread: u32) -> RingDecoder {
        RingDecoder {
            thread,
            joins_halves: 0,
            wide_size: 0,
            old: 0,
            old_size: 0,
            open_reallocs: [0; MAX_OPEN_REALLOCS],
            open_count: 0,
        }
    }

    /// Decodes the ring's next entry.
    ///
    /// `ends_next` says that the next entry of all rings, by timestamp, ends the realloc that this
    /// entry begins. Both halves become one record then. `with_freed_sizes` says that records have
    /// the sizes of freed blocks. Readers that have seen every allocation do not need them.
    #[inline]
    pub fn decode_next<'a>(
        &mut self,
        entry: &'a Entry,
        ends_next: bool,
        with_freed_sizes: bool,
    ) -> DecodedEntry<'a> {
        let wide_size = std::mem::take(&mut self.wide_size);
        let whole = |size: u32| if size == WIDE { wide_size } else { u64::from(size) };
        let (record, freed, truncated) = match *entry {
            Entry::Alloc { addr, size, stack, zeroed, truncated } => {
                (Record::Alloc { addr, size: whole(size), stack, zeroed }, 0, truncated)
            }
            Entry::Dealloc { addr, size, stack, truncated } => {
                let size = whole(size);
                (Record::Dealloc { addr, size: with_freed_sizes.then_some(size), stack }, size, truncated)
            }
            Entry::ReallocBegin { addr: old, size } => {
                let old_size = whole(size);
                if ends_next {
                    *self = RingDecoder { joins_halves: 1, old, old_size, ..*self };
                    return DecodedEntry::Pending;
                }
                if let Some(slot) = self.open_reallocs.get_mut(self.open_count as usize) {
                    *slot = old_size;
                }
                self.open_count += 1;
                (Record::ReallocBegin { old, old_size: with_freed_sizes.then_some(old_size) }, 0, false)
            }
            Entry::ReallocEnd { addr: new, size, stack, truncated } => {
                let size = whole(size);
                if std::mem::take(&mut self.joins_halves) != 0 {
                    let RingDecoder { old, old_size, .. } = *self;
                    let known = with_freed_sizes.then_some(old_size);
                    let record = Record::Realloc { old, old_size: known, new, size, stack };
                    (record, old_size, truncated)
                } else {
                    (Record::ReallocEnd { new, size, stack }, self.close_realloc(), truncated)
                }
            }
            Entry::ReallocFailed => {
                self.close_realloc();
                (Record::ReallocFailed, 0, false)
            }
            Entry::ThreadStart { id, os_tid } => {
                *self = RingDecoder::for_thread(id);
                return DecodedEntry::ThreadFact(Record::ThreadStart { id, os_tid });
            }
            Entry::ThreadName(ref name) => {
                let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                return DecodedEntry::ThreadFact(Record::ThreadName { id: self.thread, name: &name[..len] });
            }
            Entry::ThreadEnd => return DecodedEntry::ThreadFact(Record::ThreadEnd { id: self.thread }),
            Entry::ThreadStack { address } => {
                return DecodedEntry::ThreadFact(Record::ThreadStack { id: self.thread, address });
            }
            Entry::Size(size) => {
                self.wide_size = size;
                return DecodedEntry::Pending;
            }
            Entry::Enter { function, activation } => (Record::Enter { function, activation }, 0, false),
            Entry::Line { activation, line } => (Record::Line { activation, line }, 0, false),
            Entry::Leave { activation, ended } => (Record::Leave { activation, ended }, 0, false),
            Entry::Usage { rss, minor_faults, major_faults } => {
                (Record::Usage { rss, minor_faults, major_faults }, 0, false)
            }
            Entry::Mark { id } => (Record::Mark { id }, 0, false),
            Entry::AllocFailed { call, size, align_log2, stack } => {
                // Below 64, so the shift does not overflow.
                let align = 1 << u32::from(align_log2 & 63);
                (Record::AllocFailed { call, size, align, stack }, 0, false)
            }
            Entry::Alignment { bytes } => (Record::Alignment { bytes }, 0, false),
            Entry::Resident { released, allocated } => (Record::Resident { released, allocated }, 0, false),
        };
        DecodedEntry::Timed { record, freed, truncated }
    }

    /// Removes the realloc that began last. Returns the old size of its block in bytes; 0 if that
    /// was not kept.
    fn close_realloc(&mut self) -> u64 {
        self.open_count = self.open_count.saturating_sub(1);
        self.open_reallocs.get(self.open_count as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_decodes_to_what_was_encoded() {
        let (addr, stack) = (0x7FFF_1234_5678, StackId(77));
        for truncated in [false, true] {
            for entry in [
                Entry::Alloc { addr, size: 5, stack, zeroed: true, truncated },
                Entry::Alloc { addr, size: WIDE, stack, zeroed: false, truncated },
                Entry::Dealloc { addr, size: 0, stack, truncated },
                Entry::ReallocBegin { addr, size: 9 },
                Entry::ReallocEnd { addr, size: 10, stack, truncated },
                Entry::ReallocFailed,
                Entry::ThreadStart { id: 3, os_tid: u32::MAX },
                Entry::ThreadName(*b"0123456789abcde\0"),
                Entry::ThreadEnd,
                Entry::Size(1 << 40),
                Entry::Enter { function: 7, activation: u64::MAX },
                Entry::Line { activation: 1 << 40, line: 77 },
                Entry::Leave { activation: 9, ended: true },
                Entry::Leave { activation: 9, ended: false },
                Entry::Usage {
                    rss: ResidentBytes::new(1 << 40),
                    minor_faults: PageFaults::new(5),
                    major_faults: PageFaults::UNKNOWN,
                },
                Entry::Mark { id: 3 },
            ] {
                let words = entry.encode((1 << 58) - 1);
                assert_eq!(Entry::decode(words), Some(entry));
                assert_eq!(Entry::timestamp(words[0]), (1 << 58) - 1);
            }
        }
        assert_eq!(Entry::decode([0, 1, 2]), None);
        assert_eq!(Entry::decode([31, 1, 2]), None);
    }

    #[test]
    fn the_halves_of_a_realloc_become_one_record_if_no_entry_comes_between() {
        let mut decoder = RingDecoder::for_thread(1);
        let begin = Entry::ReallocBegin { addr: 16, size: 8 };
        let end = Entry::ReallocEnd { addr: 32, size: 64, stack: StackId(3), truncated: true };
        assert_eq!(decoder.decode_next(&begin, true, true), DecodedEntry::Pending);
        let record = Record::Realloc { old: 16, old_size: Some(8), new: 32, size: 64, stack: StackId(3) };
        assert_eq!(
            decoder.decode_next(&end, false, true),
            DecodedEntry::Timed { record, freed: 8, truncated: true }
        );
        let record = Record::ReallocBegin { old: 16, old_size: Some(8) };
        assert_eq!(
            decoder.decode_next(&begin, false, true),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
        let record = Record::ReallocEnd { new: 32, size: 64, stack: StackId(3) };
        assert_eq!(
            decoder.decode_next(&end, false, true),
            DecodedEntry::Timed { record, freed: 8, truncated: true }
        );
    }

    #[test]
    fn sizes_of_freed_blocks_are_left_out_if_readers_know_them() {
        let mut decoder = RingDecoder::for_thread(1);
        let stack = StackId(3);
        let free = Entry::Dealloc { addr: 16, size: 8, stack, truncated: false };
        let record = Record::Dealloc { addr: 16, size: None, stack };
        assert_eq!(
            decoder.decode_next(&free, false, false),
            DecodedEntry::Timed { record, freed: 8, truncated: false }
        );
        let begin = Entry::ReallocBegin { addr: 16, size: 8 };
        let end = Entry::ReallocEnd { addr: 32, size: 64, stack, truncated: false };
        assert_eq!(decoder.decode_next(&begin, true, false), DecodedEntry::Pending);
        let record = Record::Realloc { old: 16, old_size: None, new: 32, size: 64, stack };
        assert_eq!(
            decoder.decode_next(&end, false, false),
            DecodedEntry::Timed { record, freed: 8, truncated: false }
        );
        let record = Record::ReallocBegin { old: 16, old_size: None };
        assert_eq!(
            decoder.decode_next(&begin, false, false),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
    }

    #[test]
    fn a_size_that_does_not_fit_comes_from_the_entry_before() {
        let mut decoder = RingDecoder::for_thread(1);
        let stack = StackId::ROOT;
        assert_eq!(decoder.decode_next(&Entry::Size(1 << 33), false, true), DecodedEntry::Pending);
        let entry = Entry::Alloc { addr: 8, size: WIDE, stack, zeroed: false, truncated: false };
        let record = Record::Alloc { addr: 8, size: 1 << 33, stack, zeroed: false };
        assert_eq!(
            decoder.decode_next(&entry, false, true),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
    }
}
