//! What both ends know of a frame's events so far, and what they guess from it: sites, blocks, and for each thread what it
//! did last. In: events. Out: guesses. The two ends stay equal because they share this code and nothing else.

use super::Shape;
use super::nodes::Nodes;
use crate::record::tags::REALLOC_END;

/// No block, no site.
pub(super) const NONE: u32 = u32::MAX;

/// Names of blocks below this are steps from one of three places; see [`Model::resolve`].
pub(super) const BY_NUMBER: u8 = 32;
/// The block was not seen in this frame: its address follows.
pub(super) const BY_ADDRESS: u8 = 33;
/// Names that count from the newest block; behind them those that go back from the gap, then those that go on from it.
const FROM_NEWEST: u8 = 16;
const BACK: u8 = 8;
const FROM_GAP_ON: u8 = FROM_NEWEST + BACK;

/// The address of the block of this size that the thread freed last.
pub(super) const REUSED: u8 = 0;
/// The address behind the last one that was not reused.
pub(super) const FRESH: u8 = 1;
/// The address that the block had.
pub(super) const IN_PLACE: u8 = 2;
/// From here on: the address of a block freed before that one.
pub(super) const REUSED_EARLIER: u8 = 3;
/// The address follows.
pub(super) const ELSEWHERE: u8 = 15;

/// State is kept for so many threads; those with the same remainder share it, which costs guesses, nothing else.
const SLOTS: usize = 256;
const BINS: usize = 66;

/// A pair of tag and stack, and what the last event with it did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) size: u64,
    pub(super) stack: u32,
    /// The site that followed this one last in its thread.
    next: u32,
    pub(super) tag: u8,
    pub(super) reference: u8,
    pub(super) place: u8,
}

/// A block of this frame. Live ones are in the list of the thread that allocated them, newest last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) addr: u64,
    pub(super) size: u64,
    older: u32,
    newer: u32,
    /// The one below in the bin that this one is in.
    below: u32,
    slot: u8,
    live: bool,
}

/// What a thread did last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    newest: u32,
    /// The neighbours of the block that went last.
    older: u32,
    newer: u32,
    /// The block that went last.
    gone: u32,
    /// The block whose realloc has begun.
    moving: u32,
    site: u32,
    pub(super) stack: u32,
    fresh: u64,
    /// The last address that was not guessed, or fresh.
    pub(super) addr: u64,
    /// Freed blocks by size, the last one on top.
    bins: [u32; BINS],
}

/// A frame so far.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) sites: Vec<Site>,
    pub(super) blocks: Vec<Block>,
    slots: Vec<Slot>,
    current: usize,
    pub(super) time: u64,
    pub(super) nodes: Nodes,
}

impl Model {
    pub(super) fn new() -> Model {
        let slots = vec![Slot::new(); SLOTS];
        let mut model =
            Model { sites: Vec::new(), blocks: Vec::new(), slots, current: 0, time: 0, nodes: Nodes::new() };
        model.clear();
        model
    }

    /// Forgets everything, for the next frame.
    pub(super) fn clear(&mut self) {
        self.sites.clear();
        // Site 0 is no event: what a thread did before its first.
        self.sites.push(Site::new(0, 0));
        self.blocks.clear();
        self.slots.fill(Slot::new());
        (self.current, self.time) = (0, 0);
        self.nodes.clear();
    }

    pub(super) fn switch_to(&mut self, thread: u32) {
        self.current = thread as usize % SLOTS;
    }

    #[inline]
    pub(super) fn slot(&mut self) -> &mut Slot {
        &mut self.slots[self.current]
    }

    /// The block that the thread let go last.
    #[inline]
    pub(super) fn gone(&self) -> u32 {
        self.slots[self.current].gone
    }

    /// The site that the thread is expected at; 0 for none.
    #[inline]
    pub(super) fn expected_site(&self) -> u32 {
        self.sites[self.slots[self.current].site as usize].next
    }

    /// The stack that a new site is expected to have: of a node that has just been defined, else the last one.
    pub(super) fn expected_stack(&mut self) -> u32 {
        self.nodes.just_defined().unwrap_or(self.slots[self.current].stack)
    }

