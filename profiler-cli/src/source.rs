//! Source text as analyses read it: the lines of a file, and the first and last lines of its
//! functions.
//!
//! In: text that the caller has read ([`crate::command::sources`] reads files). Out:
//! [`SourceText`]. Nothing here touches a file. No text is trusted: its nesting is bounded. A text
//! that does not parse has lines but no functions.

mod functions;
mod search;

use std::sync::Arc;

use foldhash::HashMap;

pub use functions::FunctionExtent;
use functions::{LineRange, WrittenFunctions};
pub(crate) use search::SourceCandidate;
pub use search::{PathMap, SourceSearch};

/// The source texts that an analysis may ask for. The caller of the analysis provides them.
pub trait Sources {
    /// Returns the file that was compiled at `path`, or [`SourceText::missing`] if there is none.
    fn file(&self, path: &str) -> Arc<SourceText>;
}

/// Source texts that are already in memory. The default holds no file.
#[derive(Debug, Default)]
pub struct SourcesInMemory {
    files: HashMap<String, Arc<SourceText>>,
}

impl SourcesInMemory {
    /// Parses each text as the file at its path. The paths need not exist.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> SourcesInMemory {
        let files =
            texts.into_iter().map(|(path, text)| (path.to_owned(), Arc::new(SourceText::parse(text))));
        SourcesInMemory { files: files.collect() }
    }
}

impl Sources for SourcesInMemory {
    fn file(&self, path: &str) -> Arc<SourceText> {
        self.files.get(path).map_or_else(|| Arc::new(SourceText::missing()), Arc::clone)
    }
}

/// The text of one source file, and the facts about its origin.
#[derive(Debug, Default)]
pub struct SourceText {
    lines: Vec<String>,
    functions: Vec<FunctionExtent>,
    /// Items from which the compiler may generate functions that are not in the text: macros,
    /// attributes, and types, which may derive traits.
    generators: Vec<LineRange>,
    is_missing: bool,
    is_guess: bool,
    is_newer_than_program: bool,
}

impl SourceText {
    /// Parses a text. The caller has bounded its length.
    pub fn parse(text: &str) -> SourceText {
        let WrittenFunctions { functions, generators } = WrittenFunctions::in_text(text);
        SourceText {
            lines: text.lines().map(str::to_owned).collect(),
            functions,
            generators,
            ..SourceText::default()
        }
    }

    /// Returns the text of a file that could not be read. It has no lines.
    pub fn missing() -> SourceText {
        SourceText { is_missing: true, ..SourceText::default() }
    }

    /// Records whether the file was found by the end of its path only. Then it may be another file
    /// of the same name.
    pub fn with_guess(self, is_guess: bool) -> SourceText {
        SourceText { is_guess, ..self }
    }

    /// Records whether the file was changed after the program was built. Then its lines may have
    /// moved.
    pub fn with_newer_than_program(self, is_newer_than_program: bool) -> SourceText {
        SourceText { is_newer_than_program, ..self }
    }

    /// Returns the text of a line; the first line is 1.
    pub fn line(&self, number: u32) -> Option<&str> {
        self.lines.get((number as usize).checked_sub(1)?).map(String::as_str)
    }

    /// Whether the file could not be read.
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Whether the file was changed after the program was built.
    pub fn is_newer_than_program(&self) -> bool {
        self.is_newer_than_program
    }

    /// Whether the file ends before this line.
    pub fn is_shorter_than(&self, line: u32) -> bool {
        self.lines.len() < line as usize
    }

    /// Whether the file was changed after the program was built, and these lines are in a function
    /// of another name now.
    pub fn has_moved(&self, name: &str, first: u32, last: u32) -> bool {
        let around = self.function(name, first, last).is_some_and(|function| function.name != name);
        let lines = LineRange { first, last };
        let is_generated = self.generators.iter().any(|generator| generator.contains(lines));
        self.is_newer_than_program && around && !is_generated
    }

    /// Whether this file looks like another file than the one that a function was compiled from.
    /// The function has this short name, and code at the lines from `first` to `last`; 0 means that
    /// no line is known.
    ///
    /// A file that was found at the path where it was compiled is never another file. A file that
    /// was found by the end of its path is another file if it ends before `last`. It is also
    /// another file if the lines are neither in a function of that name nor in an item that
    /// functions are generated from. This second rule needs known lines, and at least one known
    /// function in the file.
    pub fn is_another_file(&self, name: &str, first: u32, last: u32) -> bool {
        let lines = LineRange { first, last };
        let has_function = || {
            let named = |function: &&FunctionExtent| function.name == name;
            self.functions.iter().filter(named).any(|function| function.with_attributes().contains(lines))
                || self.generators.iter().any(|generator| generator.contains(lines))
        };
        let is_unknown = last == 0 || self.functions.is_empty();
        self.is_guess && (self.is_shorter_than(last) || !is_unknown && !has_function())
    }

