//! The innermost call of each function on every stack.
//!
//! In: the call tree, and for every frame the index of its function. Out: for each node the
//! functions on its stack, each with its innermost call.
//!
//! PERF: the tree is traversed once, and the open calls are kept meanwhile. To follow each stack by
//! itself would take time quadratic in the depth of a recursion, because each of its stacks repeats
//! all frames of the stack before it.

use alloc_dump::layout::StackId;

use crate::names::stacks::{FrameId, Stacks, TreeStep};

/// Visits every stack of the tree. `count` is the number of functions. `functions` has for every
/// frame the index of its function; `None` for a frame of no function. Only frames that `is_shown`
/// accepts are callers.
pub(super) fn on_every_stack(
    stacks: &Stacks,
    (count, functions): (usize, &[Option<usize>]),
    is_shown: impl Fn(FrameId) -> bool,
    mut visit: impl FnMut(StackId, &FunctionsOnStack),
) {
    let mut running = FunctionsOnStack::new(count);
    stacks.traverse(|step| match step {
        TreeStep::Enter(node) => {
            for &frame in stacks.frames_of_node(node).iter().rev() {
                running.enter(frame, functions[frame.index()], is_shown(frame));
            }
            visit(node, &running);
        }
        TreeStep::Leave(node) => {
            for &frame in stacks.frames_of_node(node) {
                running.leave(functions[frame.index()], is_shown(frame));
            }
        }
    });
}

/// The functions on a stack, with their calls.
#[derive(Debug)]
pub(super) struct FunctionsOnStack {
    /// The open calls of each function, outermost first.
    calls: Vec<Vec<OpenCall>>,
    /// Functions that have an open call, in the order of their outermost calls.
    functions: Vec<usize>,
    /// The frames that can be callers, outermost first.
    shown: Vec<FrameId>,
}

/// One call of a function that has not returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenCall {
    /// Frame of the function.
    pub(super) frame: FrameId,
    /// The next frame outwards that is shown.
    pub(super) caller: Option<FrameId>,
}

impl FunctionsOnStack {
    fn new(functions: usize) -> FunctionsOnStack {
        FunctionsOnStack { calls: vec![Vec::new(); functions], functions: Vec::new(), shown: Vec::new() }
    }

    /// Adds the next frame inwards, which may belong to one of the functions.
    fn enter(&mut self, frame: FrameId, function: Option<usize>, is_shown: bool) {
        if let Some(function) = function {
            let calls = &mut self.calls[function];
            if calls.is_empty() {
                self.functions.push(function);
            }
            calls.push(OpenCall { frame, caller: self.shown.last().copied() });
        }
        if is_shown {
            self.shown.push(frame);
        }
    }

    /// Removes the innermost frame.
    fn leave(&mut self, function: Option<usize>, is_shown: bool) {
        if is_shown {
            self.shown.pop();
        }
        if let Some(function) = function {
            let calls = &mut self.calls[function];
            calls.pop();
            if calls.is_empty() {
                self.functions.pop();
            }
        }
    }

    /// Returns the innermost open call of each function that has one.
    pub(super) fn innermost(&self) -> impl Iterator<Item = (usize, OpenCall)> {
        self.functions.iter().filter_map(|&function| Some((function, *self.calls[function].last()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::code_owner::CodeOwner;
    use crate::names::stacks::NamedFrame;

    #[test]
    fn each_function_stands_at_its_innermost_call() {
        let frame = |function: &str, line, is_runtime| NamedFrame {
            function: function.into(),
            file: None,
            line: Some(line),
            is_inlined: false,
            owner: CodeOwner::runtime_if(is_runtime),
            module: "app".into(),
        };
        // Innermost first: b calls a by way of the runtime; a is running further out as well.
        let stack =
            vec![frame("a", 5, false), frame("rt", 1, true), frame("b", 2, false), frame("a", 9, false)];
        let stacks = Stacks::from_frames(&[stack, vec![frame("b", 3, false)]]);
        let names = ["a", "b"];
        let functions: Vec<Option<usize>> = stacks
            .all_frames()
            .map(|frame| names.iter().position(|name| *name == &*frame.function))
            .collect();
        let mut seen = Vec::new();
        on_every_stack(
            &stacks,
            (names.len(), &functions),
            |id| !stacks.frame(id).is_runtime(),
            |stack, running| {
                let line = |id| stacks.frame(id).line.unwrap_or(0);
                let found = running.innermost().map(|(function, OpenCall { frame, caller })| {
                    (names[function], line(frame), caller.map(line))
                });
                seen.push((stack.0 - StackId::FIRST.0, found.collect::<Vec<_>>()));
            },
        );
        assert_eq!(
            seen,
            [(0, vec![("a", 5, Some(2)), ("b", 2, Some(9))]), (1, vec![("b", 3, None)])],
            "b is called by a at its line 9, and calls it at its line 2"
        );
    }
}
