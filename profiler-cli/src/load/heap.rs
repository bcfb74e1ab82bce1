//! The live set: which blocks are live, and what one heap event does to them.
//!
//! In: the heap records of a dump, in order. Out: for each completed event a [`HeapEvent`], which
//! names the block that was added and the block that was removed. Observers compute everything else
//! from these events.
//!
//! Nothing in the file is trusted. An event that contradicts the live set is counted, and changes
//! the set as the record demands. Two kinds are usual in programs whose blocks cross a border, such
//! as that of a library with an allocator of its own, and are counted apart:
//!
//! ```text
//! free(A), A not live    the block was allocated elsewhere: nothing is subtracted
//! alloc(A), A live       the block at A was freed elsewhere: it is subtracted now, not earlier
//! ```
//!
//! Where events were lost, both may also be the traces of these. Sums wrap on overflow, so that
//! even with false sizes every byte that was added can be subtracted again. Memory grows with the
//! number of live blocks, never with the number of events.

mod birth;
mod interval;

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use self::birth::Birth;
pub(super) use self::birth::BirthId;
use super::observers::lines::ContextId;

/// A block that is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiveBlock {
    /// Bytes, as the program asked for them.
    pub(super) size: u64,
    /// The stack that gave the block its present size; [`UNSELECTED`] if that thread is not
    /// selected.
    pub(super) stack: StackId,
    /// The annotated lines at which the block got its present size.
    pub(super) context: ContextId,
    /// When and on which thread the block was allocated. A realloc keeps this.
    pub(super) birth: Birth,
}

/// Stands for the stack of a block of a thread that is not selected. Such a block is part of the
/// totals of the process only. No node has this id, so a table of stacks has no row for it.
pub(super) const UNSELECTED: StackId = StackId(u32::MAX - 1);

/// The stack and the line context that a new block belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockOwner {
    pub(super) stack: StackId,
    pub(super) context: ContextId,
}

impl BlockOwner {
    /// The owner of every block of a thread that is not selected.
    pub(super) const UNSELECTED: BlockOwner = BlockOwner { stack: UNSELECTED, context: ContextId::NONE };
}

/// A thread of the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadRef {
    /// Number of the thread in the dump.
    pub(super) id: u32,
    /// Index of the thread in the order in which threads appear.
    pub(super) index: usize,
    /// Whether stacks and lines count the events of this thread.
    pub(super) is_selected: bool,
}

/// Where and when an event happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventOrigin {
    pub(super) us: u64,
    pub(super) thread: ThreadRef,
    pub(super) stack: StackId,
}

/// The kind of a heap event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// `alloc` or `alloc_zeroed`.
    Alloc,
    /// `dealloc`.
    Dealloc,
    /// `realloc` that succeeded: one event, which frees the old size and allocates the new one.
    Realloc,
}

/// A completed heap event, and what it did to the live set.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeapEvent {
    pub(super) kind: EventKind,
    /// Number of the event, from 1.
    pub(super) number: u64,
    /// Time, thread and stack.
    pub(super) origin: EventOrigin,
    /// Address of the block: that of `added` if there is one, else that of the block that was
    /// freed.
    pub(super) address: u64,
    /// Bytes allocated: the new size of an alloc or a realloc.
    pub(super) allocated: u64,
    /// Bytes freed: the old size of a dealloc or a realloc, as far as it is known.
    pub(super) freed: u64,
    /// The block that is live from now on.
    pub(super) added: Option<LiveBlock>,
    /// The block that was freed or reallocated; `None` if the dump has no allocation of it.
    pub(super) removed: Option<LiveBlock>,
    /// Whether the previous event of this thread was the allocation of `removed`.
    pub(super) is_temporary: bool,
    /// Whether the process now holds more bytes than ever before.
    pub(super) is_peak: bool,
}

impl HeapEvent {
    /// Whether the event freed a temporary block that was allocated in the interval too.
    #[inline]
    pub(super) fn is_temporary_of_interval(&self) -> bool {
        self.is_temporary && self.removed.is_none_or(|block| !block.birth.is_older())
    }
}

/// A block that was live at the address of a newly added block. It was freed elsewhere, or its
/// dealloc was lost, so it is no longer live.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostBlock(pub(super) LiveBlock);

