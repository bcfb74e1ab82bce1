//! The source text of one function. In: the function's name, file and lines, and the sources. Out:
//! the text of lines, and a note for people if the text is missing or may be wrong.

use std::sync::Arc;

use crate::source::{FunctionExtent, SourceText, Sources};

/// The source text of a function.
pub(super) struct FunctionSource {
    /// `None` if the function has no known file, or if the file at hand is another file.
    file: Option<Arc<SourceText>>,
    /// Why the text is missing or may be wrong; `None` if there is no doubt about it.
    pub(super) note: Option<String>,
}

impl FunctionSource {
    /// Looks up the file of the function with this short name. Code of the function is known at the
    /// lines from `first` to `last`.
    pub(super) fn of(
        path: Option<&str>,
        sources: &dyn Sources,
        name: &str,
        (first, last): (u32, u32),
    ) -> FunctionSource {
        let file = path.map(|path| sources.file(path));
        let note = match file.as_deref() {
            None => Some("no line tables: build with debug info to see lines"),
            Some(file) if file.is_missing() => Some("the source file is not here"),
            Some(file) if file.is_another_file(name, first, last) => {
                let note = "a file of this name is here, but these lines of it are something else";
                return FunctionSource { file: None, note: Some(note.to_owned()) };
            }
            Some(file) if file.is_newer_than_program() => {
                Some("the source file was changed after the program was built; lines may have moved")
            }
            Some(file) if file.is_shorter_than(last) => {
                Some("the source file is shorter than the one that the program was built from")
            }
            Some(_) => None,
        };
        FunctionSource { file, note: note.map(str::to_owned) }
    }

    /// Returns the text of a line.
    pub(super) fn text(&self, line: u32) -> Option<String> {
        self.file.as_ref()?.line(line).map(str::to_owned)
    }

    /// Returns the lines of the function in its file: see [`SourceText::function`].
    pub(super) fn extent(&self, name: &str, first: u32, last: u32) -> Option<&FunctionExtent> {
        self.file.as_ref()?.function(name, first, last)
    }
}
