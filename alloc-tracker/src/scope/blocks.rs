//! The blocks that were born in scopes and are live, by address. In: births, frees and moves. Out:
//! the block at an address. A shard is a hash table with linear probing in mapped memory; the shard
//! of a block follows from its address, so different threads rarely need the same one.
//!
//! Only the tracker's own code holds the lock of a shard, and only while its thread is in the hook:
//! a signal handler that allocates cannot meet a lock that its own thread holds. Never allocates
//! through the global allocator.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::sys::{Errno, FutexLock, Mapping, Plain};

/// A live block that was born in a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct BornBlock {
    /// Its address; 0 in a slot without a block.
    pub(super) addr: u64,
    pub(super) size: u64,
    /// The slot of the scope that it was born in.
    pub(super) scope: u32,
    /// The node of its birth stack.
    pub(super) stack: u32,
}

// SAFETY: `Plain` wants a `repr(C)` struct of integers without padding.
unsafe impl Plain for BornBlock {}

const NO_BLOCK: BornBlock = BornBlock { addr: 0, size: 0, scope: 0, stack: 0 };

/// One part of the table, with how many blocks it has.
#[repr(align(64))]
pub(crate) struct Shard {
    /// Read without the lock, see [`Shard::may_have_blocks`].
    len: AtomicUsize,
    table: FutexLock<BlockTable>,
}

impl Shard {
    pub(super) const fn new() -> Shard {
        Shard { len: AtomicUsize::new(0), table: FutexLock::new(BlockTable::new()) }
    }

    /// Whether the shard may have the block that the calling thread is about to free. PERF: most
    /// frees of a program with a scope end here, without the lock.
    ///
    /// NOTE: a thread that frees a block knows of its birth, so it sees the count that was stored
    /// then, or a later one. No later one is 0 as long as the block is in the table.
    pub(super) fn may_have_blocks(&self) -> bool {
        self.len.load(Ordering::Relaxed) != 0
    }

    /// Runs `f` on the table, under the lock.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut BlockTable) -> R) -> R {
        let mut table = self.table.lock();
        let result = f(&mut table);
        self.len.store(table.len, Ordering::Relaxed);
        result
    }

    /// Empties the shard in a forked child. The memory is left as it is: it is shared with the
    /// parent process until it is written.
    ///
    /// # Safety
    /// No other thread may use the shard.
    pub(super) unsafe fn reset_after_fork(&self) {
        // SAFETY: the caller promises that no other thread has the lock or waits for it.
        unsafe { self.table.reset(BlockTable::new()) };
        self.len.store(0, Ordering::Relaxed);
    }
}

/// A hash table of blocks, at most half full.
#[derive(Debug)]
pub(super) struct BlockTable {
    /// As many slots as a power of two says, or none.
    slots: Mapping,
    capacity: usize,
    len: usize,
}

impl BlockTable {
    pub(super) const fn new() -> BlockTable {
        BlockTable { slots: Mapping::empty(), capacity: 0, len: 0 }
    }

    /// Adds a block. Returns the block that had the same address, whose free was not seen.
    ///
    /// # Errors
    /// The kernel gives no memory. The table is unchanged.
    pub(super) fn insert(&mut self, block: BornBlock) -> Result<Option<BornBlock>, Errno> {
        if 2 * (self.len + 1) > self.capacity {
            self.grow()?;
        }
        let at = self.index_of(block.addr);
        let before = std::mem::replace(&mut self.slots()[at], block);
        if before.addr == 0 {
            self.len += 1;
            return Ok(None);
        }
        Ok(Some(before))
    }

    /// Takes the block at this address out of the table.
    pub(super) fn remove(&mut self, addr: u64) -> Option<BornBlock> {
        if self.len == 0 {
            return None;
        }
        let at = self.index_of(addr);
        let block = self.slots()[at];
        if block.addr == 0 {
            return None;
        }
        self.empty_slot(at);
        Some(block)
    }

    /// Calls `f` with every block.
    pub(super) fn for_each(&mut self, f: impl FnMut(&BornBlock)) {
        self.slots().iter().filter(|slot| slot.addr != 0).for_each(f);
    }

    /// Takes out all blocks for which `keeps` returns false, and calls `gone` with each of them.
    pub(super) fn retain(
        &mut self,
        mut keeps: impl FnMut(&BornBlock) -> bool,
        mut gone: impl FnMut(&BornBlock),
    ) {
        let mut at = 0;
        while at < self.capacity {
            let block = self.slots()[at];
            if block.addr == 0 || keeps(&block) {
                at += 1;
            } else {
                // Another block may take its place, so the same slot comes next.
                self.empty_slot(at);
                gone(&block);
            }
        }
    }

