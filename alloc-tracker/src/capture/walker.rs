//! The state that a thread keeps between its walks: for each of its stacks the recorded walk, and
//! the shortcuts.
//!
//! In: the registers that a walk begins with, the epoch, and the caller's function for interning.
//! Out: call tree nodes. Walks and shortcuts of another epoch are forgotten before they can be
//! used. Allocates nothing; may ask the kernel which memory below the known stack is readable.

use std::ptr::NonNull;

use alloc_dump::layout::StackId;

use super::WalkEnd;
use super::code_address::ReturnAddress;
use super::frame::Frame;
use super::new_walk::NewWalk;
use super::other_walks::OtherWalks;
use super::padded_array::PaddedArray;
use super::recorded_walk::RecordedWalk;
use super::registers::Registers;
use super::shortcut::ShortcutTable;
use super::stack::{OwnStack, StackBounds};
use super::stack_word::StackWord;
use super::without_signature;
use crate::base::sys::Mapping;
use crate::tree::{InternError, Parent};

/// The walks of one thread.
///
/// PERF: the fields that every event reads come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StackWalker {
    /// The epoch that all code addresses and nodes in here belong to. [`NO_EPOCH`] while the
    /// recorded walk of the own stack is [deep](RecordedWalk::is_deep). So shortcuts and ordinary
    /// walks, which compare this word anyway, need no branch of their own for deep stacks.
    epoch: u64,
    shortcuts: ShortcutTable,
    own: OwnStack,
    /// The last walk that began on the own stack.
    recorded: RecordedWalk,
    new: NewWalk,
    /// The last walks that began on other stacks.
    others: OtherWalks,
    /// The memory that the arrays of `recorded` and `new` begin in.
    first_memory: Mapping,
    /// The epoch that all code addresses and nodes in here belong to, deep or not.
    epoch_of_walks: u64,
}

/// Stands for no epoch: no recording has all of these bits.
const NO_EPOCH: u64 = u64::MAX;

/// What a stack pointer says about the walk that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It is on the thread's own stack, whose recorded walk is not deep.
    Own,
    /// It is on the thread's own stack, whose recorded walk is deep.
    OwnDeep,
    /// It is on another stack. The recorded walk to compare with is chosen.
    Other,
}

/// The state that one walk works with.
pub(super) struct WalkState<'a> {
    /// The recorded walk to compare with.
    pub(super) recorded: &'a mut RecordedWalk,
    pub(super) new: &'a mut NewWalk,
    /// Readable memory from the stack pointer on.
    pub(super) bounds: StackBounds,
    pub(super) own: &'a OwnStack,
}

impl StackWalker {
    pub(crate) const fn new() -> StackWalker {
        StackWalker {
            epoch: 0,
            shortcuts: ShortcutTable::new(),
            own: OwnStack::new(),
            recorded: RecordedWalk::new(),
            new: NewWalk::new(),
            others: OtherWalks::new(),
            first_memory: Mapping::empty(),
            epoch_of_walks: 0,
        }
    }

    /// Returns the node of the frame with these registers, if a shortcut leads to it.
    #[inline(always)]
    pub(crate) fn node_by_shortcut(&mut self, registers: &Registers, epoch: u64) -> Option<StackId> {
        if self.prepare_for(registers.sp, epoch) != Place::Own {
            return None;
        }
        self.shortcuts.find_node(registers, &self.recorded)
    }

