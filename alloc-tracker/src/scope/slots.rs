//! The scopes of the process: who encloses whom, and what is live of each. In: beginnings and ends
//! of scopes, births and ends of blocks. Out: counts. Without a lock; never allocates through the
//! global allocator.
//!
//! A scope has a *slot* in a table. The slot is used again only when nothing refers to it any more:
//! its scope has ended, no thread is inside of it, no block that was born in it is live, and no
//! other scope has it as its parent. A block counts for the scope it was born in and for all scopes
//! around that one:
//!
//! ```text
//! slot 0   outer             live: 2 blocks     parent: none
//! slot 1     inner           live: 1 block      parent: slot 0
//!                            inner ends; its block stays, so slot 1 stays, too
//! slot 0   outer             live: 2 blocks     one of them by way of slot 1
//! ```

use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::blocks::BornBlock;
use super::sites::{StackFigures, TableOfScope};
use crate::base::sys::{Errno, Mapping};

/// Names a scope. A scope that has ended is never found by its id again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScopeId {
    pub(super) slot: u32,
    generation: u32,
}

impl ScopeId {
    /// Returns the id as a word that is not 0: the generation of a scope that was begun is odd.
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    pub(super) fn from_word(word: u64) -> Option<ScopeId> {
        (word != 0).then_some(ScopeId { slot: (word >> 32) as u32, generation: word as u32 })
    }
}

/// Why there is no new scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoScope {
    /// The kernel gives no memory.
    Memory(Errno),
    /// All [`MAX_SCOPES`] slots are in use.
    TooMany,
    /// The caller is a signal handler that has interrupted the allocator.
    InHook,
}

/// What is known of one scope.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ScopeSlot {
    /// How many things refer to the slot; 0: it is free.
    refs: AtomicU32,
    /// Rises by one when a scope begins here, and when it ends: odd while there is a scope that has
    /// not ended.
    generation: AtomicU32,
    /// The slot of the scope around this one, or [`NONE`].
    parent: AtomicU32,
    live_blocks: AtomicI64,
    live_bytes: AtomicI64,
    /// Blocks that are not followed, because there was no memory for them in the table.
    unfollowed: AtomicU64,
    /// The most that `live_bytes` has been.
    peak_bytes: AtomicI64,
    /// Events of threads inside of the scope.
    allocations: AtomicU64,
    reallocations: AtomicU64,
    allocated_bytes: AtomicU64,
    table: TableOfScope,
}

impl ScopeSlot {
    /// Changes what is live; true if that has a new peak.
    fn change_live(&self, blocks: i64, bytes: i64) -> bool {
        self.live_blocks.fetch_add(blocks, Ordering::Relaxed);
        let live = self.live_bytes.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        bytes > 0 && self.peak_bytes.fetch_max(live, Ordering::Relaxed) < live
    }

    /// Returns the generation of the scope that has not ended; `None` if there is none.
    fn alive_generation(&self) -> Option<u32> {
        let generation = self.generation.load(Ordering::Acquire);
        (generation % 2 == 1).then_some(generation)
    }
}

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// More scopes cannot be known at one time.
pub(crate) const MAX_SCOPES: usize = 1 << 16;

/// What is kept of a scope besides its live blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Its figures.
    Figures,
    /// Its figures, and those of each birth stack.
    Sites,
}

/// Begins a scope inside of another one, or of [`NONE`]. The caller must have a reference to the
/// parent.
pub(super) fn open(parent: u32, kept: Kept) -> Result<ScopeId, NoScope> {
    let slots = map().map_err(NoScope::Memory)?;
    let first = LIKELY_FREE.load(Ordering::Relaxed);
    for offset in 0..MAX_SCOPES as u32 {
        let index = (first + offset) % MAX_SCOPES as u32;
        let slot = &slots[index as usize];
        if slot.refs.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            if parent != NONE {
                acquire(parent);
            }
            slot.parent.store(parent, Ordering::Relaxed);
            slot.live_blocks.store(0, Ordering::Relaxed);
            slot.live_bytes.store(0, Ordering::Relaxed);
            slot.unfollowed.store(0, Ordering::Relaxed);
            slot.peak_bytes.store(0, Ordering::Relaxed);
            slot.allocations.store(0, Ordering::Relaxed);
            slot.reallocations.store(0, Ordering::Relaxed);
            slot.allocated_bytes.store(0, Ordering::Relaxed);
            match kept {
                Kept::Figures => slot.table.set_none(),
                Kept::Sites => slot.table.claim(index),
            }
            let generation = slot.generation.fetch_add(1, Ordering::Release).wrapping_add(1);
            LIKELY_FREE.store((index + 1) % MAX_SCOPES as u32, Ordering::Relaxed);
            USED.fetch_max(index + 1, Ordering::Relaxed);
            return Ok(ScopeId { slot: index, generation });
        }
    }
    Err(NoScope::TooMany)
}

