//! What each birth stack of a scope has allocated, and what it held at the scope's peak. In: the
//! events of scopes that were begun with a table of sites. Out: figures for each stack.
//!
//! A scope with sites owns one table of a pool from its begin to its end. All its live blocks
//! change under the lock of that table, so that a peak is an instant at which each stack holds
//! something definite. Keeping the values of that instant costs no copy: a stack that changes after
//! a peak first notes what it had then.
//!
//! ```text
//! event            live   peak number   stack A: live, at peak (noted at)   stack B
//! A allocates 10    10         1                  10    0 (0)               0   0 (0)
//! B allocates 5     15         2                  10    0 (0)               5   0 (1)
//! A frees 10         5         2                   0   10 (2)               5   0 (1)
//! read               5         2                   0   10 (2)               5   5 (2)
//! ```
//!
//! Runs inside the host's allocator calls: never allocates through the global allocator, and takes
//! no lock that application code can hold. The lock of a table is the innermost one.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::base::sys::{Errno, FutexLock, Mapping, Plain};

/// What one birth stack has done in a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct StackFigures {
    /// The node of the birth stack.
    pub(crate) stack: u64,
    pub(crate) allocations: u64,
    pub(crate) reallocations: u64,
    /// Bytes of the allocations, and the new sizes of the reallocations.
    pub(crate) allocated_bytes: u64,
    /// Blocks that have this birth stack and are live.
    pub(crate) live_blocks: i64,
    pub(crate) live_bytes: i64,
    /// Those that were live at the peak of the scope.
    pub(crate) peak_blocks: i64,
    pub(crate) peak_bytes: i64,
    /// The number of the peak at which these two were noted.
    noted_at: u64,
    /// 0 in a slot without a stack.
    is_used: u64,
}

// SAFETY: `Plain` wants a `repr(C)` struct of integers without padding.
unsafe impl Plain for StackFigures {}

impl StackFigures {
    /// Notes what was live at this peak, if nothing has changed since.
    fn catch_up(&mut self, peak: u64) {
        if self.noted_at != peak {
            (self.peak_blocks, self.peak_bytes) = (self.live_blocks, self.live_bytes);
            self.noted_at = peak;
        }
    }
}

/// The table of one scope: a hash table, at most half full.
#[derive(Debug)]
struct StackTable {
    /// The slot of the scope; [`FREE`] if the table is no scope's.
    owner: u32,
    slots: Mapping,
    capacity: usize,
    len: usize,
    /// How many times the live bytes were higher than ever before.
    peak: u64,
}

impl StackTable {
    const fn new() -> StackTable {
        StackTable { owner: FREE, slots: Mapping::empty(), capacity: 0, len: 0, peak: 0 }
    }

    /// Returns the figures of a stack; `None` if the kernel gives no memory for them.
    fn of(&mut self, stack: u32) -> Option<&mut StackFigures> {
        if 2 * (self.len + 1) > self.capacity {
            self.grow().ok()?;
        }
        let at = self.index_of(stack.into());
        let peak = self.peak;
        let slot = &mut self.slots.slice_mut::<StackFigures>()[at];
        if slot.is_used == 0 {
            *slot =
                StackFigures { stack: stack.into(), is_used: 1, noted_at: peak, ..StackFigures::default() };
            self.len += 1;
        }
        Some(slot)
    }