    /// Gives the memory of an empty table back if it has become large.
    pub(super) fn give_memory_back(&mut self) {
        if self.len == 0 && self.capacity > FIRST_CAPACITY {
            *self = BlockTable::new();
        }
    }

    fn slots(&mut self) -> &mut [BornBlock] {
        let capacity = self.capacity;
        &mut self.slots.slice_mut()[..capacity]
    }

    /// Returns the slot of the block at this address, or the empty slot in which it would be.
    fn index_of(&mut self, addr: u64) -> usize {
        let mask = self.capacity - 1;
        let mut at = self.home_of(addr);
        let slots = self.slots();
        while slots[at].addr != 0 && slots[at].addr != addr {
            at = (at + 1) & mask;
        }
        at
    }

    /// Returns the slot in which a search for an address begins.
    fn home_of(&self, addr: u64) -> usize {
        (hash(addr) >> 20) as usize & (self.capacity - 1)
    }

    /// Empties a slot. Every later block of the same run of full slots that a search would not find
    /// any more moves into the gap:
    ///
    /// ```text
    /// slot    4    5    6    7    8
    /// block   a    b    c    d    -     home of b: 5, of c: 4, of d: 7
    /// remove a: c moves to 4, because its search begins there; b and d stay
    ///         c    b    -    d    -
    /// ```
    fn empty_slot(&mut self, mut gap: usize) {
        let mask = self.capacity - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let block = self.slots()[at];
            if block.addr == 0 {
                break;
            }
            let home = self.home_of(block.addr);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots()[gap] = block;
                gap = at;
            }
        }
        self.slots()[gap] = NO_BLOCK;
        self.len -= 1;
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Errno> {
        let capacity = (2 * self.capacity).max(FIRST_CAPACITY);
        let slots = Mapping::anonymous(capacity * size_of::<BornBlock>())?;
        let mut before = std::mem::replace(self, BlockTable { slots, capacity, len: 0 });
        before.for_each(|block| {
            let at = self.index_of(block.addr);
            self.slots()[at] = *block;
            self.len += 1;
        });
        Ok(())
    }
}

/// Returns the number of the shard for an address, below `shards`, which is a power of two.
pub(super) fn shard_of(addr: u64, shards: usize) -> usize {
    (hash(addr) >> 56) as usize & (shards - 1)
}

/// The multiplier is 2^64 divided by the golden ratio.
fn hash(addr: u64) -> u64 {
    (addr >> 3).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The slots of a new table: they fill a page but for a quarter.
const FIRST_CAPACITY: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn block(addr: u64, size: u64) -> BornBlock {
        BornBlock { addr, size, scope: (size % 3) as u32, stack: 7 }
    }

    /// Compares with a map from the standard library, over a run of random steps.
    #[test]
    fn a_table_has_what_was_put_in_and_not_taken_out() {
        let (mut table, mut model) = (BlockTable::new(), HashMap::new());
        let mut random = fastrand::Rng::with_seed(1);
        let steps = if cfg!(miri) { 400 } else { 60_000 };
        for step in 0..steps {
            // Few addresses, so that runs of full slots are long.
            let addr = 0x7F00_0000_0000 + random.u64(..600) * 16;
            if random.u8(..5) < 3 {
                let new = block(addr, step);
                assert_eq!(table.insert(new), Ok(model.insert(addr, new)));
            } else {
                assert_eq!(table.remove(addr), model.remove(&addr));
            }
            assert_eq!(table.len, model.len());
        }
        let mut found = 0;
        table.for_each(|block| {
            assert_eq!(model.get(&block.addr), Some(block));
            found += 1;
        });
        assert_eq!(found, model.len());
        let mut gone = 0;
        table.retain(|block| block.scope != 1, |block| gone += usize::from(block.scope == 1));
        assert_eq!(gone, model.values().filter(|block| block.scope == 1).count());
        for (addr, block) in &model {
            assert_eq!(table.remove(*addr), (block.scope != 1).then_some(*block));
        }
        table.give_memory_back();
        assert_eq!((table.len, table.capacity), (0, 0));
        assert_eq!(table.remove(16), None);
    }

    #[test]
    fn a_shard_knows_without_its_lock_whether_it_has_blocks() {
        let shard = Shard::new();
        assert!(!shard.may_have_blocks());
        assert_eq!(shard.with(|table| table.insert(block(64, 1))), Ok(None));
        assert!(shard.may_have_blocks());
        assert_eq!(shard.with(|table| table.remove(64)), Some(block(64, 1)));
        assert!(!shard.may_have_blocks());
    }
}
