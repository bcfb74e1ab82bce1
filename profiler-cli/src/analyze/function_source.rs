//! The source text of one function. In: the function's name, file and lines, and the sources. Out:
//! the text of lines, and a note for people if the text is missing or may be wrong.

use std::sync::Arc;

use crate::source::{FunctionExtent, SourceText, Sources};

/// The source text of a function.
pub(super) struct FunctionSource {
    /// `None` if the function has no known file, or if the file at hand is another file.
    file: Option<Arc<SourceText>>,
    /// Short name of the function.
    name: String,
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
                return FunctionSource { file: None, name: name.to_owned(), note: Some(note.to_owned()) };
            }
            Some(file) if file.has_moved(name, first, last) => {
                let note = "the source file was changed after the program was built, and these lines are of another function now";
                return FunctionSource { file: None, name: name.to_owned(), note: Some(note.to_owned()) };
            }
            Some(file) if file.is_newer_than_program() => {
                Some("the source file was changed after the program was built; lines may have moved")
            }
            Some(file) if file.is_shorter_than(last) => {
                Some("the source file is shorter than the one that the program was built from")
            }
            Some(_) => None,
        };
        FunctionSource { file, name: name.to_owned(), note: note.map(str::to_owned) }
    }

    /// Returns the text of a line. A very long line, such as one of generated code, is cut: its
    /// text begins at the definition of the function, if the line has it.
    pub(super) fn text(&self, line: u32) -> Option<String> {
        self.file.as_ref()?.line(line).map(|text| shortened(text, &self.name))
    }

    /// Returns the lines of the function in its file: see [`SourceText::function`].
    pub(super) fn extent(&self, name: &str, first: u32, last: u32) -> Option<&FunctionExtent> {
        self.file.as_ref()?.function(name, first, last)
    }
}

/// The most characters of a source line.
const MAX_LINE: usize = 500;

fn shortened(line: &str, function: &str) -> String {
    if line.chars().nth(MAX_LINE).is_none() {
        return line.to_owned();
    }
    let definition = format!("fn {function}");
    let is_whole = |(at, _): &(usize, &str)| {
        !line[at + definition.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
    };
    let start = line.match_indices(&definition).find(is_whole).map_or(0, |(at, _)| at);
    let before = if start > 0 { "… " } else { "" };
    let mut rest = line[start..].chars();
    let part: String = rest.by_ref().take(MAX_LINE).collect();
    let after = if rest.next().is_some() { " …" } else { "" };
    format!("{before}{part}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_where_its_function_begins() {
        let body = "x;".repeat(MAX_LINE);
        let line = format!("fn added() {{ {body} }} fn add() {{ {body} }} fn last() {{}}");
        let add = shortened(&line, "add");
        assert!(add.starts_with("… fn add() { x;x;") && add.ends_with("x …"), "{add}");
        assert_eq!(add.chars().count(), MAX_LINE + 4);
        assert_eq!(shortened(&line, "last"), "… fn last() {}");
        assert!(shortened(&line, "elsewhere").starts_with("fn added() { x;"));
        let just = "é".repeat(MAX_LINE);
        assert_eq!(shortened(&just, "add"), just);
    }
}
