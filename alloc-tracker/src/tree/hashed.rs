//! Nodes that have no slot near their parents: a table that is searched by their hash. In: a parent
//! node and a return address. Out: the node's id. A look-up takes no lock. Never allocates through
//! the global allocator.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use alloc_dump::layout::StackId;

use super::{Parent, hash};
use crate::base::sys::{Errno, Mapping};

/// Open addressing in mapped memory, replaced by a larger table before it is half full.
#[derive(Debug)]
pub(super) struct Hashed {
    /// The head of the table that is searched; null before the first node.
    table: AtomicPtr<TableHead>,
}

/// The memory of the table, and how many nodes are in it.
#[derive(Debug)]
pub(super) struct HashedMemory {
    table: Option<Mapping>,
    nodes: usize,
}

/// The head of a table; the slots follow it.
#[derive(Debug)]
#[repr(C, align(64))]
struct TableHead {
    /// The number of slots, minus one. A table that was replaced is zeros, so it reads as a table
    /// with a single, empty slot.
    mask: AtomicUsize,
}

/// A table, by a pointer that may reach all of it: a reference to its head may not reach the slots.
#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    head: NonNull<TableHead>,
    lifetime: PhantomData<&'a Slot>,
}

#[derive(Debug)]
#[repr(C)]
struct Slot {
    pc: AtomicU64,
    /// The parent and the node's own id. Written last.
    ids: AtomicU64,
}

/// The outcome of a search.
enum HashedSlot<'a> {
    Known(StackId),
    Empty(&'a Slot),
}

impl Hashed {
    pub(super) const fn new() -> Hashed {
        Hashed { table: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Returns the node, if it is in this table.
    pub(super) fn find(&self, parent: Parent, pc: u64) -> Option<StackId> {
        match self.table()?.find(parent, pc) {
            HashedSlot::Known(id) => Some(id),
            HashedSlot::Empty(_) => None,
        }
    }

    /// Makes sure that there is room for one more node. For one thread at a time, as are all
    /// functions below up to `detach`.
    pub(super) fn reserve_one(&self, memory: &mut HashedMemory) -> Result<(), Errno> {
        let capacity = self.table().map_or(0, |table| table.mask() + 1);
        if (memory.nodes + 1) * 2 <= capacity {
            return Ok(());
        }
        let capacity = (capacity * 2).max(FIRST_CAPACITY);
        let new = Mapping::of_huge_pages(size_of::<TableHead>() + capacity * size_of::<Slot>())?;
        let head = new.start().cast::<TableHead>();
        // SAFETY: the mapping has room for the head and all slots, is page-aligned and zeroed:
        // empty slots.
        let table = unsafe {
            head.write(TableHead { mask: AtomicUsize::new(capacity - 1) });
            Table::at(NonNull::new_unchecked(head))
        };
        for slot in self.table().map(Table::slots).unwrap_or_default() {
            if let Some((parent, pc, id)) = slot.get() {
                table.insert(parent, pc, id);
            }
        }
        self.table.store(head, Ordering::Release);
        if let Some(old) = memory.table.replace(new) {
            // A thread may still be searching the old table: it will find nothing, and then search
            // again under the lock.
            old.release_pages();
        }
        Ok(())
    }

    /// Inserts a node that is not in the table yet, and for which there is room.
    pub(super) fn insert(&self, memory: &mut HashedMemory, parent: Parent, pc: u64, id: StackId) {
        if let Some(table) = self.table() {
            table.insert(parent, pc, id);
            memory.nodes += 1;
        }
    }

    /// Forgets all nodes. A thread may still be searching them: it will find nothing.
    pub(super) fn clear(&self, memory: &mut HashedMemory) {
        self.detach();
        if let Some(table) = std::mem::replace(memory, HashedMemory::new()).table {
            table.release_pages();
        }
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn detach(&self) {
        self.table.store(std::ptr::null_mut(), Ordering::Release);
    }

    fn table(&self) -> Option<Table<'_>> {
        // SAFETY: tables are published whole and never unmapped.
        NonNull::new(self.table.load(Ordering::Acquire)).map(|head| unsafe { Table::at(head) })
    }
}

impl HashedMemory {
    pub(super) const fn new() -> HashedMemory {
        HashedMemory { table: None, nodes: 0 }
    }
}

impl<'a> Table<'a> {
    /// Returns the table with this head.
    ///
    /// # Safety
    /// The head and as many slots as it says must stay mapped, with their contents or as zeros.
    unsafe fn at(head: NonNull<TableHead>) -> Table<'a> {
        Table { head, lifetime: PhantomData }
    }

    fn mask(self) -> usize {
        // SAFETY: the caller of `at` has promised that the head and its slots stay mapped.
        unsafe { &(*self.head.as_ptr()).mask }.load(Ordering::Relaxed)
    }

    fn slots(self) -> &'a [Slot] {
        // SAFETY: the caller of `at` has promised that the head and its slots stay mapped.
        unsafe { std::slice::from_raw_parts(self.head.as_ptr().add(1).cast(), self.mask() + 1) }
    }

