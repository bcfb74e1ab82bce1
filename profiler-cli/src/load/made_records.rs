//! Heap events by hand, for tests of the replay. In: addresses, sizes and stacks. Out: records.

use alloc_dump::layout::StackId;
use alloc_dump::record::Record;

pub(in crate::load) fn alloc(addr: u64, size: u64, stack: StackId) -> Record<'static> {
    Record::Alloc { addr, size, stack, zeroed: false }
}

/// Frees a block at the first stack.
pub(in crate::load) fn free(addr: u64) -> Record<'static> {
    free_at(addr, StackId::FIRST)
}

pub(in crate::load) fn free_at(addr: u64, stack: StackId) -> Record<'static> {
    Record::Dealloc { addr, size: None, stack }
}

/// Gives a block a new size and stack; `old` and `new` are its addresses before and after.
pub(in crate::load) fn realloc(old: u64, new: u64, size: u64, stack: StackId) -> Record<'static> {
    Record::Realloc { old, old_size: None, new, size, stack }
}
