//! What one thread has recorded and nobody has yet put in order: fixed-size entries, as they stand in a ring of the
//! [sidecar](crate::sidecar). In: entries of three words. Out: records. Never allocates, never panics.
//!
//! A ring belongs to one thread at a time, so its entries need neither a thread nor a difference from the one before;
//! they carry a timestamp instead, from a clock that all threads share. Sorted by timestamp, the entries of all rings are the
//! one stream that frames hold.

use crate::layout::StackId;
use crate::record::{PageFaults, Record, ResidentBytes};

/// Words of an entry.
pub const ENTRY_WORDS: usize = 3;
/// Bytes of an entry.
pub const ENTRY_LEN: usize = 8 * ENTRY_WORDS;
/// Bits of the first word below the timestamp.
pub const TIMESTAMP_SHIFT: u32 = 6;

const KIND: u64 = 0x1F;
/// The stack was not walked to its end.
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

/// What an entry says; the words of an entry but for its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A block was allocated.
    Alloc {
        /// Its address.
        addr: u64,
        /// Its size, [`WIDE`] if that stands in the entry before.
        size: u32,
        /// The stack that asked for it.
        stack: StackId,
        /// Whether it came from `alloc_zeroed`.
        zeroed: bool,
        /// Whether the stack was not walked to its end.
        truncated: bool,
    },
    /// A block is about to be freed.
    Dealloc {
        /// Its address.
        addr: u64,
        /// Its size, [`WIDE`] if that stands in the entry before.
        size: u32,
        /// The stack that frees it.
        stack: StackId,
        /// Whether the stack was not walked to its end.
        truncated: bool,
    },
    /// A block is about to be moved.
    ReallocBegin {
        /// Its address.
        addr: u64,
        /// Its size, [`WIDE`] if that stands in the entry before.
        size: u32,
    },
    /// The block of the last [`Entry::ReallocBegin`] was moved.
    ReallocEnd {
        /// Its new address.
        addr: u64,
        /// Its new size, [`WIDE`] if that stands in the entry before.
        size: u32,
        /// The stack that asked for it.
        stack: StackId,
        /// Whether the stack was not walked to its end.
        truncated: bool,
    },
    /// The block of the last [`Entry::ReallocBegin`] is what it was.
    ReallocFailed,
    /// From here on the ring belongs to this thread.
    ThreadStart {
        /// Number of the thread.
        id: u32,
        /// The system's thread id.
        os_tid: u32,
    },
    /// The thread's name, ended by a zero byte if it is shorter.
    ThreadName([u8; 16]),
    /// The thread has ended.
    ThreadEnd,
    /// The size for the next entry, which has no room for it.
    Size(u64),
    /// The thread runs an activation of a function that says which line it has reached.
    Enter {
        /// Number of the function.
        function: u32,
        /// Number of the activation.
        activation: u64,
    },
    /// The activation reaches a line.
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line.
        line: u32,
    },
    /// The thread ceases to run the activation.
    Leave {
        /// Number of the activation.
        activation: u64,
        /// Whether it is over.
        ended: bool,
    },
    /// What was used at the entry before, an [`Entry::Enter`], [`Entry::Line`] or [`Entry::Leave`].
    Usage {
        /// Resident set of the process, if the recorder asked for it.
        rss: ResidentBytes,
        /// Minor page faults of the thread since it began, if the recorder asked for them.
        minor_faults: PageFaults,
        /// Major page faults of the thread since it began, if the recorder asked for them.
        major_faults: PageFaults,
    },
    /// The thread comes to a place with this name.
    Mark {
        /// Number of the name.
        id: u32,
    },
}

/// Heap events whose entries are alike: an address, a size and a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HeapEvent {
    /// [`Entry::Alloc`].
    Alloc = ALLOC as u8,
    /// [`Entry::Alloc`] with `zeroed`.
    AllocZeroed = ALLOC_ZEROED as u8,
    /// [`Entry::Dealloc`].
    Dealloc = DEALLOC as u8,
    /// [`Entry::ReallocEnd`].
    ReallocEnd = REALLOC_END as u8,
}

