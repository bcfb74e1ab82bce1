//! What both ends know of a frame's events so far, and what they predict from it.
//!
//! In: events. Out: predictions of the next event's origin, block, size and address. The encoder
//! and the decoder stay equal because both update this model with the same calls in the same order.

use super::EventShape;
use super::nodes::KnownNodes;
use crate::record::tags::REALLOC_END;

/// A block's position in [`FrameModel::blocks`]: the number of blocks that appeared in the frame
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockIndex(pub(super) u32);

impl BlockIndex {
    /// No block. Larger than any index, so that a look-up finds nothing.
    pub(super) const NONE: BlockIndex = BlockIndex(u32::MAX);
}

/// An origin's position in [`FrameModel::origins`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OriginIndex(pub(super) u32);

impl OriginIndex {
    /// The origin in front of all events: what a thread did before its first event.
    pub(super) const NONE: OriginIndex = OriginIndex(0);
}

/// A short name for the block that an event releases, from where the thread last added or released
/// one.
///
/// | name | block |
/// | --- | --- |
/// | 0 to 15 | so many steps back from the thread's newest block |
/// | 16 to 23 | 0 to 7 steps back from the gap that the last release left in the list |
/// | 24 to 31 | 0 to 7 steps on from that gap |
/// | 32 | its index follows |
/// | 33 | its address follows |
///
/// For example, the thread has allocated A, B, X, C and D in this order, and has just released X:
///
/// ```text
/// list    A    B   (gap)   C    D
/// steps   17   16          24   25    from the gap
///         3    2           1    0     from the newest block
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockName(pub(super) u8);

impl BlockName {
    /// No name with few enough steps: the block's index follows.
    pub(super) const BY_INDEX: BlockName = BlockName(AFTER_STEPS);
    /// The block was not seen in this frame: its address follows.
    pub(super) const BY_ADDRESS: BlockName = BlockName(AFTER_STEPS + 1);
}

/// The first name that counts steps back from the gap.
const BACK_FROM_GAP: u8 = 16;
/// The first name that counts steps on from the gap.
const ON_FROM_GAP: u8 = BACK_FROM_GAP + GAP_NAMES;
/// How many names count steps back from the gap, and how many steps on from it.
const GAP_NAMES: u8 = 8;
/// The first name that counts no steps.
pub(super) const AFTER_STEPS: u8 = 32;

/// A short name for the address of a new block.
///
/// Names from [`FIRST_REUSED_EARLIER`] up to [`AddressName::ELSEWHERE`], exclusive, are addresses
/// of blocks of the same bin that were freed before the one that [`AddressName::REUSED`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressName(pub(super) u8);

impl AddressName {
    /// The address of the block of the same bin that the thread freed last.
    pub(super) const REUSED: AddressName = AddressName(0);
    /// The address behind the block that was last added at a fresh address or at one without a
    /// name.
    pub(super) const FRESH: AddressName = AddressName(1);
    /// The address that the block had before its realloc.
    pub(super) const IN_PLACE: AddressName = AddressName(2);
    /// No name: the address follows.
    pub(super) const ELSEWHERE: AddressName = AddressName(15);
}

/// See [`AddressName`].
const FIRST_REUSED_EARLIER: u8 = 3;
const ELSEWHERE: u8 = AddressName::ELSEWHERE.0;

/// The model keeps state for so many threads. Threads whose numbers have the same remainder share
/// it, which makes predictions worse and nothing else.
const THREAD_SLOTS: usize = 256;
const BINS: usize = 66;

/// A pair of record tag and stack, and what the last event with that pair did: the prediction for
/// the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Size of the block that was added last, in bytes.
    pub(super) size: u64,
    pub(super) stack: u32,
    /// The origin that last followed this one in its thread.
    next: OriginIndex,
    pub(super) tag: u8,
    /// How the block that was released last was named.
    pub(super) block_name: BlockName,
    /// How the address of the block that was added last was named.
    pub(super) address_name: AddressName,
}

/// A block of this frame. Live blocks are in the list of the thread that allocated them, newest
/// last.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownBlock {
    pub(super) addr: u64,
    /// In bytes.
    pub(super) size: u64,
    older: BlockIndex,
    newer: BlockIndex,
    /// The next block below in the bin that holds this one.
    below: BlockIndex,
    /// The thread slot whose list holds the block.
    slot: u8,
    is_live: bool,
}

