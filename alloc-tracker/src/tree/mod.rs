//! Interning: every distinct (caller's node, return address) gets one number, so that a whole stack is one number.
//! In: pairs, from any thread. Out: [`StackId`]s, and the sidecar's ring of new nodes. Finding a node that is known
//! takes no lock; a new one is inserted under a lock of the tree's own. Never allocates.

mod hashed;
mod nearby;
mod regions;

use alloc_dump::layout::StackId;

use crate::base::sys::{Errno, ErrnoGuard, FutexLock};
use crate::capture;
use crate::modules;
use crate::output::sidecar;

use hashed::Hashed;
use nearby::{Nearby, Place};

/// The call tree of one recording.
#[derive(Debug)]
pub(crate) struct Tree {
    nearby: Nearby,
    hashed: Hashed,
    writer: FutexLock<Writer>,
}

/// Why a node has no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The tree has [`MAX_NODES`] nodes.
    Bound,
    /// The kernel gives no more memory.
    Memory(Errno),
    /// The recording has ended.
    Over,
}

/// Where new nodes go before anybody can use their numbers.
pub(crate) trait Journal {
    /// Whether it is the journal of this recording. A thread may be stopped on its way here while the recording ends and another one
    /// begins: what it knows of parents is of the old tree.
    fn is_of(&self, recording: u32) -> bool;

    /// Notes a node; false if the recording is over.
    fn note(&self, id: StackId, parent: StackId, pc: u64) -> bool;
}

/// At most this many nodes, which is what chunks of 2 GiB together are for. If nearly all were in the other table, that would be 4 GiB.
pub(crate) const MAX_NODES: usize =
    (1 << nearby::NODE_BITS) - (1 << nearby::FIRST_BITS) - StackId::FIRST.0 as usize;

/// The tree of the recording that is going on.
pub(crate) static TREE: Tree = Tree::new();

impl Tree {
    pub(crate) const fn new() -> Tree {
        Tree { nearby: Nearby::new(), hashed: Hashed::new(), writer: FutexLock::new(Writer::new(0)) }
    }

    /// The number of the node with this caller and return address.
    ///
    /// PERF: a stack's new nodes get numbers one after the other, and a node is first looked for where its parent's number
    /// says: the nodes of one stack are then in one or two cache lines, where hashing would cost a miss for each of them.
    #[inline(always)]
    pub(crate) fn intern(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        match self.nearby.find_likely(parent, pc) {
            Some(id) => Ok(id),
            None => self.find_or_insert(parent, pc, journal),
        }
    }

    #[inline(never)]
    fn find_or_insert(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        self.find(parent, pc).map_or_else(|| self.insert(parent, pc, journal), Ok)
    }

    fn find(&self, parent: Parent, pc: u64) -> Option<StackId> {
        match self.nearby.find(parent, pc) {
            Place::Known(id) => Some(id),
            Place::Empty(_) => None,
            Place::Elsewhere => self.hashed.find(parent, pc),
        }
    }

    /// Begins anew in a forked child; the parent's memory is left as it is.
    ///
    /// # Safety
    /// No other thread may use the tree.
    pub(crate) unsafe fn renew(&self) {
        self.nearby.leave();
        self.hashed.leave();
        // SAFETY: the caller's promise.
        unsafe { self.writer.reset(Writer::new(0)) };
    }

    /// Forgets everything: the recording of this number begins.
    pub(crate) fn begin_anew(&self, recording: u32) {
        let mut writer = self.writer.lock();
        let Writer { nearby, hashed, .. } = &mut *writer;
        self.nearby.forget(nearby);
        self.hashed.forget(hashed);
        *writer = Writer::new(recording);
    }

    #[cold]
    #[inline(never)]
    fn insert(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        let _errno = ErrnoGuard::new();
        let mut writer = self.writer.lock();
        let Writer { recording, nodes, nearby, hashed } = &mut *writer;
        if !journal.is_of(*recording) {
            return Err(Refused::Over);
        }
        if *nodes >= MAX_NODES {
            return self.find(parent, pc).ok_or(Refused::Bound);
        }
        // Another thread may have been faster, or this one may have looked into a table that has been replaced.
        let empty = match self.nearby.make_place(nearby, parent, pc).map_err(Refused::Memory)? {
            Place::Known(id) => return Ok(id),
            Place::Empty(empty) => Some(empty),
            Place::Elsewhere => {
                if let Some(id) = self.hashed.find(parent, pc) {
                    return Ok(id);
                }
                self.hashed.make_room(hashed).map_err(Refused::Memory)?;
                None
            }
        };
        let id = StackId(StackId::FIRST.0 + *nodes as u32);
        // First, so that whoever finds the number can rely on its node being noted.
        if !journal.note(id, parent.recorded(), pc) {
            return Err(Refused::Over);
        }
        match empty {
            Some(empty) => empty.fill(id),
            None => self.hashed.insert(hashed, parent, pc, id),
        }
        *nodes += 1;
        Ok(id)
    }
}

/// The caller's node of a node, or a root. The nodes of code that has been unloaded must not be found again under
/// their old addresses, so roots have a generation; all that hangs under a new root is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parent(u32);

impl Parent {
    /// One of the roots, which [`StackId`] names.
    #[inline]
    pub(crate) fn root(root: StackId, generation: u32) -> Parent {
        Parent(ROOTS + (generation % (ROOTS >> 2)) * 4 + root.0)
    }

