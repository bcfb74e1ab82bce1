//! Nodes that have no place near their parents: a table in which they are looked for by their hash. In: the caller's node and a
//! return address. Out: the node's number. Whoever looks takes no lock; never allocates.

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
    table: AtomicPtr<Head>,
}

/// The memory of the table, and how many nodes are in it.
#[derive(Debug)]
pub(super) struct Memory {
    table: Option<Mapping>,
    nodes: usize,
}

/// The head of a table; its slots follow.
#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    /// Slots, less one. One slot in a table that was replaced meanwhile: all of it is zero.
    mask: AtomicUsize,
}

/// A table, by the pointer that reaches all of it: a reference to its head would not reach its slots.
#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    head: NonNull<Head>,
    of: PhantomData<&'a Slot>,
}

#[derive(Debug)]
#[repr(C)]
struct Slot {
    pc: AtomicU64,
    /// The caller's node and the node's own number; written last.
    ids: AtomicU64,
}

enum Place<'a> {
    Known(StackId),
    Empty(&'a Slot),
}

impl Hashed {
    pub(super) const fn new() -> Hashed {
        Hashed { table: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The node, if it is here.
    pub(super) fn find(&self, parent: Parent, pc: u64) -> Option<StackId> {
        match self.table()?.find(parent, pc) {
            Place::Known(id) => Some(id),
            Place::Empty(_) => None,
        }
    }

    /// Makes sure that there is room for one more node. For one thread at a time, as all that follows.
    pub(super) fn make_room(&self, memory: &mut Memory) -> Result<(), Errno> {
        let capacity = self.table().map_or(0, |table| table.mask() + 1);
        if (memory.nodes + 1) * 2 <= capacity {
            return Ok(());
        }
        let capacity = (capacity * 2).max(FIRST_CAPACITY);
        let room = Mapping::of_huge_pages(size_of::<Head>() + capacity * size_of::<Slot>())?;
        let head = room.start().cast::<Head>();
        // SAFETY: the mapping has room for the head and all slots, is page-aligned and zeroed: empty slots.
        let table = unsafe {
            head.write(Head { mask: AtomicUsize::new(capacity - 1) });
            Table::at(NonNull::new_unchecked(head))
        };
        for slot in self.table().map(Table::slots).unwrap_or_default() {
            if let Some((parent, pc, id)) = slot.get() {
                table.insert(parent, pc, id);
            }
        }
        self.table.store(head, Ordering::Release);
        if let Some(old) = memory.table.replace(room) {
            // A thread may still be searching it: it will find nothing, and then look again under the lock.
            old.release_pages();
        }
        Ok(())
    }

    /// Takes a node that is not here yet, for which there is room.
    pub(super) fn insert(&self, memory: &mut Memory, parent: Parent, pc: u64, id: StackId) {
        if let Some(table) = self.table() {
            table.insert(parent, pc, id);
            memory.nodes += 1;
        }
    }

    /// Forgets all nodes. A thread may still be searching them: it will find nothing.
    pub(super) fn forget(&self, memory: &mut Memory) {
        self.leave();
        if let Some(table) = std::mem::replace(memory, Memory::new()).table {
            table.release_pages();
        }
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn leave(&self) {
        self.table.store(std::ptr::null_mut(), Ordering::Release);
    }

    fn table(&self) -> Option<Table<'_>> {
        // SAFETY: tables are published whole and never unmapped.
        NonNull::new(self.table.load(Ordering::Acquire)).map(|head| unsafe { Table::at(head) })
    }
}

impl Memory {
    pub(super) const fn new() -> Memory {
        Memory { table: None, nodes: 0 }
    }
}

impl<'a> Table<'a> {
    /// # Safety
    /// The head and as many slots as it says are to stay mapped, as what they are or as zeros.
    unsafe fn at(head: NonNull<Head>) -> Table<'a> {
        Table { head, of: PhantomData }
    }

    fn mask(self) -> usize {
        // SAFETY: the promise of `at`.
        unsafe { &(*self.head.as_ptr()).mask }.load(Ordering::Relaxed)
    }

    fn slots(self) -> &'a [Slot] {
        // SAFETY: the promise of `at`.
        unsafe { std::slice::from_raw_parts(self.head.as_ptr().add(1).cast(), self.mask() + 1) }
    }

    /// The node, or the slot where it belongs.
    fn find(self, parent: Parent, pc: u64) -> Place<'a> {
        let slots = self.slots();
        let mut at = hash(parent, pc) as usize;
        // At least half of the slots are empty, so this ends.
        loop {
            let slot = &slots[at & (slots.len() - 1)];
            match slot.get() {
                None => return Place::Empty(slot),
                Some((other, address, id)) if (other, address) == (parent, pc) => return Place::Known(id),
                Some(_) => at = at.wrapping_add(1),
            }
        }
    }

    fn insert(self, parent: Parent, pc: u64, id: StackId) {
        if let Place::Empty(slot) = self.find(parent, pc) {
            slot.pc.store(pc, Ordering::Relaxed);
            slot.ids.store(u64::from(parent.0) << 32 | u64::from(id.0), Ordering::Release);
        }
    }
}

impl Slot {
    /// The node in here. NOTE: in a table that is just being replaced its address may read as 0, which no return address is.
    fn get(&self) -> Option<(Parent, u64, StackId)> {
        let ids = self.ids.load(Ordering::Acquire);
        let node = (Parent((ids >> 32) as u32), self.pc.load(Ordering::Relaxed), StackId(ids as u32));
        (ids != EMPTY).then_some(node)
    }
}

/// Zero pages are empty tables: no node has the number 0.
const EMPTY: u64 = 0;
/// Slots of the first table.
const FIRST_CAPACITY: usize = if cfg!(miri) { 1 << 3 } else { 1 << 8 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_still_searches_a_table_that_was_replaced_finds_nothing() {
        let (hashed, mut memory) = (Hashed::new(), Memory::new());
        let root = Parent::root(StackId::ROOT, 0);
        let mut insert = |pc: u64| {
            hashed.make_room(&mut memory).unwrap();
            hashed.insert(&mut memory, root, pc, StackId(3 + pc as u32));
        };
        insert(0);
        let old = hashed.table().unwrap();
        assert!(matches!(old.find(root, 0), Place::Known(StackId(3))));
        (1..=FIRST_CAPACITY as u64 / 2).for_each(&mut insert);
        assert_ne!(hashed.table().unwrap().head, old.head);
        for parent in [root, Parent::node(StackId(3))] {
            assert!(matches!(old.find(parent, 0), Place::Empty(_)));
        }
        for pc in 0..=FIRST_CAPACITY as u64 / 2 {
            assert_eq!(hashed.find(root, pc), Some(StackId(3 + pc as u32)));
        }
        assert_eq!(memory.nodes, FIRST_CAPACITY / 2 + 1);
        let newest = hashed.table().unwrap();
        hashed.forget(&mut memory);
        assert!(matches!(newest.find(root, 0), Place::Empty(_)) && hashed.table().is_none());
    }
}
