//! Interning: every distinct (caller's node, return address) gets one number, so that a whole stack is one number.
//! In: pairs, from any thread. Out: [`StackId`]s, and the sidecar's ring of new nodes. Finding a node that is known
//! takes no lock; a new one is inserted under a lock of the tree's own. Open addressing in mapped memory; never allocates.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use alloc_dump::layout::StackId;

use crate::capture;
use crate::modules;
use crate::sidecar;
use crate::sys::{Errno, ErrnoGuard, FutexLock, Mapping};

/// The call tree of one recording.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The head of the table that is searched; null before the first node.
    table: AtomicPtr<Head>,
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

/// At most this many nodes: with the half-empty table that is 4 GiB.
pub(crate) const MAX_NODES: usize = 1 << 27;

/// The tree of the recording that is going on.
pub(crate) static TREE: Tree = Tree::new();

impl Tree {
    pub(crate) const fn new() -> Tree {
        let writer = Writer { recording: 0, memory: None, nodes: 0 };
        Tree { table: AtomicPtr::new(std::ptr::null_mut()), writer: FutexLock::new(writer) }
    }

    /// The number of the node with this caller and return address.
    #[inline(always)]
    pub(crate) fn intern(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        if let Some(table) = self.table() {
            let place = table.place(parent);
            if let Some(id) = table.line(place).find_likely(parent, pc) {
                return Ok(id);
            }
            if let Some(id) = table.line(near(place, hash(parent, pc))).find_likely(parent, pc) {
                return Ok(id);
            }
        }
        self.find_or_insert(parent, pc, journal)
    }

    #[inline(always)]
    fn table(&self) -> Option<Table<'_>> {
        // SAFETY: tables are published whole and never unmapped.
        NonNull::new(self.table.load(Ordering::Acquire)).map(|head| unsafe { Table::at(head) })
    }

    #[inline(never)]
    fn find_or_insert(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        if let Some(table) = self.table()
            && let Place::Known(id) = table.find(parent, pc)
        {
            return Ok(id);
        }
        self.insert(parent, pc, journal)
    }

    /// Begins anew in a forked child; the parent's memory is left as it is.
    ///
    /// # Safety
    /// No other thread may use the tree.
    pub(crate) unsafe fn renew(&self) {
        self.table.store(std::ptr::null_mut(), Ordering::Release);
        // SAFETY: the caller's promise.
        unsafe { self.writer.renew(Writer { recording: 0, memory: None, nodes: 0 }) };
    }

    /// Forgets everything: the recording of this number begins.
    pub(crate) fn begin_anew(&self, recording: u32) {
        let mut writer = self.writer.lock();
        writer.recording = recording;
        self.table.store(std::ptr::null_mut(), Ordering::Release);
        writer.nodes = 0;
        if let Some(memory) = writer.memory.take() {
            memory.retire();
        }
    }

    #[cold]
    #[inline(never)]
    fn insert(&self, parent: Parent, pc: u64, journal: &impl Journal) -> Result<StackId, Refused> {
        let _errno = ErrnoGuard::new();
        let mut writer = self.writer.lock();
        if !journal.is_of(writer.recording) {
            return Err(Refused::Over);
        }
        if (writer.nodes + 1) * 2 > self.capacity() {
            self.grow(&mut writer)?;
        }
        // `grow` has made one.
        let table = self.table().ok_or(Refused::Bound)?;
        let slot = match table.find(parent, pc) {
            // Another thread was faster, or this one has looked into a table that has been replaced.
            Place::Known(id) => return Ok(id),
            Place::Empty(slot) => slot,
        };
        let id = StackId(StackId::FIRST.0 + writer.nodes as u32);
        // First, so that whoever finds the number can rely on its node being noted.
        if !journal.note(id, parent.recorded(), pc) {
            return Err(Refused::Over);
        }
        slot.set(parent, pc, id);
        writer.nodes += 1;
        Ok(id)
    }

    fn capacity(&self) -> usize {
        self.table().map_or(0, |table| (table.mask() + 1) * SLOTS)
    }

    #[cold]
    fn grow(&self, writer: &mut Writer) -> Result<(), Refused> {
        if writer.nodes >= MAX_NODES {
            return Err(Refused::Bound);
        }
        let capacity = (self.capacity() * 2).max(FIRST_CAPACITY);
        let len = size_of::<Head>() + capacity * size_of::<Slot>();
        // PERF: a large table is searched at random; huge pages save most of the misses of the address translation.
        let memory = Mapping::of_huge_pages(len).map_err(Refused::Memory)?;
        let head = memory.start().cast::<Head>();
        // SAFETY: the mapping has room for the head and all slots, is page-aligned and zeroed: empty slots.
        let table = unsafe {
            head.write(Head { mask: AtomicUsize::new(capacity / SLOTS - 1) });
            Table::at(NonNull::new_unchecked(head))
        };
        if let Some(old) = self.table() {
            for slot in old.lines().iter().flat_map(|line| &line.0) {
                if let Some((parent, pc, id)) = slot.get()
                    && let Place::Empty(empty) = table.find(parent, pc)
                {
                    empty.set(parent, pc, id);
                }
            }
        }
        self.table.store(head, Ordering::Release);
        if let Some(old) = writer.memory.replace(memory) {
            // A thread may still be searching it: it will find nothing, and then come here.
            old.retire();
        }
        Ok(())
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

    /// As the dump has it.
    #[inline]
    pub(crate) fn recorded(self) -> StackId {
        StackId(if self.0 >= ROOTS { self.0 % 4 } else { self.0 })
    }
}