/// What a thread did last.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadSlot {
    newest: BlockIndex,
    /// The older neighbour of the block that was released last.
    gap_older: BlockIndex,
    /// The newer neighbour of the block that was released last.
    gap_newer: BlockIndex,
    /// The block that was released last; block 0 before the first release.
    last_released: BlockIndex,
    /// The block whose realloc has begun.
    moving: BlockIndex,
    origin: OriginIndex,
    pub(super) stack: u32,
    /// The address that [`AddressName::FRESH`] means.
    fresh: u64,
    /// The last address that was fresh or had no name: what the next address without a name is a
    /// difference from.
    pub(super) last_addr: u64,
    /// Freed blocks by size, the last one on top.
    bins: [BlockIndex; BINS],
}

/// What is known of a frame so far.
#[derive(Debug)]
pub(super) struct FrameModel {
    pub(super) origins: Vec<Origin>,
    pub(super) blocks: Vec<KnownBlock>,
    slots: Vec<ThreadSlot>,
    /// The current thread's slot.
    current: usize,
    /// The last time, in microseconds since time zero.
    pub(super) time: u64,
    pub(super) nodes: KnownNodes,
}

impl FrameModel {
    pub(super) fn new() -> FrameModel {
        let mut model = FrameModel {
            origins: Vec::new(),
            blocks: Vec::new(),
            slots: vec![ThreadSlot::new(); THREAD_SLOTS],
            current: 0,
            time: 0,
            nodes: KnownNodes::new(),
        };
        model.clear();
        model
    }

    /// Forgets everything, for the next frame.
    pub(super) fn clear(&mut self) {
        self.origins.clear();
        // See `OriginIndex::NONE`.
        self.origins.push(Origin::new(0, 0));
        self.blocks.clear();
        self.slots.fill(ThreadSlot::new());
        (self.current, self.time) = (0, 0);
        self.nodes.clear();
    }

    pub(super) fn switch_to(&mut self, thread: u32) {
        self.current = thread as usize % THREAD_SLOTS;
    }

    /// The current thread's slot.
    #[inline]
    pub(super) fn slot(&mut self) -> &mut ThreadSlot {
        &mut self.slots[self.current]
    }

    /// The block that the current thread released last.
    #[inline]
    pub(super) fn last_released(&self) -> BlockIndex {
        self.slots[self.current].last_released
    }

    /// The origin that the current thread's next event is predicted to have.
    #[inline]
    pub(super) fn expected_origin(&self) -> OriginIndex {
        self.origins[self.slots[self.current].origin.0 as usize].next
    }

    /// The stack that a new origin is predicted to have: the node that was just defined, else the
    /// thread's last stack.
    pub(super) fn expected_stack(&mut self) -> u32 {
        self.nodes.just_defined().unwrap_or(self.slots[self.current].stack)
    }

    pub(super) fn add_origin(&mut self, tag: u8, stack: u32) -> OriginIndex {
        self.origins.push(Origin::new(tag, stack));
        OriginIndex((self.origins.len() - 1) as u32)
    }

    /// Begins an event: the current thread is at this origin, which is in the table.
    #[inline]
    pub(super) fn begin_event(&mut self, origin: OriginIndex, has_stack: bool) {
        let slot = &mut self.slots[self.current];
        self.origins[std::mem::replace(&mut slot.origin, origin).0 as usize].next = origin;
        if has_stack {
            slot.stack = self.origins[origin.0 as usize].stack;
            self.nodes.note_stack_used();
        }
    }

    /// The live block with this name; `None` if there is none, or if the name counts no steps.
    #[inline]
    pub(super) fn block_named(&self, name: BlockName) -> Option<BlockIndex> {
        let slot = &self.slots[self.current];
        let (mut at, mut steps, goes_on) = match name.0 {
            name @ 0..BACK_FROM_GAP => (slot.newest, name, false),
            name @ BACK_FROM_GAP..ON_FROM_GAP => (slot.gap_older, name - BACK_FROM_GAP, false),
            name @ ON_FROM_GAP..AFTER_STEPS => (slot.gap_newer, name - ON_FROM_GAP, true),
            _ => return None,
        };
        loop {
            let block = self.blocks.get(at.0 as usize).filter(|block| block.is_live)?;
            if steps == 0 {
                return Some(at);
            }
            steps -= 1;
            at = if goes_on { block.newer } else { block.older };
        }
    }

