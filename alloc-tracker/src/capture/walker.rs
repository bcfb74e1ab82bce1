//! The state that a thread keeps between its walks: for each of its stacks the recorded walk, and
//! the shortcuts.
//!
//! In: the registers that a walk begins with, the epoch, and the caller's function for interning.
//! Out: call tree nodes. Walks and shortcuts of another epoch are forgotten before they can be
//! used. Allocates nothing; may ask the kernel about a stack that the thread has not used before.

use alloc_dump::layout::StackId;

use super::WalkEnd;
use super::code_address::ReturnAddress;
use super::new_walk::NewWalk;
use super::recorded_walk::RecordedWalk;
use super::registers::Registers;
use super::shortcut::ShortcutTable;
use super::stack::{CurrentStack, RecentStacks, STACKS, StackBounds, StackMappings};
use super::without_signature;
use crate::base::sys::ErrnoGuard;
use crate::tree::{InternError, Parent};

/// The walks of one thread.
///
/// PERF: the fields that every event reads come first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct StackWalker {
    /// The epoch that all code addresses and nodes in here belong to. [`NO_EPOCH`] while the first
    /// walk of `walks` is [deep](RecordedWalk::is_deep). So shortcuts and ordinary walks, which
    /// compare this word anyway, need no branch of their own for deep stacks.
    epoch: u64,
    shortcuts: ShortcutTable,
    stacks: RecentStacks,
    /// The walks on `stacks`, in the same order.
    walks: [WalkPair; STACKS],
    mappings: StackMappings,
    /// The epoch that all code addresses and nodes in here belong to, deep or not.
    epoch_of_walks: u64,
}

/// Stands for no epoch: no recording has all of these bits.
const NO_EPOCH: u64 = u64::MAX;

/// The last walk on one stack, and the new one.
#[derive(Debug)]
struct WalkPair {
    recorded: RecordedWalk,
    new: NewWalk,
}

/// The state that one walk works with: the recorded and the new walk of its stack, the bounds of
/// that stack, and the other stacks that the walk may switch to.
pub(super) struct WalkState<'a> {
    pub(super) recorded: &'a mut RecordedWalk,
    pub(super) new: &'a mut NewWalk,
    pub(super) bounds: StackBounds,
    pub(super) mappings: &'a mut StackMappings,
}

impl StackWalker {
    pub(crate) const fn new() -> StackWalker {
        StackWalker {
            epoch: 0,
            shortcuts: ShortcutTable::new(),
            stacks: RecentStacks::new(),
            walks: [const { WalkPair { recorded: RecordedWalk::new(), new: NewWalk::new() } }; STACKS],
            mappings: StackMappings::new(),
            epoch_of_walks: 0,
        }
    }

    /// Returns the node of the frame with these registers, if a shortcut leads to it.
    #[inline(always)]
    pub(crate) fn node_by_shortcut(&mut self, registers: &Registers, epoch: u64) -> Option<StackId> {
        if !self.prepare_for(registers.sp, epoch) {
            return None;
        }
        self.shortcuts.find_node(registers, &self.walks[0].recorded)
    }