    /// A node, or a root in this generation.
    #[inline(always)]
    pub(crate) fn of(parent: StackId, generation: u32) -> Parent {
        if parent < StackId::FIRST { Parent::root(parent, generation) } else { Parent::node(parent) }
    }

    #[inline]
    pub(crate) fn node(node: StackId) -> Parent {
        Parent(node.0)
    }

    #[inline]
    fn is_root(self) -> bool {
        self.0 >= ROOTS
    }

    /// As the dump has it.
    #[inline]
    pub(crate) fn recorded(self) -> StackId {
        StackId(if self.is_root() { self.0 % 4 } else { self.0 })
    }
}

/// Above the numbers of all nodes, and a multiple of four. After half a billion generations they begin anew.
const ROOTS: u32 = 1 << 31;

#[derive(Debug)]
struct Writer {
    recording: u32,
    nodes: usize,
    nearby: nearby::Chunks,
    hashed: hashed::Memory,
}

impl Writer {
    const fn new(recording: u32) -> Writer {
        Writer { recording, nodes: 0, nearby: nearby::Chunks::new(), hashed: hashed::Memory::new() }
    }
}

/// Mixes both halves well enough for linear probing; the multiplier is 2^64 divided by the golden ratio.
#[inline]
fn hash(parent: Parent, pc: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = (pc ^ u64::from(parent.0).rotate_left(32)).wrapping_mul(GOLDEN);
    (mixed ^ (mixed >> 32)).wrapping_mul(GOLDEN) >> 20
}

/// The ring of nodes in the sidecar, for a thread that has its part in this recording.
pub(crate) struct SidecarJournal {
    pub(crate) recording: u32,
}

impl Journal for SidecarJournal {
    fn is_of(&self, recording: u32) -> bool {
        self.recording == recording
    }

    fn note(&self, id: StackId, parent: StackId, pc: u64) -> bool {
        if !capture::has_rule_for(pc) {
            modules::ensure(pc);
        }
        sidecar::note_node(id, parent, pc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::Mutex;

    struct Notes(Mutex<HashMap<u32, (u32, u64)>>);

    impl Journal for Notes {
        fn is_of(&self, recording: u32) -> bool {
            recording == 0
        }

        fn note(&self, id: StackId, parent: StackId, pc: u64) -> bool {
            assert_eq!(self.0.lock().unwrap().insert(id.0, (parent.0, pc)), None, "numbered twice");
            true
        }
    }

    #[test]
    fn the_same_pair_is_the_same_number_through_every_growth() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
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
    fn threads_agree_on_every_number() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
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
    fn code_may_be_anywhere() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
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
    fn a_node_that_was_not_noted_is_not_there() {
        struct Reluctant(Notes, std::cell::Cell<bool>);
        impl Journal for Reluctant {
            fn is_of(&self, recording: u32) -> bool {
                self.0.is_of(recording)
            }
            fn note(&self, id: StackId, parent: StackId, pc: u64) -> bool {
                self.1.replace(true) && self.0.note(id, parent, pc)
            }
        }
        let tree = Tree::new();
        for parent in [Parent::root(StackId::ROOT, 0), Parent::node(StackId(3))] {
            let notes = Reluctant(Notes(Mutex::default()), std::cell::Cell::new(false));
            let refused = tree.intern(parent, 9, &notes);
            assert_eq!(refused, Err(Refused::Over));
            let known = tree.intern(parent, 9, &notes);
            assert_eq!((known, notes.0.0.lock().unwrap().len()), (tree.intern(parent, 9, &notes), 1));
        }
    }

    /// Whoever looks while another recording begins finds a node of one of the two, or is told that its own is over.
    #[test]
    fn recordings_begin_while_threads_intern() {
        use std::sync::atomic::{AtomicU64, Ordering};
        const PARENTS: u64 = 70;
        const ADDRESSES: u64 = 50;
        /// What the nodes of each recording are.
        struct Noted(Vec<[AtomicU64; 4096]>);
        struct Own<'a>(u32, &'a Noted);
        impl Journal for Own<'_> {
            fn is_of(&self, recording: u32) -> bool {
                self.0 == recording
            }
            fn note(&self, id: StackId, parent: StackId, pc: u64) -> bool {
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
                        let found = tree.intern(Parent::node(parent), pc, &Own(recording as u32, noted));
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
                // As a recording begins: first the tree, then its number is told.
                tree.begin_anew(recording as u32);
                (0..20).for_each(|_| std::thread::yield_now());
                now.store(recording, Ordering::SeqCst);
            }
        });
        assert_eq!(wrong.load(Ordering::Relaxed), 0, "nodes of another recording");
    }

    #[test]
    fn whoever_comes_from_another_recording_adds_nothing() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
        let root = Parent::root(StackId::ROOT, 0);
        assert_eq!(tree.intern(root, 7, &notes), Ok(StackId(3)));
        tree.begin_anew(1);
        assert_eq!(tree.intern(Parent::node(StackId(3)), 8, &notes), Err(Refused::Over));
        assert_eq!(notes.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn roots_of_another_generation_have_other_nodes() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
        let node = |generation| tree.intern(Parent::root(StackId::ROOT, generation), 7, &notes).unwrap();
        assert_eq!((node(0), node(1), node(0)), (StackId(3), StackId(4), StackId(3)));
        assert_eq!(notes.0.lock().unwrap()[&4], (StackId::ROOT.0, 7));
        assert_eq!(Parent::root(StackId::TRUNCATED, 5).recorded(), StackId::TRUNCATED);
    }
}
