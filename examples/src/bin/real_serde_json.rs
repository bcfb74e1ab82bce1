//! A real library at its usual work: `serde_json` reads a document into a `Value`, which is changed
//! and written again.
//!
//! What a profile must show, for a text of `TEXT_BYTES` = 1 + `RECORDS * RECORD_BYTES` bytes:
//!
//! - All forms are held at once. At the peak the heap holds the text (one block of `TEXT_BYTES`,
//!   line `PLANTED: text`), the whole tree (through the line `PLANTED: tree`) and the output.
//! - The output buffer doubles instead of being sized. It begins with `OUTPUT_START` bytes (line
//!   `PLANTED: output`), and the line `PLANTED: doubling` reallocates that block k times. Here k is
//!   the least number with `OUTPUT_START << k` >= the output's length, which is printed. So the
//!   block ends with `OUTPUT_START << k` bytes, and the reallocations request `(OUTPUT_START << (k
//!   + 1)) - 2 * OUTPUT_START` bytes in sum.
//! - `RECORDS` clones of a name, of `NAME_BYTES` each, from the line `PLANTED: clones` in
//!   `transform`.
//! - Nothing leaks.
//!
//! The marked lines are this file's lines in the stacks of the events; the innermost frames are
//! `serde_json`'s own. With `rounds` as first argument, all of the work is done `rounds` times.
#![forbid(unsafe_code)]

use std::fmt::Write;

use examples::Lcg;
use serde_json::Value;

#[cfg(not(feature = "oracle"))]
#[global_allocator]
static ALLOC: alloc_tracker::AllocTracker = alloc_tracker::AllocTracker::system();

const RECORDS: usize = 5000;
/// All records have this length, because no number begins with a zero. All names have `NAME_BYTES`.
const RECORD_BYTES: usize = RECORD_SAMPLE.len();
const RECORD_SAMPLE: &str =
    r#"{"id":100000,"name":"user-100000","score":100,"tags":["red","t10"],"ok":true},"#;
const NAME_BYTES: usize = "user-100000".len();
const TEXT_BYTES: usize = 1 + RECORDS * RECORD_BYTES;
const OUTPUT_START: usize = 128;

fn main() {
    examples::begin();

    for _ in 0..examples::rounds() {
        let text = document();
        assert_eq!(text.len(), TEXT_BYTES);
        let mut tree = parse(&text);
        let cloned = transform(&mut tree);
        assert_eq!(cloned, RECORDS * NAME_BYTES);
        let output = serialise(&tree);
        println!("{} bytes in, {} bytes out, capacity {}", text.len(), output.len(), output.capacity());
    }
}

#[inline(never)]
fn document() -> String {
    let mut numbers = Lcg::new(1);
    let mut text = String::with_capacity(TEXT_BYTES); // PLANTED: text
    text.push('[');
    for record in 0..RECORDS {
        let id = 100_000 + record;
        let score = 100 + numbers.below(900);
        let tag = 10 + numbers.below(90);
        write!(
            text,
            r#"{{"id":{id},"name":"user-{id}","score":{score},"tags":["red","t{tag}"],"ok":true}},"#
        )
        .expect("a String takes all that is written");
    }
    // Removes the comma after the last record.
    text.pop();
    text.push(']');
    text
}

#[inline(never)]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("our own document") // PLANTED: tree
}

/// Greets everyone by name: puts a copy of every name under a new key. Returns the bytes copied.
#[inline(never)]
fn transform(tree: &mut Value) -> usize {
    let mut cloned = 0;
    for record in tree.as_array_mut().expect("a list of records") {
        let name = record["name"].clone(); // PLANTED: clones
        cloned += name.as_str().map_or(0, str::len);
        record["greet"] = name;
    }
    cloned
}

#[inline(never)]
fn serialise(tree: &Value) -> Vec<u8> {
    let mut output = Vec::with_capacity(OUTPUT_START); // PLANTED: output
    serde_json::to_writer(&mut output, tree).expect("a Vec takes all that is written"); // PLANTED: doubling
    output
}