    /// The name of a block that needs the fewest steps, if that is fewer than `max_steps`.
    pub(super) fn shortest_name_of(&self, wanted: BlockIndex, max_steps: u8) -> Option<BlockName> {
        let slot = &self.slots[self.current];
        let (mut newest, mut back, mut on) = (slot.newest, slot.gap_older, slot.gap_newer);
        let neighbour = |at: BlockIndex, goes_on: bool| match self.blocks.get(at.0 as usize) {
            Some(block) if block.is_live => {
                if goes_on {
                    block.newer
                } else {
                    block.older
                }
            }
            _ => BlockIndex::NONE,
        };
        for steps in 0..BACK_FROM_GAP.min(max_steps) {
            let is_near = steps < GAP_NAMES;
            if newest == wanted {
                return Some(BlockName(steps));
            } else if is_near && back == wanted {
                return Some(BlockName(BACK_FROM_GAP + steps));
            } else if is_near && on == wanted {
                return Some(BlockName(ON_FROM_GAP + steps));
            }
            (newest, back, on) = (neighbour(newest, false), neighbour(back, false), neighbour(on, true));
        }
        None
    }

    /// The address of a block, if it is live.
    #[inline]
    pub(super) fn live_addr(&self, block: BlockIndex) -> Option<u64> {
        self.blocks.get(block.0 as usize).filter(|block| block.is_live).map(|block| block.addr)
    }

    /// Removes a live block from its list and leaves the gap that names count from.
    #[inline]
    pub(super) fn remove_live(&mut self, released: BlockIndex) {
        let block = &mut self.blocks[released.0 as usize];
        block.is_live = false;
        let (older, newer, slot) = (block.older, block.newer, block.slot);
        if let Some(block) = self.blocks.get_mut(older.0 as usize) {
            block.newer = newer;
        }
        match self.blocks.get_mut(newer.0 as usize) {
            Some(block) => block.older = older,
            None => self.slots[slot as usize].newest = older,
        }
        let slot = self.slot();
        (slot.gap_older, slot.gap_newer, slot.last_released) = (older, newer, released);
    }

    /// Takes the block whose realloc the thread has begun, and its address, if the tag is that of
    /// the second half of a realloc.
    pub(super) fn take_moving(&mut self, tag: u8) -> (BlockIndex, Option<u64>) {
        if tag != REALLOC_END {
            return (BlockIndex::NONE, None);
        }
        let block = std::mem::replace(&mut self.slot().moving, BlockIndex::NONE);
        (block, self.blocks.get(block.0 as usize).map(|block| block.addr))
    }

    /// The address with this name for a block of `size` bytes. `in_place` is the address that
    /// [`AddressName::IN_PLACE`] means.
    #[inline]
    pub(super) fn address_named(&self, name: AddressName, size: u64, in_place: Option<u64>) -> Option<u64> {
        let slot = &self.slots[self.current];
        match name {
            AddressName::FRESH => Some(slot.fresh),
            AddressName::IN_PLACE => in_place,
            AddressName::REUSED => self.freed_addr(size, 0),
            AddressName(name @ FIRST_REUSED_EARLIER..ELSEWHERE) => {
                self.freed_addr(size, name - FIRST_REUSED_EARLIER + 1)
            }
            _ => None,
        }
    }

    /// The address of the block that is `steps` below the top of the bin for `size` bytes.
    fn freed_addr(&self, size: u64, steps: u8) -> Option<u64> {
        let mut at = *self.slots[self.current].bins.get(bin_of(size))?;
        for _ in 0..steps {
            at = self.blocks.get(at.0 as usize)?.below;
        }
        self.blocks.get(at.0 as usize).map(|block| block.addr)
    }

    /// The first name that an address has, if it has one.
    pub(super) fn name_of_address(&self, addr: u64, size: u64, in_place: Option<u64>) -> Option<AddressName> {
        let known = [AddressName::REUSED, AddressName::FRESH, AddressName::IN_PLACE];
        let is_it = |name: &AddressName| self.address_named(*name, size, in_place) == Some(addr);
        if let Some(name) = known.into_iter().find(is_it) {
            return Some(name);
        }
        let block = |at: BlockIndex| self.blocks.get(at.0 as usize).map(|block| (block.addr, block.below));
        let (_, mut at) = block(*self.slots[self.current].bins.get(bin_of(size))?)?;
        for name in FIRST_REUSED_EARLIER..ELSEWHERE {
            let (freed, below) = block(at)?;
            if freed == addr {
                return Some(AddressName(name));
            }
            at = below;
        }
        None
    }