    /// Returns the node, or the slot where it belongs.
    fn find(self, parent: Parent, pc: u64) -> HashedSlot<'a> {
        let slots = self.slots();
        let mut at = hash(parent, pc) as usize;
        // At least half of the slots are empty, so this ends.
        loop {
            let slot = &slots[at & (slots.len() - 1)];
            match slot.get() {
                None => return HashedSlot::Empty(slot),
                Some((other, address, id)) if (other, address) == (parent, pc) => {
                    return HashedSlot::Known(id);
                }
                Some(_) => at = at.wrapping_add(1),
            }
        }
    }

    fn insert(self, parent: Parent, pc: u64, id: StackId) {
        if let HashedSlot::Empty(slot) = self.find(parent, pc) {
            slot.pc.store(pc, Ordering::Relaxed);
            slot.ids.store(u64::from(parent.0) << 32 | u64::from(id.0), Ordering::Release);
        }
    }
}

impl Slot {
    /// Returns the node in this slot. NOTE: in a table that is just being replaced the address may
    /// read as 0, which no return address is.
    fn get(&self) -> Option<(Parent, u64, StackId)> {
        let ids = self.ids.load(Ordering::Acquire);
        let node = (Parent((ids >> 32) as u32), self.pc.load(Ordering::Relaxed), StackId(ids as u32));
        (ids != EMPTY).then_some(node)
    }
}

/// Zero pages are empty tables: no node has the id 0.
const EMPTY: u64 = 0;
/// Slots of the first table.
const FIRST_CAPACITY: usize = if cfg!(miri) { 1 << 3 } else { 1 << 8 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_of_a_table_that_was_replaced_finds_nothing() {
        let (hashed, mut memory) = (Hashed::new(), HashedMemory::new());
        let root = Parent::root(StackId::ROOT, 0);
        let mut insert = |pc: u64| {
            hashed.reserve_one(&mut memory).unwrap();
            hashed.insert(&mut memory, root, pc, StackId(3 + pc as u32));
        };
        insert(0);
        let old = hashed.table().unwrap();
        assert!(matches!(old.find(root, 0), HashedSlot::Known(StackId(3))));
        (1..=FIRST_CAPACITY as u64 / 2).for_each(&mut insert);
        assert_ne!(hashed.table().unwrap().head, old.head);
        for parent in [root, Parent::node(StackId(3))] {
            assert!(matches!(old.find(parent, 0), HashedSlot::Empty(_)));
        }
        for pc in 0..=FIRST_CAPACITY as u64 / 2 {
            assert_eq!(hashed.find(root, pc), Some(StackId(3 + pc as u32)));
        }
        assert_eq!(memory.nodes, FIRST_CAPACITY / 2 + 1);
        let newest = hashed.table().unwrap();
        hashed.clear(&mut memory);
        assert!(matches!(newest.find(root, 0), HashedSlot::Empty(_)) && hashed.table().is_none());
    }
}