    /// Returns the function that contains all lines from `first` to `last`. A function of this
    /// short name is preferred to one of another name, then a shorter function to a longer one.
    pub fn function(&self, name: &str, first: u32, last: u32) -> Option<&FunctionExtent> {
        let around = self.functions.iter().filter(|function| function.start <= first && last <= function.end);
        around.min_by_key(|function| (function.name != name, function.end - function.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
use std::fmt;

impl A {
    /// Docs.
    #[inline]
    pub(crate) fn outer(&self) -> u8 {
        fn inner() -> u8 {
            7
        }
        let f = || {
            inner()
        };
        f()
    }
}

trait T {
    fn given() {
        let _ = 1;
    }
}
";

    #[test]
    fn functions_reach_from_signature_to_brace() {
        let file = SourceText::parse(TEXT);
        let extent =
            |name, first, last| file.function(name, first, last).map(|f| (f.name.as_str(), f.start, f.end));
        assert_eq!(extent("outer", 8, 8), Some(("outer", 6, 14)));
        assert_eq!(extent("inner", 8, 8), Some(("inner", 7, 9)));
        assert_eq!(extent("{closure}", 11, 13), Some(("outer", 6, 14)));
        assert_eq!(extent("given", 19, 19), Some(("given", 18, 20)));
        assert_eq!(extent("outer", 1, 8), None);
        assert_eq!(file.line(8), Some("            7"));
        assert_eq!((file.line(0), file.line(99)), (None, None));
    }

    #[test]
    fn a_guessed_file_must_have_the_function() {
        let text = "fn main() {\n    run();\n}\n";
        let guess = SourceText::parse(text).with_guess(true);
        assert!(!guess.is_another_file("main", 2, 2));
        assert!(guess.is_another_file("main", 2, 4) && guess.is_another_file("run", 2, 2));
        assert!(!guess.is_another_file("init", 0, 0), "the function has no known line");
        let own = SourceText::parse(text);
        assert!(!own.is_another_file("run", 2, 2) && own.is_shorter_than(4) && !own.is_shorter_than(3));
    }

    #[test]
    fn text_has_moved_if_another_function_is_at_the_lines_now() {
        let newer = SourceText::parse(TEXT).with_newer_than_program(true);
        assert!(newer.has_moved("given", 13, 13), "the line is in `outer` now");
        assert!(!newer.has_moved("outer", 13, 13) && !newer.has_moved("given", 1, 1));
        assert!(!SourceText::parse(TEXT).has_moved("given", 13, 13), "the file is as old as the program");
        let derived = SourceText::parse("#[derive(Clone)]\nstruct A;\n").with_newer_than_program(true);
        assert!(!derived.has_moved("clone", 1, 1));
    }

    #[test]
    fn generated_functions_are_in_the_item_that_generates_them() {
        let text = "#[derive(Clone)]\nstruct A {\n    a: String,\n}\nmake! {\n    f\n}\nimpl A {\n    #[profile]\n    fn b() {\n        \
                    vec![1];\n    }\n}\n";
        let file = SourceText::parse(text).with_guess(true);
        // Derived, made by a macro, and by an attribute.
        for (name, first, last) in
            [("clone", 1, 1), ("clone", 1, 3), ("f", 6, 6), ("b", 9, 11), ("profile", 9, 9)]
        {
            assert!(!file.is_another_file(name, first, last), "{name} {first} {last}");
        }
        for (name, first, last) in [("other", 10, 12), ("b", 8, 11), ("f", 8, 8), ("clone", 1, 6)] {
            assert!(file.is_another_file(name, first, last), "{name} {first} {last}");
        }
        let c = SourceText::parse("int main() {\n}\n").with_guess(true);
        assert!(!c.is_another_file("main", 1, 2) && c.is_another_file("main", 2, 3));
    }

    #[test]
    fn chains_do_not_overflow_the_parser() {
        for (link, links) in [("!\n", 20_000), ("&\n", 20_000), (".b()\n", 150_000), ("+ 1\n", 150_000)] {
            let chain = link.repeat(links);
            let text = match link.starts_with(['!', '&']) {
                true => format!("fn f() {{ {chain}x; }}"),
                false => format!("fn f() {{ x{chain}; }}"),
            };
            let file = SourceText::parse(&text);
            assert!(file.functions.len() <= 1 && file.line(1).is_some());
        }
    }

    #[test]
    fn a_text_made_to_overflow_the_parser_has_lines_only() {
        let text = format!("fn f() {{ {} }}", "(".repeat(100_000));
        let file = SourceText::parse(&text);
        assert!(file.functions.is_empty() && file.line(1).is_some());
    }

    #[test]
    fn a_path_without_text_is_missing() {
        let sources = SourcesInMemory::from_texts([("/a.rs", "fn a() {}\n")]);
        assert!(!sources.file("/a.rs").is_missing() && sources.file("/b.rs").is_missing());
    }
}