    /// Begins a walk from the frame with these registers. `None` if they are on the own stack and
    /// its recorded walk is deep: see [`start_deep_walk`](StackWalker::start_deep_walk).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn start_walk(&mut self, registers: &Registers, epoch: u64) -> Option<WalkState<'_>> {
        let place = self.prepare_for(registers.sp, epoch);
        self.new.restart(place != Place::Own);
        let StackWalker { own, recorded, new, others, .. } = self;
        let (recorded, bounds) = match place {
            Place::Own => (recorded, own.from(registers.sp)),
            Place::Other => (others.current(), StackBounds::in_page_above(registers.sp)),
            Place::OwnDeep => return None,
        };
        Some(WalkState { recorded, new, bounds, own })
    }

    /// Begins a walk on the own stack, whose recorded walk is deep. `None` if that walk is not
    /// deep, or if the registers are on another stack. Call it where `start_walk` has returned
    /// `None`.
    pub(super) fn start_deep_walk(&mut self, registers: &Registers) -> Option<WalkState<'_>> {
        if self.epoch != NO_EPOCH || !self.own.contains(registers.sp) {
            return None;
        }
        self.new.restart(false);
        let StackWalker { own, recorded, new, .. } = self;
        Some(WalkState { recorded, new, bounds: own.from(registers.sp), own })
    }

    /// Ends an event whose walk was interned: if the own stack is deep now, its next walk takes the
    /// way of deep stacks. Whether the words of this event's stack were compared in part only.
    #[inline(always)]
    pub(crate) fn ends_partly_verified(&mut self) -> bool {
        self.recorded.is_deep() && self.end_deep_walk()
    }

    #[cold]
    #[inline(never)]
    fn end_deep_walk(&mut self) -> bool {
        self.epoch = NO_EPOCH;
        self.new.give_memory_back();
        self.recorded.take_partial_proof()
    }

    /// Returns the bounds of the own stack from this stack pointer on; `None` if it is not known to
    /// be there. Neither uses nor changes the recorded walks.
    pub(super) fn own_stack_from(&mut self, sp: u64) -> Option<StackBounds> {
        (self.own.contains(sp) || self.own.prove(sp)).then(|| self.own.from(sp))
    }

    /// Forgets all walks and shortcuts of another epoch. Returns where this stack pointer is. If it
    /// is on another stack than the own one, chooses the recorded walk to compare with.
    #[inline(always)]
    fn prepare_for(&mut self, sp: u64, epoch: u64) -> Place {
        if self.epoch == epoch && self.own.contains(sp) { Place::Own } else { self.switch_to(sp, epoch) }
    }

    #[cold]
    #[inline(never)]
    fn switch_to(&mut self, sp: u64, epoch: u64) -> Place {
        self.forget_unless_of(epoch);
        if self.first_memory.bytes().is_empty() {
            self.map_first_memory();
        }
        if !self.own.contains(sp) && !self.own.prove(sp) {
            self.others.switch_to(sp);
            return Place::Other;
        }
        if self.recorded.is_deep() {
            self.epoch = NO_EPOCH;
            return Place::OwnDeep;
        }
        if self.epoch == NO_EPOCH {
            self.epoch = epoch;
            self.recorded.give_memory_back();
        }
        Place::Own
    }

    /// Maps the memory that the arrays of walks begin in. If the kernel gives none, each array asks
    /// for memory of its own when it needs some.
    ///
    /// PERF: two pages for all arrays of a thread. With a mapping for each array, thousands of
    /// threads with small stacks would cost twice as much.
    #[cold]
    fn map_first_memory(&mut self) {
        let Ok(memory) = Mapping::anonymous(FIRST_MEMORY) else { return };
        let Some(start) = NonNull::new(memory.start()) else { return };
        let RecordedWalk { frames, words, .. } = &mut self.recorded;
        // SAFETY: the four arrays are empty and have no memory yet, because the walker has made no
        // walk. Their parts of the new mapping follow each other, and their sizes add up to the
        // mapping's. The types have an alignment of eight, and all sizes are multiples of that. The
        // mapping is unmapped with the arrays.
        unsafe {
            frames.begin_in(start, FIRST_FRAMES);
            let next = start.add(PaddedArray::<Frame, 8>::len_in_bytes(FIRST_FRAMES));
            words.begin_in(next, FIRST_WORDS);
            let next = next.add(PaddedArray::<StackWord, 32>::len_in_bytes(FIRST_WORDS));
            self.new.frames.begin_in(next, FIRST_FRAMES);
            let next = next.add(PaddedArray::<Frame, 48>::len_in_bytes(FIRST_FRAMES));
            self.new.words.begin_in(next, FIRST_WORDS);
        }
        self.first_memory = memory;
    }

    /// Forgets everything that belongs to another epoch.
    fn forget_unless_of(&mut self, epoch: u64) {
        if self.epoch_of_walks != epoch {
            (self.epoch, self.epoch_of_walks) = (epoch, epoch);
            self.shortcuts.forget_all();
            self.recorded.forget();
            self.others.forget();
        }
    }

    /// Makes a new walk of the return addresses that `walk` finds, innermost first and out to the
    /// root. Compares addresses from the root inwards to find the frames that the new walk shares
    /// with the recorded one.
    pub(super) fn take_addresses(
        &mut self,
        registers: &Registers,
        epoch: u64,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> WalkEnd {
        self.forget_unless_of(epoch);
        let end = self.new.collect_addresses(walk);
        if self.own.contains(registers.sp) {
            self.recorded.begin_walk_of_addresses();
            self.new.share_addresses_with(&self.recorded, end.root());
        } else {
            self.new.share_addresses_with(self.others.current(), end.root());
        }
        end
    }

    /// Returns the node of the stack that `walk` finds, interning every frame. Neither uses nor
    /// changes the recorded walk.
    pub(super) fn node_of_addresses(
        &mut self,
        generation: u32,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        let new = &mut self.new;
        let root = new.collect_addresses(walk).root();
        new.frames.as_slice().iter().rev().try_fold(root, |parent, frame| {
            intern(Parent::of(parent, generation), without_signature(frame.pc))
        })
    }

    /// Whether the last walk has the return addresses that `walk` finds, as far as both reach. The
    /// recorded walk must have taken it over.
    pub(super) fn has_addresses(
        &mut self,
        registers: &Registers,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> bool {
        let StackWalker { own, recorded, new, others, .. } = self;
        let recorded = if own.contains(registers.sp) { recorded } else { others.current() };
        new.collect_addresses(walk);
        let (recorded, new) = (recorded.frames.as_slice().iter().rev(), new.frames.as_slice().iter());
        recorded.zip(new).all(|(recorded, new)| without_signature(recorded.pc) == without_signature(new.pc))
    }

    /// Whether the recorded walk of the own stack lacks frames that another walk may have.
    pub(crate) fn is_cut(&self) -> bool {
        self.recorded.is_cut()
    }

    /// Whether the last walk was made by the platform's unwinder.
    pub(crate) fn last_walk_was_portable(&self) -> bool {
        !self.new.has_states
    }

    /// Gives every frame of the new walk a node: shared frames keep their nodes, and `intern` gives
    /// one to each other frame. The arguments of `intern` are the caller's node and the return
    /// address. The new walk becomes the recorded one. Returns the leaf's node, or the root for an
    /// empty walk.
    ///
    /// # Errors
    /// Returns the first error of `intern`, after which the recorded walk is forgotten.
    #[inline(never)]
    pub(crate) fn intern_new_frames(
        &mut self,
        registers: &Registers,
        end: WalkEnd,
        generation: u32,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        let StackWalker { shortcuts, own, recorded, new, others, .. } = self;
        let recorded = if own.contains(registers.sp) { recorded } else { others.current() };
        let intern = |parent, pc| intern(Parent::of(parent, generation), pc);
        let node = recorded.become_new_walk(new, end.root(), intern)?;
        shortcuts.remember(registers, new, recorded, node);
        Ok(node)
    }
}

/// The capacities of the first arrays, which fill the first memory.
const FIRST_FRAMES: usize = 30;
const FIRST_WORDS: usize = 60;
const FIRST_MEMORY: usize = 2 * 4096;
const _: () = assert!(
    PaddedArray::<Frame, 8>::len_in_bytes(FIRST_FRAMES)
        + PaddedArray::<StackWord, 32>::len_in_bytes(FIRST_WORDS)
        + PaddedArray::<Frame, 48>::len_in_bytes(FIRST_FRAMES)
        + PaddedArray::<StackWord, 128>::len_in_bytes(FIRST_WORDS)
        == FIRST_MEMORY
);

#[cfg(test)]
mod tests {
    use super::super::new_walk::MAX_FRAMES;
    use super::super::other_walks::SLOTS;
    use super::*;

    /// Registers on no stack: walks from there are compared with walks on other stacks.
    const ELSEWHERE: Registers = Registers { pc: ReturnAddress(1), sp: 64, fp: 0 };

    /// Records a walk of return addresses. Returns the leaf's node and how many frames were
    /// interned.
    fn record(
        walker: &mut StackWalker,
        (leaf_to_root, end): (&[u64], WalkEnd),
        epoch: u64,
        tree: &mut Vec<(Parent, u64)>,
    ) -> (StackId, usize) {
        walker.take_addresses(&ELSEWHERE, epoch, |push| {
            assert!(leaf_to_root.iter().all(|pc| push(ReturnAddress(*pc))));
            end
        });
        let mut interned = 0;
        let node = walker.intern_new_frames(&ELSEWHERE, end, 1, |parent, pc| {
            interned += 1;
            let node = (parent, pc);
            let known = tree.iter().position(|other| *other == node);
            let index = known.unwrap_or_else(|| {
                tree.push(node);
                tree.len() - 1
            });
            Ok(StackId(index as u32 + 10))
        });
        (node.unwrap(), interned)
    }

    #[test]
    fn only_frames_that_changed_are_interned() {
        let (mut walker, mut tree) = (StackWalker::new(), Vec::new());
        let mut record = |stack: &[u64]| record(&mut walker, (stack, WalkEnd::Root), 1, &mut tree);
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 0));
        assert_eq!(record(&[9, 2, 1]), (StackId(13), 1));
        assert_eq!(record(&[2, 1]), (StackId(11), 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 1));
        assert_eq!(record(&[]), (StackId::ROOT, 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
    }

    #[test]
    fn another_epoch_forgets_the_walks_of_all_stacks() {
        let mut walker = StackWalker::new();
        for (epoch, interned) in [(1, 3), (1, 0), (2, 3), (2, 0)] {
            for stack in 1..=SLOTS as u64 {
                walker.others.switch_to(stack << 20);
                let recorded = record(&mut walker, (&[3, 2, 1], WalkEnd::Root), epoch, &mut Vec::new());
                assert_eq!(recorded.1, interned, "{epoch} {stack}");
            }
        }
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walker, mut tree) = (StackWalker::new(), Vec::new());
        let mut record = |end| record(&mut walker, (&[3, 2, 1], end), 1, &mut tree);
        assert_eq!(record(WalkEnd::Root), (StackId(12), 3));
        assert_eq!(record(WalkEnd::Truncated), (StackId(15), 3));
        assert_eq!(record(WalkEnd::Root), (StackId(12), 3));
        assert_eq!(record(WalkEnd::Truncated), (StackId(15), 3));
        assert!(walker.others.current().sharable() == 0, "a truncated walk is not shared by its states");
        let parents = [StackId::TRUNCATED, StackId(13), StackId(14)].map(|parent| Parent::of(parent, 1));
        assert_eq!(tree[3..], [(parents[0], 1), (parents[1], 2), (parents[2], 3)]);
    }

    #[test]
    fn deep_stacks_grow_the_arrays_and_keep_the_recorded_walk() {
        let (mut walker, mut tree) = (StackWalker::new(), Vec::new());
        let deep: Vec<u64> = (1..=5000).rev().collect();
        let mut record = |stack: &[u64]| record(&mut walker, (stack, WalkEnd::Root), 1, &mut tree);
        assert_eq!(record(&[1]).1, 1);
        assert_eq!(record(&deep), (StackId(10 + 4999), 4999));
        assert_eq!(record(&deep).1, 0);
    }

    #[test]
    fn a_walk_has_at_most_max_frames() {
        let mut new = NewWalk::new();
        new.restart(true);
        let pushed = (0..).take_while(|pc| new.push(Frame::without_state(ReturnAddress(*pc)))).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
