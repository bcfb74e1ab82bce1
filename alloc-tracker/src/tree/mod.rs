//! Interning: every distinct (parent node, return address) gets one id, so that a whole stack is
//! one number. In: pairs, from any thread. Out: [`StackId`]s, and the new nodes, to a journal that
//! is handed in.
//!
//! Finding a known node takes no lock. A new node is inserted under the tree's own lock. Never
//! allocates through the global allocator.
//!
//! ```text
//! stack, root first      nodes: (parent, return address) -> id          the stack's id
//!   main  a  f             (root, main) -> 3   (3, a) -> 4   (4, f) -> 5      5
//!   main  a  g                                              (4, g) -> 6      6
//!   main  a                                                                  4
//! ```
//!
//! | module | idea |
//! | --- | --- |
//! | `nearby` | nodes where their parent's id says: nearly all |
//! | `regions` | return addresses in few bits, for `nearby` |
//! | `hashed` | the other nodes, by their hash |
//! | `parents` | the way back: from an id to its parent and return address |

mod hashed;
mod nearby;
mod parents;
mod regions;

use alloc_dump::layout::StackId;

use crate::base::epoch::RecordingId;
use crate::base::sys::{Errno, FutexLock};

use hashed::Hashed;
use nearby::{Nearby, NodeSlot};
use parents::Parents;
pub(crate) use parents::TreeNode;

/// The call tree of one recording.
#[derive(Debug)]
pub(crate) struct Tree {
    nearby: Nearby,
    hashed: Hashed,
    parents: Parents,
    inserter: FutexLock<Inserter>,
}

/// Why a node has no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InternError {
    /// The tree has [`MAX_NODES`] nodes.
    TreeFull,
    /// The kernel gives no more memory.
    Memory(Errno),
    /// The recording has ended.
    RecordingOver,
}

/// Where new nodes go before any thread can use their ids.
pub(crate) trait Journal {
    /// Returns the recording of the journal. It may be an earlier recording than that of the tree:
    /// the thread may have been stopped on its way here while its recording ended and another one
    /// began. The parents that such a thread knows are nodes of the old tree.
    fn recording(&self) -> Option<RecordingId>;

    /// Appends a node; false if the recording is over.
    fn append(&self, id: StackId, parent: StackId, pc: u64) -> bool;
}

/// The most nodes that a tree can have: as many as fit into 2 GiB of chunks in `nearby`. If nearly
/// all of the nodes were in `hashed`, that table would have 4 GiB.
pub(crate) const MAX_NODES: usize =
    (1 << nearby::NODE_BITS) - (1 << nearby::FIRST_BITS) - StackId::FIRST.0 as usize;

impl Tree {
    pub(crate) const fn new() -> Tree {
        Tree {
            nearby: Nearby::new(),
            hashed: Hashed::new(),
            parents: Parents::new(),
            inserter: FutexLock::new(Inserter::new(None)),
        }
    }

    /// Returns the id of the node with this parent and return address. A new node gets the next id,
    /// and is appended to the journal first.
    ///
    /// PERF: a stack's new nodes get consecutive ids, and the parent's id says where a node is
    /// looked for first. So the nodes of one stack are in one or two cache lines. A hash table
    /// would cost a cache miss for each of them.
    #[inline(always)]
    pub(crate) fn intern(
        &self,
        parent: Parent,
        pc: u64,
        journal: &impl Journal,
    ) -> Result<StackId, InternError> {
        match self.nearby.find_likely(parent, pc) {
            Some(id) => Ok(id),
            None => self.find_or_insert(parent, pc, journal),
        }
    }

    #[inline(never)]
    fn find_or_insert(
        &self,
        parent: Parent,
        pc: u64,
        journal: &impl Journal,
    ) -> Result<StackId, InternError> {
        self.find(parent, pc).map_or_else(|| self.insert(parent, pc, journal), Ok)
    }

