//! The innermost activation of each function on every stack. In: the call tree and which frames are of which function. Out:
//! for each node the functions on its stack.
//!
//! The tree is gone through once, and what is running is kept on the way: a stack of a deep recursion has few functions and many
//! activations, and each of its stacks has all frames of the one before.

use alloc_dump::layout::StackId;

use crate::names::stacks::{FrameId, Stacks, TreeStep};

/// Goes to every stack of the tree. Of `functions`, the first says how many there are, the second for every frame of which
/// it is; `is_own` says which frames are the user's own, among which callers are looked for.
pub(super) fn on_every_stack(
    stacks: &Stacks,
    (count, functions): (usize, &[Option<usize>]),
    is_own: impl Fn(FrameId) -> bool,
    mut visit: impl FnMut(StackId, &Running),
) {
    let mut running = Running::new(count);
    stacks.traverse(|step| match step {
        TreeStep::Enter(node) => {
            for &frame in stacks.frames_of_node(node).iter().rev() {
                running.enter(frame, functions[frame.index()], is_own(frame));
            }
            visit(node, &running);
        }
        TreeStep::Leave(node) => {
            for &frame in stacks.frames_of_node(node) {
                running.leave(functions[frame.index()], is_own(frame));
            }
        }
    });
}

/// The functions on a stack.
#[derive(Debug)]
pub(super) struct Running {
    /// Of each function, outermost first.
    activations: Vec<Vec<Activation>>,
    /// Functions that have an activation, by their outermost ones.
    functions: Vec<usize>,
    /// Frames of the user's own.
    own: Vec<FrameId>,
}

/// One call of a function that has not returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activation {
    /// Its frame.
    pub(super) frame: FrameId,
    /// The next frame outwards that is the user's own.
    pub(super) caller: Option<FrameId>,
}

impl Running {
    fn new(functions: usize) -> Running {
        Running { activations: vec![Vec::new(); functions], functions: Vec::new(), own: Vec::new() }
    }

    /// Goes on to the next frame inwards, which may be of one of the functions.
    fn enter(&mut self, frame: FrameId, function: Option<usize>, is_own: bool) {
        if let Some(function) = function {
            let activations = &mut self.activations[function];
            if activations.is_empty() {
                self.functions.push(function);
            }
            activations.push(Activation { frame, caller: self.own.last().copied() });
        }
        if is_own {
            self.own.push(frame);
        }
    }

    /// Goes back from the innermost frame.
    fn leave(&mut self, function: Option<usize>, is_own: bool) {
        if is_own {
            self.own.pop();
        }
        if let Some(function) = function {
            let activations = &mut self.activations[function];
            activations.pop();
            if activations.is_empty() {
                self.functions.pop();
            }
        }
    }

    /// The innermost activation of each function; further out are others of the same.
    pub(super) fn innermost(&self) -> impl Iterator<Item = (usize, Activation)> {
        self.functions.iter().filter_map(|&function| Some((function, *self.activations[function].last()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::stacks::NamedFrame;

    #[test]
    fn each_function_stands_where_its_innermost_activation_does() {
        let frame = |function: &str, line, runtime| NamedFrame {
            function: function.into(),
            file: None,
            line: Some(line),
            inlined: false,
            runtime,
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
            |id| !stacks.frame(id).runtime,
            |stack, running| {
                let line = |id| stacks.frame(id).line.unwrap_or(0);
                let found = running.innermost().map(|(function, Activation { frame, caller })| {
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