/// The most bytes that were ever live.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeapPeak {
    pub(super) bytes: u64,
    /// Blocks that were live at the first instant of the peak.
    pub(super) blocks: u64,
    /// The first instant of the peak, in microseconds.
    pub(super) us: u64,
    /// Number of the event that reached the peak; 0 if there was none.
    pub(super) event: u64,
}

/// All live blocks of the process, whichever threads are selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Heap {
    blocks: HashMap<u64, LiveBlock>,
    /// By [`ThreadRef::index`].
    threads: Vec<ThreadHeap>,
    /// Live bytes, those of blocks in the middle of a realloc included.
    live_bytes: u64,
    live_blocks: u64,
    peak: HeapPeak,
    events: u64,
    /// Whether the dump has every event from the first one on. If so, a block without an allocation
    /// was allocated elsewhere; if not, the block may be older than the recording.
    pub(super) from_first_event: bool,
    /// Whether some blocks may be older than the interval that is counted.
    has_older: bool,
    /// Events that contradict the live set in another way than the next two counts.
    contradictions: u64,
    allocated_elsewhere: u64,
    freed_elsewhere: u64,
    foreign_frees: u64,
    foreign_bytes: u64,
}

/// The state of one thread that heap events depend on.
#[derive(Clone, Debug, Default)]
struct ThreadHeap {
    /// Number of heap events that the thread has completed.
    events: u64,
    /// Blocks whose realloc has begun and not ended, innermost last.
    moving: Vec<MovingBlock>,
}

/// A block between the two halves of a realloc. Another block may be at its address meanwhile.
#[derive(Clone, Copy, Debug)]
enum MovingBlock {
    /// A block of the live set, and its old address.
    Live(u64, LiveBlock),
    /// A block that the dump has not seen before; its size, if the record has it.
    Unknown(Option<u64>),
}

impl Heap {
    /// Makes room for one more thread.
    pub(super) fn add_thread(&mut self) {
        self.threads.push(ThreadHeap::default());
    }

    /// Live bytes of the process.
    #[inline]
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Number of live blocks of the process.
    pub(super) fn live_blocks(&self) -> u64 {
        self.live_blocks
    }

    /// The most bytes that were ever live.
    pub(super) fn peak(&self) -> HeapPeak {
        self.peak
    }

    /// Number of events that contradict the live set, and are in neither of the next two counts.
    pub(super) fn contradictions(&self) -> u64 {
        self.contradictions
    }

    /// Number of frees and reallocs of blocks that were not live, in a dump that has every event
    /// from the first one on.
    pub(super) fn allocated_elsewhere(&self) -> u64 {
        self.allocated_elsewhere
    }

    /// Number of blocks that were live when their address was handed out again.
    pub(super) fn freed_elsewhere(&self) -> u64 {
        self.freed_elsewhere
    }

    /// Whether every block was added and removed in the order in which that can happen.
    pub(super) fn is_consistent(&self) -> bool {
        self.contradictions + self.allocated_elsewhere + self.freed_elsewhere == 0
    }

    /// Number of heap events of the thread that allocated the block, from its allocation on.
    #[inline]
    pub(super) fn events_since(&self, block: &LiveBlock) -> u64 {
        self.threads
            .get(block.birth.thread())
            .map_or(u64::MAX, |thread| block.birth.events_until(thread.events))
    }

    /// Number of events that were completed.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Returns the number of frees of blocks that are older than the recording, and the recorded
    /// bytes of these blocks.
    pub(super) fn foreign(&self) -> (u64, u64) {
        (self.foreign_frees, self.foreign_bytes)
    }