    fn find(&self, parent: Parent, pc: u64) -> Option<StackId> {
        match self.nearby.find(parent, pc) {
            NodeSlot::Known(id) => Some(id),
            NodeSlot::Empty(_) => None,
            NodeSlot::Elsewhere => self.hashed.find(parent, pc),
        }
    }

    /// Returns the parent and the return address of a node; `None` if the recording that runs has
    /// no node with this id.
    ///
    /// May be called anywhere, also in a signal handler that has interrupted an insertion: takes no
    /// lock, allocates nothing. A node can be looked up as soon as its id is known to any thread.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "for handlers that write a stack while the process runs")
    )]
    pub(crate) fn node(&self, id: StackId) -> Option<TreeNode> {
        self.parents.get(id)
    }

    /// Forgets all nodes in a forked child. The memory is left as it is: it is shared with the
    /// parent process until it is written.
    ///
    /// # Safety
    /// No other thread may use the tree.
    pub(crate) unsafe fn reset_after_fork(&self) {
        self.nearby.detach();
        self.hashed.detach();
        self.parents.detach();
        // SAFETY: the caller promises that no other thread uses the tree, so none has the lock or
        // waits for it.
        unsafe { self.inserter.reset(Inserter::new(None)) };
    }

    /// Forgets all nodes, because this recording begins.
    pub(crate) fn begin_recording(&self, recording: RecordingId) {
        let mut inserter = self.inserter.lock();
        let Inserter { nearby, hashed, parents, .. } = &mut *inserter;
        self.nearby.clear(nearby);
        self.hashed.clear(hashed);
        self.parents.clear(parents);
        *inserter = Inserter::new(Some(recording));
    }

    #[cold]
    #[inline(never)]
    fn insert(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, InternError> {
        let mut inserter = self.inserter.lock();
        let Inserter { recording, nodes, nearby, hashed, parents } = &mut *inserter;
        if journal.recording() != *recording {
            return Err(InternError::RecordingOver);
        }
        if *nodes >= MAX_NODES {
            return self.find(parent, pc).ok_or(InternError::TreeFull);
        }
        // Another thread may have inserted the node meanwhile, or this thread may have searched a
        // table that has been replaced.
        let empty = match self.nearby.find_or_prepare(nearby, parent, pc).map_err(InternError::Memory)? {
            NodeSlot::Known(id) => return Ok(id),
            NodeSlot::Empty(empty) => Some(empty),
            NodeSlot::Elsewhere => {
                if let Some(id) = self.hashed.find(parent, pc) {
                    return Ok(id);
                }
                self.hashed.reserve_one(hashed).map_err(InternError::Memory)?;
                None
            }
        };
        let id = StackId(StackId::FIRST.0 + *nodes as u32);
        let slot = self.parents.slot(parents, *nodes as u32).map_err(InternError::Memory)?;
        // In this order: a thread that finds the id relies on the node being in the journal, and on
        // its parent being known.
        if !journal.append(id, parent.recorded(), pc) {
            return Err(InternError::RecordingOver);
        }
        slot.fill(parent, pc);
        match empty {
            Some(empty) => empty.fill(id),
            None => self.hashed.insert(hashed, parent, pc, id),
        }
        *nodes += 1;
        Ok(id)
    }
}

/// The parent of a node: another node, or a root.
///
/// The nodes of code that has been unloaded must not be found again under their old addresses. So
/// roots have a generation: everything below a root of a new generation is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parent(u32);

impl Parent {
    /// Returns a root, which [`StackId`] names, in this generation.
    #[inline]
    pub(crate) fn root(root: StackId, generation: u32) -> Parent {
        Parent(ROOTS + (generation % (ROOTS >> 2)) * 4 + root.0)
    }

    /// Returns a node, or a root in this generation.
    #[inline(always)]
    pub(crate) fn of(parent: StackId, generation: u32) -> Parent {
        if parent < StackId::FIRST { Parent::root(parent, generation) } else { Parent::node(parent) }
    }

    /// Returns a node.
    #[inline]
    pub(crate) fn node(node: StackId) -> Parent {
        Parent(node.0)
    }