    /// Adds a block of `size` bytes at an address that was named so, as the newest of the current
    /// thread.
    #[inline]
    pub(super) fn add_block(&mut self, name: AddressName, addr: u64, size: u64) -> BlockIndex {
        let index = BlockIndex(self.blocks.len() as u32);
        self.use_address(name, addr, size);
        let slot = &mut self.slots[self.current];
        let older = std::mem::replace(&mut slot.newest, index);
        self.blocks.push(KnownBlock {
            addr,
            size,
            older,
            newer: BlockIndex::NONE,
            below: BlockIndex::NONE,
            slot: self.current as u8,
            is_live: true,
        });
        if let Some(block) = self.blocks.get_mut(older.0 as usize) {
            block.newer = index;
        }
        index
    }

    /// Ends an event: its origin remembers what the event did, and the address of the block that it
    /// released may be reused from now on.
    #[inline]
    pub(super) fn end_event(
        &mut self,
        index: OriginIndex,
        origin: &Origin,
        released: BlockIndex,
        shape: EventShape,
    ) {
        let remembered = &mut self.origins[index.0 as usize];
        remembered.block_name = origin.block_name;
        remembered.address_name = origin.address_name;
        remembered.size = origin.size;
        if !shape.has_stack() {
            self.slot().moving = released;
        } else if !(shape.adds_block() && origin.address_name == AddressName::IN_PLACE) {
            self.put_into_bin(released);
        }
    }

    /// Puts a released block on top of its bin: the allocator may hand out its address again.
    #[inline]
    fn put_into_bin(&mut self, released: BlockIndex) {
        if let Some(block) = self.blocks.get_mut(released.0 as usize)
            && let Some(top) = self.slots[self.current].bins.get_mut(bin_of(block.size))
        {
            block.below = std::mem::replace(top, released);
        }
    }

    /// Takes an address out of its bin. A bin whose top was not used loses that too, because the
    /// allocator has apparently used the address for something else.
    #[inline]
    fn use_address(&mut self, name: AddressName, addr: u64, size: u64) {
        let slot = &mut self.slots[self.current];
        if matches!(name, AddressName::FRESH | AddressName::ELSEWHERE) {
            slot.fresh = addr.wrapping_add(footprint(size));
            slot.last_addr = addr;
        }
        let Some(top) = slot.bins.get_mut(bin_of(size)) else { return };
        match name {
            AddressName::IN_PLACE => {}
            AddressName(name @ FIRST_REUSED_EARLIER..ELSEWHERE) => {
                let mut above = *top;
                for _ in 0..name - FIRST_REUSED_EARLIER {
                    above = self.blocks.get(above.0 as usize).map_or(BlockIndex::NONE, |block| block.below);
                }
                let used = self.blocks.get(above.0 as usize).map_or(BlockIndex::NONE, |block| block.below);
                let below = self.blocks.get(used.0 as usize).map_or(BlockIndex::NONE, |block| block.below);
                if let Some(above) = self.blocks.get_mut(above.0 as usize) {
                    above.below = below;
                }
            }
            _ => *top = self.blocks.get(top.0 as usize).map_or(BlockIndex::NONE, |block| block.below),
        }
    }
}

impl Origin {
    fn new(tag: u8, stack: u32) -> Origin {
        Origin {
            size: 0,
            stack,
            next: OriginIndex::NONE,
            tag,
            block_name: BlockName(0),
            address_name: AddressName::REUSED,
        }
    }
}

impl ThreadSlot {
    const fn new() -> ThreadSlot {
        ThreadSlot {
            newest: BlockIndex::NONE,
            gap_older: BlockIndex::NONE,
            gap_newer: BlockIndex::NONE,
            last_released: BlockIndex(0),
            moving: BlockIndex::NONE,
            origin: OriginIndex::NONE,
            stack: 0,
            fresh: 0,
            last_addr: 0,
            bins: [BlockIndex::NONE; BINS],
        }
    }
}

/// The bytes that a block of this size takes up in many allocators: eight more, rounded up to a
/// multiple of 16, and at least 32.
#[inline]
fn footprint(size: u64) -> u64 {
    (size.wrapping_add(23) & !15).max(32)
}

/// The bin of blocks that may have each other's address. For large blocks the result is beyond the
/// last bin.
#[inline]
fn bin_of(size: u64) -> usize {
    usize::try_from(footprint(size) / 16).unwrap_or(BINS)
}
