//! The distinct frames of a report. In: frames as [`shown`](super::shown) has them. Out: one
//! [`StackFrame`] for each, and its index.
//!
//! PERF: stacks refer to frames by index, in memory and in JSON. With the names repeated in every
//! stack, a program with a million live stacks gave gigabytes of JSON.

use foldhash::HashMap;
use serde::Serialize;

use super::shown::{ShownFrame, ShownStacks};
use super::source_paths::SourcePaths;
use crate::names::stacks::Stacks;

/// A frame of a reported stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StackFrame {
    /// Name of the function. Of folded frames the function that own code has called, or else the
    /// names of their crates.
    pub function: String,
    /// Source file of the function. Null if it is not known.
    pub file: Option<String>,
    /// Line of the call, or of the allocation in the innermost frame. Null if it is not known.
    pub line: Option<u32>,
    /// Whether the code of the function was inlined into the next frame outwards.
    pub inlined: bool,
    /// Whether the function is the user's own code.
    pub own: bool,
    /// File name of the module that has the code; empty for folded frames without a function.
    pub module: String,
    /// The crates of folded frames, from the outermost frame inwards. Empty for a single frame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub folded_crates: Vec<String>,
}

/// Frames by index, without duplicates.
pub(super) struct FrameTable<'a> {
    stacks: &'a Stacks,
    shown: &'a ShownStacks,
    paths: &'a SourcePaths,
    frames: Vec<StackFrame>,
    indices: HashMap<ShownFrame, u32>,
}

impl<'a> FrameTable<'a> {
    pub(super) fn new(stacks: &'a Stacks, shown: &'a ShownStacks, paths: &'a SourcePaths) -> Self {
        FrameTable { stacks, shown, paths, frames: Vec::new(), indices: HashMap::default() }
    }

    /// Returns the stacks that the frames belong to.
    pub(super) fn shown(&self) -> &'a ShownStacks {
        self.shown
    }

    /// Returns the index of a frame, which becomes part of the table.
    pub(super) fn index_of(&mut self, frame: ShownFrame) -> u32 {
        if let Some(index) = self.indices.get(&frame) {
            return *index;
        }
        let index = self.frames.len() as u32;
        self.frames.push(self.describe(frame));
        self.indices.insert(frame, index);
        index
    }

    /// Returns all frames that were asked for, by their indices.
    pub(super) fn into_frames(self) -> Vec<StackFrame> {
        self.frames
    }

    fn describe(&self, frame: ShownFrame) -> StackFrame {
        let (id, folded_crates) = match frame {
            ShownFrame::Single(id) => (Some(id), Vec::new()),
            ShownFrame::Folded(index) => {
                let fold = self.shown.fold(index);
                (fold.entry, self.shown.crates_of(fold))
            }
        };
        let Some(frame) = id.map(|id| self.stacks.frame(id)) else {
            let function = folded_crates.join(", ");
            let module = String::new();
            return StackFrame {
                function,
                file: None,
                line: None,
                inlined: false,
                own: false,
                module,
                folded_crates,
            };
        };
        StackFrame {
            function: frame.function.to_string(),
            file: frame.file.as_deref().map(|file| self.paths.shown(file).to_owned()),
            line: frame.line,
            inlined: frame.is_inlined,
            own: frame.is_own(),
            module: frame.module.to_string(),
            folded_crates,
        }
    }
}
