//! The way back: from a node to its parent and its return address. In: the nodes, as they are
//! inserted. Out: what a node's id means, to any code that has the id, signal handlers included: a
//! look-up takes no lock and allocates nothing.
//!
//! The other two tables are searched by (parent, return address), so neither can answer this. This
//! one is indexed by id, and grows by chunks: the first one for so many nodes, each later one for
//! twice as many as the one before. Nothing in it ever moves:
//!
//! ```text
//! ordinal = index + 2^12      chunk = highest bit of the ordinal      slot = the bits below it
//!
//! index     0 ..  4095        chunk 12        4,096 slots of 12 bytes
//! index  4096 .. 12287        chunk 13        8,192 slots
//! index 12288 .. 28671        chunk 14       16,384 slots
//! ```
//!
//! PERF: it costs 12 bytes and some twenty instructions for each new node, under the insert lock,
//! into memory that is written from front to back. An event whose nodes are all known does not
//! touch it. If every event has a new stack of four new nodes, an event takes one percent longer.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use alloc_dump::layout::StackId;

use super::Parent;
use crate::base::sys::{Errno, Mapping};

/// What a node's id means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeNode {
    /// The caller's node, or a root.
    pub(crate) parent: StackId,
    /// The return address.
    pub(crate) pc: u64,
}

/// The nodes by id.
#[derive(Debug)]
pub(super) struct Parents {
    /// The chunks, by [`chunk_of`] an ordinal; null where there is none.
    chunks: [AtomicPtr<ParentSlot>; CHUNKS],
}

/// The memory of the chunks, by the same index.
#[derive(Debug)]
pub(super) struct ParentChunks([Option<Mapping>; CHUNKS]);

/// A node, or zeros.
#[derive(Debug)]
#[repr(C)]
pub(super) struct ParentSlot {
    pc_low: AtomicU32,
    pc_high: AtomicU32,
    /// The parent, plus 1. Written last.
    parent: AtomicU32,
}

impl Parents {
    pub(super) const fn new() -> Parents {
        Parents { chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS] }
    }

    /// Returns what this id means; `None` if the recording that runs has no such node.
    pub(super) fn get(&self, id: StackId) -> Option<TreeNode> {
        let ordinal = ordinal_of(id)?;
        let chunk = NonNull::new(self.chunks[chunk_of(ordinal)].load(Ordering::Acquire))?;
        // SAFETY: `slot_of` asks for a chunk with room for the ordinal. Chunks are published whole
        // and never unmapped; a chunk that was retired is zeros.
        let slot = unsafe { slot_of(chunk, ordinal) };
        let parent = slot.parent.load(Ordering::Acquire).checked_sub(1)?;
        let [low, high] = [&slot.pc_low, &slot.pc_high].map(|half| u64::from(half.load(Ordering::Relaxed)));
        Some(TreeNode { parent: Parent(parent).recorded(), pc: high << 32 | low })
    }

    /// Returns the slot of the node with this index, in memory that is mapped if need be. For one
    /// thread at a time.
    #[inline]
    pub(super) fn slot(&self, memory: &mut ParentChunks, index: u32) -> Result<&ParentSlot, Errno> {
        let ordinal = ordinal_of_index(index);
        let chunk = NonNull::new(self.chunks[chunk_of(ordinal)].load(Ordering::Relaxed));
        let chunk = match chunk {
            Some(chunk) => chunk,
            None => self.new_chunk(memory, chunk_of(ordinal))?,
        };
        // SAFETY: as in `get`.
        Ok(unsafe { slot_of(chunk, ordinal) })
    }

    #[cold]
    fn new_chunk(&self, memory: &mut ParentChunks, chunk: usize) -> Result<NonNull<ParentSlot>, Errno> {
        let slots = Mapping::anonymous(size_of::<ParentSlot>() << chunk)?;
        let start = NonNull::new(slots.start().cast::<ParentSlot>()).ok_or(Errno(libc::ENOMEM))?;
        self.chunks[chunk].store(start.as_ptr(), Ordering::Release);
        memory.0[chunk] = Some(slots);
        Ok(start)
    }

    /// Forgets all nodes. A thread may still be reading them: it will find none, or zeros for a
    /// return address.
    pub(super) fn clear(&self, memory: &mut ParentChunks) {
        self.detach();
        memory.0.iter_mut().filter_map(Option::take).for_each(Mapping::release_pages);
    }

    /// Forgets all nodes, and leaves their memory as it is.
    pub(super) fn detach(&self) {
        self.chunks.iter().for_each(|chunk| chunk.store(std::ptr::null_mut(), Ordering::Release));
    }
}

