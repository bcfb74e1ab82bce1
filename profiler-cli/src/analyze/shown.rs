//! Stacks as they are shown: without frames of the runtime, unless somebody wants them. In: the call tree. Out: a number for
//! each stack, the same for those that are shown alike, and its frames.
//!
//! They are a tree again. Made one by one they would take time and memory without bound: of a deep recursion each stack has all
//! frames of the one before.

use alloc_dump::layout::StackId;
use foldhash::HashMap;

use crate::names::stacks::{FrameId, Stacks};

/// A stack as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShownId(u32);

/// All stacks that somebody wants to see.
#[derive(Debug)]
pub(super) struct Shown {
    nodes: Vec<Node>,
    by_stack: Vec<ShownId>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    caller: ShownId,
    /// Its innermost one.
    frame: FrameId,
    frames: u32,
    /// The outermost part of it that is shown if it is cut.
    outer: ShownId,
}

/// The frames of a stack, innermost first, without those in the middle if they are too many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) inner: Vec<FrameId>,
    /// Frames that are left out behind the inner ones.
    pub(super) omitted: usize,
    /// Empty if none are left out.
    pub(super) outer: Vec<FrameId>,
}

/// No frame at all.
const EMPTY: ShownId = ShownId(0);

impl Shown {
    /// Those of the stacks that are `wanted`: with all frames if `full`, else with the user's own; if there are none, with all from the
    /// [site](Stacks::site) outwards. When cut they keep so many of their `outermost` frames.
    pub(super) fn of(stacks: &Stacks, full: bool, outermost: u32, wanted: impl Fn(StackId) -> bool) -> Shown {
        let mut builder = Builder { nodes: Vec::new(), numbers: HashMap::default(), outermost };
        let (wanted, needed) = needed(stacks, wanted);
        let mut by_stack = vec![EMPTY; stacks.len()];
        // A caller's number is smaller.
        for at in needed.iter().enumerate().filter(|(_, needed)| **needed).map(|(at, _)| at) {
            let node = StackId(at as u32);
            let caller = stacks.parent(node).map_or(EMPTY, |parent| by_stack[parent.0 as usize]);
            let own = stacks.frames_of_node(node).iter().filter(|id| full || !stacks.frame(**id).runtime);
            by_stack[at] = own.rev().fold(caller, |caller, frame| builder.number(caller, *frame));
        }
        // Only now: what is called from there has a caller that is shown, or is shown in the same way.
        for at in wanted {
            if by_stack[at.0 as usize] == EMPTY {
                let site = stacks.site(at);
                let frames: Vec<FrameId> = stacks.frames(at).skip_while(|id| Some(*id) != site).collect();
                by_stack[at.0 as usize] =
                    frames.iter().rev().fold(EMPTY, |caller, frame| builder.number(caller, *frame));
            }
        }
        Shown { nodes: builder.nodes, by_stack }
    }

    /// A stack that was wanted, as it is shown.
    pub(super) fn stack(&self, stack: StackId) -> ShownId {
        self.by_stack.get(stack.0 as usize).copied().unwrap_or(EMPTY)
    }

    /// Its frames, innermost first.
    pub(super) fn frames(&self, id: ShownId) -> impl Iterator<Item = FrameId> {
        let mut next = id;
        std::iter::from_fn(move || {
            let node = self.node(next)?;
            next = node.caller;
            Some(node.frame)
        })
    }

    /// Its frames: no more than so many of the `innermost`, and the outermost.
    pub(super) fn cut(&self, id: ShownId, innermost: usize) -> Cut {
        let Some(node) = self.node(id) else { return Cut::default() };
        let outer = self.node(node.outer).map_or(0, |outer| outer.frames as usize);
        match (node.frames as usize).checked_sub(innermost + outer) {
            None | Some(0) => Cut { inner: self.frames(id).collect(), omitted: 0, outer: Vec::new() },
            Some(omitted) => Cut {
                inner: self.frames(id).take(innermost).collect(),
                omitted,
                outer: self.frames(node.outer).collect(),
            },
        }
    }

    fn node(&self, id: ShownId) -> Option<&Node> {
        self.nodes.get((id.0 as usize).checked_sub(1)?)
    }
}

/// The stacks that are wanted, and for each node whether it is on one of them.
fn needed(stacks: &Stacks, wanted: impl Fn(StackId) -> bool) -> (Vec<StackId>, Vec<bool>) {
    let mut needed = vec![false; stacks.len()];
    let wanted: Vec<StackId> = (0..stacks.len() as u32).map(StackId).filter(|stack| wanted(*stack)).collect();
    wanted.iter().for_each(|stack| needed[stack.0 as usize] = true);
    for at in (0..stacks.len()).rev() {
        if needed[at]
            && let Some(parent) = stacks.parent(StackId(at as u32))
        {
            needed[parent.0 as usize] = true;
        }
    }
    (wanted, needed)
}

struct Builder {
    nodes: Vec<Node>,
    numbers: HashMap<(ShownId, FrameId), ShownId>,
    outermost: u32,
}

impl Builder {
    fn number(&mut self, caller: ShownId, frame: FrameId) -> ShownId {
        let next = ShownId(self.nodes.len() as u32 + 1);
        let number = *self.numbers.entry((caller, frame)).or_insert(next);
        if number == next {
            let outside = (caller.0 as usize).checked_sub(1).map(|at| self.nodes[at]);
            let frames = outside.map_or(0, |outside| outside.frames) + 1;
            let outer = outside.filter(|_| frames > self.outermost).map_or(next, |outside| outside.outer);
            self.nodes.push(Node { caller, frame, frames, outer });
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::stacks::NamedFrame;

    fn frame(function: &str, runtime: bool) -> NamedFrame {
        NamedFrame {
            function: function.into(),
            file: None,
            line: None,
            inlined: false,
            runtime,
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
        let names = |shown: &Shown, at| {
            shown
                .frames(shown.stack(id(at)))
                .map(|id| stacks.frame(id).function.to_string())
                .collect::<Vec<_>>()
        };
        let shown = Shown::of(&stacks, false, 10, |_| true);
        assert_eq!(shown.stack(id(0)), shown.stack(id(1)));
        assert_eq!(names(&shown, 2), ["std::rt"], "from its site outwards");
        assert_eq!(names(&shown, 3), ["main", "main"]);
        assert_eq!(shown.cut(shown.stack(StackId::NONE), 5), Cut::default());
        let full = Shown::of(&stacks, true, 10, |_| true);
        assert_eq!(names(&full, 0), ["alloc::alloc", "main"]);
        assert_ne!(full.stack(id(0)), full.stack(id(1)));
    }

    #[test]
    fn what_is_too_long_keeps_both_ends() {
        let frames: Vec<NamedFrame> = (0..10).map(|at| frame(&at.to_string(), false)).collect();
        let stacks = Stacks::from_frames(&[frames.clone(), frames[..9].to_vec()]);
        let shown = Shown::of(&stacks, false, 3, |_| true);
        let cut = |at: u32, innermost| {
            let Cut { inner, omitted, outer } =
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
}