impl HeapEvent {
    /// The words of such an entry, as [`Entry::encode`] has them. PERF: which kind it is, is a number among others, not a branch.
    ///
    /// ```
    /// use alloc_dump::thread_ring::{Entry, HeapEvent};
    /// use alloc_dump::layout::StackId;
    ///
    /// let (addr, size, stack, truncated) = (0x1000, 16, StackId(7), false);
    /// let entry = Entry::Dealloc { addr, size, stack, truncated };
    /// assert_eq!(HeapEvent::Dealloc.encode(addr, size, (stack, truncated), 99), entry.encode(99));
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

/// Stands for a size that does not fit: an [`Entry::Size`] just before has it.
pub const WIDE: u32 = u32::MAX;

impl Entry {
    /// The entry's words, with this timestamp of at most 58 bits.
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
            Entry::Size(size) => (SIZE, false, size, 0),
            Entry::Enter { function, activation } => (ENTER, false, activation, u64::from(function)),
            Entry::Line { activation, line } => (LINE, false, activation, u64::from(line)),
            Entry::Leave { activation, ended } => (LEAVE, false, activation, u64::from(ended)),
            Entry::Usage { rss, minor_faults, major_faults } => {
                (USAGE, false, rss.0, pair(minor_faults.0, major_faults.0))
            }
            Entry::Mark { id } => (MARK, false, 0, u64::from(id)),
        };
        [timestamp << TIMESTAMP_SHIFT | if truncated { TRUNCATED } else { 0 } | kind, first, second]
    }

    /// What these words say; `None` for words that no writer makes.
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
            _ => return None,
        })
    }

    /// The timestamp in the first word of an entry.
    #[inline]
    pub fn timestamp(word: u64) -> u64 {
        word >> TIMESTAMP_SHIFT
    }

    /// Whether the entry with this first word gives an address back to the allocator: of entries with equal timestamps in
    /// different rings, those come first.
    #[inline]
    pub fn releases(word: u64) -> bool {
        matches!(word & KIND, DEALLOC | REALLOC_BEGIN)
    }

    /// Whether the entry with this first word only holds the size of the one that follows.
    #[inline]
    pub fn is_size(word: u64) -> bool {
        word & KIND == SIZE
    }

    /// Whether this is the first word of the second half of a realloc that succeeded.
    #[inline]
    pub fn ends_realloc(word: u64) -> bool {
        word & KIND == REALLOC_END
    }

    /// Whether this is the first word of the first half of a realloc.
    #[inline]
    pub fn begins_realloc(word: u64) -> bool {
        word & KIND == REALLOC_BEGIN
    }
}

/// An entry that means the same whatever came before it in its ring: what most of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextFreeEntry {
    /// An [`Entry::Alloc`] that was walked to its end and has its size.
    Alloc {
        /// Its address.
        addr: u64,
        /// Its size.
        size: u32,
        /// The stack that asked for it.
        stack: StackId,
        /// Whether it came from `alloc_zeroed`.
        zeroed: bool,
    },
    /// An [`Entry::Dealloc`] that was walked to its end and has its size.
    Dealloc {
        /// Its address.
        addr: u64,
        /// Its size.
        size: u32,
        /// The stack that frees it.
        stack: StackId,
    },
    /// An [`Entry::Line`].
    Line {
        /// Number of the activation.
        activation: u64,
        /// The line.
        line: u32,
    },
}

impl ContextFreeEntry {
    /// What these words say, if they are of such an entry.
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

#[inline]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What the entries of one ring have said so far: whose it is, and what waits for the next entry.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RingDecoder {
    /// Number of the thread that the ring belongs to.
    pub thread: u32,
    /// Whether `old` is the first half of a realloc that becomes one record with its second half.
    joins: u32,
    /// For the next entry.
    size: u64,
    /// The first half of the realloc that is joined.
    old: u64,
    old_size: u64,
    /// Sizes of the blocks that are being moved: several, if a signal handler moves one in the middle of a move.
    moving: [u64; MOST_MOVES],
    moves: u64,
}

/// Moves within moves that are told apart; the bytes that more of them give back are not counted.
const MOST_MOVES: usize = 4;

/// What a ring's next entry means for the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedEntry<'a> {
    /// A heap event, a line or a mark of the ring's thread.
    Timed {
        /// Its record.
        record: Record<'a>,
        /// Bytes that it gives back.
        freed: u64,
        /// Whether its stack was not walked to its end.
        truncated: bool,
    },
    /// A record about a thread.
    ThreadFact(Record<'a>),
    /// Nothing yet: it belongs to the entry that follows.
    Pending,
}

impl RingDecoder {
    /// A ring whose first entry to come belongs to this thread.
    pub const fn for_thread(thread: u32) -> RingDecoder {
        RingDecoder { thread, joins: 0, size: 0, old: 0, old_size: 0, moving: [0; MOST_MOVES], moves: 0 }
    }