/// Ends a scope; false if it has ended already. The caller's reference to the slot stays.
pub(super) fn end(id: ScopeId) -> bool {
    let next = id.generation.wrapping_add(1);
    let slot = slot(id.slot);
    let ended = slot.generation.compare_exchange(id.generation, next, Ordering::AcqRel, Ordering::Relaxed);
    if ended.is_ok() {
        slot.table.give_back(id.slot);
    }
    ended.is_ok()
}

/// Takes a reference to the slot of a scope; false if the scope has ended.
pub(super) fn acquire_if_alive(id: ScopeId) -> bool {
    let slot = slot(id.slot);
    let one_more = |refs: u32| (refs > 0).then(|| refs + 1);
    if slot.refs.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more).is_err() {
        return false;
    }
    let is_alive = slot.generation.load(Ordering::Acquire) == id.generation;
    if !is_alive {
        release(id.slot);
    }
    is_alive
}

/// Returns the scope that the caller has a reference to, or the innermost one around it, whichever
/// has not ended; `None` if all have, or for [`NONE`].
pub(super) fn innermost_alive(index: u32) -> Option<ScopeId> {
    chain(index).find_map(|(slot, state)| Some(ScopeId { slot, generation: state.alive_generation()? }))
}

/// Takes one more reference to a slot that the caller has a reference to.
pub(super) fn acquire(index: u32) {
    slot(index).refs.fetch_add(1, Ordering::Relaxed);
}

/// Gives a reference back. The last one frees the slot, and gives back its reference to the parent.
pub(super) fn release(mut index: u32) {
    while index != NONE {
        let slot = slot(index);
        // Read before the reference is gone: then the slot may be another scope's.
        let parent = slot.parent.load(Ordering::Relaxed);
        if slot.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        LIKELY_FREE.fetch_min(index, Ordering::Relaxed);
        index = parent;
    }
}

/// Counts a block as live in its scope and in all scopes around that one. Takes a reference to the
/// slot of its scope.
pub(super) fn count_birth(block: &BornBlock) {
    acquire(block.scope);
    change_live(block, 1, block.size as i64);
}

/// Counts a block as not live any more, and gives its reference back.
pub(super) fn count_end(block: &BornBlock) {
    change_live(block, -1, -(block.size as i64));
    release(block.scope);
}

/// Counts a live block as larger, or smaller, by this many bytes.
pub(super) fn count_growth(block: &BornBlock, bytes: i64) {
    change_live(block, 0, bytes);
}

/// Counts a block of this scope that is not followed, because there was no memory for it.
pub(super) fn count_unfollowed(index: u32) {
    for (_, slot) in chain(index) {
        slot.unfollowed.fetch_add(1, Ordering::Relaxed);
    }
}

fn change_live(block: &BornBlock, blocks: i64, bytes: i64) {
    for (index, slot) in chain(block.scope) {
        if slot.table.exists() {
            let change = || slot.change_live(blocks, bytes);
            slot.table.change_live(index, block.stack, (blocks, bytes), change);
        } else {
            slot.change_live(blocks, bytes);
        }
    }
}

/// An event that has allocated: an allocation, or a reallocation with its new size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocated {
    pub(super) is_realloc: bool,
    pub(super) bytes: u64,
    /// The node of the event's stack.
    pub(super) stack: u32,
}

/// Counts an event of a thread inside of this scope. The caller must have a reference.
pub(super) fn count_event(index: u32, event: &Allocated) {
    for (index, slot) in chain(index) {
        let calls = if event.is_realloc { &slot.reallocations } else { &slot.allocations };
        calls.fetch_add(1, Ordering::Relaxed);
        slot.allocated_bytes.fetch_add(event.bytes, Ordering::Relaxed);
        if slot.table.exists() {
            slot.table.count(index, event.stack, event.is_realloc, event.bytes);
        }
    }
}

/// Whether the scope, or one around it, keeps the figures of each stack. The caller must have a
/// reference.
pub(super) fn keeps_sites(index: u32) -> bool {
    chain(index).any(|(_, slot)| slot.table.exists())
}