    /// Returns all live blocks with their addresses, in no particular order. A block in the middle
    /// of a realloc has its old address.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u64, &LiveBlock)> {
        self.blocks.iter().map(|(address, block)| (*address, block)).chain(self.moving_blocks())
    }

    /// Returns the blocks in the middle of a realloc, with their old addresses.
    pub(super) fn moving_blocks(&self) -> impl Iterator<Item = (u64, &LiveBlock)> {
        self.threads.iter().flat_map(|thread| &thread.moving).filter_map(|moving| match moving {
            MovingBlock::Live(address, block) => Some((*address, block)),
            MovingBlock::Unknown(_) => None,
        })
    }

    /// Adds a block that was allocated. Returns the event, and the live block that had this address
    /// if there was one.
    #[inline]
    pub(super) fn alloc(
        &mut self,
        origin: EventOrigin,
        owner: BlockOwner,
        address: u64,
        size: u64,
    ) -> (HeapEvent, Option<LostBlock>) {
        let size = self.plausible(size);
        self.events += 1;
        let number = self.events;
        let event_of_thread = self.count_event(origin.thread);
        let birth = Birth::new(origin.us, origin.thread.index, event_of_thread);
        let block = new_block(owner, size, birth);
        let lost = self.add_live(address, block);
        let is_peak = self.note_peak(origin.us);
        let event = HeapEvent {
            kind: EventKind::Alloc,
            number,
            origin,
            address,
            allocated: size,
            freed: 0,
            added: Some(block),
            removed: None,
            is_temporary: false,
            is_peak,
        };
        (event, lost)
    }

    /// Removes a block that was freed. `recorded` is its size if the record has one.
    #[inline]
    pub(super) fn dealloc(&mut self, origin: EventOrigin, address: u64, recorded: Option<u64>) -> HeapEvent {
        self.events += 1;
        let removed = self.blocks.remove(&address);
        if let Some(block) = removed {
            self.subtract(&block);
        }
        let freed = self.freed_bytes(removed, recorded);
        let event_of_thread = self.count_event(origin.thread);
        let is_next = |block: LiveBlock| block.birth.is_event(origin.thread.index, event_of_thread - 1);
        HeapEvent {
            kind: EventKind::Dealloc,
            number: self.events,
            origin,
            address,
            allocated: 0,
            freed,
            added: None,
            removed,
            is_temporary: removed.is_some_and(is_next),
            is_peak: false,
        }
    }

    /// Replaces a block by its reallocated one in one step: no event of another thread happened in
    /// between. Returns the same values as [`alloc`](Heap::alloc).
    #[inline]
    pub(super) fn realloc(
        &mut self,
        origin: EventOrigin,
        owner: BlockOwner,
        (old, recorded): (u64, Option<u64>),
        (new, size): (u64, u64),
    ) -> (HeapEvent, Option<LostBlock>) {
        let removed = self.blocks.remove(&old);
        let freed = self.freed_bytes(removed, recorded);
        self.complete_realloc(origin, owner, (removed, freed), (new, size))
    }

    /// Begins a realloc: sets the block aside, because from now on another thread may get its
    /// address.
    pub(super) fn begin_realloc(&mut self, thread: ThreadRef, old: u64, recorded: Option<u64>) {
        let moving = match self.blocks.remove(&old) {
            Some(block) => MovingBlock::Live(old, block),
            None => MovingBlock::Unknown(recorded),
        };
        if let Some(thread) = self.threads.get_mut(thread.index) {
            thread.moving.push(moving);
        }
    }

    /// Completes the realloc that the thread began last, which has succeeded.
    pub(super) fn end_realloc(
        &mut self,
        origin: EventOrigin,
        owner: BlockOwner,
        new: u64,
        size: u64,
    ) -> (HeapEvent, Option<LostBlock>) {
        let before = match self.take_moving(origin.thread) {
            Some(MovingBlock::Live(_, block)) => (Some(block), block.size),
            Some(MovingBlock::Unknown(recorded)) => (None, self.freed_bytes(None, recorded)),
            None if self.from_first_event => {
                // The dump lacks the first half, so it does not say which block was moved.
                self.contradictions += 1;
                (None, 0)
            }
            None => (None, self.freed_bytes(None, None)),
        };
        self.complete_realloc(origin, owner, before, (new, size))
    }

    /// Undoes the realloc that the thread began last, which has failed: the block has its old
    /// address and size again.
    pub(super) fn cancel_realloc(&mut self, thread: ThreadRef) {
        if let Some(MovingBlock::Live(old, block)) = self.take_moving(thread) {
            let overwritten = self.blocks.insert(old, block);
            // The address was never free, so no other block can be there.
            self.contradictions += u64::from(overwritten.is_some());
        }
    }

    /// Counts an event of a thread, and returns its number on that thread.
    #[inline]
    fn count_event(&mut self, thread: ThreadRef) -> u64 {
        self.threads.get_mut(thread.index).map_or(1, |thread| {
            thread.events += 1;
            thread.events
        })
    }

    fn take_moving(&mut self, thread: ThreadRef) -> Option<MovingBlock> {
        self.threads.get_mut(thread.index)?.moving.pop()
    }

    /// Completes a realloc. Its old block is no longer in `blocks`, but still counts in the sums.
    #[inline]
    fn complete_realloc(
        &mut self,
        origin: EventOrigin,
        owner: BlockOwner,
        (removed, freed): (Option<LiveBlock>, u64),
        (new, size): (u64, u64),
    ) -> (HeapEvent, Option<LostBlock>) {
        let size = self.plausible(size);
        self.events += 1;
        if let Some(block) = removed {
            self.subtract(&block);
        }
        let event_of_thread = self.count_event(origin.thread);
        let birth = match removed {
            Some(block) => block.birth.resized(),
            // Resized too, because the block is older than this event.
            None => Birth::new(origin.us, origin.thread.index, event_of_thread).resized(),
        };
        let block = new_block(owner, size, birth);
        let lost = self.add_live(new, block);
        let is_peak = self.note_peak(origin.us);
        let event = HeapEvent {
            kind: EventKind::Realloc,
            number: self.events,
            origin,
            address: new,
            allocated: size,
            freed,
            added: Some(block),
            removed,
            is_temporary: false,
            is_peak,
        };
        (event, lost)
    }

    /// Adds a block, and returns the live block that had its address.
    #[inline]
    fn add_live(&mut self, address: u64, block: LiveBlock) -> Option<LostBlock> {
        let lost = self.blocks.insert(address, block);
        if let Some(lost) = lost {
            self.freed_elsewhere += 1;
            self.subtract(&lost);
        }
        self.live_bytes = self.live_bytes.wrapping_add(block.size);
        self.live_blocks += 1;
        lost.map(LostBlock)
    }

    #[inline]
    fn subtract(&mut self, block: &LiveBlock) {
        self.live_bytes = self.live_bytes.wrapping_sub(block.size);
        self.live_blocks -= 1;
    }

    /// Records a new peak if more bytes are live than ever before, and returns whether that is so.
    /// If the same peak is reached again, its first instant stays.
    #[inline]
    fn note_peak(&mut self, us: u64) -> bool {
        let is_peak = self.live_bytes > self.peak.bytes;
        if is_peak {
            let (bytes, blocks, event) = (self.live_bytes, self.live_blocks, self.events);
            self.peak = HeapPeak { bytes, blocks, us, event };
        }
        is_peak
    }

    /// Returns the size if a block can have it. An impossible size is counted as a contradiction,
    /// and becomes 0.
    #[inline]
    fn plausible(&mut self, size: u64) -> u64 {
        if size <= MAX_SIZE {
            return size;
        }
        self.contradictions += 1;
        0
    }

    /// Returns the size of a block that was removed. If the live set does not have the block, the
    /// block is older than the recording, was allocated elsewhere, or its allocation was lost. Then
    /// `recorded` is the only known size.
    #[inline]
    fn freed_bytes(&mut self, block: Option<LiveBlock>, recorded: Option<u64>) -> u64 {
        match block {
            Some(block) => block.size,
            None => self.freed_bytes_of_unknown(recorded.unwrap_or(0)),
        }
    }

    #[cold]
    fn freed_bytes_of_unknown(&mut self, recorded: u64) -> u64 {
        if self.from_first_event {
            self.allocated_elsewhere += 1;
        } else {
            self.foreign_frees += 1;
            self.foreign_bytes = self.foreign_bytes.saturating_add(recorded);
        }
        self.plausible(recorded)
    }
}

#[inline]
fn new_block(owner: BlockOwner, size: u64, birth: Birth) -> LiveBlock {
    LiveBlock { size, stack: owner.stack, context: owner.context, birth }
}

/// Bytes of the largest plausible block: no address space has room for a larger one.
const MAX_SIZE: u64 = 1 << 57;

#[cfg(test)]
mod tests;