    /// Takes the ring's next entry. `followed` tells that the entry which comes next in the whole stream ends the
    /// realloc that this one begins, so that both become one record. `sized` asks for the sizes of freed blocks, which readers
    /// know who have seen them allocated.
    #[inline]
    pub fn decode_next<'a>(&mut self, entry: &'a Entry, followed: bool, sized: bool) -> DecodedEntry<'a> {
        let wide = std::mem::take(&mut self.size);
        let whole = |size: u32| if size == WIDE { wide } else { u64::from(size) };
        let (record, freed, truncated) = match *entry {
            Entry::Alloc { addr, size, stack, zeroed, truncated } => {
                (Record::Alloc { addr, size: whole(size), stack, zeroed }, 0, truncated)
            }
            Entry::Dealloc { addr, size, stack, truncated } => {
                let size = whole(size);
                (Record::Dealloc { addr, size: sized.then_some(size), stack }, size, truncated)
            }
            Entry::ReallocBegin { addr: old, size } => {
                let old_size = whole(size);
                if followed {
                    *self = RingDecoder { joins: 1, old, old_size, ..*self };
                    return DecodedEntry::Pending;
                }
                if let Some(place) = self.moving.get_mut(self.moves as usize) {
                    *place = old_size;
                }
                self.moves += 1;
                (Record::ReallocBegin { old, old_size: sized.then_some(old_size) }, 0, false)
            }
            Entry::ReallocEnd { addr: new, size, stack, truncated } => {
                let size = whole(size);
                if std::mem::take(&mut self.joins) != 0 {
                    let RingDecoder { old, old_size, .. } = *self;
                    let known = sized.then_some(old_size);
                    let record = Record::Realloc { old, old_size: known, new, size, stack };
                    (record, old_size, truncated)
                } else {
                    (Record::ReallocEnd { new, size, stack }, self.end_move(), truncated)
                }
            }
            Entry::ReallocFailed => {
                self.end_move();
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
            Entry::Size(size) => {
                self.size = size;
                return DecodedEntry::Pending;
            }
            Entry::Enter { function, activation } => (Record::Enter { function, activation }, 0, false),
            Entry::Line { activation, line } => (Record::Line { activation, line }, 0, false),
            Entry::Leave { activation, ended } => (Record::Leave { activation, ended }, 0, false),
            Entry::Usage { rss, minor_faults, major_faults } => {
                (Record::Usage { rss, minor_faults, major_faults }, 0, false)
            }
            Entry::Mark { id } => (Record::Mark { id }, 0, false),
        };
        DecodedEntry::Timed { record, freed, truncated }
    }

    /// The size of the block whose move began last.
    fn end_move(&mut self) -> u64 {
        self.moves = self.moves.saturating_sub(1);
        self.moving.get(self.moves as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_words() {
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
    fn both_halves_of_a_realloc_become_one_record_if_nothing_comes_between() {
        let mut owner = RingDecoder::for_thread(1);
        let begin = Entry::ReallocBegin { addr: 16, size: 8 };
        let end = Entry::ReallocEnd { addr: 32, size: 64, stack: StackId(3), truncated: true };
        assert_eq!(owner.decode_next(&begin, true, true), DecodedEntry::Pending);
        let record = Record::Realloc { old: 16, old_size: Some(8), new: 32, size: 64, stack: StackId(3) };
        assert_eq!(
            owner.decode_next(&end, false, true),
            DecodedEntry::Timed { record, freed: 8, truncated: true }
        );
        let record = Record::ReallocBegin { old: 16, old_size: Some(8) };
        assert_eq!(
            owner.decode_next(&begin, false, true),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
        let record = Record::ReallocEnd { new: 32, size: 64, stack: StackId(3) };
        assert_eq!(
            owner.decode_next(&end, false, true),
            DecodedEntry::Timed { record, freed: 8, truncated: true }
        );
    }

    #[test]
    fn sizes_of_freed_blocks_are_left_out_where_readers_know_them() {
        let mut owner = RingDecoder::for_thread(1);
        let stack = StackId(3);
        let free = Entry::Dealloc { addr: 16, size: 8, stack, truncated: false };
        let record = Record::Dealloc { addr: 16, size: None, stack };
        assert_eq!(
            owner.decode_next(&free, false, false),
            DecodedEntry::Timed { record, freed: 8, truncated: false }
        );
        let begin = Entry::ReallocBegin { addr: 16, size: 8 };
        let end = Entry::ReallocEnd { addr: 32, size: 64, stack, truncated: false };
        assert_eq!(owner.decode_next(&begin, true, false), DecodedEntry::Pending);
        let record = Record::Realloc { old: 16, old_size: None, new: 32, size: 64, stack };
        assert_eq!(
            owner.decode_next(&end, false, false),
            DecodedEntry::Timed { record, freed: 8, truncated: false }
        );
        let record = Record::ReallocBegin { old: 16, old_size: None };
        assert_eq!(
            owner.decode_next(&begin, false, false),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
    }

    #[test]
    fn a_size_without_room_stands_before_its_entry() {
        let mut owner = RingDecoder::for_thread(1);
        let stack = StackId::ROOT;
        assert_eq!(owner.decode_next(&Entry::Size(1 << 33), false, true), DecodedEntry::Pending);
        let entry = Entry::Alloc { addr: 8, size: WIDE, stack, zeroed: false, truncated: false };
        let record = Record::Alloc { addr: 8, size: 1 << 33, stack, zeroed: false };
        assert_eq!(
            owner.decode_next(&entry, false, true),
            DecodedEntry::Timed { record, freed: 0, truncated: false }
        );
    }
}
