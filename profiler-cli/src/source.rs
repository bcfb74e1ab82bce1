//! Source files: their text, and where the functions in them begin and end. In: paths from debug info. Out: lines.
//! Nothing in a file is trusted: size and nesting are bounded, and what does not parse has text but no functions.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use syn::spanned::Spanned;
use syn::visit::Visit;

/// Source files, read when they are first asked for.
#[derive(Debug, Default)]
pub struct Sources {
    files: Mutex<FxHashMap<String, Arc<SourceFile>>>,
    built_unix_ns: Option<u64>,
    elsewhere: Elsewhere,
}

/// Where sources are that do not lie where they were compiled.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Folders that are looked through for the longest end of a path.
    pub roots: Vec<PathBuf>,
    /// Beginnings of paths and what stands for them; the first one that fits counts.
    pub maps: Vec<PathMap>,
}

/// `OLD=NEW`: a path that begins with one begins with the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    old: PathBuf,
    new: PathBuf,
}

impl FromStr for PathMap {
    type Err = String;

    fn from_str(text: &str) -> Result<PathMap, String> {
        match text.split_once('=') {
            Some((old, new)) if !old.is_empty() => Ok(PathMap { old: old.into(), new: new.into() }),
            _ => Err("two paths with = between them".to_owned()),
        }
    }
}

impl Elsewhere {
    /// Where the file that was compiled at `path` may be, likeliest first.
    fn places(&self, path: &Path) -> Vec<Place> {
        let mapped = self.maps.iter().find_map(|map| Some(map.new.join(path.strip_prefix(&map.old).ok()?)));
        // A relative path is one of another folder, which need not be this one.
        let guessed = mapped.is_none() && path.is_relative();
        let mut places = vec![Place { path: mapped.unwrap_or_else(|| path.to_owned()), guessed }];
        // What climbs out of the folder again is not in it.
        if path.components().any(|part| part == Component::ParentDir) {
            return places;
        }
        let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let parts: Vec<Component<'_>> = path.components().filter(normal).collect();
        let names: Vec<&str> =
            parts.iter().map(|part| part.as_os_str().to_str().unwrap_or_default()).collect();
        for root in &self.roots {
            let ends = (0..=shortest_end(&names)).map(|from| parts[from..].iter().collect::<PathBuf>());
            places.extend(ends.map(|end| Place { path: root.join(end), guessed: true }));
        }
        places
    }
}

/// Where a file may be.
struct Place {
    path: PathBuf,
    /// It may be another file of the same name.
    guessed: bool,
}

/// Where the shortest end of a path begins that tells its file from others. Every package has a `src/lib.rs`: of those that came
/// from a registry or with the compiler, the package's own folder must be in it.
fn shortest_end(parts: &[&str]) -> usize {
    let behind = |folders: &[&str], more: usize| {
        let at = parts.windows(folders.len()).position(|window| window == folders)?;
        Some(at + folders.len() + more)
    };
    let package = behind(&["registry", "src"], 1)
        .or_else(|| behind(&["git", "checkouts"], 1))
        .or_else(|| behind(&["rustlib", "src", "rust"], 0))
        .or_else(|| (parts.first() == Some(&"rustc")).then_some(2));
    package.unwrap_or(usize::MAX).min(parts.len().saturating_sub(2))
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

/// Where a function stands: the line of its signature to the line of its closing brace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, without path.
    pub name: String,
    /// The line of its first attribute; without any, its first line.
    begin: u32,
    /// First line, from 1.
    pub start: u32,
    /// Last line.
    pub end: u32,
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
        let collector = if nesting(text) <= MAX_NESTING { collect(text) } else { Collector::default() };
        let lines = text.lines().map(str::to_owned).collect();
        let Collector { functions, generating } = collector;
        SourceFile { lines, functions, generating, modified, ..SourceFile::default() }
    }
}

