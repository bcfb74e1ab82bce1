//! Annotations and recorded stacks, the two sources of `lines`, agree on every function of a real
//! library. One program has the attribute on all functions of `serde_json`, another program on
//! none. The rows of each function add up to the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cargo_metadata::MetadataCommand;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use tests::{Run, number, output_within, source_of, workspace};

const ATTRIBUTE: &str = "#[alloc_tracker::profile]\n";

/// The functions of a file that can have the attribute (all but `const fn`): line and column at
/// which each begins.
struct Functions(Vec<(usize, usize)>);

impl Functions {
    /// Adds a function unless it is a `const fn`.
    fn add(&mut self, signature: &syn::Signature, whole: &impl Spanned) {
        if signature.constness.is_none() {
            let start = whole.span().start();
            self.0.push((start.line, start.column));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, function);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, method: &'ast syn::ImplItemFn) {
        self.add(&method.sig, method);
        visit::visit_impl_item_fn(self, method);
    }

    fn visit_trait_item_fn(&mut self, method: &'ast syn::TraitItemFn) {
        if method.default.is_some() {
            self.add(&method.sig, method);
        }
        visit::visit_trait_item_fn(self, method);
    }
}

/// Puts the attribute on a line of its own in front of every function. Returns the new text, and
/// the lines of the old text that now have an attribute before them.
fn annotate(text: &str) -> (String, Vec<usize>) {
    let mut functions = Functions(Vec::new());
    functions.visit_file(&syn::parse_file(text).unwrap());
    let mut annotated = String::new();
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let mut columns = functions.0.iter().filter(|(at, _)| *at == number).map(|(_, column)| *column);
        if let Some(column) = columns.next() {
            assert_eq!(columns.next(), None, "two functions begin on a line");
            assert!(line[..column].trim().is_empty(), "{line}");
            annotated += ATTRIBUTE;
        }
        annotated += line;
    }
    let mut lines: Vec<usize> = functions.0.iter().map(|(line, _)| *line).collect();
    lines.sort_unstable();
    (annotated, lines)
}

/// Copies the text files of a folder and its subfolders. `change` gets each path and text, and
/// returns the new text.
fn copy(from: &Path, to: &Path, change: &mut dyn FnMut(&Path, String) -> String) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to, change);
        } else if let Ok(text) = fs::read_to_string(&from) {
            let text = change(&to, text);
            // A file that is written again would make cargo build the package again.
            if fs::read_to_string(&to).ok().as_ref() != Some(&text) {
                fs::write(&to, text).unwrap();
            }
        }
    }
}

/// Builds the program `tests/attribute/agreement.rs` with a copy of the library that `change` may
/// alter. Returns the executable.
fn build(name: &str, library: &Path, change: &mut dyn FnMut(&Path, String) -> String) -> PathBuf {
    let folder = workspace().join("target/agreement").join(name);
    copy(&library.join("src"), &folder.join("library/src"), change);
    fs::copy(library.join("build.rs"), folder.join("library/build.rs")).unwrap();
    let tracker = workspace().join("alloc-tracker");
    let manifest = fs::read_to_string(library.join("Cargo.toml")).unwrap();
    let manifest = format!("{manifest}\n[dependencies.alloc-tracker]\npath = {tracker:?}\n");
    fs::write(folder.join("library/Cargo.toml"), manifest).unwrap();
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::copy(workspace().join("tests/attribute/agreement.rs"), folder.join("src/main.rs")).unwrap();
    let manifest = format!(
        "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[workspace]\n\n\
         [dependencies]\nalloc-tracker = {{ path = {tracker:?} }}\nserde_json = {{ path = \"library\" }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = workspace().join("target/agreement/target");
    let mut command = Command::new(env!("CARGO"));
    command.env_remove("CARGO_BUILD_TARGET");
    command.args(["build", "--quiet", "--target-dir"]).arg(&target).current_dir(&folder);
    let output = output_within(&mut command, Duration::from_secs(900));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug").join(name)
}

/// Bytes allocated and freed in functions, by the file and the line where each function begins.
type Totals = BTreeMap<(String, usize), (i64, i64)>;

/// Runs a program. Returns its output, and the totals of the library's functions in the tables from
/// `source`.
fn totals(program: &Path, source: &str) -> (String, Totals) {
    let run = Run::of(&mut Command::new(program), Duration::from_secs(60));
    assert!(run.output.status.success(), "{}", String::from_utf8_lossy(&run.output.stderr));
    let lines = run.json("lines", &["--full"]);
    let mut totals = Totals::new();
    for table in lines["functions"].as_array().unwrap().iter().filter(|table| table["source"] == source) {
        let path = source_of(&lines, table);
        let Some((_, file)) = path.to_str().and_then(|file| file.split_once("library/src/")) else {
            continue;
        };
        let start = (file.to_owned(), number(table, "start_line") as usize);
        let changes: &mut (i64, i64) = totals.entry(start).or_default();
        changes.0 += number(table, "allocated");
        changes.1 += number(table, "freed");
    }
    totals.retain(|_, changes| *changes != (0, 0));
    (String::from_utf8(run.output.stdout.clone()).unwrap(), totals)
}

#[test]
fn annotations_and_stacks_agree_on_every_function_of_a_library() {
    let metadata = MetadataCommand::new().manifest_path(workspace().join("Cargo.toml")).exec().unwrap();
    let is_library = |package: &&cargo_metadata::Package| *package.name == "serde_json";
    let package = metadata.packages.iter().find(is_library).unwrap();
    let library = package.manifest_path.parent().unwrap().as_std_path();

    let plain = build("plain", library, &mut |_, text| text);
    let mut attributes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let annotated = build("annotated", library, &mut |path, text| {
        let (annotated, lines) = annotate(&text);
        let file = path.to_str().unwrap().split_once("library/src/").unwrap().1;
        attributes.insert(file.to_owned(), lines);
        annotated
    });
    assert!(attributes.values().map(Vec::len).sum::<usize>() > 500);

    let (stdout, by_stacks) = totals(&plain, "stacks");
    let (stdout_annotated, by_annotations) = totals(&annotated, "annotation");
    assert_eq!(stdout_annotated, stdout);
    // The line in the text without the attributes: the n-th attribute moved its function n lines
    // down.
    let in_old_text = |((file, line), changes): ((String, usize), (i64, i64))| {
        let above = attributes[&file].iter().zip(1..).filter(|(at, before)| *at + before <= line).count();
        ((file, line - above), changes)
    };
    let by_annotations: Totals = by_annotations.into_iter().map(in_old_text).collect();
    assert!(by_annotations.len() > 60, "{by_annotations:?}");
    let differ: Vec<_> = by_annotations
        .keys()
        .chain(by_stacks.keys())
        .filter(|start| by_annotations.get(start) != by_stacks.get(start))
        .map(|start| (start, by_annotations.get(start), by_stacks.get(start)))
        .collect();
    assert!(differ.is_empty(), "by annotations, and by stacks: {differ:#?}");
}
