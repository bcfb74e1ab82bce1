//! Source files: their text, and where the functions in them begin and end. In: paths from debug info. Out: lines.
//! Nothing in a file is trusted: size and nesting are bounded, and what does not parse has text but no functions.

mod functions;
mod places;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::HashMap;
use parking_lot::Mutex;

pub use functions::Function;
use functions::Written;
pub use places::{Elsewhere, PathMap};

/// Source files, read when they are first asked for.
#[derive(Debug, Default)]
pub struct Sources {
    files: Mutex<HashMap<String, Arc<SourceFile>>>,
    built_unix_ns: Option<u64>,
    elsewhere: Elsewhere,
}
/// A source file.
#[derive(Debug, Default)]
pub struct SourceFile {
    lines: Vec<String>,
    functions: Vec<Function>,
    /// First and last lines of what functions come from that are not written out: attributes with what they are on if they derive
    /// something, and macros.
    generating: Vec<(u32, u32)>,
    modified: Option<SystemTime>,
    missing: bool,
    guessed: bool,
}

impl Sources {
    /// Sources with these texts, for paths that need not exist.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
        let files =
            texts.into_iter().map(|(path, text)| (path.to_owned(), Arc::new(SourceFile::parse(text, None))));
        Sources { files: Mutex::new(files.collect()), ..Sources::default() }
    }

    /// Sources of a program that was built at this time, in nanoseconds since the Unix epoch.
    pub fn compared_with(built_unix_ns: u64) -> Sources {
        Sources { built_unix_ns: Some(built_unix_ns), ..Sources::default() }
    }

    /// The same, with sources that lie elsewhere.
    pub fn with(self, elsewhere: Elsewhere) -> Sources {
        Sources { elsewhere, ..self }
    }

    /// Whether a file was changed after the program was built, so that its lines may have moved.
    pub fn is_newer_than_program(&self, file: &SourceFile) -> bool {
        let built = self.built_unix_ns.map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
        matches!((file.modified, built), (Some(modified), Some(built)) if modified > built)
    }

    /// The file at `path`; one without lines if it cannot be read.
    pub fn file(&self, path: &str) -> Arc<SourceFile> {
        let mut files = self.files.lock();
        let read = || {
            let mut found = SourceFile { missing: true, ..SourceFile::default() };
            for place in self.elsewhere.places(Path::new(path)) {
                found = SourceFile { guessed: place.guessed, ..SourceFile::read(&place.path) };
                if !found.missing {
                    break;
                }
            }
            Arc::new(found)
        };
        Arc::clone(files.entry(path.to_owned()).or_insert_with(read))
    }
}

impl SourceFile {
    /// The text of a line, from 1.
    pub fn line(&self, number: u32) -> Option<&str> {
        self.lines.get((number as usize).checked_sub(1)?).map(String::as_str)
    }

    /// Whether the file could not be read.
    pub fn is_missing(&self) -> bool {
        self.missing
    }

    /// Whether it ends before this line.
    pub fn is_shorter_than(&self, line: u32) -> bool {
        self.lines.len() < line as usize
    }

    /// Whether it is another file than the one of a function of this name with something at the lines from `first` to `last`: these
    /// are not there, or what stands there is no such function, nor anything that could have made one. A file that lies where it was
    /// compiled is the same.
    pub fn is_another(&self, name: &str, first: u32, last: u32) -> bool {
        let around = |start: u32, end: u32| start <= first && last <= end;
        let has_it = || {
            let named = |function: &&Function| function.name == name;
            self.functions.iter().filter(named).any(|function| around(function.begin, function.end))
                || self.generating.iter().any(|(start, end)| around(*start, *end))
        };
        let unknown = last == 0 || self.functions.is_empty();
        self.guessed && (self.is_shorter_than(last) || !unknown && !has_it())
    }

    /// The smallest function that contains all lines from `first` to `last`, one of the given name if there is any.
    pub fn function(&self, name: &str, first: u32, last: u32) -> Option<&Function> {
        let around = self.functions.iter().filter(|function| function.start <= first && last <= function.end);
        around.min_by_key(|function| (function.name != name, function.end - function.start))
    }

    fn read(path: &Path) -> SourceFile {
        let missing = SourceFile { missing: true, ..SourceFile::default() };
        // The path comes out of a binary: only what looks like source, and nothing that opening would wait for.
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !SOURCE_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
            return missing;
        }
        let regular = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file());
        let Some(metadata) = regular else { return missing };
        let Ok(file) = File::open(path) else { return missing };
        let mut text = Vec::new();
        if file.take(MAX_SOURCE).read_to_end(&mut text).is_err() {
            return missing;
        }
        SourceFile::parse(&String::from_utf8_lossy(&text), metadata.modified().ok())
    }

    fn parse(text: &str, modified: Option<SystemTime>) -> SourceFile {
        let lines = text.lines().map(str::to_owned).collect();
        let Written { functions, generating } = Written::in_text(text);
        SourceFile { lines, functions, generating, modified, ..SourceFile::default() }
    }
}