    pub(super) fn add_site(&mut self, tag: u8, stack: u32) -> u32 {
        self.sites.push(Site::new(tag, stack));
        (self.sites.len() - 1) as u32
    }

    /// The thread is at this site, which is in the table.
    #[inline]
    pub(super) fn arrive(&mut self, site: u32, has_stack: bool) {
        let slot = &mut self.slots[self.current];
        self.sites[std::mem::replace(&mut slot.site, site) as usize].next = site;
        if has_stack {
            slot.stack = self.sites[site as usize].stack;
            self.nodes.used();
        }
    }

    /// The block with this name: 0 to 15 steps back from the newest of the thread, 0 to 7 steps back or on from where
    /// the last one went.
    #[inline]
    pub(super) fn resolve(&self, name: u8) -> Option<u32> {
        let slot = &self.slots[self.current];
        let (mut at, mut steps, on) = match name {
            0..FROM_NEWEST => (slot.newest, name, false),
            FROM_NEWEST..FROM_GAP_ON => (slot.older, name - FROM_NEWEST, false),
            FROM_GAP_ON..BY_NUMBER => (slot.newer, name - FROM_GAP_ON, true),
            _ => return None,
        };
        loop {
            let block = self.blocks.get(at as usize).filter(|block| block.live)?;
            if steps == 0 {
                return Some(at);
            }
            steps -= 1;
            at = if on { block.newer } else { block.older };
        }
    }

    /// The name of a block that needs the fewest steps, if it has one with at most so many.
    pub(super) fn name_of(&self, wanted: u32, most: u8) -> Option<u8> {
        let slot = &self.slots[self.current];
        let (mut newest, mut back, mut on) = (slot.newest, slot.older, slot.newer);
        let next = |at: u32, on: bool| match self.blocks.get(at as usize) {
            Some(block) if block.live => {
                if on {
                    block.newer
                } else {
                    block.older
                }
            }
            _ => NONE,
        };
        for steps in 0..FROM_NEWEST.min(most) {
            let near = steps < BACK;
            if newest == wanted {
                return Some(steps);
            } else if near && back == wanted {
                return Some(FROM_NEWEST + steps);
            } else if near && on == wanted {
                return Some(FROM_GAP_ON + steps);
            }
            (newest, back, on) = (next(newest, false), next(back, false), next(on, true));
        }
        None
    }

    /// The address of a block that is live.
    #[inline]
    pub(super) fn addr_of(&self, number: u32) -> Option<u64> {
        self.blocks.get(number as usize).filter(|block| block.live).map(|block| block.addr)
    }

    /// A live block goes: it is taken out of its list.
    #[inline]
    pub(super) fn remove(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        block.live = false;
        let (older, newer, slot) = (block.older, block.newer, block.slot);
        if let Some(block) = self.blocks.get_mut(older as usize) {
            block.newer = newer;
        }
        match self.blocks.get_mut(newer as usize) {
            Some(block) => block.older = older,
            None => self.slots[slot as usize].newest = older,
        }
        let slot = self.slot();
        (slot.older, slot.newer, slot.gone) = (older, newer, number);
    }

    /// For the second half of a realloc: the block whose realloc the thread has begun, and its address.
    pub(super) fn end_move_of(&mut self, tag: u8) -> (u32, Option<u64>) {
        if tag != REALLOC_END {
            return (NONE, None);
        }
        let number = std::mem::replace(&mut self.slot().moving, NONE);
        (number, self.blocks.get(number as usize).map(|block| block.addr))
    }

    /// The address with this name for a block of this size.
    #[inline]
    pub(super) fn place(&self, name: u8, size: u64, in_place: Option<u64>) -> Option<u64> {
        let slot = &self.slots[self.current];
        match name {
            FRESH => Some(slot.fresh),
            IN_PLACE => in_place,
            REUSED => self.freed(size, 0),
            REUSED_EARLIER..ELSEWHERE => self.freed(size, name - REUSED_EARLIER + 1),
            _ => None,
        }
    }

    fn freed(&self, size: u64, steps: u8) -> Option<u64> {
        let mut at = *self.slots[self.current].bins.get(bin_of(size))?;
        for _ in 0..steps {
            at = self.blocks.get(at as usize)?.below;
        }
        self.blocks.get(at as usize).map(|block| block.addr)
    }