/// Above the numbers of all nodes, and a multiple of four. After half a billion generations they begin anew.
const ROOTS: u32 = 1 << 31;

#[derive(Debug)]
struct Writer {
    recording: u32,
    memory: Option<Mapping>,
    nodes: usize,
}

/// The head of a table; its lines of slots follow.
#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    /// Lines, less one. One line in a table that was replaced meanwhile: all of it is zero.
    mask: AtomicUsize,
}

/// A table, by the pointer that reaches all of it: a reference to its head would not reach its lines.
#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    head: NonNull<Head>,
    of: PhantomData<&'a Line>,
}

enum Place<'a> {
    Known(StackId),
    Empty(&'a Slot),
}

/// PERF: a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line([Slot; SLOTS]);

impl Line {
    /// The node, if it is here and no other one in this line, of a parent that has its line elsewhere, has the same key.
    ///
    /// PERF: which slot it is in cannot be foreseen, so there is no branch for each, and the parents are compared in the end.
    #[inline(always)]
    fn find_likely(&self, parent: Parent, pc: u64) -> Option<StackId> {
        let (key, mut found) = (key(parent, pc), EMPTY);
        for slot in &self.0 {
            let ids = slot.ids.load(Ordering::Acquire);
            found = if slot.key.load(Ordering::Relaxed) == key { ids } else { found };
        }
        (found >> 32 == u64::from(parent.0)).then_some(StackId(found as u32))
    }

    /// The node, if it is here.
    fn find(&self, parent: Parent, pc: u64) -> Option<StackId> {
        let known = self.0.iter().filter_map(Slot::get);
        known.filter(|known| (known.0, known.1) == (parent, pc)).map(|known| known.2).next()
    }

    fn empty(&self) -> Option<&Slot> {
        self.0.iter().find(|slot| slot.ids.load(Ordering::Acquire) == EMPTY)
    }
}

