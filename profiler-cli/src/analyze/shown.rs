//! Stacks as reports show them: without frames of the runtime, unless the user asks for all frames.
//!
//! In: the call tree. Out: an id for each stack, and the frames of each id. Stacks that look alike
//! share one id.
//!
//! PERF: the shown stacks are stored as a tree again. Lists of frames would take time and memory
//! quadratic in the depth of a recursion, because each of its stacks repeats all frames of the
//! stack before it.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::names::stacks::{FrameId, Stacks};

/// Id of a stack as a report shows it: 0 for the empty stack, otherwise the index of a node plus 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShownStackId(u32);

/// All stacks that a report shows.
#[derive(Debug)]
pub(super) struct ShownStacks {
    nodes: Vec<ShownNode>,
    by_stack: Vec<ShownStackId>,
}

#[derive(Clone, Copy, Debug)]
struct ShownNode {
    /// The stack without its innermost frame.
    caller: ShownStackId,
    /// The innermost frame.
    frame: FrameId,
    /// Number of frames.
    frames: u32,
    /// The outermost part of the stack, which stays if the middle of the stack is cut out.
    outer: ShownStackId,
}

/// The frames of a stack, innermost first, without those in the middle if there are too many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CutStack {
    /// The innermost frames, or all frames if none are left out.
    pub(super) inner: Vec<FrameId>,
    /// Number of frames that are left out between the inner and the outer frames.
    pub(super) omitted: usize,
    /// The outermost frames; empty if no frame is left out.
    pub(super) outer: Vec<FrameId>,
}

/// The stack without frames.
const EMPTY: ShownStackId = ShownStackId(0);

impl ShownStacks {
    /// Makes the stacks that `wanted` accepts. With `full` they have all frames, otherwise the
    /// user's own frames. A stack without own frames has all frames from its [site](Stacks::site)
    /// outwards. When a stack is cut, it keeps this many of its `outermost` frames.
    pub(super) fn of(
        stacks: &Stacks,
        full: bool,
        outermost: u32,
        wanted: impl Fn(StackId) -> bool,
    ) -> ShownStacks {
        let mut builder = ShownStacksBuilder { nodes: Vec::new(), ids: HashMap::default(), outermost };
        let wanted: Vec<StackId> =
            (0..stacks.len() as u32).map(StackId).filter(|stack| wanted(*stack)).collect();
        let on_path = needed(stacks, &wanted);
        let mut by_stack = vec![EMPTY; stacks.len()];
        // The id of a caller is smaller, so it is known already.
        for at in on_path.iter().enumerate().filter(|(_, needed)| **needed).map(|(at, _)| at) {
            let node = StackId(at as u32);
            let caller = stacks.parent(node).map_or(EMPTY, |parent| by_stack[parent.0 as usize]);
            let shown =
                stacks.frames_of_node(node).iter().filter(|id| full || !stacks.frame(**id).is_runtime);
            by_stack[at] = shown.rev().fold(caller, |caller, frame| builder.intern(caller, *frame));
        }
        // This must come after the loop above. That loop adds the own frames of a node to the shown
        // stack of its caller. If the caller already had the runtime frames that are added here,
        // they would become part of the stacks of its callees.
        let without_own: Vec<StackId> =
            wanted.into_iter().filter(|at| by_stack[at.0 as usize] == EMPTY).collect();
        if !without_own.is_empty() {
            let whole = builder.whole_stacks(stacks, &without_own);
            for at in without_own {
                let mut id = whole[at.0 as usize];
                let site = stacks.site(at);
                while let Some(node) = builder.node(id).filter(|node| Some(node.frame) != site) {
                    id = node.caller;
                }
                by_stack[at.0 as usize] = id;
            }
        }
        ShownStacks { nodes: builder.nodes, by_stack }
    }

    /// Returns the shown stack of a wanted stack; the empty stack for any other stack.
    pub(super) fn stack(&self, stack: StackId) -> ShownStackId {
        self.by_stack.get(stack.0 as usize).copied().unwrap_or(EMPTY)
    }

    /// Returns the frames of a shown stack, innermost first.
    pub(super) fn frames(&self, id: ShownStackId) -> impl Iterator<Item = FrameId> {
        let mut next = id;
        std::iter::from_fn(move || {
            let node = self.node(next)?;
            next = node.caller;
            Some(node.frame)
        })
    }

    /// Returns the frames of a shown stack. If there are too many, returns the given number of
    /// `innermost` frames, and the outermost part.
    pub(super) fn cut(&self, id: ShownStackId, innermost: usize) -> CutStack {
        let Some(node) = self.node(id) else { return CutStack::default() };
        let outer = self.node(node.outer).map_or(0, |outer| outer.frames as usize);
        match (node.frames as usize).checked_sub(innermost + outer) {
            None | Some(0) => CutStack { inner: self.frames(id).collect(), omitted: 0, outer: Vec::new() },
            Some(omitted) => CutStack {
                inner: self.frames(id).take(innermost).collect(),
                omitted,
                outer: self.frames(node.outer).collect(),
            },
        }
    }

    fn node(&self, id: ShownStackId) -> Option<&ShownNode> {
        self.nodes.get((id.0 as usize).checked_sub(1)?)
    }
}

/// Returns for each node whether it is on one of these stacks.
fn needed(stacks: &Stacks, wanted: &[StackId]) -> Vec<bool> {
    let mut needed = vec![false; stacks.len()];
    wanted.iter().for_each(|stack| needed[stack.0 as usize] = true);
    for at in (0..stacks.len()).rev() {
        if needed[at]
            && let Some(parent) = stacks.parent(StackId(at as u32))
        {
            needed[parent.0 as usize] = true;
        }
    }
    needed
}

