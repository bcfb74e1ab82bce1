//! Annotated functions around two real libraries: `serde_json` reads, changes and writes a
//! document, `syn` looks for the functions in a source.
//!
//! What a profile must show: `lines` has a table of each function with `#[profile]`, from its
//! annotation. The bytes allocated and freed in each table are, to the byte, those that this
//! program prints: the result of `alloc_tracker::measure` around the calls.
#![forbid(unsafe_code)]
#![deny(clippy::pedantic)]

use std::fmt::Write;

use alloc_tracker::{measure, profile};
use serde_json::Value;
use syn::visit::{self, Visit};

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const RECORDS: usize = 500;

fn main() {
    examples::begin();

    // The first call of `measure` in a thread may need memory of its own.
    measure(|| ());
    for _ in 0..examples::rounds() {
        let text = measured("document", document);
        let mut tree = measured("read", || read(&text)).expect("our own document");
        let greeted = measured("Tree::greet", || Tree(&mut tree).greet());
        let output = measured("serialise", || serialise(&tree));
        let names = measured("functions_in", || functions_in(include_str!("real_annotated.rs")));
        println!("# {greeted} greeted, {} bytes, functions: {}", output.len(), names.join(" "));
    }
}

/// Makes a call and prints how many bytes it allocated and freed.
fn measured<T>(name: &str, call: impl FnOnce() -> T) -> T {
    let (result, change) = measure(call);
    println!("{name} {} {}", change.allocated_bytes, change.freed_bytes);
    result
}

#[profile]
fn document() -> String {
    let mut text = String::from("[");
    for id in 0..RECORDS {
        let separator = if id == 0 { "" } else { "," };
        write!(text, r#"{separator}{{"id":{id},"name":"user-{id}","tags":["a","b{id}"]}}"#)
            .expect("a String takes all that is written");
    }
    text + "]"
}

#[profile]
fn read(text: &str) -> serde_json::Result<Value> {
    let whole: Value = serde_json::from_str(text)?;
    let Value::Array(records) = whole else { return Ok(Value::Null) };
    // Drops every other record.
    let kept = records.into_iter().filter(|record| record["id"].as_u64().is_some_and(|id| id % 2 == 0));
    Ok(kept.collect())
}

struct Tree<'a>(&'a mut Value);

#[profile]
impl Tree<'_> {
    fn greet(&mut self) -> usize {
        let mut greeted = 0;
        for record in self.records() {
            let name = match record["name"].as_str() {
                Some(name) if !name.ends_with('0') => name.to_uppercase(),
                _ => continue,
            };
            record["greet"] = Value::from(name);
            greeted += 1;
        }
        greeted
    }

    fn records(&mut self) -> &mut [Value] {
        match self.0.as_array_mut() {
            Some(records) => records,
            None => &mut [],
        }
    }
}

#[profile]
fn serialise(tree: &Value) -> Vec<u8> {
    let mut output = Vec::new();
    serde_json::to_writer(&mut output, tree).expect("a Vec takes all that is written");
    output.shrink_to_fit();
    output
}

#[derive(Default)]
struct Names(Vec<String>);

impl<'ast> Visit<'ast> for Names {
    #[profile]
    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        let name = signature.ident.to_string();
        if name != "main" {
            self.0.push(name);
        }
        visit::visit_signature(self, signature);
    }
}

#[profile]
fn functions_in(source: &str) -> Vec<String> {
    let mut names = Names::default();
    if let Ok(file) = syn::parse_file(source) {
        names.visit_file(&file);
    }
    names.0.sort();
    names.0
}