impl<'a> Table<'a> {
    /// # Safety
    /// The head and as many lines as it says are to stay mapped, as what they are or as zeros.
    #[inline(always)]
    unsafe fn at(head: NonNull<Head>) -> Table<'a> {
        Table { head, of: PhantomData }
    }

    #[inline(always)]
    fn mask(self) -> usize {
        // SAFETY: the promise of `at`.
        unsafe { &(*self.head.as_ptr()).mask }.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn lines(self) -> &'a [Line] {
        // SAFETY: the promise of `at`.
        unsafe { std::slice::from_raw_parts(self.head.as_ptr().add(1).cast(), self.mask() + 1) }
    }

    /// Where a node is looked for first.
    ///
    /// PERF: a stack's new nodes get numbers one after the other, and a node is first looked for where its parent's number
    /// says: the nodes of one stack are then in one or two cache lines, where hashing would cost a miss for each of them.
    /// Two parents share a line, and what has no room in it is hashed: into one of the lines near by, which are likely in the cache
    /// as well (a parser's functions call each other from many places: every fifth event of syn comes here, and takes 16 ns less
    /// for it), and what has no room there into any.
    #[inline(always)]
    fn place(self, parent: Parent) -> usize {
        (parent.0 >> 1) as usize
    }

    #[inline(always)]
    fn line(self, at: usize) -> &'a Line {
        let lines = self.lines();
        // SAFETY: the number of lines is a power of two.
        unsafe { lines.get_unchecked(at & (lines.len() - 1)) }
    }

    /// The node, or the slot where it belongs.
    fn find(self, parent: Parent, pc: u64) -> Place<'a> {
        let place = self.place(parent);
        let mut line = self.line(place);
        let hash = hash(parent, pc);
        let (mut far, mut near) = (hash as usize, Some(near(place, hash)));
        // At least half of the slots are empty, so this ends.
        loop {
            if let Some(id) = line.find(parent, pc) {
                return Place::Known(id);
            }
            if let Some(empty) = line.empty() {
                return Place::Empty(empty);
            }
            far = far.wrapping_add(1);
            line = self.line(near.take().unwrap_or(far));
        }
    }
}

#[derive(Debug)]
#[repr(C)]
struct Slot {
    key: AtomicU64,
    /// The caller's node and the node's own number; written last.
    ids: AtomicU64,
}

/// The return address, mixed with which of the two parents of a line it is called by: user space has no addresses of that size.
#[inline(always)]
fn key(parent: Parent, pc: u64) -> u64 {
    pc ^ u64::from(parent.0) << 63
}

/// Zero pages are empty tables: no node has the number 0.
const EMPTY: u64 = 0;
/// Slots. Miri takes a minute for a thousand nodes.
const FIRST_CAPACITY: usize = if cfg!(miri) { 1 << 5 } else { 1 << 12 };
/// Slots of a line.
const SLOTS: usize = 4;
/// Lines near a line: the others of an aligned kilobyte.
const NEIGHBOURS: usize = 15;

impl Slot {
    fn set(&self, parent: Parent, pc: u64, id: StackId) {
        self.key.store(key(parent, pc), Ordering::Relaxed);
        self.ids.store(u64::from(parent.0) << 32 | u64::from(id.0), Ordering::Release);
    }

    fn get(&self) -> Option<(Parent, u64, StackId)> {
        let ids = self.ids.load(Ordering::Acquire);
        let parent = Parent((ids >> 32) as u32);
        (ids != EMPTY).then(|| (parent, key(parent, self.key.load(Ordering::Relaxed)), StackId(ids as u32)))
    }
}

/// The line near this one in which a node with this hash is, if it has no room there.
#[inline(always)]
fn near(place: usize, hash: u64) -> usize {
    place ^ (1 + (hash >> 20) as usize % NEIGHBOURS)
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
        if !capture::knows(pc) {
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
    fn whoever_still_searches_a_table_that_was_replaced_finds_nothing() {
        let (tree, notes) = (Tree::new(), Notes(Mutex::default()));
        let root = Parent::root(StackId::ROOT, 0);
        let id = tree.intern(root, 0, &notes).unwrap();
        let old = tree.table().unwrap();
        assert!(matches!(old.find(root, 0), Place::Known(known) if known == id));
        (1..=FIRST_CAPACITY as u64 / 2)
            .for_each(|pc| assert!(tree.intern(Parent::node(id), pc, &notes).is_ok()));
        assert_ne!(tree.table().unwrap().head, old.head);
        for parent in [root, Parent::node(id), Parent::node(StackId(MAX_NODES as u32))] {
            assert_eq!(old.line(old.place(parent)).find_likely(parent, 0), None);
            assert!(matches!(old.find(parent, 0), Place::Empty(_)));
        }
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