    fn index_of(&self, stack: u64) -> usize {
        let mask = self.capacity - 1;
        let slots = self.slots.slice::<StackFigures>();
        let mut at = (stack.wrapping_mul(GOLDEN) >> 32) as usize & mask;
        while slots[at].is_used != 0 && slots[at].stack != stack {
            at = (at + 1) & mask;
        }
        at
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Errno> {
        let capacity = (2 * self.capacity).max(FIRST_CAPACITY);
        let slots = Mapping::anonymous(capacity * size_of::<StackFigures>())?;
        let before = std::mem::replace(&mut self.slots, slots);
        let used = std::mem::replace(&mut self.capacity, capacity);
        for figures in before.slice::<StackFigures>()[..used].iter().filter(|slot| slot.is_used != 0) {
            let at = self.index_of(figures.stack);
            self.slots.slice_mut()[at] = *figures;
        }
        Ok(())
    }

    fn change_live(&mut self, stack: u32, blocks: i64, bytes: i64, changes_peak: impl FnOnce() -> bool) {
        let peak = self.peak;
        if let Some(figures) = self.of(stack) {
            figures.catch_up(peak);
            figures.live_blocks += blocks;
            figures.live_bytes += bytes;
        }
        if changes_peak() {
            self.peak += 1;
        }
    }

    fn for_each(&mut self, mut f: impl FnMut(&StackFigures)) {
        let peak = self.peak;
        let capacity = self.capacity;
        let slots = &mut self.slots.slice_mut::<StackFigures>()[..capacity];
        for slot in slots.iter_mut().filter(|slot| slot.is_used != 0) {
            slot.catch_up(peak);
            f(slot);
        }
    }
}

/// Which table a scope has: 0 for none, else one more than its index.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct TableOfScope(AtomicU32);

impl TableOfScope {
    /// Takes a free table for the scope in this slot. All tables in use: the scope has none.
    pub(super) fn claim(&self, owner: u32) {
        self.0.store(0, Ordering::Relaxed);
        for (index, table) in POOL.iter().enumerate() {
            // A table whose lock is held is some scope's.
            let Some(mut table) = table.try_lock() else { continue };
            if table.owner == FREE {
                *table = StackTable { owner, ..StackTable::new() };
                self.0.store(index as u32 + 1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Says that the scope has no table.
    pub(super) fn set_none(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Gives the table back. Figures of events that come later are not kept.
    pub(super) fn give_back(&self, owner: u32) {
        self.with(owner, |table| *table = StackTable::new());
        self.set_none();
    }

    /// Whether the scope has a table.
    pub(super) fn exists(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Adds an event of this stack, with the bytes that it has allocated.
    pub(super) fn count(&self, owner: u32, stack: u32, is_realloc: bool, bytes: u64) {
        self.with(owner, |table| {
            if let Some(figures) = table.of(stack) {
                figures.allocations += u64::from(!is_realloc);
                figures.reallocations += u64::from(is_realloc);
                figures.allocated_bytes += bytes;
            }
        });
    }

    /// Calls `changes_peak`, which changes the live blocks of the scope and returns true if they
    /// have a new peak, and notes the same change of the birth stack.
    pub(super) fn change_live(
        &self,
        owner: u32,
        stack: u32,
        (blocks, bytes): (i64, i64),
        changes_peak: impl FnOnce() -> bool,
    ) {
        let mut changes_peak = Some(changes_peak);
        self.with(owner, |table| {
            if let Some(change) = changes_peak.take() {
                table.change_live(stack, blocks, bytes, change);
            }
        });
        if let Some(change) = changes_peak {
            change();
        }
    }

    /// Calls `f` with the figures of every stack, under the lock of the table.
    pub(super) fn for_each(&self, owner: u32, f: impl FnMut(&StackFigures)) {
        self.with(owner, |table| table.for_each(f));
    }

    /// Calls `f` with the table, unless the scope has none any more.
    fn with(&self, owner: u32, f: impl FnOnce(&mut StackTable)) {
        let Some(index) = (self.0.load(Ordering::Relaxed) as usize).checked_sub(1) else { return };
        let mut table = POOL[index % POOL_SIZE].lock();
        if table.owner == owner {
            f(&mut table);
        }
    }
}

/// Makes all tables free in a forked child. Their memory is left as it is: it is shared with the
/// parent process until it is written.
///
/// # Safety
/// No other thread may use the tables.
pub(super) unsafe fn reset_after_fork() {
    for table in &POOL {
        // SAFETY: the caller's promise.
        unsafe { table.reset(StackTable::new()) };
    }
}

/// No slot of a scope.
const FREE: u32 = u32::MAX;
/// More scopes at one time have figures, but no sites.
const POOL_SIZE: usize = 256;
static POOL: [FutexLock<StackTable>; POOL_SIZE] = [const { FutexLock::new(StackTable::new()) }; POOL_SIZE];
/// The stacks of a first table, which needs two and a half pages.
const FIRST_CAPACITY: usize = 128;
/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Compares with a copy of all stacks that is made at every new peak.
    #[test]
    fn stacks_have_what_was_live_at_the_peak() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut table = StackTable::new();
        let (mut live, mut at_peak) = (HashMap::<u32, (i64, i64)>::new(), HashMap::new());
        let (mut total, mut highest) = (0i64, 0i64);
        for _ in 0..if cfg!(miri) { 300 } else { 20_000 } {
            let stack = random.u32(..300);
            let held = live.entry(stack).or_default();
            let (blocks, bytes) = match random.bool() {
                true => (1, random.i64(1..500)),
                false if held.0 > 0 => (-1, -random.i64(0..=held.1)),
                false => continue,
            };
            *held = (held.0 + blocks, held.1 + bytes);
            total += bytes;
            table.change_live(stack, blocks, bytes, || total > highest);
            if total > highest {
                (highest, at_peak) = (total, live.clone());
            }
        }
        let mut stacks = 0;
        table.for_each(|figures| {
            let stack = figures.stack as u32;
            assert_eq!((figures.live_blocks, figures.live_bytes), live[&stack]);
            let expected = at_peak.get(&stack).copied().unwrap_or_default();
            assert_eq!((figures.peak_blocks, figures.peak_bytes), expected);
            stacks += 1;
        });
        assert_eq!(stacks, live.values().count());
    }

    #[test]
    fn a_table_belongs_to_one_scope_until_its_end() {
        let table = TableOfScope(AtomicU32::new(0));
        table.claim(7);
        assert!(table.exists());
        table.count(7, 1, false, 10);
        table.count(8, 1, false, 10);
        let mut found = Vec::with_capacity(4);
        table
            .for_each(7, |figures| found.push((figures.stack, figures.allocations, figures.allocated_bytes)));
        assert_eq!(found, [(1, 1, 10)]);
        table.give_back(7);
        assert!(!table.exists());
        let mut changes = 0;
        table.change_live(7, 1, (1, 1), || {
            changes += 1;
            true
        });
        assert_eq!(changes, 1, "the scope's own figures change, with and without a table");
    }
}