struct ShownStacksBuilder {
    nodes: Vec<ShownNode>,
    ids: HashMap<(ShownStackId, FrameId), ShownStackId>,
    outermost: u32,
}

impl ShownStacksBuilder {
    /// Makes these stacks with all of their frames. Returns the id for each node that is on one.
    fn whole_stacks(&mut self, stacks: &Stacks, wanted: &[StackId]) -> Vec<ShownStackId> {
        let mut whole = vec![EMPTY; stacks.len()];
        let on_path = needed(stacks, wanted);
        for at in on_path.iter().enumerate().filter(|(_, needed)| **needed).map(|(at, _)| at) {
            let node = StackId(at as u32);
            let caller = stacks.parent(node).map_or(EMPTY, |parent| whole[parent.0 as usize]);
            let frames = stacks.frames_of_node(node).iter().rev();
            whole[at] = frames.fold(caller, |caller, frame| self.intern(caller, *frame));
        }
        whole
    }

    fn node(&self, id: ShownStackId) -> Option<&ShownNode> {
        self.nodes.get((id.0 as usize).checked_sub(1)?)
    }

    /// Returns the id of the stack that has `frame` inside of the stack `caller`.
    fn intern(&mut self, caller: ShownStackId, frame: FrameId) -> ShownStackId {
        let next = ShownStackId(self.nodes.len() as u32 + 1);
        let id = *self.ids.entry((caller, frame)).or_insert(next);
        if id == next {
            let outside = (caller.0 as usize).checked_sub(1).map(|at| self.nodes[at]);
            let frames = outside.map_or(0, |outside| outside.frames) + 1;
            let outer = outside.filter(|_| frames > self.outermost).map_or(next, |outside| outside.outer);
            self.nodes.push(ShownNode { caller, frame, frames, outer });
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::stacks::NamedFrame;

    fn frame(function: &str, is_runtime: bool) -> NamedFrame {
        NamedFrame {
            function: function.into(),
            file: None,
            line: None,
            is_inlined: false,
            is_runtime,
            module: "app".into(),
        }
    }

    #[test]
    fn stacks_that_differ_in_the_runtime_alone_are_shown_alike() {
        let own = || frame("main", false);
        let only_runtime = vec![frame("alloc::alloc", true), frame("std::rt", true)];
        let stacks = Stacks::from_frames(&[
            vec![frame("alloc::alloc", true), own()],
            vec![own(), frame("std::rt", true)],
            only_runtime,
            vec![own(), own()],
        ]);
        let id = |at: u32| StackId(StackId::FIRST.0 + at);
        let names = |shown: &ShownStacks, at| {
            shown
                .frames(shown.stack(id(at)))
                .map(|id| stacks.frame(id).function.to_string())
                .collect::<Vec<_>>()
        };
        let shown = ShownStacks::of(&stacks, false, 10, |_| true);
        assert_eq!(shown.stack(id(0)), shown.stack(id(1)));
        assert_eq!(names(&shown, 2), ["std::rt"], "from its site outwards");
        assert_eq!(names(&shown, 3), ["main", "main"]);
        assert_eq!(shown.cut(shown.stack(StackId::NONE), 5), CutStack::default());
        let full = ShownStacks::of(&stacks, true, 10, |_| true);
        assert_eq!(names(&full, 0), ["alloc::alloc", "main"]);
        assert_ne!(full.stack(id(0)), full.stack(id(1)));
    }

    #[test]
    fn a_stack_that_is_too_long_keeps_both_ends() {
        let frames: Vec<NamedFrame> = (0..10).map(|at| frame(&at.to_string(), false)).collect();
        let stacks = Stacks::from_frames(&[frames.clone(), frames[..9].to_vec()]);
        let shown = ShownStacks::of(&stacks, false, 3, |_| true);
        let cut = |at: u32, innermost| {
            let CutStack { inner, omitted, outer } =
                shown.cut(shown.stack(StackId(StackId::FIRST.0 + at)), innermost);
            let names = |ids: Vec<FrameId>| {
                ids.into_iter().map(|id| stacks.frame(id).function.to_string()).collect::<Vec<_>>().concat()
            };
            (names(inner), omitted, names(outer))
        };
        assert_eq!(cut(0, 7), ("0123456789".to_owned(), 0, String::new()));
        assert_eq!(cut(0, 6), ("012345".to_owned(), 1, "789".to_owned()));
        assert_eq!(cut(1, 2), ("01".to_owned(), 4, "678".to_owned()));
    }

    /// A stack that was cut off may consist of one function of the runtime, a million times.
    #[test]
    fn stacks_of_a_deep_recursion_of_the_runtime_share_their_frames() {
        const LEVELS: u32 = 300_000;
        let level = |at: u32| {
            let parent = if at == 0 { StackId::TRUNCATED } else { StackId(StackId::FIRST.0 + at - 1) };
            (parent, vec![frame("core::ptr::drop_in_place", true)])
        };
        let stacks = Stacks::from_tree((0..LEVELS).map(level));
        let shown = ShownStacks::of(&stacks, false, 3, |stack| stack >= StackId::FIRST);
        assert_eq!(shown.nodes.len(), LEVELS as usize);
        let CutStack { inner, omitted, outer } =
            shown.cut(shown.stack(StackId(StackId::FIRST.0 + LEVELS - 1)), 5);
        assert_eq!((inner.len(), omitted, outer.len()), (5, LEVELS as usize - 8, 3));
    }
}