    #[inline]
    fn is_root(self) -> bool {
        self.0 >= ROOTS
    }

    /// Returns the parent as the dump has it, without a generation.
    #[inline]
    pub(crate) fn recorded(self) -> StackId {
        StackId(if self.is_root() { self.0 % 4 } else { self.0 })
    }
}

/// The first number of a root: above the ids of all nodes, and a multiple of four. After half a
/// billion generations the numbers of roots repeat.
const ROOTS: u32 = 1 << 31;

/// The part of the tree that only the thread with the insert lock touches.
#[derive(Debug)]
struct Inserter {
    /// The recording of the tree; `None` before the first one.
    recording: Option<RecordingId>,
    nodes: usize,
    nearby: nearby::NearbyChunks,
    hashed: hashed::HashedMemory,
    parents: parents::ParentChunks,
}

impl Inserter {
    const fn new(recording: Option<RecordingId>) -> Inserter {
        Inserter {
            recording,
            nodes: 0,
            nearby: nearby::NearbyChunks::new(),
            hashed: hashed::HashedMemory::new(),
            parents: parents::ParentChunks::new(),
        }
    }
}

/// Hashes a node well enough for linear probing. The multiplier is 2^64 divided by the golden
/// ratio.
#[inline]
fn hash(parent: Parent, pc: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = (pc ^ u64::from(parent.0).rotate_left(32)).wrapping_mul(GOLDEN);
    (mixed ^ (mixed >> 32)).wrapping_mul(GOLDEN) >> 20
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Mutex;

    struct MapJournal(Mutex<HashMap<u32, (u32, u64)>>);

    impl Journal for MapJournal {
        fn recording(&self) -> Option<RecordingId> {
            None
        }

        fn append(&self, id: StackId, parent: StackId, pc: u64) -> bool {
            assert_eq!(self.0.lock().unwrap().insert(id.0, (parent.0, pc)), None, "numbered twice");
            true
        }
    }

    #[test]
    fn a_pair_keeps_its_id_through_every_growth() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let mut model = HashMap::new();
        let rounds = if cfg!(miri) { 300 } else { 50_000 };
        for i in 0..rounds {
            let (parent, pc) = (StackId((i % 97) as u32 + 3), 0x5555_0000_0000 + i / 3 * 5);
            let id = tree.intern(Parent::node(parent), pc, &notes).unwrap();
            let next = model.len() as u32 + StackId::FIRST.0;
            assert_eq!(id.0, *model.entry((parent, pc)).or_insert(next));
        }
        assert_eq!(notes.0.lock().unwrap().len(), model.len());
    }

    #[test]
    fn threads_agree_on_every_id() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let nodes = if cfg!(miri) { 90 } else { 40_000 };
        let numbers: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let start = |seed: u64| {
                let (tree, notes) = (&tree, &notes);
                scope.spawn(move || {
                    let mut numbers = vec![0; nodes as usize];
                    for step in 0..nodes {
                        let i = (step * 7919 + seed * 104_729) % nodes;
                        let parent = Parent::node(StackId(3 + (i % 11) as u32));
                        numbers[i as usize] = tree.intern(parent, i, notes).unwrap().0;
                    }
                    numbers
                })
            };
            let threads: Vec<_> = (0..4).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(numbers.iter().all(|other| *other == numbers[0]));
        let notes = notes.0.lock().unwrap();
        assert_eq!(notes.len(), nodes as usize);
        for (i, number) in numbers[0].iter().enumerate() {
            assert_eq!(notes[number], (3 + (i % 11) as u32, i as u64));
        }
    }

    #[test]
    fn code_may_be_at_any_address() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let mut model = HashMap::new();
        let regions = (0..40).chain([1 << 20, (1 << 37) - 1, (1 << 37) - 2]);
        let addresses: Vec<u64> = regions
            .flat_map(|region| [0, 1, 77, (1 << 27) - 1].map(|offset| region << 27 | offset))
            .collect();
        // Twice: the second time all are known.
        for parent in [0, 64, 1, 63, 64, 0].map(|number| Parent::node(StackId(number))) {
            for pc in &addresses {
                let id = tree.intern(parent, *pc, &notes).unwrap();
                let next = model.len() as u32 + StackId::FIRST.0;
                assert_eq!(id.0, *model.entry((parent, *pc)).or_insert(next), "{parent:?} {pc:#x}");
            }
        }
        assert_eq!(notes.0.lock().unwrap().len(), 4 * addresses.len());
    }

    #[test]
    fn a_node_that_the_journal_refuses_is_not_in_the_tree() {
        struct ReluctantJournal(MapJournal, std::cell::Cell<bool>);
        impl Journal for ReluctantJournal {
            fn recording(&self) -> Option<RecordingId> {
                self.0.recording()
            }
            fn append(&self, id: StackId, parent: StackId, pc: u64) -> bool {
                self.1.replace(true) && self.0.append(id, parent, pc)
            }
        }
        let tree = Tree::new();
        for parent in [Parent::root(StackId::ROOT, 0), Parent::node(StackId(3))] {
            let notes = ReluctantJournal(MapJournal(Mutex::default()), std::cell::Cell::new(false));
            let refused = tree.intern(parent, 9, &notes);
            assert_eq!(refused, Err(InternError::RecordingOver));
            let known = tree.intern(parent, 9, &notes);
            assert_eq!((known, notes.0.0.lock().unwrap().len()), (tree.intern(parent, 9, &notes), 1));
        }
    }

    /// A thread that interns while another recording begins gets a node of one of the two, or an
    /// error.
    #[test]
    fn a_recording_may_begin_while_threads_intern() {
        use std::sync::atomic::{AtomicU64, Ordering};
        const PARENTS: u64 = 70;
        const ADDRESSES: u64 = 50;
        /// For each recording: parent and return address of its nodes, by id.
        struct Noted(Vec<[AtomicU64; 4096]>);
        struct JournalOfRecording<'a>(u32, &'a Noted);
        impl Journal for JournalOfRecording<'_> {
            fn recording(&self) -> Option<RecordingId> {
                self.0.checked_sub(1).and_then(RecordingId::after)
            }
            fn append(&self, id: StackId, parent: StackId, pc: u64) -> bool {
                self.1.0[self.0 as usize][id.0 as usize]
                    .store(u64::from(parent.0) << 32 | pc, Ordering::Relaxed);
                true
            }
        }
        let tree = Tree::new();
        let [now, looked, wrong] = [const { AtomicU64::new(0) }; 3];
        let recordings = if cfg!(miri) { 3 } else { 300 };
        let of_one = || [const { AtomicU64::new(0) }; 4096];
        let noted = Noted((0..=recordings).map(|_| of_one()).collect());
        std::thread::scope(|scope| {
            for seed in 0..2u64 {
                let (tree, noted, now, looked, wrong) = (&tree, &noted, &now, &looked, &wrong);
                scope.spawn(move || {
                    let mut step = seed;
                    while now.load(Ordering::SeqCst) < recordings {
                        step += 1;
                        looked.fetch_add(1, Ordering::Relaxed);
                        let recording = now.load(Ordering::SeqCst);
                        let (parent, pc) = (StackId((step % PARENTS) as u32 + 3), step * 31 % ADDRESSES + 1);
                        let found = tree.intern(
                            Parent::node(parent),
                            pc,
                            &JournalOfRecording(recording as u32, noted),
                        );
                        if let Ok(id) = found
                            && now.load(Ordering::SeqCst) == recording
                        {
                            let node = noted.0[recording as usize][id.0 as usize].load(Ordering::Relaxed);
                            wrong.fetch_add(
                                u64::from(node != u64::from(parent.0) << 32 | pc),
                                Ordering::Relaxed,
                            );
                        }
                    }
                });
            }
            for recording in 1..=recordings {
                let before = looked.load(Ordering::Relaxed);
                while looked.load(Ordering::Relaxed) < before + 100 {
                    std::thread::yield_now();
                }
                // As a recording begins: first the tree is cleared, then the new id is published.
                tree.begin_recording(RecordingId::after(recording as u32 - 1).unwrap());
                (0..20).for_each(|_| std::thread::yield_now());
                now.store(recording, Ordering::SeqCst);
            }
        });
        assert_eq!(wrong.load(Ordering::Relaxed), 0, "nodes of another recording");
    }

    #[test]
    fn a_thread_of_another_recording_inserts_nothing() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let root = Parent::root(StackId::ROOT, 0);
        assert_eq!(tree.intern(root, 7, &notes), Ok(StackId(3)));
        tree.begin_recording(RecordingId::after(0).unwrap());
        assert_eq!(tree.intern(Parent::node(StackId(3)), 8, &notes), Err(InternError::RecordingOver));
        assert_eq!(notes.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn roots_of_another_generation_have_other_nodes() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let node = |generation| tree.intern(Parent::root(StackId::ROOT, generation), 7, &notes).unwrap();
        assert_eq!((node(0), node(1), node(0)), (StackId(3), StackId(4), StackId(3)));
        assert_eq!(notes.0.lock().unwrap()[&4], (StackId::ROOT.0, 7));
        assert_eq!(Parent::root(StackId::TRUNCATED, 5).recorded(), StackId::TRUNCATED);
    }

    #[test]
    fn every_id_leads_back_to_its_parent_and_return_address() {
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let nodes = if cfg!(miri) { 60 } else { 20_000 };
        let mut ids = vec![StackId::ROOT];
        for step in 0..nodes {
            let parent = ids[step as usize * 7 % ids.len()];
            ids.push(tree.intern(Parent::of(parent, 3), 0x5555_0000_0000 + step * 13, &notes).unwrap());
        }
        for (id, (parent, pc)) in notes.0.lock().unwrap().iter() {
            assert_eq!(tree.node(StackId(*id)), Some(TreeNode { parent: StackId(*parent), pc: *pc }));
        }
        assert_eq!(tree.node(StackId::ROOT), None);
        tree.begin_recording(RecordingId::after(0).unwrap());
        assert!(ids.iter().all(|id| tree.node(*id).is_none()), "ids of an earlier recording");
    }

    /// Follows the stacks of ids that other threads have just inserted.
    #[test]
    fn ids_can_be_looked_up_while_other_threads_insert() {
        use std::sync::atomic::{AtomicU32, Ordering};
        const DEPTH: u64 = 40;
        let (tree, notes) = (Tree::new(), MapJournal(Mutex::default()));
        let rounds = if cfg!(miri) { 4 } else { 1500 };
        let newest = [const { AtomicU32::new(0) }; 2];
        std::thread::scope(|scope| {
            for (thread, newest) in newest.iter().enumerate() {
                let (tree, notes) = (&tree, &notes);
                scope.spawn(move || {
                    for round in 0..rounds {
                        // Frames of one stack have addresses that say which stack it is, and how
                        // deep they are.
                        let stack = (round * 2 + thread as u64) << 8;
                        let leaf = (1..=DEPTH).fold(StackId::ROOT, |parent, depth| {
                            tree.intern(Parent::of(parent, 0), stack | depth, notes).unwrap()
                        });
                        newest.store(leaf.0, Ordering::Release);
                    }
                });
            }
            scope.spawn(|| {
                let mut followed = 0;
                while followed < rounds {
                    for newest in &newest {
                        let mut id = StackId(newest.load(Ordering::Acquire));
                        if id.0 == 0 {
                            std::thread::yield_now();
                            continue;
                        }
                        let stack = tree.node(id).unwrap().pc & !0xFF;
                        for depth in (1..=DEPTH).rev() {
                            let node = tree.node(id).unwrap();
                            assert_eq!(node.pc, stack | depth);
                            id = node.parent;
                        }
                        assert_eq!(id, StackId::ROOT);
                        followed += 1;
                    }
                }
            });
        });
    }
}
