//! The walks that a thread remembers, one for each stack that it runs on, and the new one in the making.

use alloc_dump::layout::StackId;

use super::End;
use super::fresh::Fresh;
use super::plain_address;
use super::recorded::Recorded;
use super::registers::Registers;
use super::shortcut::Shortcuts;
use super::stack::{self, Bounds, RecentStacks, STACKS, StackRanges};
use crate::base::sys::ErrnoGuard;
use crate::tree::{InternError, Parent};

/// The walks of one thread.
///
/// PERF: what every event needs comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Walks {
    /// What all code and all nodes in here belong to.
    epoch: u64,
    shortcuts: Shortcuts,
    stacks: RecentStacks,
    /// Those of `stacks`.
    walks: [Walk; STACKS],
    ranges: StackRanges,
}

/// What one walk needs: the walk before and the new one, the stack that it begins on, and the thread's other
/// stacks.
pub(super) struct Beginning<'a> {
    pub(super) recorded: &'a mut Recorded,
    pub(super) fresh: &'a mut Fresh,
    pub(super) bounds: Bounds,
    pub(super) ranges: &'a mut StackRanges,
}

/// The last walk on one stack, and the new one.
#[derive(Debug)]
struct Walk {
    recorded: Recorded,
    fresh: Fresh,
}

impl Walks {
    pub(crate) const fn new() -> Walks {
        let walks = [const { Walk { recorded: Recorded::new(), fresh: Fresh::new() } }; STACKS];
        let (stacks, ranges) = (RecentStacks::new(), StackRanges::new());
        Walks { epoch: 0, shortcuts: Shortcuts::new(), stacks, walks, ranges }
    }

    /// The node of the frame with these registers, if a shortcut leads to it.
    #[inline(always)]
    pub(crate) fn shortcut(&mut self, registers: &Registers, epoch: u64) -> Option<StackId> {
        if !self.is_at(registers.sp, epoch) {
            return None;
        }
        self.shortcuts.node(registers, &self.walks[0].recorded)
    }