/// What threads inside of a scope have allocated, and the peak of what they have allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScopeFigures {
    /// Calls of `alloc` and `alloc_zeroed`.
    pub(crate) allocations: u64,
    /// Calls of `realloc`, of any block.
    pub(crate) reallocations: u64,
    /// Bytes of the allocations, and the new sizes of the reallocations.
    pub(crate) allocated_bytes: u64,
    /// The most bytes that blocks born in the scope had at one time.
    pub(crate) peak_bytes: u64,
}

/// Returns the figures of the scope in this slot. The caller must have a reference.
pub(super) fn figures_of(index: u32) -> ScopeFigures {
    let slot = slot(index);
    ScopeFigures {
        allocations: slot.allocations.load(Ordering::Acquire),
        reallocations: slot.reallocations.load(Ordering::Acquire),
        allocated_bytes: slot.allocated_bytes.load(Ordering::Acquire),
        peak_bytes: slot.peak_bytes.load(Ordering::Acquire).max(0) as u64,
    }
}

/// Calls `f` with the figures of each stack of the scope in this slot. The caller must have a
/// reference. `f` runs under a lock and must not allocate.
pub(super) fn for_each_stack(index: u32, f: impl FnMut(&StackFigures)) {
    slot(index).table.for_each(index, f);
}

/// Whether the scope in this slot, or a scope around it, has not ended.
pub(super) fn any_alive(index: u32) -> bool {
    innermost_alive(index).is_some()
}

/// Whether a block that was born in the scope `inner` counts for the scope `outer`.
pub(super) fn is_within(inner: u32, outer: u32) -> bool {
    chain(inner).any(|(index, _)| index == outer)
}

/// What is live of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveInScope {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Blocks that are not followed, because there was no memory for them in the table.
    pub(crate) unfollowed: u64,
}

/// Returns what is live of the scope in this slot. The caller must have a reference.
pub(super) fn live_in(index: u32) -> LiveInScope {
    let slot = slot(index);
    LiveInScope {
        blocks: slot.live_blocks.load(Ordering::Acquire).max(0) as u64,
        bytes: slot.live_bytes.load(Ordering::Acquire).max(0) as u64,
        unfollowed: slot.unfollowed.load(Ordering::Relaxed),
    }
}

/// Frees all slots in a forked child, so that no scope of the parent is found there.
///
/// # Safety
/// No other thread may use the scopes.
pub(super) unsafe fn reset_after_fork() {
    if SLOTS.load(Ordering::Acquire).is_null() {
        return;
    }
    for index in 0..USED.load(Ordering::Relaxed) {
        let slot = slot(index);
        if slot.alive_generation().is_some() {
            slot.generation.fetch_add(1, Ordering::Relaxed);
        }
        slot.refs.store(0, Ordering::Relaxed);
    }
}

/// Returns the slot and those of all scopes around it, inside out, with their indices.
fn chain(index: u32) -> impl Iterator<Item = (u32, &'static ScopeSlot)> {
    let mut next = index;
    std::iter::from_fn(move || {
        (next != NONE).then(|| {
            let (index, slot) = (next, slot(next));
            next = slot.parent.load(Ordering::Relaxed);
            (index, slot)
        })
    })
}

/// Returns a slot, whose index is from [`open`].
fn slot(index: u32) -> &'static ScopeSlot {
    let slots = SLOTS.load(Ordering::Acquire);
    debug_assert!(!slots.is_null() && (index as usize) < MAX_SCOPES);
    // SAFETY: `open` has mapped the slots before there was any index. They are never unmapped.
    unsafe { &*slots.add(index as usize % MAX_SCOPES) }
}

/// Returns all slots, and maps them at the first call. PERF: only slots that are in use have pages.
fn map() -> Result<&'static [ScopeSlot], Errno> {
    let mut slots = SLOTS.load(Ordering::Acquire);
    if slots.is_null() {
        let memory = Mapping::anonymous(MAX_SCOPES * size_of::<ScopeSlot>())?;
        let new = memory.start().cast::<ScopeSlot>();
        match SLOTS.compare_exchange(std::ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => slots = memory.leak().cast(),
            // Another thread was faster; this mapping is unmapped.
            Err(mapped) => slots = mapped,
        }
    }
    // SAFETY: zeroed memory, aligned as a page and large enough, never unmapped. Zeros are a valid
    // value of a slot, and slots are changed by atomic operations only.
    Ok(unsafe { std::slice::from_raw_parts(slots, MAX_SCOPES) })
}