    /// Begins a walk from the frame with these registers. `None` if the stack that they are on
    /// cannot be found out, or if its recorded walk is deep: see
    /// [`start_deep_walk`](StackWalker::start_deep_walk).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn start_walk(&mut self, registers: &Registers, epoch: u64) -> Option<WalkState<'_>> {
        if !self.prepare_for(registers.sp, epoch) {
            return None;
        }
        Some(self.restart_walk(registers))
    }

    #[inline(always)]
    fn restart_walk(&mut self, registers: &Registers) -> WalkState<'_> {
        let CurrentStack { bounds, is_own } = self.stacks.current_from(registers.sp);
        let WalkPair { recorded, new } = &mut self.walks[0];
        new.restart(!is_own);
        WalkState { recorded, new, bounds, mappings: &mut self.mappings }
    }

    /// Begins a walk on a stack whose recorded walk is deep. `None` if that walk is not deep, or if
    /// the stack cannot be found out. Call it where `start_walk` has returned `None`.
    pub(super) fn start_deep_walk(&mut self, registers: &Registers) -> Option<WalkState<'_>> {
        let is_deep = self.epoch == NO_EPOCH && self.stacks.is_current(registers.sp);
        is_deep.then(|| self.restart_walk(registers))
    }

    /// Ends an event whose walk was interned: the next walk on a stack that is deep now takes the
    /// way of deep stacks. Whether the words of this event's stack were compared in part only.
    #[inline(always)]
    pub(crate) fn ends_partly_verified(&mut self) -> bool {
        self.walks[0].recorded.is_deep() && self.end_deep_walk()
    }

    #[cold]
    #[inline(never)]
    fn end_deep_walk(&mut self) -> bool {
        let _errno = ErrnoGuard::new();
        self.epoch = NO_EPOCH;
        let WalkPair { recorded, new } = &mut self.walks[0];
        new.give_memory_back();
        recorded.take_partial_proof()
    }

    /// Forgets all walks and shortcuts of another epoch, and makes the first pair of walks that of
    /// the stack with this stack pointer. False if that stack cannot be found out, or if its
    /// recorded walk is deep.
    #[inline(always)]
    fn prepare_for(&mut self, sp: u64, epoch: u64) -> bool {
        (self.epoch == epoch && self.stacks.is_current(sp)) || self.switch_to(sp, epoch)
    }

    #[cold]
    #[inline(never)]
    fn switch_to(&mut self, sp: u64, epoch: u64) -> bool {
        let _errno = ErrnoGuard::new();
        self.forget_unless_of(epoch);
        if !self.stacks.is_current(sp) {
            let Some(index) = self.stacks.switch_to(sp, &mut self.mappings) else { return false };
            self.walks[..=index].rotate_right(1);
            let end = self.stacks.current_from(sp).bounds.end();
            self.walks[0].recorded.forget_unless_stack_ends_at(end);
        }
        let recorded = &mut self.walks[0].recorded;
        let is_deep = recorded.is_deep();
        if !is_deep && self.epoch == NO_EPOCH {
            recorded.give_memory_back();
        }
        self.epoch = if is_deep { NO_EPOCH } else { epoch };
        !is_deep
    }

    /// Forgets everything that belongs to another epoch.
    fn forget_unless_of(&mut self, epoch: u64) {
        if self.epoch_of_walks != epoch {
            (self.epoch, self.epoch_of_walks) = (epoch, epoch);
            self.shortcuts.forget_all();
            self.walks.iter_mut().for_each(|walk| walk.recorded.forget());
        }
    }

    /// Makes a new walk of the return addresses that `walk` finds, innermost first and out to the
    /// root. Compares addresses from the root inwards to find the frames that the new walk shares
    /// with the recorded one.
    pub(super) fn take_addresses(
        &mut self,
        epoch: u64,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> WalkEnd {
        self.forget_unless_of(epoch);
        self.walks[0].take_addresses(walk)
    }

    /// Returns the node of the stack that `walk` finds, interning every frame. Neither uses nor
    /// changes the recorded walk.
    pub(super) fn node_of_addresses(
        &mut self,
        generation: u32,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        let new = &mut self.walks[0].new;
        let root = new.collect_addresses(walk).root();
        new.frames.as_slice().iter().rev().try_fold(root, |parent, frame| {
            intern(Parent::of(parent, generation), without_signature(frame.pc))
        })
    }

    /// Whether the recorded walk has the return addresses that `walk` finds, as far as both reach.
    pub(super) fn has_addresses(
        &mut self,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> bool {
        let WalkPair { recorded, new } = &mut self.walks[0];
        new.collect_addresses(walk);
        let (recorded, new) = (recorded.frames.as_slice().iter().rev(), new.frames.as_slice().iter());
        recorded.zip(new).all(|(recorded, new)| without_signature(recorded.pc) == without_signature(new.pc))
    }

    /// Whether the last walk was made by the platform's unwinder.
    pub(crate) fn last_walk_was_portable(&self) -> bool {
        !self.walks[0].new.has_states
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
        let WalkPair { recorded, new } = &mut self.walks[0];
        let intern = |parent, pc| intern(Parent::of(parent, generation), pc);
        let node = recorded.become_new_walk(new, end.root(), intern)?;
        self.shortcuts.remember(registers, new, recorded, node);
        Ok(node)
    }
}

impl WalkPair {
    /// Makes a new walk of return addresses, as [`StackWalker::take_addresses`] does.
    fn take_addresses(
        &mut self,
        walk: impl FnOnce(&mut dyn FnMut(ReturnAddress) -> bool) -> WalkEnd,
    ) -> WalkEnd {
        let WalkPair { recorded, new } = self;
        recorded.forget_if_fp_run();
        let end = new.collect_addresses(walk);
        if recorded.is_below(end.root()) {
            new.shared = recorded.count_common_addresses(new);
            new.frames.len -= new.shared;
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::super::new_walk::MAX_FRAMES;
    use super::*;

    /// Records a walk of return addresses. Returns the leaf's node and how many frames were
    /// interned.
    fn record(
        walk: &mut WalkPair,
        (leaf_to_root, end): (&[u64], WalkEnd),
        tree: &mut Vec<(StackId, u64)>,
    ) -> (StackId, usize) {
        walk.take_addresses(|push| {
            assert!(leaf_to_root.iter().all(|pc| push(ReturnAddress(*pc))));
            end
        });
        let mut interned = 0;
        let WalkPair { recorded, new } = walk;
        let node = recorded.become_new_walk(new, end.root(), |parent, pc| {
            interned += 1;
            let known = tree.iter().position(|node| *node == (parent, pc));
            let index = known.unwrap_or_else(|| {
                tree.push((parent, pc));
                tree.len() - 1
            });
            Ok(StackId(index as u32 + 10))
        });
        (node.unwrap(), interned)
    }

    const fn walk() -> WalkPair {
        WalkPair { recorded: RecordedWalk::new(), new: NewWalk::new() }
    }

    #[test]
    fn only_frames_that_changed_are_interned() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let mut record = |stack: &[u64]| record(&mut walk, (stack, WalkEnd::Root), &mut tree);
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 0));
        assert_eq!(record(&[9, 2, 1]), (StackId(13), 1));
        assert_eq!(record(&[2, 1]), (StackId(11), 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 1));
        assert_eq!(record(&[]), (StackId::ROOT, 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
    }

    #[test]
    fn a_stack_with_another_end_forgets_its_walk() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        for (end, interned) in [(0, 3), (0, 0), (64, 3), (64, 0)] {
            walk.recorded.forget_unless_stack_ends_at(end);
            let recorded = record(&mut walk, (&[3, 2, 1], WalkEnd::Root), &mut tree);
            assert_eq!(recorded, (StackId(12), interned), "{end}");
        }
    }

    #[test]
    fn another_epoch_forgets_the_walks_of_all_stacks() {
        let mut walker = StackWalker::new();
        for (epoch, interned) in [(1, 3), (1, 0), (2, 3), (2, 0)] {
            for stack in 0..STACKS {
                walker.forget_unless_of(epoch);
                let recorded = record(&mut walker.walks[stack], (&[3, 2, 1], WalkEnd::Root), &mut Vec::new());
                assert_eq!(recorded.1, interned, "{epoch} {stack}");
            }
        }
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        assert_eq!(record(&mut walk, (&[3, 2, 1], WalkEnd::Root), &mut tree), (StackId(12), 3));
        assert_eq!(record(&mut walk, (&[3, 2, 1], WalkEnd::Truncated), &mut tree), (StackId(15), 3));
        assert_eq!(tree[3..], [(StackId::TRUNCATED, 1), (StackId(13), 2), (StackId(14), 3)]);
        assert!(walk.recorded.sharable() == 0, "a truncated walk is not shared by its states");
        assert_eq!(record(&mut walk, (&[3, 2, 1], WalkEnd::Root), &mut tree), (StackId(12), 3));
    }

    #[test]
    fn deep_stacks_grow_the_arrays_and_keep_the_recorded_walk() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let deep: Vec<u64> = (1..=5000).rev().collect();
        assert_eq!(record(&mut walk, (&[1], WalkEnd::Root), &mut tree).1, 1);
        assert_eq!(record(&mut walk, (&deep, WalkEnd::Root), &mut tree), (StackId(10 + 4999), 4999));
        assert_eq!(record(&mut walk, (&deep, WalkEnd::Root), &mut tree).1, 0);
    }

    #[test]
    fn a_walk_has_at_most_max_frames() {
        let mut walk = walk();
        walk.new.restart(true);
        let pushed = (0..).take_while(|pc| walk.new.push(Frame::without_state(ReturnAddress(*pc)))).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