const SOURCE_EXTENSIONS: [&str; 14] =
    ["rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "inc", "in", "s", "asm", "go", "zig"];
/// A larger file is cut.
const MAX_SOURCE: u64 = 16 << 20;
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
        let file = SourceFile::parse(TEXT, None);
        let place =
            |name, first, last| file.function(name, first, last).map(|f| (f.name.as_str(), f.start, f.end));
        assert_eq!(place("outer", 8, 8), Some(("outer", 6, 14)));
        assert_eq!(place("inner", 8, 8), Some(("inner", 7, 9)));
        assert_eq!(place("{closure}", 11, 13), Some(("outer", 6, 14)));
        assert_eq!(place("given", 19, 19), Some(("given", 18, 20)));
        assert_eq!(place("outer", 1, 8), None);
        assert_eq!(file.line(8), Some("            7"));
        assert_eq!((file.line(0), file.line(99)), (None, None));
    }

    #[test]
    fn sources_are_found_where_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().join("app/src");
        std::fs::create_dir_all(&here).unwrap();
        std::fs::write(here.join("main.rs"), "fn main() {}\n").unwrap();
        std::fs::write(folder.path().join("main.rs"), "fn main() {}\n").unwrap();
        let found = |roots: &[&Path], maps: &[String], path: &str| {
            let roots = roots.iter().map(|root| root.to_path_buf()).collect();
            let maps = maps.iter().map(|map| map.parse().unwrap()).collect();
            !Sources::default().with(Elsewhere { roots, maps }).file(path).is_missing()
        };
        let (root, app) = (folder.path(), folder.path().join("app"));
        assert!(found(&[root], &[], "app/src/main.rs") && found(&[&app], &[], "/build/7/app/src/main.rs"));
        assert!(!found(&[root], &[], "/build/7/src/main.rs"), "a name alone says too little");
        assert!(!found(&[&app], &[], "/c/registry/src/index-1/app-1.0.0/src/main.rs"), "another package");
        assert!(!found(&[&app], &[], "/rustc/0123/library/core/src/main.rs"));
        assert!(!found(&[], &[], "/build/7/app/src/main.rs") && !found(&[root], &[], "/build/src/main.rs"));
        assert!(!found(&[&app], &[], "/build/../src/main.rs"), "a path that climbs");
        let map = format!("/build/7={}", root.display());
        let maps = [map];
        assert!(found(&[], &maps, "/build/7/app/src/main.rs"));
        assert!(!found(&[], &maps, "/build/77/app/src/main.rs"), "only whole parts of a path count");
        assert!("nothing".parse::<PathMap>().is_err() && "=x".parse::<PathMap>().is_err());
    }

    #[test]
    fn a_file_that_was_guessed_must_have_the_function() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("src/main.rs"), "fn main() {\n    run();\n}\n").unwrap();
        let file = |roots, path: &str| {
            let elsewhere = Elsewhere { roots, maps: Vec::new() };
            Sources::default().with(elsewhere).file(path)
        };
        let guessed = file(vec![folder.path().to_owned()], "/build/src/main.rs");
        assert!(!guessed.is_another("main", 2, 2));
        assert!(guessed.is_another("main", 2, 4) && guessed.is_another("run", 2, 2));
        assert!(!guessed.is_another("init", 0, 0), "nothing is known of where it is");
        let own = file(Vec::new(), folder.path().join("src/main.rs").to_str().unwrap());
        assert!(!own.is_another("run", 2, 2) && own.is_shorter_than(4) && !own.is_shorter_than(3));
    }

    #[test]
    fn functions_that_are_not_written_out_are_where_they_come_from() {
        let text = "#[derive(Clone)]\nstruct A {\n    a: String,\n}\nmake! {\n    f\n}\nimpl A {\n    #[profile]\n    fn b() {\n        \
                    vec![1];\n    }\n}\n";
        let file = SourceFile { guessed: true, ..SourceFile::parse(text, None) };
        // Derived, made by a macro, and by an attribute.
        for (name, first, last) in
            [("clone", 1, 1), ("clone", 1, 3), ("f", 6, 6), ("b", 9, 11), ("profile", 9, 9)]
        {
            assert!(!file.is_another(name, first, last), "{name} {first} {last}");
        }
        for (name, first, last) in [("other", 10, 12), ("b", 8, 11), ("f", 8, 8), ("clone", 1, 6)] {
            assert!(file.is_another(name, first, last), "{name} {first} {last}");
        }
        let c = SourceFile { guessed: true, ..SourceFile::parse("int main() {\n}\n", None) };
        assert!(!c.is_another("main", 1, 2) && c.is_another("main", 2, 3));
    }

    #[test]
    fn chains_do_not_overflow_the_parser() {
        for (link, links) in [("!\n", 20_000), ("&\n", 20_000), (".b()\n", 150_000), ("+ 1\n", 150_000)] {
            let chain = link.repeat(links);
            let text = match link.starts_with(['!', '&']) {
                true => format!("fn f() {{ {chain}x; }}"),
                false => format!("fn f() {{ x{chain}; }}"),
            };
            let file = SourceFile::parse(&text, None);
            assert!(file.functions.len() <= 1 && file.line(1).is_some());
        }
    }

    #[test]
    fn a_file_made_to_overflow_the_parser_has_text_only() {
        let text = format!("fn f() {{ {} }}", "(".repeat(100_000));
        let file = SourceFile::parse(&text, None);
        assert!(file.functions.is_empty() && file.line(1).is_some());
        assert!(Sources::default().file("/nonexistent/x.rs").is_missing());
    }
}