    /// The first name of an address, if it has one.
    pub(super) fn name_of_place(&self, addr: u64, size: u64, in_place: Option<u64>) -> Option<u8> {
        let known = [REUSED, FRESH, IN_PLACE];
        if let Some(name) = known.into_iter().find(|name| self.place(*name, size, in_place) == Some(addr)) {
            return Some(name);
        }
        let below = |at: u32| self.blocks.get(at as usize).map(|block| (block.addr, block.below));
        let (_, mut at) = below(*self.slots[self.current].bins.get(bin_of(size))?)?;
        for name in REUSED_EARLIER..ELSEWHERE {
            let (freed, next) = below(at)?;
            if freed == addr {
                return Some(name);
            }
            at = next;
        }
        None
    }

    /// A block appears at an address that was named so.
    #[inline]
    pub(super) fn append(&mut self, name: u8, addr: u64, size: u64) -> u32 {
        let number = self.blocks.len() as u32;
        self.take(name, addr, size);
        let slot = &mut self.slots[self.current];
        let older = std::mem::replace(&mut slot.newest, number);
        let slot = self.current as u8;
        self.blocks.push(Block { addr, size, older, newer: NONE, below: NONE, slot, live: true });
        if let Some(block) = self.blocks.get_mut(older as usize) {
            block.newer = number;
        }
        number
    }

    /// Ends an event: what its site is remembered for, and what becomes of the block that went.
    #[inline]
    pub(super) fn settle(&mut self, number: u32, site: &Site, gone: u32, shape: Shape) {
        let remembered = &mut self.sites[number as usize];
        (remembered.reference, remembered.place, remembered.size) = (site.reference, site.place, site.size);
        if !shape.has_stack() {
            self.slot().moving = gone;
        } else if !(shape.allocates() && site.place == IN_PLACE) {
            self.bin(gone);
        }
    }

    /// The address of a block that is gone may be handed out again.
    #[inline]
    fn bin(&mut self, number: u32) {
        if let Some(block) = self.blocks.get_mut(number as usize)
            && let Some(top) = self.slots[self.current].bins.get_mut(bin_of(block.size))
        {
            block.below = std::mem::replace(top, number);
        }
    }

    /// Takes an address out of its bin. A bin whose top was not wanted loses it: the allocator has put it to some other use.
    #[inline]
    fn take(&mut self, name: u8, addr: u64, size: u64) {
        let slot = &mut self.slots[self.current];
        if matches!(name, FRESH | ELSEWHERE) {
            slot.fresh = addr.wrapping_add(chunk(size));
            slot.addr = addr;
        }
        let Some(top) = slot.bins.get_mut(bin_of(size)) else { return };
        match name {
            IN_PLACE => {}
            REUSED_EARLIER..ELSEWHERE => {
                let mut above = *top;
                for _ in 0..name - REUSED_EARLIER {
                    above = self.blocks.get(above as usize).map_or(NONE, |block| block.below);
                }
                let taken = self.blocks.get(above as usize).map_or(NONE, |block| block.below);
                let below = self.blocks.get(taken as usize).map_or(NONE, |block| block.below);
                if let Some(above) = self.blocks.get_mut(above as usize) {
                    above.below = below;
                }
            }
            _ => *top = self.blocks.get(*top as usize).map_or(NONE, |block| block.below),
        }
    }
}

impl Site {
    fn new(tag: u8, stack: u32) -> Site {
        Site { size: 0, stack, next: 0, tag, reference: 0, place: 0 }
    }
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            newest: NONE,
            older: NONE,
            newer: NONE,
            gone: 0,
            moving: NONE,
            site: 0,
            stack: 0,
            fresh: 0,
            addr: 0,
            bins: [NONE; BINS],
        }
    }
}

/// The bytes that a block of this size takes up in many allocators: eight more, in steps of sixteen, 32 at least.
#[inline]
fn chunk(size: u64) -> u64 {
    (size.wrapping_add(23) & !15).max(32)
}

/// Blocks whose addresses may take each other's place. Large ones are in none.
#[inline]
fn bin_of(size: u64) -> usize {
    usize::try_from(chunk(size) / 16).unwrap_or(BINS)
}