    /// Begins a walk from the frame with these registers. What is remembered of another epoch is not used. `None` if it is not
    /// known what stack this is.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn begin(&mut self, registers: &Registers, epoch: u64) -> Option<Beginning<'_>> {
        if !self.is_at(registers.sp, epoch) {
            return None;
        }
        let stack::Beginning { bounds, stays } = self.stacks.above(registers.sp);
        let Walk { recorded, fresh } = &mut self.walks[0];
        fresh.begin(!stays);
        Some(Beginning { recorded, fresh, bounds, ranges: &mut self.ranges })
    }

    /// Makes what is remembered that of this epoch, and the first walk that of the stack with this stack pointer; false if it is not
    /// known what stack that is.
    #[inline(always)]
    fn is_at(&mut self, sp: u64, epoch: u64) -> bool {
        (self.epoch == epoch && self.stacks.is_current(sp)) || self.go_to(sp, epoch)
    }

    #[cold]
    #[inline(never)]
    fn go_to(&mut self, sp: u64, epoch: u64) -> bool {
        let _errno = ErrnoGuard::new();
        self.belong_to(epoch);
        if !self.stacks.is_current(sp) {
            let Some(at) = self.stacks.switch(sp, &mut self.ranges) else { return false };
            self.walks[..=at].rotate_right(1);
            self.walks[0].recorded.hold_for(self.stacks.above(sp).bounds.end());
        }
        true
    }

    /// Forgets what is remembered of another epoch.
    fn belong_to(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.shortcuts.close();
            self.walks.iter_mut().for_each(|walk| walk.recorded.forget());
        }
    }

    /// Takes the return addresses that `walk` finds, innermost first, for a whole walk. What it shares with the recorded one
    /// is found out by the addresses, from the outermost frame inwards.
    pub(super) fn walk_by_addresses(
        &mut self,
        epoch: u64,
        walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End,
    ) -> End {
        self.belong_to(epoch);
        let Walk { recorded, fresh } = &mut self.walks[0];
        let end = fresh.fill(walk);
        if recorded.hangs_under(end.root()) {
            fresh.shared = recorded.common(fresh);
            fresh.frames.len -= fresh.shared;
        }
        end
    }

    /// The node of the stack that `walk` finds, frame by frame, by `intern` alone. What is recorded stays as it is.
    pub(super) fn node_by_addresses(
        &mut self,
        generation: u32,
        walk: impl FnOnce(&mut dyn FnMut(u64) -> bool) -> End,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        let fresh = &mut self.walks[0].fresh;
        let root = fresh.fill(walk).root();
        fresh
            .frames
            .as_slice()
            .iter()
            .rev()
            .try_fold(root, |parent, frame| intern(Parent::of(parent, generation), plain_address(frame.pc)))
    }

    /// Whether the last walk was the platform's unwinder's.
    pub(crate) fn is_by_addresses(&self) -> bool {
        !self.walks[0].fresh.stepped
    }

    /// Gives every frame of the new walk a node: the shared ones keep theirs, the others' are what `intern` says of the
    /// caller's node and the return address. The new walk becomes the recorded one. Returns
    /// the innermost frame's node, or the root for an empty walk; an error of `intern`'s makes the walk be forgotten.
    #[inline(never)]
    pub(crate) fn resolve(
        &mut self,
        registers: &Registers,
        end: End,
        generation: u32,
        mut intern: impl FnMut(Parent, u64) -> Result<StackId, InternError>,
    ) -> Result<StackId, InternError> {
        let Walk { recorded, fresh } = &mut self.walks[0];
        let node =
            recorded.take(fresh, end.root(), |parent, pc| intern(Parent::of(parent, generation), pc))?;
        self.shortcuts.remember(registers, fresh, recorded, node);
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::Frame;
    use super::super::fresh::MAX_FRAMES;
    use super::*;

    fn record(
        Walk { recorded, fresh }: &mut Walk,
        (inner_to_outer, end): (&[u64], End),
        tree: &mut Vec<(StackId, u64)>,
    ) -> (StackId, usize) {
        fresh.fill(|push| {
            assert!(inner_to_outer.iter().all(|pc| push(*pc)));
            end
        });
        if recorded.hangs_under(end.root()) {
            fresh.shared = recorded.common(fresh);
            fresh.frames.len -= fresh.shared;
        }
        let mut interned = 0;
        let node = recorded.take(fresh, end.root(), |parent, pc| {
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

    const fn walk() -> Walk {
        Walk { recorded: Recorded::new(), fresh: Fresh::new() }
    }

    #[test]
    fn only_frames_that_changed_are_interned() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let mut record = |stack: &[u64]| record(&mut walk, (stack, End::Root), &mut tree);
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 0));
        assert_eq!(record(&[9, 2, 1]), (StackId(13), 1));
        assert_eq!(record(&[2, 1]), (StackId(11), 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 1));
        assert_eq!(record(&[]), (StackId::ROOT, 0));
        assert_eq!(record(&[3, 2, 1]), (StackId(12), 3));
    }

    #[test]
    fn another_end_of_the_stack_forgets() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        for (end, interned) in [(0, 3), (0, 0), (64, 3), (64, 0)] {
            walk.recorded.hold_for(end);
            let recorded = record(&mut walk, (&[3, 2, 1], End::Root), &mut tree);
            assert_eq!(recorded, (StackId(12), interned), "{end}");
        }
    }

    #[test]
    fn another_epoch_forgets_the_walks_of_all_stacks() {
        let mut walks = Walks::new();
        for (epoch, interned) in [(1, 3), (1, 0), (2, 3), (2, 0)] {
            for stack in 0..STACKS {
                walks.belong_to(epoch);
                let recorded = record(&mut walks.walks[stack], (&[3, 2, 1], End::Root), &mut Vec::new());
                assert_eq!(recorded.1, interned, "{epoch} {stack}");
            }
        }
    }

    #[test]
    fn another_root_means_other_nodes() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Root), &mut tree), (StackId(12), 3));
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Truncated), &mut tree), (StackId(15), 3));
        assert_eq!(tree[3..], [(StackId::TRUNCATED, 1), (StackId(13), 2), (StackId(14), 3)]);
        assert!(walk.recorded.sharable() == 0, "a walk that was cut is not shared by its states");
        assert_eq!(record(&mut walk, (&[3, 2, 1], End::Root), &mut tree), (StackId(12), 3));
    }

    #[test]
    fn deep_stacks_grow_the_buffers_and_keep_the_walk_before() {
        let (mut walk, mut tree) = (walk(), Vec::new());
        let deep: Vec<u64> = (1..=5000).rev().collect();
        assert_eq!(record(&mut walk, (&[1], End::Root), &mut tree).1, 1);
        assert_eq!(record(&mut walk, (&deep, End::Root), &mut tree), (StackId(10 + 4999), 4999));
        assert_eq!(record(&mut walk, (&deep, End::Root), &mut tree).1, 0);
    }

    #[test]
    fn there_is_a_bound_and_it_is_said() {
        let mut walk = walk();
        walk.fresh.begin(true);
        let pushed = (0..).take_while(|pc| walk.fresh.push(Frame::without_state(*pc))).count();
        assert_eq!(pushed, MAX_FRAMES);
    }
}
