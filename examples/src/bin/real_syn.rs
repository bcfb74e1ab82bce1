//! A real parser on real input: `syn` reads Rust sources, and the program makes an index of their
//! functions.
//!
//! The input is the `.rs` files of this workspace, or of the folder given as second argument, in
//! the order of their paths: as many as fit into `MAX_SOURCE_BYTES`. Files that do not parse are
//! left out.
//!
//! What a profile must show:
//!
//! - `leaks`: the output says "kept N names of B bytes", and the line marked `PLANTED: kept` in
//!   `Index::add` holds exactly N blocks of together B bytes at the end. They are reachable,
//!   through the static `INDEX`, whose own table is one more block, from another line.
//! - The peak: all syntax trees are held until the last file is parsed, so nearly all bytes at the
//!   peak come through the line marked `PLANTED: peak` in `parse`. Part of them is not a tree: to
//!   know lines, `proc_macro2` keeps a copy of every source until the thread ends.
//!
//! With `rounds` as first argument, the input is read and indexed `rounds` times. Each index
//! replaces the one before.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use syn::visit::{self, Visit};

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const MAX_SOURCE_BYTES: usize = 128 << 10;

static INDEX: Mutex<Vec<Function>> = Mutex::new(Vec::new());

struct Function {
    name: Box<str>,
    line: usize,
}

fn main() -> io::Result<()> {
    examples::begin();
    let rounds = examples::rounds();
    let folder = std::env::args_os().nth(2).map_or_else(workspace, PathBuf::from);

    let mut files = Vec::new();
    rust_files(&folder, &mut files)?;
    files.sort();
    for _ in 0..rounds {
        let trees = parse(&files)?;
        println!("{} files parsed", trees.len());
        *INDEX.lock().unwrap_or_else(PoisonError::into_inner) = index(&trees);
    }
    report();
    Ok(())
}

/// Returns the folder above this package, as it was when this program was built.
fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Collects every Rust source below `folder`, except in hidden folders and in `target`.
fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                rust_files(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[inline(never)]
fn parse(files: &[PathBuf]) -> io::Result<Vec<syn::File>> {
    let mut trees = Vec::new();
    let mut bytes = 0;
    for path in files {
        let source = fs::read_to_string(path)?;
        bytes += source.len();
        if bytes > MAX_SOURCE_BYTES {
            break;
        }
        let tree = syn::parse_file(&source); // PLANTED: peak
        trees.extend(tree);
    }
    Ok(trees)
}

#[inline(never)]
fn index(trees: &[syn::File]) -> Vec<Function> {
    let mut index = Index(Vec::new());
    trees.iter().for_each(|tree| index.visit_file(tree));
    index.0
}

struct Index(Vec<Function>);

impl Index {
    #[inline(never)]
    fn add(&mut self, signature: &syn::Signature) {
        let text = signature.ident.to_string();
        let name = Box::from(text.as_str()); // PLANTED: kept
        let line = signature.ident.span().start().line;
        self.0.push(Function { name, line });
    }
}

impl<'ast> Visit<'ast> for Index {
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.add(signature);
        visit::visit_signature(self, signature);
    }
}

fn report() {
    let index = INDEX.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes: usize = index.iter().map(|function| function.name.len()).sum();
    let lowest = index.iter().map(|function| function.line).max().unwrap_or(0);
    println!("kept {} names of {bytes} bytes; the lowest is on line {lowest}", index.len());
}