impl ParentChunks {
    pub(super) const fn new() -> ParentChunks {
        ParentChunks([const { None }; CHUNKS])
    }
}

impl ParentSlot {
    /// Notes a node. The parent is stored last: a slot without it has no node.
    #[inline]
    pub(super) fn fill(&self, parent: Parent, pc: u64) {
        self.pc_low.store(pc as u32, Ordering::Relaxed);
        self.pc_high.store((pc >> 32) as u32, Ordering::Relaxed);
        self.parent.store(parent.0 + 1, Ordering::Release);
    }
}

/// Returns the node's ordinal; `None` for a root.
fn ordinal_of(id: StackId) -> Option<u64> {
    id.0.checked_sub(StackId::FIRST.0).map(ordinal_of_index)
}

/// Returns the index, counted from so far above zero that the highest bit names the chunk.
#[inline]
fn ordinal_of_index(index: u32) -> u64 {
    u64::from(index) + (1 << FIRST_BITS)
}

#[inline]
fn chunk_of(ordinal: u64) -> usize {
    ordinal.ilog2() as usize % CHUNKS
}

/// Returns the slot of an ordinal in its chunk.
///
/// # Safety
/// The chunk must be that of [`chunk_of`] the ordinal, and must stay mapped, with its contents or
/// as zeros.
#[inline]
unsafe fn slot_of<'a>(chunk: NonNull<ParentSlot>, ordinal: u64) -> &'a ParentSlot {
    // SAFETY: the chunk has a slot for each ordinal with this highest bit, as the caller has
    // promised.
    unsafe { &*chunk.as_ptr().add((ordinal ^ 1 << chunk_of(ordinal)) as usize) }
}

/// More than the highest bit of any ordinal, which is 32.
const CHUNKS: usize = 64;
/// Of the number of nodes that the first chunk is for. Miri takes a minute for a thousand nodes.
const FIRST_BITS: u32 = if cfg!(miri) { 3 } else { 12 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_find_what_was_noted_across_chunks() {
        let (parents, mut memory) = (Parents::new(), ParentChunks::new());
        let node = |id: u32| (Parent::of(StackId(id / 2), 5), 0x7F00_1234_5000 + u64::from(id) * 7);
        let last = StackId::FIRST.0 + (7 << FIRST_BITS);
        for id in StackId::FIRST.0..=last {
            let (parent, pc) = node(id);
            let slot = parents.slot(&mut memory, id - StackId::FIRST.0).unwrap();
            assert_eq!(parents.get(StackId(id)), None);
            slot.fill(parent, pc);
        }
        for id in StackId::FIRST.0..=last {
            let (parent, pc) = node(id);
            assert_eq!(parents.get(StackId(id)), Some(TreeNode { parent: parent.recorded(), pc }));
        }
        assert_eq!(
            memory.0.iter().flatten().count(),
            4,
            "the first chunk, and three of twice the size before"
        );
    }

    #[test]
    fn roots_and_ids_to_come_mean_nothing() {
        let (parents, mut memory) = (Parents::new(), ParentChunks::new());
        let slot = parents.slot(&mut memory, 0).unwrap();
        slot.fill(Parent::root(StackId::TRUNCATED, u32::MAX), u64::MAX);
        let first = TreeNode { parent: StackId::TRUNCATED, pc: u64::MAX };
        assert_eq!(parents.get(StackId::FIRST), Some(first));
        for id in
            [StackId(0), StackId::ROOT, StackId::TRUNCATED, StackId(StackId::FIRST.0 + 1), StackId(u32::MAX)]
        {
            assert_eq!(parents.get(id), None, "{id:?}");
        }
        parents.clear(&mut memory);
        assert_eq!(parents.get(StackId::FIRST), None);
    }
}