/// Parses on a stack of its own: chains of calls and of operators nest in what the parser makes of them, without any bracket. What is
/// not used of it is not there.
fn collect(text: &str) -> Collector {
    let parse = || {
        let mut collector = Collector::default();
        if let Ok(file) = syn::parse_file(text) {
            collector.visit_file(&file);
        }
        collector
    };
    let links = text.bytes().filter(|byte| b"<&*!-|.+/%^=?".contains(byte)).count();
    let stack = PARSER_STACK + links.min(MOST_LINKS) * STACK_OF_A_LINK;
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, parse);
        parser.ok().and_then(|parser| parser.join().ok()).unwrap_or_default()
    })
}

const PARSER_STACK: usize = 16 << 20;
/// What parsing, walking and dropping take for each link of a chain, with room to spare.
const STACK_OF_A_LINK: usize = 4 << 10;
/// A file has fewer bytes.
const MOST_LINKS: usize = MAX_SOURCE as usize;
const SOURCE_EXTENSIONS: [&str; 14] =
    ["rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "inc", "in", "s", "asm", "go", "zig"];
/// A larger file is cut.
const MAX_SOURCE: u64 = 16 << 20;
/// A parser that calls itself must not be led to the end of its stack.
const MAX_NESTING: usize = 256;

/// The deepest nesting of brackets and of operators that nest without any (`&&&x`, `!!x`, `a<a<a<…`). What stands in
/// strings and comments counts too, which can only make it refuse.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut unclosed) = (0usize, 0, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'<' | b'&' | b'*' | b'!' | b'-' | b'|' => unclosed += 1,
            b';' | b',' | b'\n' => unclosed = 0,
            _ => {}
        }
        deepest = deepest.max(depth + unclosed);
    }
    deepest
}

#[derive(Default)]
struct Collector {
    functions: Vec<Function>,
    generating: Vec<(u32, u32)>,
}

impl Collector {
    fn add(
        &mut self,
        name: &syn::Ident,
        attributes: &[syn::Attribute],
        head: proc_macro2::Span,
        block: &syn::Block,
    ) {
        let (start, end) = (head.start().line as u32, block.brace_token.span.close().end().line as u32);
        let begin = attributes.first().map_or(start, |attribute| attribute.span().start().line as u32);
        self.functions.push(Function { name: name.to_string(), begin, start, end });
    }

    fn generates(&mut self, tokens: &impl Spanned) {
        let span = tokens.span();
        self.generating.push((span.start().line as u32, span.end().line as u32));
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, &item.attrs, first_span(&item.vis, &item.sig), &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig.ident, &item.attrs, item.sig.span(), block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.generates(item);
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.generates(item);
        syn::visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
        self.generates(item);
        syn::visit::visit_item_union(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        self.generates(attribute);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.generates(called);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        self.generates(item);
        syn::visit::visit_item_macro(self, item);
    }
}

fn first_span(visibility: &syn::Visibility, signature: &syn::Signature) -> proc_macro2::Span {
    match visibility {
        syn::Visibility::Inherited => signature.span(),
        written => written.span(),
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
    fn ends_of_paths_name_the_package_that_is_not_ones_own() {
        let end = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            parts[shortest_end(&parts)..].join("/")
        };
        assert_eq!(end("build/7/app/src/main.rs"), "src/main.rs");
        assert_eq!(end("main.rs"), "main.rs");
        assert_eq!(end("c/registry/src/index-1/serde-1.0.0/src/lib.rs"), "serde-1.0.0/src/lib.rs");
        assert_eq!(end("c/git/checkouts/tool-1f/9a8b7c/src/lib.rs"), "9a8b7c/src/lib.rs");
        assert_eq!(end("rustc/0123/library/core/src/mem/mod.rs"), "library/core/src/mem/mod.rs");
        assert_eq!(end("t/lib/rustlib/src/rust/library/std/src/io.rs"), "library/std/src/io.rs");
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