static SLOTS: AtomicPtr<ScopeSlot> = AtomicPtr::new(std::ptr::null_mut());
/// Where the search for a free slot begins. PERF: low slots are used again first, so few pages are
/// touched.
static LIKELY_FREE: AtomicU32 = AtomicU32::new(0);
/// No slot from this index on has been in use.
static USED: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sys::FutexLock;

    fn born_in(id: ScopeId, size: u64) -> BornBlock {
        BornBlock { addr: 64, size, scope: id.slot, stack: 0 }
    }

    fn live(id: ScopeId) -> (u64, u64) {
        let LiveInScope { blocks, bytes, .. } = live_in(id.slot);
        (blocks, bytes)
    }

    /// With a table of sites and without one.
    #[test]
    fn the_peak_is_that_of_the_blocks_of_a_scope_and_of_all_inside() {
        let outer = open(NONE, Kept::Figures).unwrap();
        let inner = open(outer.slot, Kept::Sites).unwrap();
        let (small, large) = (born_in(inner, 10), born_in(outer, 1000));
        count_birth(&small);
        count_growth(&small, 90);
        let small = BornBlock { size: 100, ..small };
        count_end(&small);
        count_birth(&large);
        count_end(&large);
        let events = [(inner, false, 10), (inner, true, 100), (outer, false, 1000)];
        for (id, is_realloc, bytes) in events {
            count_event(id.slot, &Allocated { is_realloc, bytes, stack: 3 });
        }
        let figures = |allocations, reallocations, allocated_bytes, peak_bytes| ScopeFigures {
            allocations,
            reallocations,
            allocated_bytes,
            peak_bytes,
        };
        assert_eq!(figures_of(inner.slot), figures(1, 1, 110, 100));
        assert_eq!(figures_of(outer.slot), figures(2, 1, 1110, 1000));
        for id in [inner, outer] {
            assert!(end(id));
            release(id.slot);
        }
    }

    #[test]
    fn a_block_counts_for_all_scopes_around_and_keeps_their_slots() {
        let outer = open(NONE, Kept::Figures).unwrap();
        let inner = open(outer.slot, Kept::Sites).unwrap();
        let (small, large) = (born_in(inner, 10), born_in(outer, 1000));
        [&small, &large].into_iter().for_each(count_birth);
        assert_eq!((live(outer), live(inner)), ((2, 1010), (1, 10)));
        count_growth(&small, 5);
        assert_eq!((live(outer), live(inner)), ((2, 1015), (1, 15)));
        assert!(is_within(inner.slot, outer.slot) && !is_within(outer.slot, inner.slot));

        assert!(acquire_if_alive(inner) && end(inner) && !end(inner) && !acquire_if_alive(inner));
        release(inner.slot);
        release(inner.slot);
        assert!(any_alive(inner.slot), "the block may still be the outer scope's");
        assert_eq!(slot(inner.slot).refs.load(Ordering::Relaxed), 1);
        count_end(&BornBlock { size: 15, ..small });
        assert_eq!(slot(inner.slot).refs.load(Ordering::Relaxed), 0);
        assert_eq!(live(outer), (1, 1000));

        assert!(end(outer) && !any_alive(outer.slot));
        count_end(&large);
        assert_eq!(slot(outer.slot).refs.load(Ordering::Relaxed), 1);
        release(outer.slot);
        assert_eq!(slot(outer.slot).refs.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn unfollowed_blocks_count_for_all_scopes_around() {
        let outer = open(NONE, Kept::Figures).unwrap();
        let inner = open(outer.slot, Kept::Sites).unwrap();
        count_unfollowed(inner.slot);
        count_unfollowed(outer.slot);
        assert_eq!((live_in(inner.slot).unfollowed, live_in(outer.slot).unfollowed), (1, 2));
        for id in [inner, outer] {
            assert!(end(id));
            release(id.slot);
        }
    }

    /// Threads begin and end scopes, which use few slots again and again. Other threads look at the
    /// scopes by their ids.
    #[test]
    fn an_id_finds_its_own_scope_or_none() {
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let first = open(NONE, Kept::Figures).unwrap();
        let last = FutexLock::new(first);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    for _ in 0..rounds {
                        let id = open(NONE, Kept::Figures).unwrap();
                        *last.lock() = id;
                        assert!(end(id));
                        release(id.slot);
                    }
                });
                threads.spawn(|| {
                    for _ in 0..rounds {
                        let id = *last.lock();
                        if acquire_if_alive(id) {
                            assert!(innermost_alive(id.slot).is_none_or(|alive| alive == id));
                            release(id.slot);
                        }
                    }
                });
            }
        });
        assert!(end(first));
        release(first.slot);
    }
}
